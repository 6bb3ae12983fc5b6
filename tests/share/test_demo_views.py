"""What the demo shows: places on the axis by hand, and every decision in words, escaped."""

import shutil

import html5lib
import numpy as np
import pytest

from wespeaker_lap.score.operating import OperatingPoint
from wespeaker_lap.share import bundle
from wespeaker_lap.share.decision import Decision
from wespeaker_lap.share.demo_scale import Spread, lay_out, read_spread
from wespeaker_lap.share.demo_views import (
    name_files,
    show_decision,
    show_head,
    show_identity,
    show_message,
)
from wespeaker_lap.share.opening import open_model

POINT = OperatingPoint(trials="vox & co", norm="none", point="eer", threshold=0.4,
                       false_accept=0.0312, false_reject=0.031, num_target=100, num_nontarget=1000,
                       trials_sha256="", p_target=0.01)
WARNING = "First recording: about 0.6 s of speech; scores are reliable from 2 s"


def decision(score, threshold=0.4, warnings=(), **more):
    accepted = "accepted" if score >= threshold else "rejected"
    return Decision(accepted, score, threshold, "EER point of vox", "none", "ok", warnings, **more)


def parse(html):
    """The text and the elements; broken or unbalanced HTML fails."""
    parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
    tree = parser.parseFragment(html)
    return " ".join("".join(tree.itertext()).split()), list(tree.iter())


def find(elements, css_class):
    return [one for one in elements if css_class in str(one.get("class", "")).split()]


def left(element):
    return float(element.get("style").removeprefix("left: ").removesuffix("%"))


def test_cosines_stand_where_they_should():
    scale = lay_out([0.75, 0.1], 0.4, "none")
    # 0 and 1 with a twentieth on either side: 1.1 wide, from -0.05 on
    assert (scale.low, scale.high) == (pytest.approx(-0.05), pytest.approx(1.05))
    assert scale.threshold == pytest.approx(100 * 0.45 / 1.1, abs=1e-3)
    assert scale.scores == (pytest.approx(100 * 0.8 / 1.1, abs=1e-3),
                            pytest.approx(100 * 0.15 / 1.1, abs=1e-3))
    assert [(label, place) for place, label in scale.ticks][:2] == [
        ("0", pytest.approx(100 * 0.05 / 1.1, abs=1e-3)),
        ("0.2", pytest.approx(100 * 0.25 / 1.1, abs=1e-3))]


@pytest.mark.parametrize(("score", "threshold", "norm"), [
    (-0.9, -0.8, "none"), (0.99, 0.98, "none"), (40.0, 3.0, "asnorm"), (3.0, 3.0, "snorm"),
    (-60.0, 3.0, "asnorm")])
def test_each_side_of_the_threshold_has_a_quarter_at_least(score, threshold, norm):
    scale = lay_out([score], threshold, norm)
    assert 25 - 1e-3 <= scale.threshold <= 75 + 1e-3
    assert 0 <= scale.scores[0] <= 100
    assert (scale.scores[0] < scale.threshold) == (score < threshold)


def test_histograms_behind_the_scores():
    targets, nontargets = np.full(10, 0.9), np.repeat([0.1, 0.3], [30, 10])
    scale = lay_out([0.5], 0.5, "none", Spread(targets, nontargets))
    width = 1.1 / 40  # bins of the axis from -0.05 to 1.05
    corners = [[tuple(map(float, pair.split(","))) for pair in outline.split()]
               for outline in (scale.targets, scale.nontargets)]
    for points, heights in zip(corners, ({0.9: 1.0}, {0.1: 0.75, 0.3: 0.25}), strict=True):
        assert points[0] == (0, 100) and points[-1] == (100, 100)
        expected = np.full(40, 100.0)
        for score, height in heights.items():  # areas of 1: the tallest bin holds everything
            expected[int((score + 0.05) / width)] = 100 - 92 * height
        for number, y in enumerate(expected):
            assert points[2 * number + 1][1] == points[2 * number + 2][1] == pytest.approx(y)


def test_a_spread_widens_the_axis():
    scale = lay_out([0.5], 0.5, "none", Spread(np.array([0.9]), np.array([-0.5, 0.2])))
    assert scale.low == pytest.approx(-0.5 - 0.05 * 1.5)


