"""Several systems as one: their scores, joined by logistic regression."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from wespeaker_lap.config import load_config
from wespeaker_lap.data.datadir import load_data_dir
from wespeaker_lap.data.trials import Trials
from wespeaker_lap.io.facts import load_facts
from wespeaker_lap.io.table import name_some
from wespeaker_lap.score.calibration import Calibration, fit_calibration, save_calibration
from wespeaker_lap.score.evaluate import ResultRow, measure_row
from wespeaker_lap.score.scorefile import read_scores
from wespeaker_lap.score.stages import write_scored
from wespeaker_lap.share.report import read_scored
from wespeaker_lap.share.results import Results, write_results


def fuse_systems(exp_dirs: Sequence[Path], data_dirs: Sequence[Path], train: str,
                 trials: Sequence[str], norm: str, out: Path) -> list[ResultRow]:
    """Fuse the scores of several systems, and write them as those of a system of their own.

    Writes `fusion.json`, `scores/`, `RESULTS.md` and `results.json`, which `join-reports` reads.

    Args:
        exp_dirs: folders of the systems, all of them with scores of all the lists.
        data_dirs: of the lists to fuse, for the speakers.
        train: name of the list that the fusion is trained on, of other speakers than the lists
            to fuse.
        trials: names of the lists to fuse.
        norm: which of the systems' scores, see `evaluate.NORMS`.
        out: the folder; made where it is missing.

    Returns:
        One row a list.

    Raises:
        FileNotFoundError: a folder without scores.
        ValueError: fewer than two systems or two of one name, scores that are missing or of other
            trials, utterances in both kinds of lists, or an utterance without a speaker.
    """
    calibration, known = _train(exp_dirs, train, norm)
    lists = [(name, *_read_list(exp_dirs, name, norm)) for name in trials]
    for name, listed, _, _ in lists:
        _check_apart(train, known, name, listed)
    utt2spk: dict[str, str] = {}
    for path in data_dirs:
        utt2spk.update(load_data_dir(path).utt2spk)
    fused = [_fuse(calibration, *one, utt2spk) for one in lists]
    rows = [row for _, row in fused]
    for (_, listed, _, about), (scores, row) in zip(lists, fused, strict=True):
        write_scored(out / "scores", Path(about["score_file"]).stem, listed, scores, row,
                     about["mean_set"])
    save_calibration(out / "fusion.json", calibration)
    write_results(out, _describe(exp_dirs, out.resolve().name, rows))
    return rows


def _train(exp_dirs: Sequence[Path], train: str, norm: str) -> tuple[Calibration, Trials]:
    """The fusion, and the trials that it was trained on."""
    names = [path.resolve().name for path in exp_dirs]
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(f"want two or more systems in folders of different names, got "
                         f"{', '.join(names) or 'none'}")
    known, values, _ = _read_list(exp_dirs, train, norm)
    facts = {"trials": train, "norm": norm, "num_trials": len(known),
             "num_target": known.num_target}
    return fit_calibration(values, known.labels, names, facts=facts), known


def _check_apart(train: str, known: Trials, name: str, listed: Trials) -> None:
    """Refuse to fuse what the fusion was trained on."""
    shared = {*known.enroll, *known.test} & {*listed.enroll, *listed.test}
    if shared:
        raise ValueError(f"{len(shared)} utterances are in {train} and in {name}: "
                         f"{name_some(sorted(shared), 3)}; train on a list of other speakers")


def _read_list(exp_dirs: Sequence[Path], name: str,
               norm: str) -> tuple[Trials, np.ndarray, dict]:
    """The trials of a list, the systems' scores (n, F), and the first system's metrics."""
    trials, columns, about = None, [], {}
    for exp_dir in exp_dirs:
        found = [row for row in read_scored(exp_dir)[2]
                 if (row["trials"], row["norm"]) == (name, norm)]
        if len(found) != 1:
            files = name_some(row["score_file"] for row in found) or "none"
            raise ValueError(f"{exp_dir}/scores: want one score file of the list {name!r} with the "
                             f"normalisation {norm!r}, found {files}")
        path = exp_dir / "scores" / found[0]["score_file"]
        own, scores = read_scores(path)
        if trials is None:
            trials, about = own, found[0]
        elif not _are_same(own, trials):
            raise ValueError(f"{path} has other trials than {exp_dirs[0]}; score the same list")
        columns.append(scores)
    return trials, np.stack(columns, axis=1), about


def _are_same(one: Trials, other: Trials) -> bool:
    return ((one.enroll, one.test) == (other.enroll, other.test)
            and np.array_equal(one.labels, other.labels))


def _fuse(calibration: Calibration, name: str, trials: Trials, values: np.ndarray, about: dict,
          utt2spk: dict[str, str]) -> tuple[np.ndarray, ResultRow]:
    """Scores (n,) of a list, and their row; what was scored and normalised is as in the first."""
    scores = calibration.apply(values).round(5)
    row = measure_row(name, about["norm"], trials, scores, utt2spk, p_target=about["p_target"],
                      is_llr=True)
    kept = ("coverage", "trials_sha256", "cohort", "cohort_size", "top_n")
    return scores, replace(row, **{field: about[field] for field in kept})


def _describe(exp_dirs: Sequence[Path], system: str, rows: list[ResultRow]) -> Results:
    facts = [load_facts(path) for path in exp_dirs]
    encoders = dict.fromkeys(one["features"]["encoder"] for one in facts)
    means = dict.fromkeys(read_scored(path)[2][0]["mean_set"] or "none" for path in exp_dirs)
    return Results(system=system, seed=load_config(exp_dirs[0] / "config.yaml").seed, rows=rows,
                   encoder=" + ".join(encoders), params=sum(one["num_params"] for one in facts),
                   large_margin=False,
                   mean_subtraction=None if [*means] == ["none"] else ", ".join(means))
