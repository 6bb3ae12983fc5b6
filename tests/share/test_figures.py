"""Figures as parts of a page: colours in the order of the legend, points where they belong."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from scipy.special import ndtri

from wespeaker_lap.share.curves import MAX_POINTS, read_curves
from wespeaker_lap.share.figures import PALETTE, line_key, make_bars, make_det, make_lines
from wespeaker_lap.share.page_figures import CURVES


def read_svg(svg):
    """The tree of a figure; it is part of a page, so it names no namespaces."""
    return ET.fromstring(svg.replace("xlink:", ""))


def find_lines(tree, color):
    """Points of every path that is drawn in a colour, (n, 2) each, in the figure's units."""
    return [np.array(re.findall(r"[ML] ([-\d.]+) ([-\d.]+)", path.get("d")), dtype=float)
            for path in tree.iter("path")
            if f"stroke: {color}" in path.get("style", "") and "fill: none" in path.get("style")]


def test_det_curves_have_the_colours_of_their_legend():
    rng = np.random.default_rng(0)
    labels = np.arange(4000) % 2 == 0
    noise = rng.standard_normal(4000)
    tree = read_svg(make_det([(noise + gap * labels, labels) for gap in (1.0, 2.0, 3.0)], "alt"))
    x, y = tick_scale(tree, "False acceptance rate (%)"), tick_scale(tree, None)
    assert x == pytest.approx(-y, rel=0.25)  # nearly square
    for number, gap in enumerate((1.0, 2.0, 3.0)):
        curve, = find_lines(tree, PALETTE[number])
        # Normal scores give a straight line, probit(miss) = -gap - probit(false acceptance).
        points = curve / [x, y]
        middle = points[len(points) // 3:2 * len(points) // 3]
        slope = np.polyfit(*middle.T, 1)[0]
        assert slope == pytest.approx(-1, abs=0.3), gap
    order = [find_lines(tree, color)[0][:, 1].mean() for color in PALETTE[:3]]
    assert order == sorted(order)  # fewer errors are further down


def tick_scale(tree, label):
    """Units of the figure per normal deviate, from where the ticks 1 % and 20 % stand."""
    axis = 0 if label else 1
    found = {}
    for text in tree.iter("text"):
        if text.text in ("1", "20"):
            found.setdefault(text.text, []).append((float(text.get("x")), float(text.get("y"))))
    return (found["20"][axis][axis] - found["1"][axis][axis]) / (ndtri(0.2) - ndtri(0.01))


def test_lines_keep_the_systems_colours():
    steps = np.arange(50.0)
    tree = read_svg(make_lines({1: (steps, steps), 7: (steps, 2 * steps)}, "Loss", "alt"))
    assert not find_lines(tree, PALETTE[0])
    solid, dashed = find_lines(tree, PALETTE[1])  # the eighth is the second again, dashed
    assert line_key(1) == (PALETTE[1], "solid") and line_key(7) == (PALETTE[1], "dashed")
    assert np.ptp(dashed[:, 1]) == pytest.approx(2 * np.ptp(solid[:, 1]), rel=0.01)


def test_bars_are_as_high_as_their_weights():
    tree = read_svg(make_bars(np.array([0.1, 0.3, 0.6]), [0, 4, 8], "alt"))
    heights = [np.ptp(np.array(re.findall(r"[ML] [-\d.]+ ([-\d.]+)", path.get("d")), dtype=float))
               for path in tree.iter("path") if f"fill: {PALETTE[0]}" in path.get("style", "")]
    assert np.array(heights) / sum(heights) == pytest.approx([0.1, 0.3, 0.6], abs=1e-3)
    assert {"0", "4", "8"} <= {text.text for text in tree.iter("text")}


def test_figures_take_the_colour_of_the_page():
    svg = make_bars(np.array([0.5, 0.5]), [0, 1], 'say "<b>"')
    assert "currentColor" in svg and "#123457" not in svg and "#000000" not in svg
    assert read_svg(svg).get("aria-label") == 'say "<b>"'


def test_curves_are_read_and_thinned(tmp_path):
    lines = [f'{{"step": {n}, "loss": {1000 - n}, "acc": 0.5, "lr": 0.1}}' for n in range(1, 1001)]
    lines.insert(500, '{"step": 500, "epoch": 1, "loss": -7, "acc": 0.9, "valid_eer": 12.5}')
    lines += ['{"step": 1000, "epoch": 2, "loss": -7, "valid_eer": 10}', '{"step": 1001, "lo']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    curves = read_curves(tmp_path)
    assert curves.keys() == CURVES.keys()
    steps, losses = curves["loss"]
    assert len(steps) == MAX_POINTS and np.all(np.diff(steps) > 0)
    assert losses == pytest.approx(1000 - steps)  # the mean of a line lies on the line
    assert (steps[0], losses[0]) == (2.5, 997.5)  # of the steps 1 to 4
    assert [values.tolist() for values in curves["valid_eer"]] == [[500, 1000], [12.5, 10]]
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": "low"}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl: a loss or step that is no number"):
        read_curves(tmp_path)
    (tmp_path / "metrics.jsonl").unlink()
    assert read_curves(tmp_path) == {}
