"""One row of results from scored trials."""

import math

import numpy as np
import pytest

from wespeaker_lap.data.trials import Trials, trials_hash
from wespeaker_lap.score.evaluate import format_metrics, measure_row

UTT2SPK = {"a1": "a", "a2": "a", "b1": "b", "b2": "b"}
TRIALS = Trials(["a1", "b1", "a1", "a2"], ["a2", "b2", "b1", "b2"],
                np.array([True, True, False, False]))


def test_a_row_by_hand():
    row = measure_row("mini", "asnorm", TRIALS, np.array([4.0, 2.0, 1.0, 3.0]), UTT2SPK,
                      cohort="train", cohort_size=9, top_n=5)
    # At the threshold 3 one target of two is missed and one non-target of two accepted.
    assert (row.trials, row.norm, row.eer, row.threshold) == ("mini", "asnorm", 50.0, 3.0)
    assert (row.num_trials, row.num_target, row.coverage) == (4, 2, 1.0)
    assert row.min_dcf == pytest.approx(0.5) and row.trials_sha256 == trials_hash(TRIALS)
    # Both speakers are in every resample that counts, so each has the EER of the list.
    assert row.eer_ci == (50.0, 50.0) and row.ci_resamples == 1000
    assert (row.cohort, row.cohort_size, row.top_n) == ("train", 9, 5)
    # At both priors rejecting one target, at 4, is best: half of all targets are missed.
    assert row.min_dcf_05 == pytest.approx(0.5) and row.cllr is None
    # The scores rise as non-target, target, non-target, target: the two in the middle are pooled
    # to a ratio of 1, which costs 1 bit each, half of either kind.
    assert row.min_cllr == pytest.approx(0.5)
    assert format_metrics(row) == ("EER = 50.000\nminDCF (p_target:0.01 c_miss:1 c_fa:1) = "
                                   "0.500\nminDCF (p_target:0.05 c_miss:1 c_fa:1) = 0.500\n"
                                   "min Cllr = 0.500\n")


def test_log_likelihood_ratios_have_a_cllr():
    scores = np.log([3.0, 1.0, 1 / 3, 1.0])
    row = measure_row("mini", "qmf", TRIALS, scores, UTT2SPK, is_llr=True)
    # Targets at 3 and 1, non-targets at 1/3 and 1: log2(4/3) and 1 for either kind.
    assert row.cllr == pytest.approx((math.log2(4 / 3) + 1) / 2)
    assert "\nCllr = 0.708\nmin Cllr = 0.500\n" in format_metrics(row)


def test_skipped_trials_lower_the_coverage():
    kept = np.array([True, True, True, False])
    row = measure_row("mini", "none", TRIALS.select(kept), np.array([4.0, 2.0, 1.0]), UTT2SPK,
                      listed=TRIALS)
    assert (row.num_trials, row.coverage, row.eer) == (3, 0.75, 0.0)
    assert row.trials_sha256 == trials_hash(TRIALS)


def test_unusable_input():
    scores = np.arange(4.0)
    with pytest.raises(ValueError, match="'asnorm' or 'qmf', got 'znorm'"):
        measure_row("mini", "znorm", TRIALS, scores, UTT2SPK)
    with pytest.raises(ValueError, match="mini: 2 utterances have no speaker: b1, b2"):
        measure_row("mini", "none", TRIALS, scores, {"a1": "a", "a2": "a"})
