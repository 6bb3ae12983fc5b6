"""AS-norm against a float64 loop over trials, and its limits."""

import numpy as np
import pytest

from wespeaker_lap.score import asnorm
from wespeaker_lap.score.asnorm import as_norm, cohort_stats, s_norm, speaker_means
from wespeaker_lap.score.cosine import cosine_scores


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    enroll, test, cohort = (rng.standard_normal((num, 6)).astype(np.float32)
                            for num in (9, 5, 900))
    enroll_index, test_index = rng.integers(1, 9, 30), rng.integers(0, 4, 30)
    return enroll, test, enroll_index, test_index, cohort


def cosines(vector, matrix):
    vector, matrix = vector.astype(np.float64), matrix.astype(np.float64)
    return np.array([vector @ row / np.linalg.norm(vector) / np.linalg.norm(row)
                     for row in matrix])


def normalise_by_loop(case, top_n):
    enroll, test, enroll_index, test_index, cohort = case
    result = []
    for i, j in zip(enroll_index, test_index, strict=True):
        score = cosines(enroll[i], test[j:j + 1])[0]
        sides = []
        for vector in (enroll[i], test[j]):
            top = sorted(cosines(vector, cohort))[::-1][:top_n]
            mean = sum(top) / top_n
            sides.append((score - mean) / (sum((x - mean) ** 2 for x in top) / top_n) ** 0.5)
        result.append(sum(sides) / 2)
    return result


@pytest.mark.parametrize("top_n", [2, 7, 900])
def test_as_norm_equals_a_loop(case, top_n, monkeypatch):
    monkeypatch.setattr(asnorm, "BLOCK_BYTES", 4 * 900 * 3)  # three rows a block
    enroll, test, enroll_index, test_index, cohort = case
    scores = cosine_scores(enroll, test, enroll_index, test_index)
    result = as_norm(scores, enroll, test, enroll_index, test_index, cohort, top_n)
    # The deviation of two scores can be small, which magnifies their float32 rounding.
    np.testing.assert_allclose(result, normalise_by_loop(case, top_n), rtol=2e-4, atol=1e-4)


def test_s_norm_takes_the_whole_cohort(case):
    enroll, test, enroll_index, test_index, cohort = case
    scores = cosine_scores(enroll, test, enroll_index, test_index)
    result = s_norm(scores, enroll, test, enroll_index, test_index, cohort)
    np.testing.assert_allclose(result, normalise_by_loop(case, 900), rtol=2e-5, atol=1e-5)


def test_one_matrix_for_both_sides_gives_the_same(case):
    enroll, test, enroll_index, test_index, cohort = case
    scores = cosine_scores(enroll, test, enroll_index, test_index)
    both = np.concatenate([enroll, test])
    apart = as_norm(scores, enroll, test, enroll_index, test_index, cohort, 10)
    joined = as_norm(scores, both, both, enroll_index, test_index + len(enroll), cohort, 10)
    np.testing.assert_allclose(joined, apart, rtol=1e-4)


def test_utterances_that_no_trial_uses_cost_nothing(case, monkeypatch):
    enroll, test, enroll_index, test_index, cohort = case
    looked_at = []
    stats = asnorm.cohort_stats

    def spy(emb, cohort, top_n, rows):
        looked_at.append(rows.tolist())
        return stats(emb, cohort, top_n, rows)

    monkeypatch.setattr(asnorm, "cohort_stats", spy)
    as_norm(np.zeros(30), enroll, test, enroll_index, test_index, cohort, 10)
    assert looked_at == [sorted(set(enroll_index.tolist())), sorted(set(test_index.tolist()))]


def test_statistics_by_hand():
    cohort = np.array([[1, 0], [0, 1], [-1, 0], [0.6, 0.8]])
    mean, std = cohort_stats(np.array([[2.0, 0.0]]), cohort, top_n=2)  # cosines 1, 0, -1, 0.6
    assert mean == pytest.approx([0.8]) and std == pytest.approx([0.2])


@pytest.mark.parametrize(("top_n", "message"), [(901, "top_n is 901 but the cohort has 900"),
                                                (1, "top_n of 2 or more, got 1")])
def test_top_n_out_of_range(case, top_n, message):
    enroll, test, enroll_index, test_index, cohort = case
    with pytest.raises(ValueError, match=message):
        as_norm(np.zeros(30), enroll, test, enroll_index, test_index, cohort, top_n)


def test_a_cohort_of_duplicates_is_an_error(case):
    enroll, _, _, _, cohort = case
    with pytest.raises(ValueError, match=r"of 2 embeddings do not differ, at rows 3, 8"):
        cohort_stats(enroll, np.repeat(cohort[:1], 5, axis=0), 3, rows=np.array([3, 8]))


def test_shapes_must_fit(case):
    enroll, test, enroll_index, test_index, cohort = case
    with pytest.raises(ValueError, match=r"scores \(30,\), got \(29,\)"):
        as_norm(np.zeros(29), enroll, test, enroll_index, test_index, cohort, 5)
    with pytest.raises(ValueError, match=r"\(9, 6\), \(900, 5\)"):
        as_norm(np.zeros(30), enroll, test, enroll_index, test_index, cohort[:, :5], 5)


def test_speaker_means_by_hand():
    emb = np.array([[1, 2], [5, 6], [3, 4]], dtype=np.float32)
    utt2spk = {"u1": "b", "u2": "a", "u3": "b", "elsewhere": "c"}
    speakers, means = speaker_means(["u1", "u2", "u3"], emb, utt2spk)
    assert speakers == ["a", "b"] and means.tolist() == [[5, 6], [2, 3]]
    assert means.dtype == np.float32
    with pytest.raises(ValueError, match="1 utterances have no speaker: u9"):
        speaker_means(["u1", "u9", "u3"], emb, utt2spk)
    with pytest.raises(ValueError, match=r"\(2, E\)"):
        speaker_means(["u1", "u2"], emb, utt2spk)
    with pytest.raises(ValueError, match="at least one"):
        speaker_means([], emb[:0], utt2spk)
