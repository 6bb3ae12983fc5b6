"""The layer probe's arithmetic: LDA against numpy's eigenvectors, the EER by counting."""

from itertools import pairwise

import numpy as np
import pytest

from wespeaker_lap.score.probe import LayerRow, ProbeTrials, measure_layers, score_layer


def make_stats(seed=0, num_speakers=6, num_utts=5, dim=8, spread=1.0):
    """Statistics (n, dim) of utterances around their speakers, and the speakers."""
    rng = np.random.default_rng(seed)
    speakers = np.repeat(np.arange(num_speakers), num_utts)
    stats = spread * rng.normal(size=(num_speakers, dim))[speakers]
    stats += rng.normal(size=stats.shape) * rng.uniform(0.5, 3, dim)
    return (20 + 5 * stats).astype(np.float32), [f"spk{number}" for number in speakers]


def pair_all(speakers):
    """Every pair of test utterances."""
    first, second = np.triu_indices(len(speakers), 1)
    names = np.array(speakers)
    return ProbeTrials(first, second, names[first] == names[second], names[first].tolist(),
                       names[second].tolist())


def score_by_hand(train, speakers, test, trials, shrinkage):
    """The same method from its formulas: `Sw^-1 Sb` by numpy, every trial by itself."""
    train, test = train.astype(np.float64), test.astype(np.float64)
    mean, std = train.mean(0), np.sqrt(((train - train.mean(0)) ** 2).mean(0))
    train, test = (train - mean) / std, (test - mean) / std

    def shrink(cov):
        return (1 - shrinkage) * cov + shrinkage * np.trace(cov) / len(cov) * np.eye(len(cov))

    names = sorted(set(speakers))
    within = sum(np.cov(train[np.array(speakers) == name].T, ddof=0)
                 * speakers.count(name) / len(speakers) for name in names)
    between = shrink(np.cov(train.T, ddof=0)) - shrink(within)
    # Scaled so that the covariance within speakers is the identity along the directions.
    values, vectors = np.linalg.eig(np.linalg.inv(shrink(within)) @ between)
    vectors = vectors[:, np.argsort(values.real)[::-1][:len(names) - 1]].real
    vectors /= np.sqrt(np.diag(vectors.T @ shrink(within) @ vectors))
    emb = test @ vectors
    return [emb[i] @ emb[j] / np.linalg.norm(emb[i]) / np.linalg.norm(emb[j])
            for i, j in zip(trials.enroll_index, trials.test_index, strict=True)]


def count_eer(scores, labels):
    """Where the polygon of the two error rates, counted at each threshold, crosses equality."""
    points = []
    for threshold in [*sorted(set(scores)), np.inf]:
        accepted = [score >= threshold for score in scores]
        miss = np.mean([not yes for yes, same in zip(accepted, labels, strict=True) if same])
        alarm = np.mean([yes for yes, same in zip(accepted, labels, strict=True) if not same])
        points.append((miss, alarm))
    for (miss, alarm), (next_miss, next_alarm) in pairwise(points):
        if next_miss >= next_alarm:
            part = (alarm - miss) / ((alarm - miss) + (next_miss - next_alarm))
            return miss + part * (next_miss - miss)
    raise AssertionError("the rates never cross")


@pytest.mark.parametrize("shrinkage", [0.0, 0.1, 0.7])
@pytest.mark.parametrize("num_speakers", [4, 12])  # fewer and more directions than dimensions
def test_scores_are_those_of_the_formulas(shrinkage, num_speakers):
    train, speakers = make_stats(0, num_speakers)
    test, test_speakers = make_stats(1, 5, 4)
    trials = pair_all(test_speakers)
    scores, num_dims = score_layer(train, speakers, test, trials.enroll_index, trials.test_index,
                                   shrinkage)
    expected = score_by_hand(train, speakers, test, trials, shrinkage)
    np.testing.assert_allclose(scores, expected, atol=2e-5)
    assert num_dims == 8


