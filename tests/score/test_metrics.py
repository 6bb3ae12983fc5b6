"""EER and minDCF against hand-computed values, plain loops and scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from wespeaker_lap.score.metrics import eer, eer_threshold, error_rates, min_dcf


def make_case(seed, num, has_ties):
    rng = np.random.default_rng(seed)
    labels = rng.random(num) < 0.3
    labels[:2] = True, False
    scores = rng.standard_normal(num) + 1.2 * labels
    return (scores.round(1) if has_ties else scores), labels


def eer_of_roc(scores, labels):
    """The crossing of scikit-learn's ROC curve with the diagonal, by bisection."""
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    # A vertical step has two values of tpr: walk along the curve, not along fpr.
    low, high = 0.0, float(len(fpr) - 1)
    steps = np.arange(len(fpr))
    for _ in range(100):
        middle = (low + high) / 2
        if np.interp(middle, steps, fpr) < 1 - np.interp(middle, steps, tpr):
            low = middle
        else:
            high = middle
    return np.interp(low, steps, fpr)


@pytest.mark.parametrize("has_ties", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_eer_equals_the_roc_curve(seed, has_ties):
    scores, labels = make_case(seed, 20 + 150 * seed, has_ties)
    assert eer(scores, labels) == pytest.approx(eer_of_roc(scores, labels), abs=1e-9)


@pytest.mark.parametrize("has_ties", [False, True])
def test_rates_equal_counting(has_ties):
    scores, labels = make_case(1, 60, has_ties)
    thresholds, fnr, fpr = error_rates(scores, labels)
    assert thresholds.tolist() == [*sorted(set(scores.tolist())), np.inf]
    for threshold, miss, alarm in zip(thresholds, fnr, fpr, strict=True):
        accepted = [score >= threshold for score in scores]
        missed = sum(not yes and label for yes, label in zip(accepted, labels, strict=True))
        alarms = sum(yes and not label for yes, label in zip(accepted, labels, strict=True))
        assert miss == missed / labels.sum() and alarm == alarms / (~labels).sum()


@pytest.mark.parametrize(("scores", "labels", "expected"), [
    ([1, 2, 3, 4], [0, 0, 1, 1], 0.0),
    ([1, 2, 3, 4], [1, 1, 0, 0], 1.0),
    ([5, 5, 5, 5], [0, 1, 0, 1], 0.5),  # one threshold: the line from (1, 0) to (0, 1)
    # accepted at >= 3: fnr 1/3, fpr 1/3
    ([1, 2, 3, 2, 3, 4], [0, 0, 0, 1, 1, 1], 1 / 3),
    # one tie of one target in two and two non-targets in four: (fpr, fnr) from (1/2, 0) to
    # (0, 1/2), which crosses at 1/4
    ([1, 1, 2, 2, 2, 3], [0, 0, 0, 0, 1, 1], 0.25),
])
def test_eer_by_hand(scores, labels, expected):
    assert eer(scores, labels) == pytest.approx(expected, abs=1e-15)
    order = np.random.default_rng(0).permutation(len(scores))
    assert eer(np.array(scores)[order], np.array(labels)[order]) == eer(scores, labels)


@pytest.mark.parametrize(("p_target", "c_miss", "c_fa"), [(0.01, 1, 1), (0.05, 1, 1), (0.5, 1, 1),
                                                         (0.01, 10, 1), (0.9, 1, 2)])
@pytest.mark.parametrize("has_ties", [False, True])
def test_min_dcf_equals_trying_every_threshold(p_target, c_miss, c_fa, has_ties):
    scores, labels = make_case(3, 80, has_ties)
    costs = []
    for threshold in [*scores, scores.max() + 1]:
        miss = np.mean(scores[labels] < threshold)
        alarm = np.mean(scores[~labels] >= threshold)
        costs.append(c_miss * p_target * miss + c_fa * (1 - p_target) * alarm)
    expected = min(costs) / min(c_miss * p_target, c_fa * (1 - p_target))
    assert min_dcf(scores, labels, p_target, c_miss, c_fa) == pytest.approx(expected, abs=1e-12)
    assert 0 <= expected <= 1


def test_min_dcf_by_hand():
    # At p 0.01 a false alarm among 2 costs 0.99 / 2 / 0.01 = 49.5 misses: reject all but the top.
    assert min_dcf([1, 3, 2, 4], [0, 0, 1, 1]) == pytest.approx(0.5)
    assert min_dcf([1, 2, 3, 4], [0, 0, 1, 1]) == 0
    assert min_dcf([3, 4, 1, 2], [0, 0, 1, 1]) == 1


def test_threshold_lies_where_the_rates_meet():
    assert eer_threshold([1, 2, 3, 2, 3, 4], [0, 0, 0, 1, 1, 1]) == 3
    assert eer_threshold([5, 5], [0, 1]) == 5


@pytest.mark.parametrize(("scores", "labels", "message"), [
    ([1, 2], [1, 1], "none of the 2 trials is a non-target"),
    ([1, 2], [0, 0], "none of the 2 trials is a target"),
    ([], [], "none of the 0 trials is a target"),
    ([1, np.nan, np.inf], [1, 0, 0], "2 of 3 scores are not finite, the first is trial 1"),
    ([1, 2, 3], [1, 0], r"\(3,\), \(2,\)"),
    ([1, 2], [2, 0], "labels of 0 and 1"),
])
def test_unusable_trials(scores, labels, message):
    with pytest.raises(ValueError, match=message):
        eer(scores, labels)
    with pytest.raises(ValueError, match=message):
        min_dcf(scores, labels)


@pytest.mark.parametrize("settings", [{"p_target": 0}, {"p_target": 1}, {"c_miss": 0},
                                      {"c_fa": -1}])
def test_unusable_costs(settings):
    with pytest.raises(ValueError, match="p_target"):
        min_dcf([1, 2], [0, 1], **settings)
