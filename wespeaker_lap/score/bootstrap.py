"""Confidence interval of the EER by resampling speakers.

Trials of one speaker are not independent, so trials must not be resampled as if they were: the
interval would come out far too narrow. Speakers are drawn instead, with replacement. A speaker
drawn k times counts as k speakers: each of his target trials stands k times, and a non-target
trial of two speakers stands as often as their draws can be combined.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wespeaker_lap.io.table import name_some
from wespeaker_lap.score.metrics import check_scored, interpolate_crossing

MAX_RESAMPLES = 1000
MIN_RESAMPLES = 200
TRIALS_PER_RUN = 500_000_000


def choose_num_resamples(num_trials: int) -> int:
    """How many resamples `eer_interval` takes by itself: 1000, fewer above half a million trials.

    Args:
        num_trials: length of the trial list.

    Returns:
        A number from 200 to 1000, to be written down beside the interval.

    >>> choose_num_resamples(40_000), choose_num_resamples(1_000_000)
    (1000, 500)
    """
    return max(MIN_RESAMPLES, min(MAX_RESAMPLES, TRIALS_PER_RUN // max(num_trials, 1)))


@dataclass(frozen=True, eq=False)
class SortedTrials:
    """Trials sorted by score, ready to be weighted again and again.

    Args:
        target_spk: (n_tar,) speaker index of the targets, by rising score.
        nontarget_spk: (2, n_non) both speaker indices of the non-targets, by rising score.
        targets_below: (m,) number of targets below each threshold.
        nontargets_below: (m,) number of non-targets below each threshold.
    """

    target_spk: np.ndarray
    nontarget_spk: np.ndarray
    targets_below: np.ndarray
    nontargets_below: np.ndarray


def eer_interval(scores, labels, enroll_spk: Sequence[str], test_spk: Sequence[str],
                 num_resamples: int | None = None, seed: int = 0,
                 level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of the EER over speaker resamples.

    Args:
        scores: (n,) numbers, higher for the same speaker.
        labels: (n,) bool, true for target trials.
        enroll_spk: n speaker ids, of the enrolment side.
        test_spk: n speaker ids, of the test side.
        num_resamples: how often to resample; None lets `choose_num_resamples` decide.
        seed: of the draw.
        level: share of the resamples inside the interval.

    Returns:
        The lower and the upper end, rates in [0, 1].

    Raises:
        ValueError: as `metrics.check_scored`, or the speakers contradict the labels, or a number
            is out of range.
    """
    scores, labels = check_scored(scores, labels)
    check_resampling(level, num_resamples)
    enroll, test, num_speakers = number_speakers(labels, enroll_spk, test_spk)
    trials = sort_trials(scores, labels, enroll, test)
    rng = np.random.default_rng(seed)
    share = np.full(num_speakers, 1 / num_speakers)
    rates: list[float] = []
    while len(rates) < (num_resamples or choose_num_resamples(len(scores))):
        rate = weighted_eer(trials, rng.multinomial(num_speakers, share))
        if rate is not None:  # a draw of few speakers may hold no trial of one kind: draw again
            rates.append(rate)
    low, high = np.quantile(rates, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def sort_trials(scores: np.ndarray, labels: np.ndarray, enroll_spk: np.ndarray,
                test_spk: np.ndarray) -> SortedTrials:
    """Sort trials by score, once for all resamples.

    Args:
        scores: (n,).
        labels: (n,) bool.
        enroll_spk: (n,) speaker index of the enrolment side.
        test_spk: (n,) speaker index of the test side.

    Returns:
        The sorted trials with one threshold for each different score, and infinity.
    """
    order = np.argsort(scores)
    scores, labels = scores[order], labels[order]
    enroll_spk, test_spk = enroll_spk[order], test_spk[order]
    is_new = np.concatenate([[True], scores[1:] != scores[:-1]])
    num_below = np.append(np.flatnonzero(is_new), scores.size)
    targets_below = np.concatenate([[0], np.cumsum(labels)])[num_below]
    return SortedTrials(enroll_spk[labels], np.stack([enroll_spk[~labels], test_spk[~labels]]),
                        targets_below, num_below - targets_below)


def weighted_eer(trials: SortedTrials, counts: np.ndarray) -> float | None:
    """EER when each speaker counts several times, defined as `metrics.eer` is.

    Args:
        trials: the sorted trials.
        counts: (N,) how often each speaker was drawn.

    Returns:
        The rate in [0, 1]; None when the targets or the non-targets have no weight.
    """
    counts = counts.astype(np.int32)
    target_weight = np.cumsum(counts[trials.target_spk], dtype=np.int64)
    enroll_spk, test_spk = trials.nontarget_spk
    nontarget_weight = np.cumsum(counts[enroll_spk] * counts[test_spk], dtype=np.int64)
    if not target_weight[-1] or not nontarget_weight[-1]:
        return None

    def rates(threshold: int) -> tuple[float, float]:
        num_target = trials.targets_below[threshold]
        num_nontarget = trials.nontargets_below[threshold]
        missed = target_weight[num_target - 1] if num_target else 0
        refused = nontarget_weight[num_nontarget - 1] if num_nontarget else 0
        return missed / target_weight[-1], 1 - refused / nontarget_weight[-1]

    # fnr - fpr rises with the threshold, so the crossing is found by halving.
    low, high = 0, len(trials.targets_below) - 1
    while high - low > 1:
        middle = (low + high) // 2
        fnr, fpr = rates(middle)
        low, high = (low, middle) if fnr >= fpr else (middle, high)
    return interpolate_crossing(*rates(low), *rates(high))


def check_resampling(level: float, num_resamples: int | None) -> None:
    """Check how an interval is asked for.

    Raises:
        ValueError: a number is out of range.
    """
    if not 0 < level < 1 or (num_resamples is not None and num_resamples < 1):
        raise ValueError(f"want 0 < level < 1 and num_resamples >= 1, got {level}, "
                         f"{num_resamples}")


def number_speakers(labels: np.ndarray, enroll_spk: Sequence[str],
                    test_spk: Sequence[str]) -> tuple[np.ndarray, np.ndarray, int]:
    """Number the speakers of trials, and check them against the labels.

    Args:
        labels: (n,) bool, true for target trials.
        enroll_spk, test_spk: n speaker ids each.

    Returns:
        Indices (n,) of both sides, and the number of speakers.

    Raises:
        ValueError: not n speakers, or a target trial of two speakers, or the other way round.
    """
    if not len(enroll_spk) == len(test_spk) == len(labels):
        raise ValueError(f"want {len(labels)} speakers on each side, got {len(enroll_spk)} and "
                         f"{len(test_spk)}")
    names = {name: number for number, name in enumerate(dict.fromkeys([*enroll_spk, *test_spk]))}
    enroll = np.array(list(map(names.__getitem__, enroll_spk)))
    test = np.array(list(map(names.__getitem__, test_spk)))
    wrong = np.flatnonzero((enroll == test) != labels)
    if wrong.size:
        examples = name_some((f"trial {i} ({enroll_spk[i]}, {test_spk[i]}, "
                              f"{'target' if labels[i] else 'nontarget'})" for i in wrong), 3)
        raise ValueError(f"the labels of {wrong.size} trials contradict their speakers: "
                         f"{examples}; correct the trial list or utt2spk")
    return enroll, test, len(names)
