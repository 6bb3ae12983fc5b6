"""Shares of the layers by hand, their intervals against exact draws, bytes against encodings."""

import itertools

import numpy as np
import pytest

from wespeaker_lap.io.codecs import encode
from wespeaker_lap.score.layer_mass import (
    find_smallest_set,
    measure_mass,
    second_bytes,
    suggest_layers,
)

FEATURES = {"codec": "float16", "num_layers": 4, "dim": 64, "sample_rate": 16000,
            "frame_shift": 320}


def test_every_frame_counts_alike():
    found = measure_mass(np.array([[1.0, 3.0, 0.0], [10.0, 5.0, 1.0]]))
    np.testing.assert_allclose(found.shares, [11 / 20, 8 / 20, 1 / 20])


def test_an_interval_against_all_draws():
    """Of three speakers there are 27 equally likely draws; their quantiles are exact."""
    sums = np.array([[1.0, 9.0], [5.0, 5.0], [16.0, 4.0]])
    shares = sorted((a + b + c)[0] / (a + b + c).sum()
                    for a, b, c in itertools.product(sums, repeat=3))
    found = measure_mass(sums, num_resamples=20_000, level=0.8)
    assert found.low[0] == pytest.approx(shares[2], abs=1e-12)  # 10 % lie below the third of 27
    assert found.high[0] == pytest.approx(shares[-3], abs=1e-12)
    np.testing.assert_allclose(found.low + found.high[::-1], 1)
    again = measure_mass(sums, num_resamples=20_000, level=0.8)
    assert (again.low == found.low).all()


def test_alike_speakers_have_no_width_and_one_speaker_no_interval():
    found = measure_mass(np.array([[1.0, 3.0], [2.0, 6.0]]))
    np.testing.assert_allclose([found.low, found.high], [[0.25, 0.75]] * 2)
    found = measure_mass(np.array([[1.0, 3.0]]))
    assert found.low is None and found.high is None and found.shares.tolist() == [0.25, 0.75]


@pytest.mark.parametrize(("sums", "message"), [
    (np.ones(3), r"want sums \(N, L\), got \(3,\)"),
    (np.ones((0, 3)), r"got \(0, 3\)"),
    (np.array([[1.0, np.nan]]), "want finite sums"),
    (np.array([[1.0, -1.0]]), "want finite sums of 0 or more"),
    (np.array([[1.0, 1.0], [0.0, 0.0]]), "not all 0 for a speaker"),
])
def test_sums_that_are_none(sums, message):
    with pytest.raises(ValueError, match=message):
        measure_mass(sums)


@pytest.mark.parametrize(("shares", "keep", "expected"), [
    ([0.5, 0.1, 0.4], 0.5, [0]),
    ([0.5, 0.1, 0.4], 0.51, [0, 2]),
    ([0.5, 0.1, 0.4], 0.9, [0, 2]),
    ([0.5, 0.1, 0.4], 0.91, [0, 1, 2]),
    ([0.1] * 10, 0.3, [0, 1, 2]),  # equal ones: the lower
    ([0.1] * 10, 0.7, [0, 1, 2, 3, 4, 5, 6]),  # 0.1 + … + 0.1 is a little less than 0.7
    ([0.1] * 10, 1.0, list(range(10))),
    ([0.02, 0.01] * 32, 0.2, list(range(0, 20, 2))),  # of 0.96: ten of 0.02
    ([0.0, 1.0], 1.0, [1]),
])
def test_the_smallest_set(shares, keep, expected):
    assert find_smallest_set(np.array(shares), keep) == expected


@pytest.mark.parametrize("keep", [0, -0.1, 1.1, float("nan")])
def test_a_part_that_cannot_be_kept(keep):
    with pytest.raises(ValueError, match="want keep above 0 and up to 1"):
        find_smallest_set(np.array([0.5, 0.5]), keep)


@pytest.mark.parametrize("codec", ["float32", "float16", "int8"])
@pytest.mark.parametrize("num_layers", [1, 4])
def test_bytes_of_a_second(codec, num_layers):
    feats = np.random.default_rng(0).normal(size=(1000, num_layers, 64)).astype(np.float32)
    expected = len(encode(codec, feats)) / 20  # 1000 frames are 20 s
    assert second_bytes({**FEATURES, "codec": codec}, num_layers) == pytest.approx(expected)


def test_a_suggestion():
    found = suggest_layers("mass", {"layers": np.array([0.1, 0.45, 0.04, 0.41])}, [0, 3, 6, 9],
                           FEATURES, keep=0.86)
    assert (found.by, found.layers) == ("mass", [3, 9])
    assert found.kept == {"layers": pytest.approx(0.86)}
    assert found.bytes_per_second == pytest.approx(2 * 64 * 2 * 50, rel=1e-3)
    assert found.saved == pytest.approx(0.5, abs=1e-3)


def test_two_streams_and_a_layer_to_leave_out():
    shares = {"keys": np.array([0.0, 0.2, 0.0, 0.8]), "values": np.array([0.0, 0.0, 1.0, 0.0])}
    found = suggest_layers("wins", shares, [0, 1, 2, 3], FEATURES, keep=0.7)
    assert found.layers == [2, 3]
    assert found.kept == {"keys": pytest.approx(0.8), "values": pytest.approx(1.0)}
    found = suggest_layers("wins", shares, [0, 1, 2, 3], FEATURES, keep=0.7, needs_first=True)
    assert found.layers == [0, 2, 3] and found.saved == pytest.approx(0.25, abs=1e-3)