def test_the_unit_of_a_dimension_does_not_matter():
    train, speakers = make_stats(0)
    test, test_speakers = make_stats(1)
    trials = pair_all(test_speakers)
    unit = np.array([1e-6, 1e6, 1, 3, 1e-6, 1e6, 1, 3], np.float32)
    plain, scaled = (score_layer(train * by, speakers, test * by, trials.enroll_index,
                                 trials.test_index)[0] for by in (1, unit))
    np.testing.assert_allclose(scaled, plain, atol=1e-4)


def test_rows_are_the_layers_and_the_mean_of_their_scores():
    layers, trials = [], None
    for seed, spread in ((0, 0.5), (2, 2.0), (4, 0.5)):
        train, speakers = make_stats(seed, spread=spread)
        test, test_speakers = make_stats(seed + 1, spread=spread)
        layers.append((train, test))
    trials = pair_all(test_speakers)
    rows = measure_layers(layers, speakers, trials)
    scores = [score_layer(train, speakers, test, trials.enroll_index, trials.test_index)[0]
              for train, test in layers]
    expected = [*scores, sum(scores) / 3]
    assert [row.layer for row in rows] == [0, 1, 2, None]
    assert [row.num_dims for row in rows] == [8, 8, 8, None]
    for row, one in zip(rows, expected, strict=True):
        assert row.eer == pytest.approx(100 * count_eer(one.tolist(), trials.labels))
        assert 0 <= row.eer_ci[0] <= row.eer_ci[1] <= 100
    assert rows[1].eer < min(rows[0].eer, rows[2].eer)
    assert rows[1].eer_ci[0] < rows[1].eer_ci[1]
    assert measure_layers(layers, speakers, trials) == rows


def test_one_layer_has_no_mean():
    train, speakers = make_stats(0)
    rows = measure_layers([(train, train)], speakers, pair_all(speakers))
    assert [row.layer for row in rows] == [0]


def test_constant_dimensions_are_left_out():
    train, speakers = make_stats(0)
    test, test_speakers = make_stats(1)
    trials = pair_all(test_speakers)
    rng = np.random.default_rng(0)

    def pad(stats):
        """Two dimensions more: one always 7, one near 0 with a deviation of the frames of 4."""
        rounding = 1e-7 * rng.normal(size=(len(stats), 1))
        means, deviations = np.split(stats, 2, axis=1)
        constant, zero = np.full((len(stats), 1), 7), np.zeros((len(stats), 1))
        return np.hstack([means, constant, rounding, deviations, zero, zero + 4]).astype(np.float32)

    plain, _ = score_layer(train, speakers, test, trials.enroll_index, trials.test_index)
    padded, num_dims = score_layer(pad(train), speakers, pad(test), trials.enroll_index,
                                   trials.test_index)
    assert num_dims == 8
    np.testing.assert_array_equal(padded, plain)


def test_a_layer_that_says_nothing_is_chance_and_does_not_disturb_the_mean():
    train, speakers = make_stats(0)
    test, test_speakers = make_stats(1)
    trials = pair_all(test_speakers)
    nothing = np.full_like(train, 0.3), np.full_like(test, 0.3)
    useful, empty, mean = measure_layers([(train, test), nothing], speakers, trials)
    assert empty == LayerRow(1, 50.0, (50.0, 50.0), 0)
    assert mean.eer == useful.eer


def test_too_little_shrinkage_is_told():
    train, speakers = make_stats(0, 3, 2)  # 6 utterances in 8 dimensions
    trials = pair_all(speakers)
    with pytest.raises(ValueError, match=r"^layer 0: the covariance within 3 speakers of 6 "
                       r"utterances has no inverse in 8 dimensions; pass a larger shrinkage"):
        measure_layers([(train, train)], speakers, trials, shrinkage=0.0)


@pytest.mark.parametrize(("labels", "message"), [
    ([False, True], "contradict their speakers"),
    ([False, False], "none of the 2 trials is a target trial"),
])
def test_trials_are_checked_before_the_work(labels, message):
    index = np.array([0, 0])
    trials = ProbeTrials(index, index, np.array(labels), ["a", "a"], ["a", "b"])
    with pytest.raises(ValueError, match=message):
        trials.check()
