"""Quality measures by hand."""

import math

import numpy as np
import pytest

from wespeaker_lap.score.quality import FEATURES, measure_sides, measure_trials

EMB = np.array([[3.0, -4.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]], np.float32)


def test_the_sides_by_hand():
    sides = measure_sides(EMB, np.array([math.e, 1.0]))
    # |3| + |-4| + 0 + |1| = 8; sqrt(9 + 16 + 1); mean 0, so the deviation is sqrt(26 / 4).
    np.testing.assert_allclose(sides, [[1, 8, math.sqrt(26), math.sqrt(6.5)], [0, 4, 2, 0]],
                               rtol=1e-12)


def test_the_trials_by_hand():
    sides = np.array([[1.0, 8, 6, 2], [0, 9, 2, 0], [5, 5, 5, 5]])
    found = measure_trials(np.array([0.5, -1.0]), sides, np.array([0, 2]), np.array([1, 2]))
    assert FEATURES == ("asnorm", "min_log_seconds", "max_log_seconds", "min_l1_norm",
                        "max_l1_norm", "min_l2_norm", "max_l2_norm", "min_std", "max_std")
    assert found.tolist() == [[0.5, 0, 1, 8, 9, 2, 6, 0, 2], [-1, 5, 5, 5, 5, 5, 5, 5, 5]]


def test_the_sides_of_a_trial_may_be_exchanged():
    rng = np.random.default_rng(0)
    sides, scores = rng.random((6, 4)), rng.random(20)
    a, b = rng.integers(6, size=(2, 20))
    assert np.array_equal(measure_trials(scores, sides, a, b), measure_trials(scores, sides, b, a))


@pytest.mark.parametrize("seconds", [0.0, -1.0, np.nan, np.inf])
def test_durations_must_be_some(seconds):
    with pytest.raises(ValueError, match=r"want durations above 0 s, got .* at row 1"):
        measure_sides(EMB, np.array([1.0, seconds]))


def test_shapes():
    with pytest.raises(ValueError, match=r"want embeddings \(n, E\) and durations \(n,\), got"):
        measure_sides(EMB, np.ones(3))
    with pytest.raises(ValueError, match=r"want scores \(2,\) and measures \(n, 4\), got \(1,\)"):
        measure_trials(np.ones(1), np.ones((3, 4)), np.zeros(2, int), np.zeros(2, int))
