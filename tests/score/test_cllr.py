"""Cllr by hand, and min Cllr against a search over all monotone calibrations."""

import math
from itertools import pairwise

import numpy as np
import pytest

from wespeaker_lap.score.cllr import cllr, min_cllr


def bits(llr, is_target):
    """What one trial costs; `llr` may be infinite."""
    x = -llr if is_target else llr
    return x / math.log(2) if x > 500 else math.log2(1 + math.exp(x))


def mean_bits(llrs, labels):
    costs = [[bits(llr, kind) for llr, label in zip(llrs, labels, strict=True) if label == kind]
             for kind in (True, False)]
    return sum(sum(one) / len(one) for one in costs) / 2


def pool(scores, labels):
    """Pool-adjacent-violators as it is told in words: merge neighbours until shares rise.

    Returns the log-likelihood ratio of every trial.
    """
    groups = [[score, [labels[i] for i in range(len(scores)) if scores[i] == score]]
              for score in sorted(set(scores))]
    blocks = [[[score], own] for score, own in groups]
    while True:
        shares = [sum(own) / len(own) for _, own in blocks]
        falls = [i for i, (a, b) in enumerate(pairwise(shares)) if a > b]
        if not falls:
            break
        i = falls[0]
        blocks[i:i + 2] = [[blocks[i][0] + blocks[i + 1][0], blocks[i][1] + blocks[i + 1][1]]]
    odds = sum(labels) / (len(labels) - sum(labels))
    found = {}
    for block, own in blocks:
        num = sum(own)
        llr = (math.inf if num == len(own) else -math.inf if num == 0
               else math.log(num / (len(own) - num) / odds))
        found.update(dict.fromkeys(block, llr))
    return [found[score] for score in scores]


def test_by_hand():
    # A target at log 3 costs log2(1 + 1/3), a non-target at log 3 costs log2(1 + 3) = 2.
    assert cllr([math.log(3), math.log(3)], [True, False]) == pytest.approx(
        (math.log2(4 / 3) + 2) / 2)
    assert cllr([0.0, 0.0, 0.0], [1, 0, 0]) == pytest.approx(1)
    assert cllr([60.0, -60.0], [1, 0]) < 1e-15
    # The kinds count the same, however many trials they have.
    assert cllr([0.0, 2.0, 2.0, 2.0], [1, 0, 0, 0]) == pytest.approx(
        (1 + math.log2(1 + math.exp(2))) / 2)
    assert cllr([-1000.0, 0.0], [1, 0]) == pytest.approx((1000 / math.log(2) + 1) / 2)


@pytest.mark.parametrize("seed", range(8))
def test_against_loops(seed):
    rng = np.random.default_rng(seed)
    labels = rng.random(60) < rng.uniform(0.15, 0.85)
    scores = (rng.standard_normal(60) + labels).round(rng.integers(0, 3))  # with ties
    assert cllr(scores, labels) == pytest.approx(mean_bits(scores, labels))
    assert min_cllr(scores, labels) == pytest.approx(
        mean_bits(pool(scores.tolist(), labels.tolist()), labels), abs=1e-12)


def test_no_rising_calibration_is_better():
    """All rising assignments of a grid of ratios to five scores."""
    labels = [False, True, False, True, True]
    grid = np.linspace(-4, 4, 33)
    best = math.inf
    for a in grid:
        for b in grid[grid >= a]:
            for c in grid[grid >= b]:
                # The last two are targets: the higher the better.
                best = min(best, mean_bits([a, b, c, 40, 40], labels))
    found = min_cllr([0.1, 0.2, 0.3, 0.4, 0.5], labels)
    # By hand: {F}, {T, F} at prior odds 3/2, {T}, {T}.
    llr = math.log(1 / 1.5)
    assert found == pytest.approx((bits(llr, True) / 3 + bits(llr, False) / 2) / 2)
    assert found <= best + 1e-12 and best - found < 0.02


def test_min_cllr_depends_on_the_order_alone():
    rng = np.random.default_rng(0)
    labels = rng.random(200) < 0.3
    scores = rng.standard_normal(200) + labels
    assert min_cllr(scores, labels) == min_cllr(1e-17 * scores, labels)
    assert min_cllr(scores, labels) == pytest.approx(min_cllr(np.exp(scores), labels), abs=1e-12)
    assert min_cllr(scores, labels) <= cllr(scores, labels)
    assert min_cllr(labels * 1.0, labels) == 0
    assert min_cllr(-1.0 * labels, labels) == pytest.approx(1)


@pytest.mark.parametrize("measure", [cllr, min_cllr])
def test_unusable_input(measure):
    with pytest.raises(ValueError, match="none of the 2 trials is a non-target trial"):
        measure([0.0, 1.0], [1, 1])
    with pytest.raises(ValueError, match="1 of 2 scores are not finite"):
        measure([0.0, np.inf], [0, 1])
