"""Cosine scores against float64 loops, and trials matched to embeddings."""

import numpy as np
import pytest

from wespeaker_lap.data.trials import Trials
from wespeaker_lap.score import cosine
from wespeaker_lap.score.cosine import (
    check_embeddings,
    cosine_scores,
    index_trials,
    subtract_mean,
    unit_rows,
)


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    enroll, test = (rng.standard_normal((num, 5)).astype(np.float32) for num in (7, 4))
    return enroll, test, rng.integers(0, 7, 50), rng.integers(0, 4, 50)


def test_scores_equal_a_loop(case, monkeypatch):
    enroll, test, enroll_index, test_index = case
    monkeypatch.setattr(cosine, "TRIALS_PER_BLOCK", 16)  # several blocks and a short last one
    expected = []
    for i, j in zip(enroll_index, test_index, strict=True):
        a, b = enroll[i].astype(np.float64), test[j].astype(np.float64)
        expected.append(a @ b / np.sqrt(a @ a) / np.sqrt(b @ b))
    np.testing.assert_allclose(cosine_scores(*case), expected, atol=1e-6)
    both = np.concatenate([enroll, test])
    np.testing.assert_allclose(cosine_scores(both, both, enroll_index, test_index + 7), expected,
                               atol=1e-6)


def test_scores_are_within_one_and_ignore_length():
    emb = np.array([[3, 4], [30, 40], [-3, -4], [4, -3]], dtype=np.float32)
    scores = cosine_scores(emb, emb, np.array([0, 0, 0]), np.array([1, 2, 3]))
    np.testing.assert_allclose(scores, [1, -1, 0], atol=1e-7)
    rows = np.arange(1000)
    emb = np.random.default_rng(0).standard_normal((1000, 192)).astype(np.float32)
    assert cosine_scores(emb, emb, rows, rows).max() <= 1  # float32 rounds some of them above 1


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_unusable_embeddings_are_named(value):
    emb = np.ones((20, 3), dtype=np.float32)
    emb[5:17] = value
    with pytest.raises(ValueError, match=r"12 of 20 embeddings .* rows 5, 6, .* and 2 more"):
        unit_rows(emb)
    with pytest.raises(ValueError, match=r"12 utterances .*: u5, u6, .* and 2 more"):
        check_embeddings([f"u{i}" for i in range(20)], emb)
    check_embeddings(["u0"], emb[:1])


def test_shapes_must_fit(case):
    enroll, test, enroll_index, test_index = case
    with pytest.raises(ValueError, match=r"\(7, 5\), \(4, 4\)"):
        cosine_scores(enroll, test[:, :4], enroll_index, test_index)
    with pytest.raises(ValueError, match=r"\(50,\), \(49,\)"):
        cosine_scores(enroll, test, enroll_index, test_index[1:])
    with pytest.raises(ValueError, match=r"test index runs from .* to 9, but there are 4"):
        cosine_scores(enroll, test, enroll_index, np.where(test_index == 0, 9, test_index))
    with pytest.raises(ValueError, match=r"\(n, E\), got \(5,\)"):
        unit_rows(enroll[0])
    with pytest.raises(ValueError, match=r"\(2, E\)"):
        check_embeddings(["a", "b"], enroll)


def test_subtract_mean():
    emb = np.array([[1, 2], [3, 4]], dtype=np.float32)
    result = subtract_mean(emb, np.array([1.0, 3.0]))
    assert result.tolist() == [[0, -1], [2, 1]] and result.dtype == np.float32
    with pytest.raises(ValueError, match="mean"):
        subtract_mean(emb, np.zeros(3))


def test_index_finds_the_rows():
    trials = Trials(["b", "a", "b"], ["a", "c", "c"], np.array([True, False, True]))
    enroll_index, test_index, kept = index_trials(trials, ["c", "a", "b", "unused"])
    assert (enroll_index.tolist(), test_index.tolist()) == ([2, 1, 2], [1, 0, 0])
    assert kept.tolist() == [True, True, True]


def test_missing_utterances():
    enroll = ["a"] * 13
    test = [f"x{i:02d}" for i in range(12)] + ["b"]
    trials = Trials(enroll, test, np.zeros(13, dtype=bool))
    with pytest.raises(ValueError, match="12 utterances in 12 of 13 trials") as info:
        index_trials(trials, ["a", "b"])
    assert "x00, x01" in str(info.value) and "x09 and 2 more" in str(info.value)
    enroll_index, test_index, kept = index_trials(trials, ["a", "b"], missing="skip")
    assert (enroll_index.tolist(), test_index.tolist()) == ([0], [1])
    assert kept.tolist() == [False] * 12 + [True]
    with pytest.raises(ValueError, match="none of the 13 trials"):
        index_trials(trials, ["b"], missing="skip")


def test_index_refuses_duplicates_and_unknown_ways():
    trials = Trials(["a"], ["b"], np.array([True]))
    with pytest.raises(ValueError, match="more than one embedding"):
        index_trials(trials, ["a", "b", "a"])
    with pytest.raises(ValueError, match="'error' or 'skip'"):
        index_trials(trials, ["a", "b"], missing="ignore")
