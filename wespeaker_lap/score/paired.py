"""Whether one system is better than another: the difference of their EERs, speakers resampled.

Two systems that score the same trials are wrong about the same speakers, so the difference has a
narrower interval than the EERs have. Every resample weighs the trials of all systems alike, and
the difference is taken within it. A system may be several trainings that differ in their seed: its
EER is the mean of theirs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

import numpy as np

from wespeaker_lap.score.bootstrap import (
    SortedTrials,
    check_resampling,
    choose_num_resamples,
    number_speakers,
    sort_trials,
    weighted_eer,
)
from wespeaker_lap.score.metrics import check_scored, eer


@dataclass(frozen=True)
class Difference:
    """EERs of two systems, A minus B.

    Args:
        eers_a, eers_b: rates in [0, 1], one for each training of a system.
        low, high: interval of `eer_a - eer_b`.
        num_resamples: of the speakers.
    """

    eers_a: tuple[float, ...]
    eers_b: tuple[float, ...]
    low: float
    high: float
    num_resamples: int

    @property
    def eer_a(self) -> float:
        """A's mean over its trainings."""
        return mean(self.eers_a)

    @property
    def eer_b(self) -> float:
        """B's mean over its trainings."""
        return mean(self.eers_b)

    @property
    def is_significant(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


def compare_eers(scores_a: Sequence[np.ndarray], scores_b: Sequence[np.ndarray],
                 labels: np.ndarray, enroll_spk: Sequence[str], test_spk: Sequence[str],
                 num_resamples: int | None = None, seed: int = 0,
                 level: float = 0.95) -> Difference:
    """Percentile interval of the difference of two EERs over speaker resamples.

    Args:
        scores_a: one (n,) array for each training of system A, higher for the same speaker.
        scores_b: the same of system B; another number of trainings is fine.
        labels: (n,) bool, true for target trials, the same trials for all.
        enroll_spk: n speaker ids, of the enrolment side.
        test_spk: n speaker ids, of the test side.
        num_resamples: how often to resample; None lets `bootstrap.choose_num_resamples` decide.
        seed: of the draw.
        level: share of the resamples inside the interval.

    Returns:
        Both rates and the interval of their difference.

    Raises:
        ValueError: a system without scores, or as `bootstrap.eer_interval`.
    """
    if not scores_a or not scores_b:
        raise ValueError("want at least one array of scores for each of the two systems")
    check_resampling(level, num_resamples)
    runs = [check_scored(scores, labels) for scores in (*scores_a, *scores_b)]
    labels = runs[0][1]
    enroll, test, num_speakers = number_speakers(labels, enroll_spk, test_spk)
    trials = [sort_trials(scores, labels, enroll, test) for scores, _ in runs]
    # A's mean minus B's.
    signs = np.array([1 / len(scores_a)] * len(scores_a) + [-1 / len(scores_b)] * len(scores_b))
    rates = [float(eer(scores, labels)) for scores, _ in runs]
    count = num_resamples or choose_num_resamples(len(labels))
    found = _resample(trials, signs, num_speakers, count, np.random.default_rng(seed))
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    first = len(scores_a)
    return Difference(tuple(rates[:first]), tuple(rates[first:]), float(low), float(high), count)


def _resample(trials: Sequence[SortedTrials], signs: np.ndarray, num_speakers: int, count: int,
              rng: np.random.Generator) -> list[float]:
    """The weighted sum of the runs' EERs in so many draws of speakers, each draw for all runs."""
    share = np.full(num_speakers, 1 / num_speakers)
    found: list[float] = []
    while len(found) < count:
        drawn = rng.multinomial(num_speakers, share)
        rates = [weighted_eer(one, drawn) for one in trials]
        if None not in rates:  # a draw of few speakers may hold no trial of one kind: draw again
            found.append(float(signs @ np.array(rates)))
    return found
