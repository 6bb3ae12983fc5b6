"""Scored trials to one row of results: error rates, their interval, and what they stand for."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from wespeaker_lap.data.trials import Trials, trials_hash
from wespeaker_lap.io.table import name_some
from wespeaker_lap.score.bootstrap import choose_num_resamples, eer_interval
from wespeaker_lap.score.cllr import cllr, min_cllr
from wespeaker_lap.score.metrics import eer, eer_threshold, min_dcf

NORMS = ("none", "snorm", "asnorm", "qmf")
SECOND_P_TARGET = 0.05  # the prior of VoxSRC, whose minDCF is measured besides


@dataclass(frozen=True)
class ResultRow:
    """What one system does on one trial list with one kind of score normalisation.

    Args:
        trials: name of the trial list.
        norm: "none", "snorm", "asnorm", or "qmf" (calibration on top of AS-norm).
        eer: in percent.
        eer_ci: interval of the EER by speaker bootstrap, in percent.
        min_dcf: normalised, at `p_target` and costs of 1.
        num_trials: trials that were scored.
        num_target: how many of them are target trials.
        coverage: share of the list that was scored, below 1 only when trials were skipped.
        trials_sha256: hash of the whole list, see `trials.trials_hash`.
        threshold: score at the EER; accept what is at or above it.
        p_target: prior of minDCF.
        ci_level: level of the interval.
        ci_resamples: number of speaker resamples.
        cohort: name of the cohort, None without normalisation.
        cohort_size: its number of speakers, None without normalisation.
        top_n: cohort scores that count, None without normalisation.
        min_dcf_05: as `min_dcf`, at `SECOND_P_TARGET`; None in results of earlier versions, as is
            `min_cllr`.
        min_cllr: Cllr after the best calibration on the very trials, in bits.
        cllr: in bits, None where the scores are no log-likelihood ratios.
    """

    trials: str
    norm: str
    eer: float
    eer_ci: tuple[float, float]
    min_dcf: float
    num_trials: int
    num_target: int
    coverage: float
    trials_sha256: str
    threshold: float
    p_target: float
    ci_level: float
    ci_resamples: int
    cohort: str | None = None
    cohort_size: int | None = None
    top_n: int | None = None
    min_dcf_05: float | None = None
    min_cllr: float | None = None
    cllr: float | None = None


def measure_row(name: str, norm: str, trials: Trials, scores: np.ndarray,
                utt2spk: Mapping[str, str], listed: Trials | None = None, p_target: float = 0.01,
                level: float = 0.95, seed: int = 0, cohort: str | None = None,
                cohort_size: int | None = None, top_n: int | None = None,
                is_llr: bool = False) -> ResultRow:
    """Measure scored trials.

    Args:
        name: name of the trial list.
        norm: one of `NORMS`.
        trials: the n scored trials.
        scores: (n,) their scores.
        utt2spk: utterance -> speaker, for the bootstrap.
        listed: the whole list, when trials were skipped.
        p_target: prior of minDCF.
        level: of the confidence interval.
        seed: of the bootstrap.
        cohort, cohort_size, top_n: what the scores were normalised with.
        is_llr: whether the scores are natural logarithms of likelihood ratios.

    Returns:
        The row.

    Raises:
        ValueError: an unknown normalisation, an utterance without a speaker, or as
            `bootstrap.eer_interval`.
    """
    if norm not in NORMS:
        raise ValueError(f"want norm {' or '.join(map(repr, NORMS))}, got {norm!r}")
    enroll_spk, test_spk = _find_speakers(name, trials, utt2spk)
    listed = listed or trials
    num_resamples = choose_num_resamples(len(trials))
    low, high = eer_interval(scores, trials.labels, enroll_spk, test_spk, num_resamples, seed,
                             level)
    return ResultRow(
        trials=name, norm=norm, eer_ci=(100 * low, 100 * high), num_trials=len(trials),
        num_target=trials.num_target, coverage=len(trials) / len(listed),
        trials_sha256=trials_hash(listed), p_target=p_target, ci_level=level,
        ci_resamples=num_resamples, cohort=cohort, cohort_size=cohort_size, top_n=top_n,
        **_measure_costs(scores, trials.labels, p_target, is_llr))


def _measure_costs(scores: np.ndarray, labels: np.ndarray, p_target: float,
                   is_llr: bool) -> dict[str, float | None]:
    """What is a function of scores and labels alone, by the names of `ResultRow`."""
    return {"eer": 100 * eer(scores, labels), "threshold": eer_threshold(scores, labels),
            "min_dcf": min_dcf(scores, labels, p_target),
            "min_dcf_05": min_dcf(scores, labels, SECOND_P_TARGET),
            "min_cllr": min_cllr(scores, labels),
            "cllr": cllr(scores, labels) if is_llr else None}


def _find_speakers(name: str, trials: Trials,
                   utt2spk: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Speakers of both sides of all trials."""
    unknown = sorted({*trials.enroll, *trials.test} - utt2spk.keys())
    if unknown:
        raise ValueError(f"{name}: {len(unknown)} utterances have no speaker: "
                         f"{name_some(unknown)}; add them to utt2spk")
    return [utt2spk[utt] for utt in trials.enroll], [utt2spk[utt] for utt in trials.test]


def format_metrics(row: ResultRow) -> str:
    """The two lines that WeSpeaker writes about a score file, with the EER in percent, and others.

    Args:
        row: what was measured.

    Returns:
        `EER = …` and `minDCF (p_target:… c_miss:1 c_fa:1) = …`, each with a newline; then, where
        they were measured, minDCF at the other prior, Cllr and min Cllr.
    """
    costs = {f"minDCF (p_target:{row.p_target:g} c_miss:1 c_fa:1)": row.min_dcf,
             f"minDCF (p_target:{SECOND_P_TARGET:g} c_miss:1 c_fa:1)": row.min_dcf_05,
             "Cllr": row.cllr, "min Cllr": row.min_cllr}
    return f"EER = {row.eer:.3f}\n" + "".join(
        f"{name} = {cost:.3f}\n" for name, cost in costs.items() if cost is not None)
