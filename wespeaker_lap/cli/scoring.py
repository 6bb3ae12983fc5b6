"""Verbs that score trials and show what came out."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from wespeaker_lap.cli.options import (
    CohortOption,
    DataArg,
    DeviceOption,
    ExpArg,
    MissingOption,
    TopOption,
    load_experiment,
)
from wespeaker_lap.io.commands import note_command


def score(exp_dir: ExpArg, data: DataArg, trials: Annotated[Path, typer.Option()],
          missing: MissingOption = "error") -> None:
    """Cosine scores, EER and minDCF of a trial list (stage 5)."""
    from wespeaker_lap.score.stages import score_trials
    row = score_trials(_scoring_job(exp_dir, data, trials, missing))
    note_command(exp_dir)
    _print_row(row)


def norm_scores(exp_dir: ExpArg, data: DataArg, trials: Annotated[Path, typer.Option()],
                cohort: CohortOption,
                method: Annotated[str, typer.Option(help="asnorm or snorm")] = "asnorm",
                top_n: TopOption = None, missing: MissingOption = "error") -> None:
    """Normalise the scores of a trial list with a cohort of speaker means (stage 6)."""
    from wespeaker_lap.score.stages import normalise_trials
    settings, _ = load_experiment(exp_dir)
    job = _scoring_job(exp_dir, data, trials, missing)
    row = normalise_trials(job, cohort, method, top_n or settings.score.top_n)
    note_command(exp_dir)
    _print_row(row)


def train_calibration(
        exp_dir: ExpArg, train_data: Annotated[Path, typer.Argument(
            help="data directory of the speakers to learn from")],
        cohort: CohortOption, feats: Annotated[Path | None, typer.Option(
            help="its feature store; without, features are computed")] = None,
        top_n: TopOption = None, num_trials: Annotated[int, typer.Option(min=2)] = 30_000,
        crop_seconds: Annotated[list[float], typer.Option(
            help="cut to, besides whole utterances; repeatable")] = (2.0, 4.0),
        seed: Annotated[int, typer.Option(min=0)] = 0,
        checkpoint: Annotated[str, typer.Option(help="stem of a file in models/")] = "avg_model",
        device: DeviceOption = "auto") -> None:
    """Learn to turn AS-norm scores and quality measures into log-likelihood ratios (stage 7)."""
    from wespeaker_lap.engine import calibrate, dist
    settings, mean_set = _scoring_settings(exp_dir)
    job = calibrate.CalibrationJob(train_data, feats, cohort, top_n or settings.score.top_n,
                                   mean_set, checkpoint, num_trials, tuple(crop_seconds), seed)
    with dist.join_world(device) as world:
        calibrate.train_calibration(exp_dir, job, world)


def calibrate_scores(exp_dir: ExpArg, data: DataArg, trials: Annotated[Path, typer.Option()],
                     cohort: CohortOption, top_n: TopOption = None,
                     missing: MissingOption = "error") -> None:
    """Calibrated log-likelihood ratios of a trial list (stage 7)."""
    from wespeaker_lap.score.stages import calibrate_trials
    settings, _ = load_experiment(exp_dir)
    job = _scoring_job(exp_dir, data, trials, missing)
    _print_row(calibrate_trials(job, cohort, top_n or settings.score.top_n))


def fuse_scores(exp_dirs: Annotated[list[Path], typer.Argument(help="folders with scores")],
                data: Annotated[list[Path], typer.Option(
                    help="data directory of the trials; repeatable")],
                train: Annotated[str, typer.Option(help="name of the list to learn from")],
                trials: Annotated[list[str], typer.Option(
                    help="name of a list to fuse the scores of; repeatable")],
                out: Annotated[Path, typer.Option(help="folder of the fused system")],
                norm: Annotated[str, typer.Option(
                    help="which scores: none, asnorm, snorm, qmf")] = "asnorm") -> None:
    """Join the scores of several systems into one log-likelihood ratio."""
    from wespeaker_lap.share.fusion import fuse_systems
    for row in fuse_systems(exp_dirs, data, train, trials, norm, out):
        _print_row(row)


def report(exp_dirs: Annotated[list[Path], typer.Argument(help="folders that training wrote")],
           data: Annotated[list[Path] | None, typer.Option(
               help="data directory whose numbers go on the page; repeatable")] = None,
           audio: Annotated[list[Path] | None, typer.Option(
               help="data directory of the trials: the page plays its worst ones; repeatable")
           ] = None,
           out: Annotated[Path | None, typer.Option(
               help="the page; EXP/report.html of a single one")] = None) -> None:
    """Write RESULTS.md, results.json and plots of each, and one HTML page of all (stage 8)."""
    from wespeaker_lap.share.page import write_page
    from wespeaker_lap.share.report import write_report
    from wespeaker_lap.share.results import format_page, read_results
    if out is None and len(exp_dirs) > 1:
        raise ValueError("a page of several systems needs a place: give --out PAGE.html")
    pages = [write_report(exp_dir) for exp_dir in exp_dirs]
    for exp_dir in exp_dirs:
        note_command(exp_dir)
    page = write_page(out or exp_dirs[0] / "report.html", exp_dirs, data or (), audio or ())
    print(pages[0].read_text(encoding="utf-8") if len(pages) == 1 else
          format_page([read_results(exp_dir / "results.json") for exp_dir in exp_dirs]))
    logging.info("page: %s", page)


def join_reports(exp_dirs: Annotated[list[Path], typer.Argument(help="folders with results")],
                 out: Annotated[Path, typer.Option(help="the page to write")]) -> None:
    """Put the results of several systems or seeds into one table."""
    from wespeaker_lap.share.report import join_results
    join_results(exp_dirs, out)


def compare(exp_dirs: Annotated[list[Path], typer.Argument(
                help="folders with scores, those of the first system first; X-seed1, X-seed2 … "
                     "are one system")],
            data: Annotated[Path, typer.Option(help="data directory of the trials")],
            out: Annotated[Path | None, typer.Option(help="write the table there, too")] = None,
            ) -> None:
    """Say whether systems differ from the first: paired bootstrap of the EER by speaker."""
    from wespeaker_lap.data.datadir import load_data_dir
    from wespeaker_lap.io.table import write_text
    from wespeaker_lap.share.compare import compare_systems, format_comparisons
    table = format_comparisons(compare_systems(exp_dirs, load_data_dir(data).utt2spk))
    if out is not None:
        write_text(out, table)
    print(table, end="")


def _scoring_job(exp_dir: Path, data: Path, trials: Path, missing: str):
    from wespeaker_lap.score.stages import ScoringJob
    settings, mean_set = _scoring_settings(exp_dir)
    return ScoringJob(exp_dir, data, trials, mean_set, missing, settings.score.p_target)


def _scoring_settings(exp_dir: Path) -> tuple:
    """The configuration, and the set whose mean is subtracted."""
    settings, facts = load_experiment(exp_dir)
    return settings, facts["train_set"] if settings.score.subtract_mean else None


def _print_row(row) -> None:
    from wespeaker_lap.score.evaluate import format_metrics
    normalised = row.cohort and f", cohort {row.cohort} ({row.cohort_size}, top {row.top_n})"
    logging.info("%s, %s: %d trials (%d target), coverage %.2f %%%s", row.trials, row.norm,
                 row.num_trials, row.num_target, 100 * row.coverage, normalised or "")
    print(format_metrics(row), end="")


VERBS = (score, norm_scores, train_calibration, calibrate_scores, fuse_scores, report,
         join_reports, compare)
