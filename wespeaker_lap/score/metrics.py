"""Error rates of scored trials: EER and minDCF, exact under ties, in O(n log n).

A trial is accepted when its score is at least the threshold. Scores that are equal are accepted or
rejected together, so an error rate depends on the scores alone and never on the order of the list.
"""

import numpy as np


def check_scored(scores, labels) -> tuple[np.ndarray, np.ndarray]:
    """Check scores and labels before anything is computed from them.

    Args:
        scores: (n,) numbers, higher for the same speaker.
        labels: (n,) bool, or 0 and 1; true for target trials.

    Returns:
        scores (n,) float64 and labels (n,) bool.

    Raises:
        ValueError: the shapes differ, a score is not finite, a label is neither 0 nor 1, or
            there are no target or no non-target trials.
    """
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if scores.ndim != 1 or labels.shape != scores.shape:
        raise ValueError(f"want scores (n,) and labels (n,), got {scores.shape}, {labels.shape}")
    bad = np.flatnonzero(~np.isfinite(scores))
    if bad.size:
        raise ValueError(f"{bad.size} of {scores.size} scores are not finite, the first is trial "
                         f"{bad[0]} ({scores[bad[0]]}); look for broken embeddings")
    if labels.dtype != bool:
        if not np.isin(labels, (0, 1)).all():
            raise ValueError("want labels of 0 and 1, or bool")
        labels = labels.astype(bool)
    num_target = int(labels.sum())
    if num_target in (0, labels.size):
        missing = "target" if num_target == 0 else "non-target"
        raise ValueError(f"none of the {labels.size} trials is a {missing} trial; error rates "
                         f"need both kinds")
    return scores, labels


