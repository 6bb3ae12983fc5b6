"""A cohort for each trial: loops over the trials, and a planted speaker."""

import numpy as np
import pytest

from wespeaker_lap.score import leave_out
from wespeaker_lap.score.asnorm import as_norm
from wespeaker_lap.score.cosine import cosine_scores
from wespeaker_lap.score.leave_out import as_norm_leaving_out

COHORT_SPEAKERS = [f"s{n}" for n in range(9)]


@pytest.fixture
def case():
    """12 embeddings of s0 to s5 and 20 trials, target ones among them."""
    rng = np.random.default_rng(3)
    emb, cohort = rng.standard_normal((12, 5)), rng.standard_normal((9, 5))
    speakers = [f"s{n // 2}" for n in range(12)]
    enroll, test = rng.integers(12, size=(2, 20))
    test[:5] = enroll[:5] ^ 1  # the same speaker's other one
    scores = cosine_scores(emb, emb, enroll, test)
    return scores, emb, speakers, enroll, test, cohort


def loop(scores, emb, speakers, enroll, test, cohort, cohort_speakers, top_n):
    """One trial after the other, in plain words."""
    def cosine(a, b):
        return a @ b / np.sqrt((a @ a) * (b @ b))

    found = []
    for score, a, b in zip(scores, enroll, test, strict=True):
        others = [one for one, speaker in zip(cohort, cohort_speakers, strict=True)
                  if speaker not in (speakers[a], speakers[b])]
        parts = []
        for row in (a, b):
            best = sorted((cosine(emb[row], one) for one in others), reverse=True)[:top_n]
            parts.append((score - np.mean(best)) / np.std(best))
        found.append(sum(parts) / 2)
    return found


@pytest.mark.parametrize("top_n", [2, 4, 7])
@pytest.mark.parametrize("block_bytes", [1, 32 << 20])
def test_loops(case, top_n, block_bytes, monkeypatch):
    monkeypatch.setattr(leave_out, "BLOCK_BYTES", block_bytes)
    found = as_norm_leaving_out(*case, COHORT_SPEAKERS, top_n)
    np.testing.assert_allclose(found, loop(*case, COHORT_SPEAKERS, top_n), rtol=1e-4, atol=1e-4)


def test_of_strangers_to_the_cohort_nobody_is_left_out(case):
    scores, emb, _, enroll, test, cohort = case
    strangers = [f"x{n // 2}" for n in range(12)]
    found = as_norm_leaving_out(scores, emb, strangers, enroll, test, cohort, COHORT_SPEAKERS, 9)
    want = as_norm(scores, emb, emb, enroll, test, cohort, 9)
    np.testing.assert_allclose(found, want, rtol=1e-5)


def test_a_planted_speaker_is_not_seen_by_his_own_trials(case):
    """His cohort entry is moved to where it would be everybody's best."""
    scores, emb, speakers, _, _, cohort = case
    enroll, test = np.array([0, 0, 4]), np.array([1, 6, 8])  # of s0; s0 and s3; s2 and s4
    before = as_norm_leaving_out(scores[:3], emb, speakers, enroll, test, cohort, COHORT_SPEAKERS,
                                 3)
    planted = cohort.copy()
    planted[0] = emb[0] + 0.5 * emb[4]  # s0, close to the first and to the third trial
    after = as_norm_leaving_out(scores[:3], emb, speakers, enroll, test, planted, COHORT_SPEAKERS,
                                3)
    assert np.array_equal(before[:2], after[:2])
    assert abs(before[2] - after[2]) > 0.1
    # Left in, he would be his own nearest neighbour.
    seen = as_norm(scores[:1], emb, emb, enroll[:1], test[:1], planted, 3)
    assert abs(seen[0] - after[0]) > 0.1


def test_a_small_cohort_counts_as_far_as_it_goes(case):
    """Of 9 speakers 7 are left without two of them, so 8 means 7, for every trial."""
    np.testing.assert_array_equal(as_norm_leaving_out(*case, COHORT_SPEAKERS, 8),
                                  as_norm_leaving_out(*case, COHORT_SPEAKERS, 7))


def test_too_few_speakers_are_left(case):
    with pytest.raises(ValueError, match=r"two speakers or more: top_n is 1"):
        as_norm_leaving_out(*case, COHORT_SPEAKERS, 1)
    scores, emb, speakers, enroll, test, cohort = case
    with pytest.raises(ValueError, match=r"of the cohort's 3 1 are left without those of a trial"):
        as_norm_leaving_out(scores, emb, speakers, enroll, test, cohort[:3], COHORT_SPEAKERS[:3], 3)


def test_unusable_input(case):
    scores, *others = case
    with pytest.raises(ValueError, match=r"want scores \(20,\) and 12 speakers, got \(3,\), 12"):
        as_norm_leaving_out(scores[:3], *others, COHORT_SPEAKERS, 3)
    with pytest.raises(ValueError, match=r"want a speaker of his own for each of 9 .*, got 8"):
        as_norm_leaving_out(scores, *others, ["s0", *COHORT_SPEAKERS[:8]], 3)
    others[-1] = np.ones_like(others[-1])
    with pytest.raises(ValueError, match="top 3 cohort scores of 20 trials do not differ, the fir"):
        as_norm_leaving_out(scores, *others, COHORT_SPEAKERS, 3)
