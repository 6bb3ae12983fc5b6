"""Schedules: both ends exact, the values between by hand, and bad ranges."""

import ast
import math

import pytest

from wespeaker_lap.engine import schedule
from wespeaker_lap.engine.schedule import learning_rate, margin_at


def rates(total_steps, peak, final, warmup_steps):
    return [learning_rate(s, total_steps, peak, final, warmup_steps) for s in range(total_steps)]


def test_warm_up_is_linear_and_ends_at_the_peak():
    assert rates(100, 1e-3, 1e-5, 10)[:10] == pytest.approx([1e-4 * n for n in range(1, 11)])


def test_the_cosine_by_hand():
    """Five steps from the peak to the end: quarters of half a period."""
    half = math.sqrt(0.5)
    want = [1.0, 0.6 + 0.4 * half, 0.6, 0.6 - 0.4 * half, 0.2]
    assert rates(5, 1.0, 0.2, 0) == pytest.approx(want)
    assert rates(6, 1.0, 0.2, 2) == pytest.approx([0.5, *want])


@pytest.mark.parametrize("warmup_steps", [0, 1, 2, 30, 299, 300])
def test_the_peak_is_reached_and_nothing_is_above_or_rises_after_it(warmup_steps):
    values = rates(300, 1e-3, 1e-5, warmup_steps)
    top = max(warmup_steps - 1, 0)
    assert values[top] == max(values) == 1e-3
    assert values[:top] == sorted(values[:top])
    assert values[top:] == sorted(values[top:], reverse=True)
    assert values[-1] == (1e-3 if warmup_steps == 300 else pytest.approx(1e-5, rel=1e-12))


def test_a_constant_rate_and_a_single_step():
    assert rates(7, 5e-6, 5e-6, 0) == [5e-6] * 7
    assert rates(1, 1.0, 0.1, 0) == [1.0]


@pytest.mark.parametrize(
    "bad",
    [
        {"step": -1}, {"step": 10}, {"total_steps": 0}, {"warmup_steps": -1},
        {"warmup_steps": 11}, {"final": 2.0}, {"final": -1.0}, {"peak": math.inf},
        {"peak": math.nan}, {"final": math.nan},
    ],
)
def test_bad_learning_rates_are_an_error(bad):
    good = {"step": 3, "total_steps": 10, "peak": 1.0, "final": 0.1, "warmup_steps": 2}
    learning_rate(**good)
    with pytest.raises(ValueError, match="want"):
        learning_rate(**{**good, **bad})


@pytest.mark.parametrize("shape", ["log", "linear"])
def test_margins_are_exact_at_both_ends_and_never_fall(shape):
    epochs = [n / 7 for n in range(25 * 7)]
    margins = [margin_at(e, 3, 20, 0.1, 0.3, shape) for e in epochs]
    assert margins == sorted(margins)
    assert {m for e, m in zip(epochs, margins, strict=True) if e <= 3} == {0.1}
    assert {m for e, m in zip(epochs, margins, strict=True) if e >= 20} == {0.3}
    assert margin_at(3, 3, 20, 0.1, 0.3, shape) == 0.1
    assert margin_at(20, 3, 20, 0.1, 0.3, shape) == 0.3
    # No jump at either end of the window.
    assert margin_at(3 + 1e-9, 3, 20, 0.1, 0.3, shape) == pytest.approx(0.1, abs=1e-8)
    assert margin_at(20 - 1e-9, 3, 20, 0.1, 0.3, shape) == pytest.approx(0.3, abs=1e-8)


def test_the_linear_ramp_by_hand():
    assert margin_at(5, 0, 20, 0.0, 0.2, "linear") == pytest.approx(0.05)


def test_the_log_ramp_by_hand():
    """1000^(1/3) = 10: after thirds of the window 0.9, 0.99 and 0.999 of 0.999."""
    for third, risen in ((1, 0.9), (2, 0.99), (3, 0.999)):
        assert margin_at(third, 0, 3, 0.0, 0.3) == pytest.approx(0.3 * risen / 0.999)


def test_log_ramp_follows_wespeakers_formula():
    """Its ramp, 1 - exp(p ln(1e-3 / (1 + 1e-6))), ends a thousandth short of the margin."""
    for p in (0.05, 0.2, 0.5, 0.9, 1.0):
        theirs = 0.2 * (1 - math.exp(p * math.log(1e-3 / (1 + 1e-6))))
        assert margin_at(20 * p, 0, 20, 0.0, 0.2) == pytest.approx(theirs, rel=1.1e-3)


def test_a_window_without_width_is_a_jump_and_equal_margins_are_constant():
    assert [margin_at(e, 2, 2, 0.0, 0.3) for e in (0, 1.99, 2, 3)] == [0.0, 0.0, 0.3, 0.3]
    assert margin_at(0, 0, 0, 0.0, 0.3) == 0.3
    assert {margin_at(e, 0, 5, 0.5, 0.5) for e in range(8)} == {0.5}


@pytest.mark.parametrize(
    "bad",
    [
        {"epoch_fraction": -0.1}, {"epoch_fraction": math.nan}, {"start_epoch": -1},
        {"end_epoch": 0.5}, {"end_epoch": math.inf}, {"initial": 0.4}, {"initial": -0.1},
        {"final": 4.0}, {"final": math.nan}, {"shape": "exp"},
    ],
)
def test_bad_margins_are_an_error(bad):
    good = {"epoch_fraction": 2.0, "start_epoch": 1.0, "end_epoch": 4.0, "initial": 0.0,
            "final": 0.3, "shape": "log"}
    margin_at(**good)
    with pytest.raises(ValueError, match="want"):
        margin_at(**{**good, **bad})


def test_schedules_need_no_torch():
    with open(schedule.__file__, encoding="utf-8") as file:
        tree = ast.parse(file.read())
    imports = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    names = {n.module if isinstance(n, ast.ImportFrom) else n.names[0].name for n in imports}
    assert names == {"math", "typing"}
