"""Linear calibration: a toy problem whose ratios are known, the prior, and the file."""

import json

import numpy as np
import pytest

from wespeaker_lap.score.calibration import (
    Calibration,
    fit_calibration,
    load_calibration,
    save_calibration,
)
from wespeaker_lap.score.cllr import cllr

NUM = 40_000


def draw(share, seed=0):
    """Two independent features, of deviation 1 and 3, targets at +1 and non-targets at -1."""
    rng = np.random.default_rng(seed)
    labels = rng.random(NUM) < share
    means = np.where(labels, 1.0, -1.0)[:, None]
    return means + rng.standard_normal((NUM, 2)) * [1, 3], labels


def true_llrs(values):
    """log N(x; 1, s) - log N(x; -1, s) = 2 x / s^2, added up over the features."""
    return 2 * values[:, 0] / 1 + 2 * values[:, 1] / 9


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_gaussians_give_their_ratios_whatever_the_prior(share):
    values, labels = draw(share)
    found = fit_calibration(values, labels, ["a", "b"], facts={"set": "train"})
    assert [*found.weights] == ["a", "b"] and found.facts == {"set": "train"}
    assert found.weights["a"] == pytest.approx(2, abs=0.08)
    assert found.weights["b"] == pytest.approx(2 / 9, abs=0.02)
    assert found.bias == pytest.approx(0, abs=0.1)
    others, labels = draw(0.5, seed=1)
    llrs = found.apply(others)
    assert np.abs(llrs - true_llrs(others)).mean() < 0.1
    assert cllr(llrs, labels) - cllr(true_llrs(others), labels) < 1e-3
    # The prior is not in them: the log odds of 0.1 would be off by 2.2.
    assert abs(llrs.mean() - true_llrs(others).mean()) < 0.1


def test_the_unit_of_a_feature_does_not_matter():
    values, labels = draw(0.5)
    values, labels = values[:300], labels[:300]
    plain = fit_calibration(values, labels, ["a", "b"])
    other = fit_calibration(values * [1e-6, 1e4] + [0, 500], labels, ["a", "b"])
    np.testing.assert_allclose(other.apply(values * [1e-6, 1e4] + [0, 500]), plain.apply(values),
                               atol=1e-5)
    assert other.weights["a"] == pytest.approx(1e6 * plain.weights["a"], rel=1e-5)


def test_what_never_changes_has_no_weight():
    values, labels = draw(0.5)
    values = np.column_stack([values, np.full(NUM, 0.1) + 1e-17])
    found = fit_calibration(values, labels, ["a", "b", "constant"])
    assert found.weights["constant"] == 0
    two = fit_calibration(values[:, :2], labels, ["a", "b"])
    np.testing.assert_allclose(found.apply(values), two.apply(values[:, :2]), rtol=1e-4)


def test_it_is_the_same_every_time():
    values, labels = draw(0.5)
    assert fit_calibration(values, labels, ["a", "b"]) == fit_calibration(values, labels,
                                                                          ["a", "b"])


def test_applying_by_hand():
    calibration = Calibration({"a": 2.0, "b": -1.0}, 0.5)
    assert calibration.apply(np.array([[1.0, 3.0], [0.0, 0.0]])).tolist() == [-0.5, 0.5]


def test_the_file_is_plain_json(tmp_path):
    calibration = Calibration({"a": 0.1 + 0.2, "ß": -1e-9}, 1 / 3, {"set": "télé", "top_n": 3})
    path = tmp_path / "calibration" / "x.json"
    save_calibration(path, calibration)
    assert json.loads(path.read_text(encoding="utf-8"))["weights"]["a"] == 0.1 + 0.2
    assert load_calibration(path) == calibration


@pytest.mark.parametrize("text", ["", "{", "[]", '{"weights": {"a": 1}, "bias": 0}', "\x80\x04.",
                                  '{"weights": [1], "bias": 0, "facts": {}}',
                                  '{"weights": {"a": "x"}, "bias": 0, "facts": {}}'])
def test_a_broken_file_is_named(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=r"x\.json: not a calibration with weights, bias and fac"):
        load_calibration(tmp_path / "x.json")


def test_a_file_of_numbers_that_are_none(tmp_path):
    (tmp_path / "x.json").write_text('{"weights": {"a": NaN}, "bias": 0, "facts": {}}')
    with pytest.raises(ValueError, match=r"x\.json: numbers that are not finite"):
        load_calibration(tmp_path / "x.json")
    with pytest.raises(FileNotFoundError, match=r"y\.json: no such file"):
        load_calibration(tmp_path / "y.json")


def test_unusable_input():
    values, labels = draw(0.5)
    with pytest.raises(ValueError, match=r"want features \(n, 3\): a, b, c; got \(40000, 2\)"):
        fit_calibration(values, labels, ["a", "b", "c"])
    with pytest.raises(ValueError, match="features that stand twice: a; rename one"):
        fit_calibration(values, labels, ["a", "a"])
    with pytest.raises(ValueError, match="none of the 40000 trials is a target trial"):
        fit_calibration(values, np.zeros(NUM, bool), ["a", "b"])
    values[3, 1] = np.nan
    with pytest.raises(ValueError, match="features that are not finite numbers: b"):
        fit_calibration(values, labels, ["a", "b"])
    with pytest.raises(ValueError, match=r"want features \(n, 1\): a; got \(40000, 2\)"):
        Calibration({"a": 1.0}, 0.0).apply(values)
