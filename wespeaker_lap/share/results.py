"""The results of a system: one row a trial list and normalisation, as JSON and as a page."""

import datetime
import json
import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib import metadata
from pathlib import Path
from statistics import mean, stdev

from wespeaker_lap.io.table import write_text
from wespeaker_lap.score.evaluate import NORMS, SECOND_P_TARGET, ResultRow
from wespeaker_lap.share.cost import format_costs
from wespeaker_lap.share.norms import find_several, name_way

PACKAGES = ("wespeaker_lap", "torch", "torchaudio", "numpy")


def find_versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Versions of Python and of the installed packages, without importing them."""
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def find_commit(file: str | Path = __file__) -> str | None:
    """Commit of the git checkout that a file belongs to.

    Args:
        file: a file of the checkout; this one, and so the toolkit's commit, by default.

    Returns:
        12 hexadecimal digits, with `+changes` when tracked files differ from the commit; None
        where there is no git, or the file is not tracked (an installed copy, say, whose
        environment happens to lie inside another project's checkout).
    """
    file = Path(file).resolve()
    git = ["git", "--no-optional-locks", "-C", str(file.parent)]
    try:
        subprocess.run([*git, "ls-files", "--error-unmatch", file.name], check=True,
                       capture_output=True)
        commit = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], check=True,
                                capture_output=True, text=True).stdout.strip()
        changes = subprocess.run([*git, "status", "--porcelain", "--untracked-files=no"],
                                 check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{commit}+changes" if changes else commit


@dataclass(frozen=True)
class Results:
    """All rows of one system and the facts that tell how they came about.

    Args:
        system: name of the system.
        seed: of the training.
        rows: the rows.
        encoder: name of the encoder.
        params: number of trained parameters.
        large_margin: whether it was fine-tuned with a large margin.
        mean_subtraction: the set whose mean embedding was subtracted, None for no subtraction.
        date: day of scoring, YYYY-MM-DD.
        versions: package -> version.
        commit: of the toolkit, None when unknown.
        cost: what the training took, see `cost.read_cost`; None when unknown.
    """

    system: str
    seed: int
    rows: list[ResultRow]
    encoder: str
    params: int
    large_margin: bool
    mean_subtraction: str | None
    date: str = field(default_factory=lambda: str(datetime.date.today()))
    versions: dict[str, str] = field(default_factory=find_versions)
    commit: str | None = field(default_factory=find_commit)
    cost: dict[str, float] | None = None


def write_results(directory: str | Path, results: Results,
                  plots: Mapping[str, str] | None = None) -> None:
    """Write `results.json` and `RESULTS.md` of one system, replacing older ones.

    Args:
        directory: where to; made when it is not there.
        results: what to write.
        plots: title -> image file, relative to the directory, to show on the page.

    Raises:
        ValueError: there are no rows.
    """
    page = format_page([results], plots)
    text = json.dumps(asdict(results), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(Path(directory) / "results.json", text + "\n")
    write_text(Path(directory) / "RESULTS.md", page)


def read_results(path: str | Path) -> Results:
    """Read a `results.json`.

    Args:
        path: the file.

    Returns:
        The results.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not JSON, or a key is missing or unknown.
    """
    try:
        facts = json.loads(Path(path).read_text(encoding="utf-8"))
        rows = [ResultRow(**{**row, "eer_ci": tuple(row["eer_ci"])}) for row in facts["rows"]]
        return Results(**{**facts, "rows": rows})
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: no such file; run the stage that writes the "
                                f"results") from error
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: not a results file with the keys "
                         f"{', '.join(known.name for known in fields(Results))} ({error}); write "
                         f"it again with the stage that makes the results") from error


def format_page(systems: Sequence[Results], plots: Mapping[str, str] | None = None) -> str:
    """Write results as a Markdown page; several systems or seeds go into one table.

    Args:
        systems: what to show, in the order of the table.
        plots: title -> image file, relative to the page.

    Returns:
        The text of the page.

    Raises:
        ValueError: there are no rows.
    """
    rows = [row for results in systems for row in results.rows]
    if not rows:
        raise ValueError("no results to write; score at least one trial list")
    costs = _join(rows, lambda row: f"p_target {row.p_target:g}")
    levels = _join(rows, lambda row: f"{100 * row.ci_level:g} %")
    resamples = _join(rows, lambda row: row.ci_resamples)
    parts = [
        "# Results\n", _format_facts(systems), _format_table(systems),
        f"A cell is the EER in % [its {levels} confidence interval, {resamples} speaker "
        f"resamples] / minDCF ({costs}, c_miss 1, c_fa 1).\n",
        *_format_costs(systems), *_format_trainings(systems),
        "## Trial lists\n", _format_lists(rows)]
    parts += [f"## {title}\n\n![{title}]({file})\n" for title, file in (plots or {}).items()]
    return "\n".join(parts)


def _join(items: Sequence, get: Callable) -> str:
    """The different values of something, in the order of their first use."""
    return ", ".join(dict.fromkeys(str(get(item)) for item in items))


def _format_facts(systems: Sequence[Results]) -> str:
    rows = [row for results in systems for row in results.rows]
    normalised = [row for row in rows if row.cohort is not None]
    facts = {
        "Date": _join(systems, lambda results: results.date),
        "Encoder": _join(systems, lambda results: results.encoder),
        "Seed": _join(systems, lambda results: results.seed),
        "Versions": "; ".join(dict.fromkeys(
            ", ".join(f"{name} {version}" for name, version in results.versions.items())
            for results in systems)),
        "Commit": _join(systems, lambda results: results.commit or "unknown"),
        "Mean subtracted": _join(systems, lambda results: results.mean_subtraction or "none"),
        "Cohort": _join(normalised, lambda row: f"{row.cohort} ({row.cohort_size} speakers, "
                                                f"top {row.top_n})") or "none"}
    return "".join(f"- {name}: {text}\n" for name, text in facts.items())


def _format_table(systems: Sequence[Results]) -> str:
    """One line a system, normalisation and seed; one column a trial list."""
    lists = list(dict.fromkeys(row.trials for results in systems for row in results.rows))
    has_seeds = len({results.seed for results in systems}) > 1
    heads = ["Model", "Seed", "Params", "LM", "AS-Norm", "QMF", *lists]
    lines = [heads, ["---"] * len(heads)]
    for (system, params, large_margin, norm, way), runs in _group_rows(systems).items():
        marks = [f"{params / 1e6:.2f} M", "yes" if large_margin else "no",
                 *_mark_norm(norm, way)]
        for seed, rows in runs:
            cells = [_format_cell([rows[name]] if name in rows else []) for name in lists]
            lines.append([system, str(seed), *marks, *cells])
        if len(runs) > 1:
            cells = [_format_cell([rows[name] for _, rows in runs if name in rows])
                     for name in lists]
            lines.append([system, f"mean of {len(runs)}", *marks, *cells])
    if not has_seeds:
        lines = [[line[0], *line[2:]] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _group_rows(systems: Sequence[Results]) -> dict[tuple, list[tuple[int, dict[str, ResultRow]]]]:
    """Put the seeds of a system together.

    Returns:
        (system, params, large_margin, norm, its way where there are several) -> the seeds, each
        with its rows by trial list.
    """
    several = find_several(results.rows for results in systems)
    groups: dict[tuple, list[tuple[int, dict[str, ResultRow]]]] = {}
    for results in systems:
        rows: dict[tuple[str, str], dict[str, ResultRow]] = {}
        for row in results.rows:
            rows.setdefault((row.norm, name_way(row, several)), {})[row.trials] = row
        for norm, way in sorted(rows, key=lambda key: NORMS.index(key[0])):
            key = (results.system, results.params, results.large_margin, norm, way)
            groups.setdefault(key, []).append((results.seed, rows[norm, way]))
    return groups


def _mark_norm(norm: str, way: str) -> list[str]:
    """What stands in the columns AS-Norm and QMF."""
    mark = {"none": "no", "snorm": "S-norm"}.get(norm, "yes")
    return [f"{mark} ({way})" if way else mark, "yes" if norm == "qmf" else "no"]


def _format_cell(rows: Sequence[ResultRow]) -> str:
    """One row with its interval; several seeds as mean and standard deviation; none as a dash."""
    if not rows:
        return "-"
    if len(rows) == 1:
        row, = rows
        return f"{row.eer:.3f} [{row.eer_ci[0]:.3f}, {row.eer_ci[1]:.3f}] / {row.min_dcf:.3f}"
    rates = [row.eer for row in rows]
    return f"{mean(rates):.3f} ± {stdev(rates):.3f} / {mean(row.min_dcf for row in rows):.3f}"


def _format_costs(systems: Sequence[Results]) -> list[str]:
    """Costs besides those of the main table, one line a list; nothing where none was measured."""
    heads = ["Model", "Seed", "AS-Norm", "QMF", "List", f"minDCF ({SECOND_P_TARGET:g})", "Cllr",
             "min Cllr"]
    lines = [heads, ["---"] * len(heads)]
    for (system, _, _, norm, way), runs in _group_rows(systems).items():
        for name in dict.fromkeys(name for _, rows in runs for name in rows):
            found = [(str(seed), [rows[name]]) for seed, rows in runs if name in rows]
            if len(found) > 1:
                found.append((f"mean of {len(found)}", [row for _, own in found for row in own]))
            for seed, rows in found:
                costs = [_mean_cost([getattr(row, cost) for row in rows])
                         for cost in ("min_dcf_05", "cllr", "min_cllr")]
                if set(costs) != {"-"}:
                    lines.append([system, seed, *_mark_norm(norm, way), name, *costs])
    if len(lines) == 2:
        return []
    return ["## Other costs\n", "".join(f"| {' | '.join(line)} |\n" for line in lines),
            "minDCF at another prior; Cllr, in bits, of log-likelihood ratios, and after the best "
            "calibration on the very trials.\n"]


def _format_trainings(systems: Sequence[Results]) -> list[str]:
    """What the trainings took; nothing where that is not known."""
    table = format_costs([(results.system, results.seed, results.cost) for results in systems])
    return ["## Training\n", table, "Hours in training steps of all sittings, validation excepted; "
            "the most memory that a process had.\n"] if table else []


def _mean_cost(costs: Sequence[float | None]) -> str:
    """Their mean; a dash where one was not measured."""
    known = [cost for cost in costs if cost is not None]
    return f"{mean(known):.3f}" if len(known) == len(costs) else "-"


def _format_lists(rows: Sequence[ResultRow]) -> str:
    lines = [["List", "Scored trials", "Target", "Non-target", "Coverage", "SHA-256"],
             ["---"] * 6]
    lines += [[row.trials, f"{row.num_trials:,}", f"{row.num_target:,}",
               f"{row.num_trials - row.num_target:,}", f"{100 * row.coverage:.2f} %",
               f"`{row.trials_sha256}`"] for row in rows]
    return "".join(dict.fromkeys(f"| {' | '.join(line)} |\n" for line in lines))
