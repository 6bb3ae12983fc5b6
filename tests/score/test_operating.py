"""Operating points, counted by hand, and the choice among them."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from wespeaker_lap.score.evaluate import ResultRow
from wespeaker_lap.score.operating import choose_point, find_points

ROW = ResultRow("list", "none", 0.0, (0.0, 0.0), 0.0, 0, 0, 1.0, "f" * 64, 0.0, 0.01, 0.95, 100)


def rates(scores, labels, threshold):
    """False acceptances and false rejections at a threshold, counted."""
    accepted = scores >= threshold
    return (float((accepted & ~labels).sum() / (~labels).sum()),
            float((~accepted & labels).sum() / labels.sum()))


def test_points_by_counting():
    rng = np.random.default_rng(0)
    labels = np.arange(3000) < 400
    scores = (rng.normal(size=3000) + 2.5 * labels).round(2)  # with many ties
    row = replace(ROW, p_target=0.5)
    points = {one.point: one for one in find_points(row, scores, labels)}
    assert list(points) == ["eer", "far_1", "far_0.1", "min_dcf"]
    for one in points.values():
        assert (one.false_accept, one.false_reject) == pytest.approx(
            rates(scores, labels, one.threshold))
        assert (one.num_target, one.num_nontarget, one.trials) == (400, 2600, "list")
    for name, limit in (("far_1", 0.01), ("far_0.1", 0.001)):
        lowest = min(t for t in {*scores.tolist(), 99.0} if rates(scores, labels, t)[0] <= limit)
        assert points[name].threshold == lowest
    gaps = {t: abs(np.subtract(*rates(scores, labels, t))) for t in set(scores.tolist())}
    assert gaps[points["eer"].threshold] == min(gaps.values())
    costs = {t: 0.5 * accept + 0.5 * reject for t in {*scores.tolist()}
             for accept, reject in [rates(scores, labels, t)]}
    assert costs[points["min_dcf"].threshold] == pytest.approx(min(costs.values()))
    assert points["far_1"].num_false_accepts == round(26 * points["far_1"].false_accept / 0.01)


def test_a_threshold_above_all_scores_is_a_number():
    # The highest score is a non-target's, so nothing but rejecting all keeps its rate.
    points = {one.point: one for one in find_points(
        ROW, np.array([0.1, 0.5, 0.2, 0.9]), np.array([True, True, False, False]))}
    assert points["far_1"].threshold == pytest.approx(0.90001)
    assert (points["far_1"].false_accept, points["far_1"].false_reject) == (0.0, 1.0)
    json.dumps([asdict(one) for one in points.values()], allow_nan=False)


def make(trials, norm, num_nontarget, point="eer"):
    labels = np.arange(num_nontarget + 2) < 2
    found = find_points(replace(ROW, trials=trials, norm=norm, cohort="train", cohort_size=60,
                                top_n=30), labels * 1.0, labels)
    return next(one for one in found if one.point == point)


def test_normalised_scores_and_large_lists_come_first():
    points = [make("O", "none", 90), make("E", "none", 900), make("O", "asnorm", 90),
              make("O", "asnorm", 90, "far_1")]
    assert choose_point(points) is points[2]
    assert choose_point(points, norm="none") is points[1]
    assert choose_point(points, norm="none", trials="O") is points[0]
    assert choose_point(points, "far_1") is points[3]
    assert points[2].describe() == ("EER point of O (2 target and 90 non-target trials), AS-norm "
                                    "with cohort train (60 speakers, top 30)")


@pytest.mark.parametrize(("asked", "message"), [
    ({"point": "far_0.1"}, "no operating point far_0.1; .* choose one of: O none eer"),
    ({"norm": "asnorm"}, "no operating point eer, asnorm; "),
    ({"trials": "H"}, "no operating point eer, H; "),
])
def test_what_is_not_there_is_told(asked, message):
    with pytest.raises(ValueError, match=message):
        choose_point([make("O", "none", 90)], **asked)
    with pytest.raises(ValueError, match="none: no trial list was scored"):
        choose_point([])
