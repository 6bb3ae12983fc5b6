"""The report page: one HTML file that holds everything, for any browser, with no network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from wespeaker_lap.data.datadir import DataDir, load_data_dir
from wespeaker_lap.io.clip import read_clip
from wespeaker_lap.io.commands import read_commands
from wespeaker_lap.io.facts import load_facts
from wespeaker_lap.io.table import read_lines, write_text
from wespeaker_lap.score.evaluate import ResultRow
from wespeaker_lap.score.metrics import min_dcf_threshold
from wespeaker_lap.score.scorefile import read_scores
from wespeaker_lap.share.compare import Comparison, compare_systems
from wespeaker_lap.share.curves import read_curves
from wespeaker_lap.share.data_facts import measure_data
from wespeaker_lap.share.layer_weights import read_layer_weights
from wespeaker_lap.share.norms import find_several, name_norm
from wespeaker_lap.share.page_figures import draw_curves, draw_dets, draw_scores, draw_weights
from wespeaker_lap.share.report import read_scored
from wespeaker_lap.share.results import Results, read_results
from wespeaker_lap.share.worst import WorstTrial, find_worst

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True, eq=False)
class ScoredList:
    """One row of the results and the scores behind it.

    Args:
        row: as in results.json.
        norm: name of the normalisation, for people.
        scores: (n,).
        labels: (n,) bool.
        min_dcf_threshold: score of the lowest cost; None where rejecting all costs least.
        worst: kind of trial -> the worst of them.
    """

    row: ResultRow
    norm: str
    scores: np.ndarray
    labels: np.ndarray
    min_dcf_threshold: float | None
    worst: dict[str, list[WorstTrial]]


@dataclass(frozen=True, eq=False)
class System:
    """All that the page shows of one training.

    Args:
        name: of its folder.
        results: as in results.json.
        lists: its rows with their scores.
        facts: as in model.json.
        config: the text of config.yaml.
        commands: that made it.
        curves: as `curves.read_curves`.
        weights: as `layer_weights.read_layer_weights`.
    """

    name: str
    results: Results
    lists: list[ScoredList]
    facts: dict
    config: str
    commands: list[str]
    curves: dict[str, tuple[np.ndarray, np.ndarray]]
    weights: dict[str, np.ndarray]


def write_page(path: str | Path, exp_dirs: Sequence[Path], data_dirs: Sequence[Path] = (),
               audio_dirs: Sequence[Path] = ()) -> Path:
    """Write the page of one system, or of several side by side.

    Args:
        path: the HTML file, replaced as a whole.
        exp_dirs: of the trainings; `report.write_report` has been there.
        data_dirs: sets whose size and rejects are shown; with several systems, those of the
            trials must be among them, so that differences can be told from chance.
        audio_dirs: sets of the trials; their recordings of the worst trials go into the page.

    Returns:
        The page.

    Raises:
        FileNotFoundError: a folder that was not scored or reported, or no data directory.
        ValueError: files that cannot be read, `audio_dirs` with none of the worst trials, or as
            `compare.compare_systems`.
    """
    found = [read_results(Path(exp_dir) / "results.json") for exp_dir in exp_dirs]
    several = find_several(results.rows for results in found)
    systems = [_read_system(Path(exp_dir), name, results, several) for exp_dir, name, results
               in zip(exp_dirs, _name_apart(exp_dirs), found, strict=True)]
    sets = {data_dir: load_data_dir(data_dir) for data_dir in (*data_dirs, *audio_dirs)}
    speakers = {utt: spk for data in sets.values() for utt, spk in data.utt2spk.items()}
    template = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True,
                           lstrip_blocks=True, undefined=StrictUndefined
                           ).get_template("report.html")
    text = template.render(
        systems=systems, seed_means=_average_seeds(systems),
        comparisons=_compare(exp_dirs, systems, speakers), dets=draw_dets(systems),
        histograms=draw_scores(systems), curves=draw_curves(systems),
        weights=draw_weights(systems), data=[measure_data(data) for data in sets.values()],
        speakers=speakers, clips=_read_clips(systems, [sets[path] for path in audio_dirs]))
    write_text(path, text)
    return Path(path)


def _name_apart(exp_dirs: Sequence[Path]) -> list[str]:
    """The folders' names; the whole paths where two folders have the same name."""
    names = [Path(exp_dir).resolve().name for exp_dir in exp_dirs]
    return names if len(set(names)) == len(names) else [str(exp_dir) for exp_dir in exp_dirs]


def _read_system(exp_dir: Path, name: str, results: Results, several: set[str]) -> System:
    _, _, scored = read_scored(exp_dir)
    if [(row["trials"], row["norm"]) for row in scored] != [(row.trials, row.norm)
                                                            for row in results.rows]:
        raise ValueError(f"{exp_dir}/results.json has other rows than {exp_dir}/scores; report "
                         f"{exp_dir} again")
    lists = [_read_list(exp_dir / "scores" / one["score_file"], row, name_norm(row, several))
             for one, row in zip(scored, results.rows, strict=True)]
    return System(name, results, lists, load_facts(exp_dir),
                  "\n".join(read_lines(exp_dir / "config.yaml")), read_commands(exp_dir),
                  read_curves(exp_dir), read_layer_weights(exp_dir))


def _read_list(path: Path, row: ResultRow, norm: str) -> ScoredList:
    trials, scores = read_scores(path)
    nontargets, targets = find_worst(trials, scores)
    threshold = min_dcf_threshold(scores, trials.labels, row.p_target)
    return ScoredList(row, norm, scores, trials.labels,
                      threshold if np.isfinite(threshold) else None,
                      {"Non-target trials of highest score": nontargets,
                       "Target trials of lowest score": targets})


def _average_seeds(systems: Sequence[System]) -> list[dict]:
    """Mean and standard deviation over the seeds of a system; nothing for a single training."""
    groups: dict[tuple[str, str, str], list[ResultRow]] = {}
    for system in systems:
        for one in system.lists:
            key = (system.results.system, one.row.trials, one.norm)
            groups.setdefault(key, []).append(one.row)
    return [{"system": name, "trials": trials, "norm": norm, "num_seeds": len(rows),
             "eer": mean(row.eer for row in rows), "eer_deviation": stdev(row.eer for row in rows),
             "min_dcf": mean(row.min_dcf for row in rows)}
            for (name, trials, norm), rows in groups.items() if len(rows) > 1]


def _compare(exp_dirs: Sequence[Path], systems: Sequence[System],
             speakers: Mapping[str, str]) -> list[Comparison]:
    """Each system against the first one; nothing without speakers or anything in common."""
    lists: dict[str, set[tuple[str, str]]] = {}
    for system in systems:
        lists.setdefault(system.results.system, set()).update(
            (one.row.trials, one.norm) for one in system.lists)
    first, *others = lists.values()
    if not speakers or not any(first & other for other in others):
        return []
    return compare_systems(exp_dirs, speakers)


def _read_clips(systems: Sequence[System], sets: Sequence[DataDir]) -> Mapping[str, str]:
    """Utterance -> data URI, of all worst trials whose audio is there."""
    if not sets:
        return {}
    wavs = {utt: wav for data in sets for utt, wav in data.wavs.items()}
    utts = dict.fromkeys(utt for system in systems for one in system.lists
                         for kind in one.worst.values() for trial in kind
                         for utt in (trial.enroll, trial.test))
    clips = {utt: read_clip(wavs[utt]) for utt in utts if utt in wavs}
    if not clips:
        raise ValueError(f"{', '.join(str(data.path) for data in sets)}: holds no recording of the "
                         f"worst trials; give --audio the data directory of the trials")
    return clips
