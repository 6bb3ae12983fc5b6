"""Stage 7: train the calibration of an experiment's AS-norm scores on training speakers."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wespeaker_lap.data.datadir import DataDir, load_data_dir
from wespeaker_lap.engine import checkpoint
from wespeaker_lap.engine.dist import World
from wespeaker_lap.engine.embed import open_examples
from wespeaker_lap.io.facts import load_facts
from wespeaker_lap.io.weights import check_weights
from wespeaker_lap.score.calibration import Calibration, fit_calibration, save_calibration
from wespeaker_lap.score.calibration_plan import CalibrationPlan, plan_calibration
from wespeaker_lap.score.cllr import cllr
from wespeaker_lap.score.cosine import cosine_scores, index_trials
from wespeaker_lap.score.embeddings import centre, read_cohort
from wespeaker_lap.score.leave_out import as_norm_leaving_out
from wespeaker_lap.score.metrics import eer
from wespeaker_lap.score.quality import FEATURES, measure_sides, measure_trials
from wespeaker_lap.score.stages import calibration_path


@dataclass(frozen=True)
class CalibrationJob:
    """What a calibration is trained on, and for which scores.

    Attributes:
        data_dir: of the speakers that the trials are drawn from.
        feats: its feature store; None: features are computed from its recordings.
        cohort_dir: data directory of the cohort.
        top_n: highest cohort scores that count in AS-norm.
        mean_set: the set whose mean embedding is subtracted; None for none.
        weights: stem of the file in `models/`.
        num_trials: how many trials are drawn.
        crop_seconds: lengths that utterances are cut to, besides whole ones.
        seed: of the draw.
    """

    data_dir: Path
    feats: Path | None
    cohort_dir: Path
    top_n: int
    mean_set: str | None
    weights: str = checkpoint.AVERAGED
    num_trials: int = 30_000
    crop_seconds: Sequence[float] = (2.0, 4.0)
    seed: int = 0

    def describe(self, plan: CalibrationPlan) -> dict:
        """Plain values for the calibration's file."""
        return {"set": self.data_dir.resolve().name, "cohort": self.cohort_dir.name,
                "top_n": self.top_n, "mean_set": self.mean_set, "weights": self.weights,
                "num_trials": len(plan.trials), "num_target": plan.trials.num_target,
                "crop_seconds": list(self.crop_seconds), "seed": self.seed}


def train_calibration(exp_dir: str | Path, job: CalibrationJob, world: World) -> Path | None:
    """Train a calibration and write `calibration/<cohort>_asnorm<top_n>.json`.

    Utterances are embedded whole or as a part, so that the trials have several durations, and a
    trial's own speakers are left out of its cohort.

    Args:
        exp_dir: of the training; stage 4 has embedded the cohort.
        job: what it is trained on.
        world: this process among all.

    Returns:
        The file, on the main process; None on the others.

    Raises:
        FileNotFoundError: the cohort was not embedded.
        ValueError: a store of another identity or without some utterances, too few speakers or
            pairs, a cohort too small for `top_n`.
    """
    exp_dir, data = Path(exp_dir), load_data_dir(job.data_dir)
    source = open_examples(exp_dir, job.feats or data, world, job.weights)
    source.check(sorted(data.wavs))
    features = load_facts(exp_dir)["features"]
    rate = features["sample_rate"] / features["frame_shift"]  # frames a second
    crop_frames = [round(seconds * rate) for seconds in job.crop_seconds]
    plan = plan_calibration(data, source.num_frames, crop_frames, job.num_trials, job.seed)
    check_weights(exp_dir, [job.cohort_dir.name, job.mean_set],
                  checkpoint.weights_path(exp_dir, job.weights))
    speakers, means = read_cohort(exp_dir, job.cohort_dir)
    cohort = centre(exp_dir, means, job.mean_set)
    raw = source.embed([*plan.spans], "embed for calibration", plan.spans)
    if not world.is_main:
        return None
    seconds = np.array([count for _, count in plan.spans.values()]) / rate
    calibration = _fit(plan, data, raw, centre(exp_dir, raw, job.mean_set), seconds, cohort,
                       speakers, job.describe(plan))
    path = calibration_path(exp_dir, job.cohort_dir.name, job.top_n)
    save_calibration(path, calibration)
    return path


def _fit(plan: CalibrationPlan, data: DataDir, raw: np.ndarray, emb: np.ndarray,
         seconds: np.ndarray, cohort: np.ndarray, cohort_speakers: Sequence[str],
         facts: dict) -> Calibration:
    """Normalise the trials, measure their sides, and train.

    Args:
        plan: m utterances and their n trials.
        data: whose they are.
        raw: (m, E) embeddings.
        emb: (m, E) the mean subtracted.
        seconds: (m,) what was embedded.
        cohort: (C, E).
        cohort_speakers: C ids.
        facts: of the training, `top_n` among them.
    """
    utts, labels = [*plan.spans], plan.trials.labels
    sides = index_trials(plan.trials, utts)[:2]
    scores = as_norm_leaving_out(cosine_scores(emb, emb, *sides), emb,
                                 [data.utt2spk[utt] for utt in utts], *sides, cohort,
                                 cohort_speakers, facts["top_n"])
    values = measure_trials(scores, measure_sides(raw, seconds), *sides)
    calibration = fit_calibration(values, labels, FEATURES, facts=facts)
    llrs = calibration.apply(values)
    rate = eer(llrs, labels)
    logging.info("calibration on %d trials (%d target) of %d utterances: EER %.3f %% -> %.3f %%, "
                 "Cllr %.3f", len(labels), labels.sum(), len(utts), 100 * eer(scores, labels),
                 100 * rate, cllr(llrs, labels))
    if rate == 0:
        logging.warning("the training trials are told apart without an error, so how large the "
                        "ratios are is a guess; train the calibration on other speakers or more "
                        "trials")
    return calibration
