"""The cost of log-likelihood ratios: Cllr, and what is left of it after the best calibration.

Unlike EER and minDCF, Cllr depends on the values of the scores, not on their order alone: it is
what a user pays who takes them for natural logarithms of likelihood ratios.
"""

import numpy as np
from scipy.special import logit
from sklearn.isotonic import isotonic_regression

from wespeaker_lap.score.metrics import check_scored


def cllr(llrs, labels) -> float:
    """Cost of log-likelihood ratios, averaged over all operating points.

    `(mean over targets of log2(1 + exp(-llr)) + mean over non-targets of log2(1 + exp(llr))) / 2`.
    Source: Brummer and du Preez, "Application-independent evaluation of speaker detection"
    (Computer Speech and Language, 2006).

    Args:
        llrs: (n,) natural logarithms of likelihood ratios, higher for the same speaker.
        labels: (n,) bool, true for target trials.

    Returns:
        Bits: 0 is perfect, 1 is what ratios of 1 everywhere cost; without an upper bound.

    Raises:
        ValueError: as `metrics.check_scored`.

    >>> cllr([0.0, 0.0], [0, 1])
    1.0
    """
    return _cost(*check_scored(llrs, labels))


def min_cllr(scores, labels) -> float:
    """Cllr after the best calibration that keeps the order of the scores.

    The calibration is made on the very same trials by the pool-adjacent-violators algorithm; what
    it leaves is the cost of telling speakers apart, and `cllr - min_cllr` that of the calibration.
    Source: as `cllr`.

    Args:
        scores: (n,) numbers, higher for the same speaker; not necessarily ratios.
        labels: (n,) bool, true for target trials.

    Returns:
        Bits, from 0 to 1.

    Raises:
        ValueError: as `metrics.check_scored`.

    >>> min_cllr([-3.0, 5.0, 5.0, 7.0], [0, 0, 1, 1])
    0.5
    """
    scores, labels = check_scored(scores, labels)
    _, ranks, counts = np.unique(scores, return_inverse=True, return_counts=True)
    shares = np.bincount(ranks, labels) / counts  # of targets among equal scores
    posteriors = isotonic_regression(shares, sample_weight=counts)[ranks]
    return _cost(logit(posteriors) - logit(labels.mean()), labels)


def _cost(llrs: np.ndarray, labels: np.ndarray) -> float:
    """Cllr; a ratio may be infinite, on the right side."""
    miss, alarm = np.logaddexp(0, -llrs[labels]), np.logaddexp(0, llrs[~labels])
    return float((miss.mean() + alarm.mean()) / (2 * np.log(2)))
