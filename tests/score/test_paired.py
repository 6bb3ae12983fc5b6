"""The interval of a difference: against a plain paired bootstrap, its width, its sign."""

from itertools import combinations

import numpy as np
import pytest

from wespeaker_lap.score.bootstrap import eer_interval
from wespeaker_lap.score.metrics import eer
from wespeaker_lap.score.paired import compare_eers

NUM_SPEAKERS = 20


def simulate(seed, noise):
    """All pairs of 4 utterances a speaker; two runs that differ by independent noise."""
    rng = np.random.default_rng(seed)
    shift = rng.normal(2.0, 0.8, NUM_SPEAKERS)
    utts = [speaker for speaker in range(NUM_SPEAKERS) for _ in range(4)]
    enroll, test = np.array(list(combinations(utts, 2))).T
    labels = enroll == test
    common = rng.standard_normal(len(labels)) + np.where(labels, shift[enroll], 0)
    runs = [common + noise * rng.standard_normal(len(labels)) for _ in range(2)]
    return runs, labels, enroll.tolist(), test.tolist()


def test_it_equals_a_plain_paired_bootstrap():
    (a, b), labels, enroll, test = simulate(0, noise=1.0)
    c = a + np.random.default_rng(9).standard_normal(len(a))
    found = compare_eers([a, c], [b], labels, enroll, test, num_resamples=400)
    assert found.eer_a == pytest.approx((eer(a, labels) + eer(c, labels)) / 2)
    assert found.eer_b == pytest.approx(eer(b, labels)) and found.num_resamples == 400
    rng, differences = np.random.default_rng(5), []
    for _ in range(400):
        counts = np.bincount(rng.integers(0, NUM_SPEAKERS, NUM_SPEAKERS), minlength=NUM_SPEAKERS)
        times = [counts[one] if one == other else counts[one] * counts[other]
                 for one, other in zip(enroll, test, strict=True)]
        again = [eer(np.repeat(scores, times), np.repeat(labels, times)) for scores in (a, b, c)]
        differences.append((again[0] + again[2]) / 2 - again[1])
    low, high = np.quantile(differences, [0.025, 0.975])
    width = high - low  # the two draws differ, so the ends do by a share of the width
    assert abs(found.low - low) < 0.2 * width and abs(found.high - high) < 0.2 * width


def test_what_both_get_wrong_does_not_widen_it():
    (a, b), labels, enroll, test = simulate(1, noise=0.05)
    found = compare_eers([a], [b], labels, enroll, test, num_resamples=300)
    low, high = eer_interval(a, labels, enroll, test, num_resamples=300)
    assert found.high - found.low < 0.3 * (high - low)
    same = compare_eers([a], [a], labels, enroll, test, num_resamples=20)
    assert (same.low, same.high, same.is_significant) == (0, 0, False)


def test_the_sign_is_a_minus_b():
    (good, _), labels, enroll, test = simulate(2, noise=0.0)
    bad = good + 3 * np.random.default_rng(0).standard_normal(len(good))
    assert (worse := compare_eers([bad], [good], labels, enroll, test, 200)).is_significant
    assert worse.low > 0 and worse.eer_a > worse.eer_b
    better = compare_eers([good], [bad], labels, enroll, test, 200)
    assert better.high < 0 and better.is_significant
    assert (better.low, better.high) == pytest.approx((-worse.high, -worse.low))


def test_bad_input_is_told():
    (a, b), labels, enroll, test = simulate(3, noise=1.0)
    with pytest.raises(ValueError, match="at least one array"):
        compare_eers([a], [], labels, enroll, test)
    with pytest.raises(ValueError, match="0 < level < 1"):
        compare_eers([a], [b], labels, enroll, test, level=1)
    with pytest.raises(ValueError, match="contradict their speakers"):
        compare_eers([a], [b], ~labels, enroll, test)
    with pytest.raises(ValueError, match="not finite"):
        compare_eers([a], [np.full(len(b), np.nan)], labels, enroll, test)
