"""The interval of the EER: weights against repeated trials, width and coverage by simulation."""

from itertools import combinations

import numpy as np
import pytest

from wespeaker_lap.score.bootstrap import (
    choose_num_resamples,
    eer_interval,
    sort_trials,
    weighted_eer,
)
from wespeaker_lap.score.metrics import eer


def simulate(seed, num_speakers=30, num_utts=4, has_ties=False):
    """All pairs of utterances; speakers differ in how well they match themselves."""
    rng = np.random.default_rng(seed)
    shift = rng.normal(2.0, 0.8, num_speakers)
    utts = [speaker for speaker in range(num_speakers) for _ in range(num_utts)]
    pairs = np.array(list(combinations(utts, 2)))
    enroll, test = pairs.T
    labels = enroll == test
    scores = rng.standard_normal(len(pairs)) + np.where(labels, shift[enroll], 0)
    return (scores.round(1) if has_ties else scores), labels, enroll, test


def repeat_by_speaker(counts, labels, enroll, test):
    """How often each trial stands in a resampled list, one trial at a time."""
    return [counts[a] if same else counts[a] * counts[b]
            for same, a, b in zip(labels, enroll, test, strict=True)]


@pytest.mark.parametrize("has_ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_weighted_eer_equals_the_eer_of_repeated_trials(seed, has_ties):
    scores, labels, enroll, test = simulate(seed, 12, 3, has_ties)
    counts = np.random.default_rng(seed).multinomial(12, [1 / 12] * 12)
    times = repeat_by_speaker(counts, labels, enroll, test)
    expected = eer(np.repeat(scores, times), np.repeat(labels, times))
    trials = sort_trials(scores, labels, enroll, test)
    assert weighted_eer(trials, counts) == pytest.approx(expected, abs=1e-12)
    ones = np.ones(12, dtype=int)
    assert weighted_eer(trials, ones) == pytest.approx(eer(scores, labels), abs=1e-12)


def test_a_resample_without_one_kind_has_no_rate():
    trials = sort_trials(np.arange(3.0), np.array([True, True, False]), np.array([0, 1, 0]),
                         np.array([0, 1, 1]))
    assert weighted_eer(trials, np.array([2, 0])) is None


def test_interval_equals_a_plain_bootstrap():
    scores, labels, enroll, test = simulate(0)
    rng = np.random.default_rng(7)
    rates = []
    for _ in range(400):
        counts = np.bincount(rng.integers(0, 30, 30), minlength=30)
        times = repeat_by_speaker(counts.tolist(), labels.tolist(), enroll.tolist(), test.tolist())
        rates.append(eer(np.repeat(scores, times), np.repeat(labels, times)))
    low, high = eer_interval(scores, labels, enroll.tolist(), test.tolist(), 2000)
    # Two estimates of one quantile; their error is a fraction of the interval's width.
    assert np.quantile(rates, [0.025, 0.975]) == pytest.approx([low, high], abs=0.15 * (high - low))
    assert low < eer(scores, labels) < high


def test_interval_covers_the_true_rate():
    truth = eer(*simulate(10_000, num_speakers=500, num_utts=2)[:2])
    num_covered = 0
    for seed in range(60):
        scores, labels, enroll, test = simulate(seed)
        low, high = eer_interval(scores, labels, enroll.tolist(), test.tolist(), 200, level=0.9)
        num_covered += low <= truth <= high
    # 54 of 60 expected at 90 %; a percentile bootstrap of 30 speakers covers a little less.
    assert 45 <= num_covered <= 60


def test_interval_is_reproducible_and_widens_with_the_level():
    scores, labels, enroll, test = simulate(1)
    case = scores, labels, [f"s{i}" for i in enroll], [f"s{i}" for i in test]
    assert eer_interval(*case, 100, seed=5) == eer_interval(*case, 100, seed=5)
    assert eer_interval(*case, 100, seed=5) != eer_interval(*case, 100, seed=6)
    narrow, wide = eer_interval(*case, 100, level=0.5), eer_interval(*case, 100, level=0.95)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_two_speakers_are_redrawn_until_both_kinds_are_there():
    low, high = eer_interval([1, 2, 3, 0], [True, True, False, False], ["a", "b", "a", "a"],
                             ["a", "b", "b", "b"], 20)
    assert 0 <= low <= high <= 1


def test_long_lists_get_fewer_resamples():
    assert choose_num_resamples(10) == choose_num_resamples(500_000) == 1000
    assert choose_num_resamples(2_000_000) == 250
    assert choose_num_resamples(100_000_000) == 200


def test_speakers_that_contradict_the_labels():
    with pytest.raises(ValueError, match=r"1 trials contradict .* trial 1 \(a, a, nontarget\)"):
        eer_interval([1, 2], [True, False], ["a", "a"], ["a", "a"])
    with pytest.raises(ValueError, match="2 speakers on each side, got 1 and 2"):
        eer_interval([1, 2], [True, False], ["a"], ["a", "b"])


@pytest.mark.parametrize("settings", [{"level": 1.0}, {"level": 0}, {"num_resamples": 0}])
def test_settings_out_of_range(settings):
    with pytest.raises(ValueError, match="level"):
        eer_interval([1, 2], [True, False], ["a", "a"], ["a", "b"], **settings)
