"""Stage 8: everything that was measured of an experiment, on one page."""

import json
from pathlib import Path

from wespeaker_lap.config import load_config
from wespeaker_lap.io.facts import load_facts, name_encoder
from wespeaker_lap.io.table import read_lines, write_text
from wespeaker_lap.score.evaluate import NORMS, ResultRow
from wespeaker_lap.score.scorefile import read_scores
from wespeaker_lap.share.cost import read_cost
from wespeaker_lap.share.norms import find_several, name_norm
from wespeaker_lap.share.plots import plot_det, plot_histogram
from wespeaker_lap.share.results import Results, format_page, read_results, write_results


def write_report(exp_dir: str | Path) -> Path:
    """Collect the metrics of all score files of an experiment.

    Args:
        exp_dir: of the training; stage 5 or later has written `scores/`.

    Returns:
        The page: `RESULTS.md`, beside it `results.json`, `det.png` and score histograms.

    Raises:
        FileNotFoundError: nothing was scored yet.
        ValueError: metrics that cannot be read; names the file.
    """
    exp_dir = Path(exp_dir)
    facts = load_facts(exp_dir)
    system, seed, scored = read_scored(exp_dir)
    rows = [to_row(facts) for facts in scored]
    plots = _draw(exp_dir, scored, rows)
    mean_set = scored[0]["mean_set"]
    results = Results(system=system, seed=seed, rows=rows,
                      encoder=name_encoder(facts), params=facts["num_params"],
                      large_margin=_has_larger_margin(exp_dir, facts),
                      mean_subtraction=mean_set, cost=read_cost(exp_dir))
    write_results(exp_dir, results, plots)
    return exp_dir / "RESULTS.md"


def read_scored(exp_dir: str | Path) -> tuple[str, int, list[dict]]:
    """What was scored in an experiment.

    Args:
        exp_dir: of the training.

    Returns:
        The system's name, which its seeds share; the seed; the metrics of every score file, by
        trial list and normalisation, each with the name of its `score_file`.

    Raises:
        FileNotFoundError: nothing was scored yet.
        ValueError: metrics that cannot be read; names the file.
    """
    exp_dir = Path(exp_dir)
    seed = load_config(exp_dir / "config.yaml").seed
    scored = [_read_metrics(path) for path in sorted((exp_dir / "scores").glob("*.json"))]
    if not scored:
        raise FileNotFoundError(f"{exp_dir}/scores: nothing was scored yet; run stage 5")
    scored.sort(key=lambda row: (row["trials"], NORMS.index(row["norm"])))
    return exp_dir.resolve().name.removesuffix(f"-seed{seed}"), seed, scored


def join_results(exp_dirs: list[Path], path: Path) -> None:
    """Put the results of several systems or seeds into one table.

    Args:
        exp_dirs: folders with a results.json.
        path: the page.
    """
    write_text(path, format_page([read_results(d / "results.json") for d in exp_dirs]))


def _has_larger_margin(exp_dir: Path, facts: dict) -> bool:
    """Whether it began with the weights of a training that had a smaller margin."""
    before = facts.get("init", {}).get("margin")
    loss = load_config(exp_dir / "config.yaml").loss
    return before is not None and getattr(loss, "margin", 0.0) > before


def _read_metrics(path: Path) -> dict:
    """Read the metrics that stand beside a score file."""
    try:
        facts = json.loads("\n".join(read_lines(path)))
        to_row(facts)  # complains about whatever is missing
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: not the metrics of a score file ({error}); remove it and score "
                         f"the list again") from error
    return facts


def to_row(facts: dict) -> ResultRow:
    """What was measured of a score file, from the metrics of `read_scored`."""
    own = dict(facts)
    del own["score_file"], own["mean_set"]
    own.pop("data_dir", None)  # not noted by earlier versions; `pack` asks for it
    return ResultRow(**{**own, "eer_ci": tuple(own["eer_ci"])})


def _draw(exp_dir: Path, scored: list[dict], rows: list[ResultRow]) -> dict[str, str]:
    """Draw all systems' DET curves and each one's histogram; title -> file."""
    curves, plots = {}, {"DET curves": "det.png"}
    for facts, row in zip(scored, rows, strict=True):
        trials, scores = read_scores(exp_dir / "scores" / facts["score_file"])
        title = f"{row.trials}, {name_norm(row, find_several([rows]))}"
        curves[title] = (scores, trials.labels)
        file = f"histogram_{Path(facts['score_file']).stem}.png"
        plot_histogram(exp_dir / file, scores, trials.labels, title)
        plots[f"Scores: {title}"] = file
    plot_det(exp_dir / "det.png", curves, exp_dir.name)
    return plots
