"""Stages 5 and 6: score a trial list with the embeddings of an experiment, and normalise it.

Beside every score file stand its metrics, as text for people and as JSON for the report. Metrics
are those of the scores as written, with 5 decimals, so that anyone gets them from the file.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from wespeaker_lap.data.datadir import load_data_dir
from wespeaker_lap.data.trials import Trials, read_trials
from wespeaker_lap.io.table import name_some, write_text
from wespeaker_lap.io.vectors import read_vectors, write_vectors
from wespeaker_lap.score.asnorm import as_norm, s_norm, speaker_means
from wespeaker_lap.score.cosine import cosine_scores, index_trials, subtract_mean
from wespeaker_lap.score.evaluate import ResultRow, format_metrics, measure_row
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

    def embeddings(self, set_name: str, name: str = "xvector") -> tuple[list[str], np.ndarray]:
        """Ids and (n, E) embeddings of a set, or means of its speakers, the mean subtracted."""
        utts, vectors = read_vectors(self.exp_dir / "embeddings" / set_name / f"{name}.scp")
        if self.mean_set is None:
            return utts, vectors
        path = self.exp_dir / "embeddings" / self.mean_set / "mean_vec.npy"
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; embed {self.mean_set} (stage 4), or "
                                    f"set score.subtract_mean=false")
        return utts, subtract_mean(vectors, np.load(path, allow_pickle=False))


def score_trials(job: ScoringJob) -> ResultRow:
    """Cosine scores of a trial list: `scores/<trials>.score` and its metrics.

    Raises:
        ValueError: unknown or missing utterances, a broken list; see the parts.
    """
    listed = read_trials(job.trials_path)
    utts, vectors = job.embeddings(job.data_dir.name)
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
    cohort_data = load_data_dir(cohort_dir)
    folder = job.exp_dir / "embeddings" / cohort_dir.name
    speakers, means = speaker_means(*read_vectors(folder / "xvector.scp"), cohort_data.utt2spk)
    shared = set(speakers) & set(load_data_dir(job.data_dir).speakers)
    if shared:
        raise ValueError(f"{cohort_dir}: speakers of the trials are in the cohort: "
                         f"{name_some(sorted(shared))}; choose another --cohort_set")
    if method == "asnorm" and top_n > len(speakers):
        raise ValueError(f"score.top_n is {top_n} and the cohort {cohort_dir} has "
                         f"{len(speakers)} speakers; lower top_n (--top_n) to at most that")
    write_vectors(folder, speakers, means, "spk_xvector")
    _, cohort = job.embeddings(cohort_dir.name, "spk_xvector")
    listed = read_trials(job.trials_path)
    utts, vectors = job.embeddings(job.data_dir.name)
    enroll_index, test_index, kept = index_trials(listed, utts, job.missing)
    scores = cosine_scores(vectors, vectors, enroll_index, test_index)
    if method == "asnorm":
        scores = as_norm(scores, vectors, vectors, enroll_index, test_index, cohort, top_n)
    else:
        scores, top_n = s_norm(scores, vectors, vectors, enroll_index, test_index, cohort), len(
            speakers)
    return _finish(job, f"{cohort_dir.name}_{method}{top_n}_{job.name}", method, listed, kept,
                   scores, cohort=cohort_dir.name, cohort_size=len(speakers), top_n=top_n)


def _finish(job: ScoringJob, name: str, norm: str, listed: Trials, kept: np.ndarray,
            scores: np.ndarray, **cohort: object) -> ResultRow:
    """Write scores, metrics text and the row for the report."""
    trials, scores = listed.select(kept), scores.round(5)
    row = measure_row(job.name, norm, trials, scores, load_data_dir(job.data_dir).utt2spk, listed,
                      job.p_target, seed=job.seed, **cohort)
    stem = job.exp_dir / "scores" / name
    write_scores(f"{stem}.score", trials, scores)
    write_text(f"{stem}.metrics", format_metrics(row))
    facts = {**asdict(row), "score_file": f"{name}.score", "mean_set": job.mean_set,
             "data_dir": str(job.data_dir.resolve())}
    write_text(f"{stem}.json", json.dumps(facts, indent=1) + "\n")
    return row
