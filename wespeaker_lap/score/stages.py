"""Stages 5 to 7: score a trial list with the embeddings of an experiment, normalise, calibrate.

Beside every score file stand its metrics, as text for people and as JSON for the report. Metrics
are those of the scores as written, with 5 decimals, so that anyone gets them from the file.
"""

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from wespeaker_lap.data.datadir import load_data_dir
from wespeaker_lap.data.trials import Trials, count_odd_trials, read_trials
from wespeaker_lap.io.table import name_some, read_lines, write_text
from wespeaker_lap.io.vectors import write_vectors
from wespeaker_lap.io.weights import check_weights
from wespeaker_lap.score.asnorm import as_norm, s_norm
from wespeaker_lap.score.calibration import Calibration, load_calibration
from wespeaker_lap.score.cosine import cosine_scores, index_trials
from wespeaker_lap.score.embeddings import centre, read_cohort, read_set
from wespeaker_lap.score.evaluate import ResultRow, format_metrics, measure_row
from wespeaker_lap.score.quality import FEATURES, measure_sides, measure_trials
from wespeaker_lap.score.scorefile import write_scores

METHODS = ("asnorm", "snorm")


@dataclass(frozen=True)
class ScoringJob:
    """What is scored, with what.

    Args:
        exp_dir: of the training, with `embeddings/<set>/xvector.scp`.
        data_dir: of the set that the trials are of; its folder name is the set's name.
        trials_path: the list.
        mean_set: the set whose mean embedding is subtracted; None for none.
        missing: what to do about trials without an embedding, "error" or "skip".
        p_target: prior of minDCF.
        seed: of the bootstrap.
    """

    exp_dir: Path
    data_dir: Path
    trials_path: Path
    mean_set: str | None
    missing: str = "error"
    p_target: float = 0.01
    seed: int = 0

    @property
    def name(self) -> str:
        """Name of the trial list."""
        return self.trials_path.name.removesuffix(".gz").removesuffix(".kaldi")

    def check(self, *cohorts: str) -> None:
        """Refuse embeddings of different weights.

        Args:
            cohorts: sets that the scores need besides.

        Raises:
            ValueError: names two sets and their weights.
        """
        check_weights(self.exp_dir, [self.data_dir.name, self.mean_set, *cohorts])

    def read_list(self) -> Trials:
        """The trials; a warning tells of those that are likely a mistake of who made the list."""
        trials = read_trials(self.trials_path)
        repeated, own = count_odd_trials(trials)
        if repeated or own:
            logging.warning("%s: %d repeated trials, %d of an utterance with itself; all are "
                            "scored, and count in the error rates", self.trials_path, repeated, own)
        return trials

    def embeddings(self) -> tuple[list[str], np.ndarray]:
        """Ids and (n, E) embeddings of the set, the mean subtracted."""
        utts, vectors = read_set(self.exp_dir, self.data_dir.name)
        return utts, centre(self.exp_dir, vectors, self.mean_set)


def score_trials(job: ScoringJob) -> ResultRow:
    """Cosine scores of a trial list: `scores/<trials>.score` and its metrics.

    Raises:
        ValueError: unknown or missing utterances, a broken list, embeddings of different weights;
            see the parts.
    """
    job.check()
    listed = job.read_list()
    utts, vectors = job.embeddings()
    enroll_index, test_index, kept = index_trials(listed, utts, job.missing)
    scores = cosine_scores(vectors, vectors, enroll_index, test_index)
    return _finish(job, job.name, "none", listed, kept, scores)


def normalise_trials(job: ScoringJob, cohort_dir: Path, method: str, top_n: int) -> ResultRow:
    """Normalised scores: `scores/<cohort>_<method><top_n>_<trials>.score` and its metrics.

    The cohort stays in `embeddings/<cohort>/spk_xvector.{ark,scp}`, for models that are shared.

    Args:
        job: what is scored.
        cohort_dir: data directory whose speakers' mean embeddings are the cohort.
        method: `asnorm` or `snorm`; S-norm takes the whole cohort.
        top_n: highest cohort scores that count in AS-norm.

    Raises:
        ValueError: an unknown method, `top_n` beyond the cohort, a cohort that shares speakers
            with the trials; see also the parts.
    """
    if method not in METHODS:
        raise ValueError(f"unknown normalisation {method!r}; choose {' or '.join(METHODS)}")
    speakers, means = _choose_cohort(job, cohort_dir, method, top_n)
    write_vectors(job.exp_dir / "embeddings" / cohort_dir.name, speakers, means, "spk_xvector")
    cohort = centre(job.exp_dir, means, job.mean_set)
    listed = job.read_list()
    utts, vectors = job.embeddings()
    enroll_index, test_index, kept = index_trials(listed, utts, job.missing)
    scores = cosine_scores(vectors, vectors, enroll_index, test_index)
    if method == "asnorm":
        scores = as_norm(scores, vectors, vectors, enroll_index, test_index, cohort, top_n)
    else:
        scores, top_n = s_norm(scores, vectors, vectors, enroll_index, test_index, cohort), len(
            speakers)
    return _finish(job, f"{cohort_dir.name}_{method}{top_n}_{job.name}", method, listed, kept,
                   scores, cohort=cohort_dir.name, cohort_size=len(speakers), top_n=top_n)


def _choose_cohort(job: ScoringJob, cohort_dir: Path, method: str,
                   top_n: int) -> tuple[list[str], np.ndarray]:
    """Speakers and (C, E) means of a cohort; refuses one that does not fit the trials."""
    job.check(cohort_dir.name)
    speakers, means = read_cohort(job.exp_dir, cohort_dir)
    shared = set(speakers) & set(load_data_dir(job.data_dir).speakers)
    if shared:
        raise ValueError(f"{cohort_dir}: speakers of the trials are in the cohort: "
                         f"{name_some(sorted(shared))}; choose another --cohort_set")
    if method == "asnorm" and top_n > len(speakers):
        raise ValueError(f"score.top_n is {top_n} and the cohort {cohort_dir} has "
                         f"{len(speakers)} speakers; lower top_n (--top_n) to at most that")
    return speakers, means


