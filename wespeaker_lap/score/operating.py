"""Operating points: thresholds measured on a named trial list, and what they cost."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wespeaker_lap.score.evaluate import ResultRow
from wespeaker_lap.score.metrics import eer_threshold, error_rates

FALSE_ACCEPT_LIMITS = {"far_1": 0.01, "far_0.1": 0.001}
POINTS = ("eer", *FALSE_ACCEPT_LIMITS, "min_dcf")
TITLES = {"eer": "EER", "far_1": "false acceptance 1 %", "far_0.1": "false acceptance 0.1 %",
          "min_dcf": "minDCF"}
STEP = 1e-5  # of a score file; a threshold above all scores is this much above the highest


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold, where it was measured, and its two error rates there.

    Args:
        trials: name of the trial list.
        norm: of the scores, "none", "snorm" or "asnorm".
        point: one of `POINTS`.
        threshold: a score; accept what is at or above it.
        false_accept, false_reject: rates at the threshold, in [0, 1].
        num_target, num_nontarget: trials of both kinds.
        trials_sha256: see `trials.trials_hash`.
        p_target: prior of minDCF.
        cohort, cohort_size, top_n: of the normalisation, None without.
    """

    trials: str
    norm: str
    point: str
    threshold: float
    false_accept: float
    false_reject: float
    num_target: int
    num_nontarget: int
    trials_sha256: str
    p_target: float
    cohort: str | None = None
    cohort_size: int | None = None
    top_n: int | None = None

    @property
    def num_false_accepts(self) -> int:
        """Errors that the rate of false acceptances was measured by."""
        return round(self.false_accept * self.num_nontarget)

    def describe(self) -> str:
        """Where the threshold comes from, in words."""
        scores = "cosine"
        if self.norm != "none":
            scores = (f"{'AS-norm' if self.norm == 'asnorm' else 'S-norm'} with cohort "
                      f"{self.cohort} ({self.cohort_size} speakers, top {self.top_n})")
        return (f"{TITLES[self.point]} point of {self.trials} ({self.num_target} target and "
                f"{self.num_nontarget} non-target trials), {scores}")


def find_points(row: ResultRow, scores: np.ndarray, labels: np.ndarray) -> list[OperatingPoint]:
    """The operating points of a scored trial list.

    `far_1` and `far_0.1` are the lowest thresholds whose rate of false acceptances is at most
    1 % and 0.1 %; `min_dcf` is that of the lowest cost at the row's prior, the lowest of several.

    Args:
        row: what was measured of it.
        scores: (n,) scores.
        labels: (n,) bool, true for target trials.

    Returns:
        One point for each of `POINTS`, in that order.

    Raises:
        ValueError: as `metrics.check_scored`.
    """
    thresholds, fnr, fpr = error_rates(scores, labels)
    cost = row.p_target * fnr + (1 - row.p_target) * fpr
    places = {"eer": int(np.searchsorted(thresholds, eer_threshold(scores, labels))),
              "min_dcf": int(np.argmin(cost))}
    for name, limit in FALSE_ACCEPT_LIMITS.items():
        places[name] = int(np.argmax(fpr <= limit))
    thresholds[-1] = thresholds[-2] + STEP  # in place of infinity, which JSON does not hold
    num_target = int(np.sum(labels))
    return [OperatingPoint(
        trials=row.trials, norm=row.norm, point=name, threshold=round(float(thresholds[at]), 5),
        false_accept=float(fpr[at]), false_reject=float(fnr[at]), num_target=num_target,
        num_nontarget=len(labels) - num_target, trials_sha256=row.trials_sha256,
        p_target=row.p_target, cohort=row.cohort, cohort_size=row.cohort_size, top_n=row.top_n)
        for name, at in ((name, places[name]) for name in POINTS)]


def choose_point(points: Sequence[OperatingPoint], point: str = "eer", norm: str | None = None,
                 trials: str | None = None) -> OperatingPoint:
    """Choose among the operating points of a model.

    Args:
        points: those there are.
        point: one of `POINTS`.
        norm: of the scores; None takes normalised scores where there are some.
        trials: name of the list; None takes the one with the most non-target trials.

    Raises:
        ValueError: there is none like that; lists what there is.
    """
    found = [one for one in points if one.point == point and norm in (None, one.norm)
             and trials in (None, one.trials)]
    if not found:
        asked = ", ".join(text for text in (point, norm, trials) if text)
        known = sorted({(one.trials, one.norm, one.point) for one in points})
        listed = "; ".join(" ".join(one) for one in known) or "none: no trial list was scored"
        raise ValueError(f"no operating point {asked}; give a threshold of your own, or choose "
                         f"one of: {listed}")
    return max(found, key=lambda one: (one.norm != "none", one.num_nontarget, one.trials))