def test_the_spread_is_that_of_the_threshold(scored, tmp_path):
    with open_model(scored) as parts:
        points = parts.find_points()
    for norm, file in (("none", "pairs.score"), ("asnorm", "train_asnorm3_pairs.score")):
        point = next(one for one in points if (one.norm, one.point) == (norm, "eer"))
        lines = [line.split() for line in (scored / "scores" / file).read_text().splitlines()]
        spread = read_spread(scored, point)
        for found, kind in ((spread.targets, "target"), (spread.nontargets, "nontarget")):
            assert found.tolist() == [float(line[2]) for line in lines if line[3] == kind]
    packed = shutil.copytree(scored, tmp_path / "packed")
    (packed / bundle.MANIFEST).touch()
    assert read_spread(packed, point) is None
    assert read_spread("hf://org/name", point) is None


def test_an_accepted_pair():
    text, elements = parse(show_decision(decision(0.75, warnings=(WARNING,)), POINT))
    assert "Accepted: one speaker" in text and "Rejected" not in text
    assert "0.75000 (cosine)" in text and "0.40000, EER point of vox" in text
    assert "3.1 % of different speakers accepted, 3.1 % of same speakers rejected" in text
    assert WARNING in text
    assert find(elements, "lap-accepted") and not find(elements, "lap-targets")
    line, = find(elements, "lap-score")
    assert float(line.get("x1")) == pytest.approx(100 * 0.8 / 1.1, abs=1e-3)
    no, yes = find(elements, "lap-no")[0], find(elements, "lap-yes")[0]
    assert float(no.get("width")) == float(yes.get("x")) == pytest.approx(40.909)
    assert float(no.get("width")) + float(yes.get("width")) == pytest.approx(100)


def test_a_rejected_pair_with_a_threshold_of_ones_own():
    text, elements = parse(show_decision(decision(0.39999)))
    assert "Rejected: two speakers" in text and "Errors at it" not in text
    assert find(elements, "lap-rejected")


def test_a_pair_before_its_trial_list():
    spread = Spread(np.array([0.8, 0.9]), np.array([0.1]))
    text, elements = parse(show_decision(decision(0.5), POINT, spread))
    assert "the scores of vox & co: different speakers, the same speaker." in text
    assert len(find(elements, "lap-targets")) == len(find(elements, "lap-nontargets")) == 1


def test_no_decision():
    found = Decision(None, None, 0.4, "EER point of vox", "none", "silent",
                     ("First recording: silent",))
    text, elements = parse(show_decision(found, POINT))
    assert text.startswith("No decision First recording: silent Check the microphone")
    assert not find(elements, "lap-scale") and elements[1].get("role") == "alert"


def test_a_ranking():
    ranking = (("<i>Ann</i>", 0.8), ("Bo", 0.4), ("Cy", 0.1))
    found = decision(0.8, speaker="<i>Ann</i>", ranking=ranking)
    text, elements = parse(show_identity(found, 5, POINT))
    assert "It is <i>Ann</i>" in text and "The nearest 3 of 5 enrolled speakers." in text
    assert "of a single comparison" in text
    dots = find(elements, "lap-dot")
    assert [left(dot) for dot in dots] == [
        pytest.approx(100 * (score + 0.05) / 1.1, abs=1e-3) for score in (0.8, 0.4, 0.1)]
    assert len(find(elements, "lap-over")) == 2 and len(find(elements, "lap-under")) == 1
    assert "The nearest" not in parse(show_identity(found, 3, POINT))[0]


def test_a_stranger():
    text, _ = parse(show_identity(decision(0.1, ranking=(("Ann", 0.1),)), 1, POINT))
    assert "Nobody who is enrolled" in text and "of a single comparison" not in text


NASTY = "<script>alert(1)</script>\"'&{{ 1 }}"


@pytest.mark.parametrize("html", [
    show_message(NASTY, [NASTY], NASTY),
    show_decision(decision(0.5, warnings=(NASTY,))),
    show_identity(decision(0.5, speaker=NASTY, ranking=((NASTY, 0.5),)), 1),
    show_head(NASTY, 0.5, NASTY, is_local=True)])
def test_what_users_type_stays_text(html):
    text, elements = parse(html)
    assert NASTY in text and not [one for one in elements if one.tag == "script"]


def test_the_head_says_where_recordings_go():
    assert "stay on this computer" in show_head("lap", 0.5, "EER", is_local=True)
    away = show_head("lap", 0.5, "EER", is_local=False)
    assert "unencrypted" in away and "stay on" not in away


def test_a_name_within_another():
    names = {"/t/a.wav": "First", "/t/a.wav2": "Second"}
    assert name_files("/t/a.wav2: short; /t/a.wav: '/t/a.wav'", names) == (
        "Second: short; First: 'First'")