def error_rates(scores, labels) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The error rates at every threshold that makes a difference.

    Args:
        scores: (n,) numbers, higher for the same speaker.
        labels: (n,) bool, true for target trials.

    Returns:
        thresholds (m,), the different scores in rising order and then infinity;
        fnr (m,), the share of targets below each threshold, rising from 0 to 1;
        fpr (m,), the share of non-targets at or above it, falling from 1 to 0.

    Raises:
        ValueError: as `check_scored`.

    >>> thresholds, fnr, fpr = error_rates([0.1, 0.4, 0.4, 0.8], [0, 0, 1, 1])
    >>> thresholds.tolist(), fnr.tolist(), fpr.tolist()
    ([0.1, 0.4, 0.8, inf], [0.0, 0.0, 0.5, 1.0], [1.0, 0.5, 0.0, 0.0])
    """
    scores, labels = check_scored(scores, labels)
    order = np.argsort(scores)
    scores, labels = scores[order], labels[order]
    is_new = np.concatenate([[True], scores[1:] != scores[:-1]])
    starts = np.flatnonzero(is_new)
    num_below = np.append(starts, scores.size)
    targets_below = np.concatenate([[0], np.cumsum(labels)])[num_below]
    nontargets_below = num_below - targets_below
    num_target, num_nontarget = targets_below[-1], nontargets_below[-1]
    thresholds = np.append(scores[starts], np.inf)
    fpr = (num_nontarget - nontargets_below) / num_nontarget
    return thresholds, targets_below / num_target, fpr


def interpolate_crossing(fnr_low: float, fpr_low: float, fnr_high: float,
                         fpr_high: float) -> float:
    """The common value of two error rates that cross between two thresholds.

    Both rates are taken as linear in between.

    Args:
        fnr_low, fpr_low: rates at the lower threshold, where fnr < fpr.
        fnr_high, fpr_high: rates at the higher threshold, where fnr >= fpr.

    Returns:
        The rate at which they are equal.

    >>> interpolate_crossing(0.0, 0.5, 0.5, 0.0)
    0.25
    """
    gap_low, gap_high = fpr_low - fnr_low, fnr_high - fpr_high
    return float(fnr_low + (fnr_high - fnr_low) * gap_low / (gap_low + gap_high))


def eer(scores, labels) -> float:
    """Equal error rate.

    Defined on the curve of (fpr, fnr) points, one for each different score, joined by straight
    lines: the value where fnr = fpr. This is not the convex hull of the curve, and not the
    mean or the nearer of the two rates at one threshold, which differ from it on small lists.

    Args:
        scores: (n,) numbers, higher for the same speaker.
        labels: (n,) bool, true for target trials.

    Returns:
        The rate, in [0, 1].

    Raises:
        ValueError: as `check_scored`.

    >>> eer([0.1, 0.6, 0.5, 0.9], [0, 0, 1, 1])
    0.5
    """
    _, fnr, fpr = error_rates(scores, labels)
    high = int(np.argmax(fnr >= fpr))  # at least 1: the first point has fnr 0 and fpr 1
    return interpolate_crossing(fnr[high - 1], fpr[high - 1], fnr[high], fpr[high])


def eer_threshold(scores, labels) -> float:
    """The score at which the two error rates are closest; accept what is at or above it.

    Args:
        scores: (n,) numbers, higher for the same speaker.
        labels: (n,) bool, true for target trials.

    Returns:
        One of the scores.

    Raises:
        ValueError: as `check_scored`.
    """
    thresholds, fnr, fpr = error_rates(scores, labels)
    return float(thresholds[np.argmin(np.abs(fnr - fpr))])


def min_dcf(scores, labels, p_target: float = 0.01, c_miss: float = 1.0,
            c_fa: float = 1.0) -> float:
    """Minimum of the normalised detection cost over all thresholds.

    `c_miss * p_target * fnr + c_fa * (1 - p_target) * fpr`, divided by the cost of the better of
    accepting all and rejecting all, so that 1 is worthless and 0 is perfect. Source: NIST SRE
    evaluation plans (2008 to 2016), normalised as there.

    Args:
        scores: (n,) numbers, higher for the same speaker.
        labels: (n,) bool, true for target trials.
        p_target: prior of a target trial, in (0, 1).
        c_miss: cost of a rejected target.
        c_fa: cost of an accepted non-target.

    Returns:
        The cost, in [0, 1].

    Raises:
        ValueError: as `check_scored`, or the prior or a cost is out of range.

    >>> min_dcf([0.1, 0.6, 0.5, 0.9], [0, 0, 1, 1])
    0.5
    """
    _, costs = _detection_costs(scores, labels, p_target, c_miss, c_fa)
    return float(costs.min() / min(c_miss * p_target, c_fa * (1 - p_target)))


def min_dcf_threshold(scores, labels, p_target: float = 0.01, c_miss: float = 1.0,
                      c_fa: float = 1.0) -> float:
    """The score at which the detection cost of `min_dcf` is lowest; accept what is at or above it.

    Args:
        scores, labels, p_target, c_miss, c_fa: as for `min_dcf`.

    Returns:
        The lowest of such scores; infinity where rejecting everything costs least.

    Raises:
        ValueError: as `min_dcf`.

    >>> min_dcf_threshold([0.1, 0.6, 0.5, 0.9], [0, 0, 1, 1])
    0.9
    """
    thresholds, costs = _detection_costs(scores, labels, p_target, c_miss, c_fa)
    return float(thresholds[np.argmin(costs)])


def _detection_costs(scores, labels, p_target: float, c_miss: float,
                     c_fa: float) -> tuple[np.ndarray, np.ndarray]:
    """Thresholds (m,) as in `error_rates`, and the cost (m,) of each, not normalised."""
    if not 0 < p_target < 1 or c_miss <= 0 or c_fa <= 0:
        raise ValueError(f"want 0 < p_target < 1 and costs above 0, got p_target={p_target}, "
                         f"c_miss={c_miss}, c_fa={c_fa}")
    thresholds, fnr, fpr = error_rates(scores, labels)
    return thresholds, c_miss * p_target * fnr + c_fa * (1 - p_target) * fpr