def calibration_path(exp_dir: Path, cohort_name: str, top_n: int) -> Path:
    """Where the calibration of AS-norm scores is that were made with a cohort."""
    return exp_dir / "calibration" / f"{cohort_name}_asnorm{top_n}.json"


def calibrate_trials(job: ScoringJob, cohort_dir: Path, top_n: int) -> ResultRow:
    """Log-likelihood ratios: `scores/<cohort>_asnorm<top_n>_qmf_<trials>.score` and its metrics.

    Args:
        job: what is scored; its set must have durations.
        cohort_dir: data directory of the cohort, as in the training of the calibration.
        top_n: highest cohort scores that count in AS-norm, as there.

    Raises:
        FileNotFoundError: the calibration was not trained yet.
        ValueError: no durations, a calibration that is for something else, a cohort that does not
            fit; see also the parts.
    """
    calibration = _read_calibration(job, cohort_dir, top_n)
    durations = load_data_dir(job.data_dir).durations
    if not durations:
        raise ValueError(f"{job.data_dir}: no utt2dur; run 'wespeaker-lap audit-data "
                         f"{job.data_dir}'")
    speakers, means = _choose_cohort(job, cohort_dir, "asnorm", top_n)
    cohort = centre(job.exp_dir, means, job.mean_set)
    listed = job.read_list()
    utts, raw = read_set(job.exp_dir, job.data_dir.name)
    unknown = [utt for utt in utts if utt not in durations]
    if unknown:
        raise ValueError(f"{job.data_dir}/utt2dur: no duration for {name_some(unknown)}; embed the "
                         f"set again (stage 4)")
    enroll_index, test_index, kept = index_trials(listed, utts, job.missing)
    emb = centre(job.exp_dir, raw, job.mean_set)
    scores = cosine_scores(emb, emb, enroll_index, test_index)
    scores = as_norm(scores, emb, emb, enroll_index, test_index, cohort, top_n)
    sides = measure_sides(raw, np.array([durations[utt] for utt in utts]))
    llrs = calibration.apply(measure_trials(scores, sides, enroll_index, test_index))
    return _finish(job, f"{cohort_dir.name}_asnorm{top_n}_qmf_{job.name}", "qmf", listed, kept,
                   llrs, cohort=cohort_dir.name, cohort_size=len(speakers), top_n=top_n,
                   is_llr=True)


def _read_calibration(job: ScoringJob, cohort_dir: Path, top_n: int) -> Calibration:
    """The calibration for these scores; refuses one that was trained for others."""
    path = calibration_path(job.exp_dir, cohort_dir.name, top_n)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; run 'wespeaker-lap train-calibration' "
                                f"(stage 7) with this cohort and top_n first")
    calibration = load_calibration(path)
    if tuple(calibration.weights) != FEATURES:
        raise ValueError(f"{path}: its features are {', '.join(calibration.weights)}, want "
                         f"{', '.join(FEATURES)}; train it again (stage 7)")
    trained = calibration.facts
    if trained.get("mean_set") != job.mean_set:
        raise ValueError(f"{path}: it was trained with the mean of {trained.get('mean_set')} "
                         f"subtracted, not of {job.mean_set}; train it again (stage 7)")
    if trained.get("set") == job.data_dir.name:
        raise ValueError(f"{path}: it was trained on the speakers of {job.data_dir.name}, whose "
                         f"trials it would calibrate; train it on another set")
    return calibration


def _finish(job: ScoringJob, name: str, norm: str, listed: Trials, kept: np.ndarray,
            scores: np.ndarray, **about: object) -> ResultRow:
    """Measure scores as they are written, and write everything about them.

    Raises:
        ValueError: the list of another set has left its scores under this name.
    """
    _check_name(job, name)
    trials, scores = listed.select(kept), scores.round(5)
    row = measure_row(job.name, norm, trials, scores, load_data_dir(job.data_dir).utt2spk, listed,
                      job.p_target, seed=job.seed, **about)
    write_scored(job.exp_dir / "scores", name, trials, scores, row, mean_set=job.mean_set,
                 data_dir=str(job.data_dir.resolve()))
    return row


def _check_name(job: ScoringJob, name: str) -> None:
    path = job.exp_dir / "scores" / f"{name}.json"
    try:
        written = Path(json.loads("\n".join(read_lines(path)))["data_dir"]).name
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return  # nothing there, or nothing worth keeping
    if written != job.data_dir.name:
        raise ValueError(f"{path}: scores of a list of {written}, which has the same name as this "
                         f"one of {job.data_dir.name}; rename one list, or remove those scores")


def write_scored(directory: Path, name: str, trials: Trials, scores: np.ndarray, row: ResultRow,
                 mean_set: str | None, **facts: object) -> None:
    """Write `<name>.score`, and beside it the metrics as text and as JSON for the report.

    Args:
        directory: where to.
        name: stem of the files.
        trials: n trials.
        scores: (n,) rounded as they are written.
        row: what was measured of them.
        mean_set: the set whose mean embedding was subtracted.
        facts: more to note in the JSON.
    """
    write_scores(directory / f"{name}.score", trials, scores)
    write_text(directory / f"{name}.metrics", format_metrics(row))
    facts = {**asdict(row), "score_file": f"{name}.score", "mean_set": mean_set, **facts}
    write_text(directory / f"{name}.json", json.dumps(facts, indent=1) + "\n")
