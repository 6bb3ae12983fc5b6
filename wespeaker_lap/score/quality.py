"""Quality measures: what says, besides the score, how much a trial can be trusted.

Every measure is taken of both sides and enters as the smaller and the larger of the two, so that a
trial has one ratio, whichever of its sides is called the enrolment.
"""

import numpy as np

from wespeaker_lap.score.cosine import check_index

SIDE_MEASURES = ("log_seconds", "l1_norm", "l2_norm", "std")
FEATURES = ("asnorm", *(f"{end}_{name}" for name in SIDE_MEASURES for end in ("min", "max")))


def measure_sides(emb: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Measure utterances.

    Args:
        emb: (n, E) embeddings as the network gives them, no mean subtracted.
        seconds: (n,) durations of what was embedded.

    Returns:
        (n, 4) float64: logarithm of the duration, L1 norm, L2 norm, and standard deviation of the
        embedding's E components.

    Raises:
        ValueError: the shapes do not fit, or a duration is not above 0.
    """
    if emb.ndim != 2 or seconds.shape != emb.shape[:1]:
        raise ValueError(f"want embeddings (n, E) and durations (n,), got {emb.shape}, "
                         f"{seconds.shape}")
    bad = np.flatnonzero(~(np.isfinite(seconds) & (seconds > 0)))
    if bad.size:
        raise ValueError(f"want durations above 0 s, got {seconds[bad[0]]} at row {bad[0]}")
    emb = emb.astype(np.float64)
    return np.stack([np.log(seconds), np.abs(emb).sum(axis=1), np.sqrt((emb ** 2).sum(axis=1)),
                     emb.std(axis=1)], axis=1)


def measure_trials(scores: np.ndarray, sides: np.ndarray, enroll_index: np.ndarray,
                   test_index: np.ndarray) -> np.ndarray:
    """The features of trials, in the order of `FEATURES`.

    Args:
        scores: (k,) AS-norm scores.
        sides: (n, 4) of `measure_sides`.
        enroll_index: (k,) row in `sides` of each trial's enrolment side.
        test_index: (k,) row in `sides` of each trial's test side.

    Returns:
        (k, 9): the score; then, measure by measure, the smaller and the larger of both sides.

    Raises:
        ValueError: the shapes do not fit.
    """
    check_index(sides, sides, enroll_index, test_index)
    if scores.shape != enroll_index.shape or sides.shape[1] != len(SIDE_MEASURES):
        raise ValueError(f"want scores {enroll_index.shape} and measures (n, "
                         f"{len(SIDE_MEASURES)}), got {scores.shape}, {sides.shape}")
    pair = np.stack([sides[enroll_index], sides[test_index]])  # (2, k, 4)
    ends = np.stack([pair.min(axis=0), pair.max(axis=0)], axis=2)  # (k, 4, 2)
    return np.column_stack([scores, ends.reshape(len(scores), -1)])
