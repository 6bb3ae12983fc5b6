"""The page of a layer probe: a table, a plot and the facts, for people and as JSON."""

import datetime
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from wespeaker_lap.engine.probe import Probe
from wespeaker_lap.io.table import replacing, write_text
from wespeaker_lap.score.bootstrap import choose_num_resamples
from wespeaker_lap.score.probe import LayerRow
from wespeaker_lap.share.results import PACKAGES, find_commit, find_versions

MEAN_LABEL = "mean of all layers' scores"
METHOD = """A layer's utterance is the mean and the standard deviation of its frames, standardised,
projected by LDA and compared by cosine; the training speakers are those that the standardisation
and the LDA are learnt on. Layer 0 of an encoder enters its first block. All rows share their trials
and the draws of the bootstrap, so two layers may differ reliably although their intervals overlap.
"""


def write_layers(directory: str | Path, probe: Probe) -> Path:
    """Write `layers.json`, `layers.png` and `layers.md`, replacing older ones.

    Args:
        directory: where to; made when it is not there.
        probe: what was measured.

    Returns:
        The page.
    """
    directory = Path(directory)
    facts = {"date": str(datetime.date.today()), "encoder": probe.encoder, **probe.facts,
             "ci_level": 0.95, "ci_resamples": choose_num_resamples(probe.facts["num_trials"]),
             "versions": find_versions((*PACKAGES, "scikit-learn")), "commit": find_commit(),
             "rows": [asdict(row) for row in probe.rows]}
    text = json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False)
    write_text(directory / "layers.json", text + "\n")
    plot_layers(directory / "layers.png", probe.rows, f"Layers of {probe.encoder['encoder']}")
    write_text(directory / "layers.md", _format_page(facts, probe.rows))
    return directory / "layers.md"


def format_table(rows: Sequence[LayerRow]) -> str:
    """The rows as a table, the layer of the lowest EER in bold.

    Args:
        rows: of `score.probe.measure_layers`.

    >>> print(format_table([LayerRow(0, 9.5, (8.0, 11.0), 384), LayerRow(1, 7.25, (6, 8), 384)]))
    | Layer | EER % | 95 % interval |
    | --- | --- | --- |
    | 0 | 9.50 | [8.00, 11.00] |
    | **1** | **7.25** | [6.00, 8.00] |
    <BLANKLINE>
    """
    best = min((row for row in rows if row.layer is not None), key=lambda row: row.eer)
    lines = [["Layer", "EER %", "95 % interval"], ["---"] * 3]
    for row in rows:
        bold = "**" if row is best else ""
        name = MEAN_LABEL if row.layer is None else row.layer
        lines.append([f"{bold}{name}{bold}", f"{bold}{row.eer:.2f}{bold}",
                      f"[{row.eer_ci[0]:.2f}, {row.eer_ci[1]:.2f}]"])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def plot_layers(path: str | Path, rows: Sequence[LayerRow], title: str) -> None:
    """Draw the EER of every layer with its interval, and that of the mean of scores as a line.

    Args:
        path: the PNG file, replaced as a whole.
        rows: of `score.probe.measure_layers`.
        title: what stands above.
    """
    layers = [row for row in rows if row.layer is not None]
    numbers = [row.layer for row in layers]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.vlines(numbers, *zip(*(row.eer_ci for row in layers), strict=True), color="tab:blue",
                linewidth=4, alpha=0.35, label="95 % interval, speaker bootstrap")
    axes.plot(numbers, [row.eer for row in layers], "o-", color="tab:blue", label="one layer")
    for row in rows:
        if row.layer is None:
            axes.axhline(row.eer, color="tab:orange", linestyle="--",
                         label=f"{MEAN_LABEL}: {row.eer:.2f} %")
    axes.set(xlabel="Layer", ylabel="EER (%)", title=title, xticks=numbers, axisbelow=True)
    axes.set_ylim(bottom=0)
    axes.grid(color="0.9")
    figure.legend(loc="outside lower center", ncols=3)
    with replacing(path) as aside:
        FigureCanvasAgg(figure).print_figure(aside, format="png", dpi=120)


def _format_page(facts: dict, rows: Sequence[LayerRow]) -> str:
    encoder = facts["encoder"]
    identity = ", ".join(f"{name} {value}" for name, value in encoder.items() if name != "encoder")
    lines = {
        "Date": facts["date"],
        "Encoder": f"{encoder['encoder']} ({identity})",
        "Precision of the encoder": facts["precision"],
        "Training speakers": _format_set(facts["train"]),
        "Left out for having one utterance": ", ".join(facts["left_out"]) or "nobody",
        "Test speakers": _format_set(facts["test"]),
        "Trials": f"{facts['num_trials']:,} ({facts['num_target']:,} target), {facts['trials']}, "
                  f"SHA-256 `{facts['trials_sha256']}`",
        "LDA": f"shrinkage {facts['shrinkage']:g}",
        "Interval": f"{facts['ci_resamples']} speaker resamples",
        "Seed": facts["seed"],
        "Versions": ", ".join(f"{name} {version}" for name, version in facts["versions"].items()),
        "Commit": facts["commit"] or "unknown"}
    constant = "".join(f"Layer {row.layer}: {2 * encoder['dim'] - row.num_dims} of its "
                       f"{2 * encoder['dim']} numbers are the same for everybody and left out.\n"
                       for row in rows if row.num_dims not in (None, 2 * encoder["dim"]))
    return "\n".join([
        f"# Layers of {encoder['encoder']}\n",
        "".join(f"- {name}: {text}\n" for name, text in lines.items()),
        format_table(rows), METHOD, *([constant] if constant else []),
        "![EER of every layer](layers.png)\n"])


def _format_set(size: dict) -> str:
    return (f"{size['num_speakers']:,} of {size['set']}, {size['num_utts']:,} utterances, "
            f"{size['hours']:.2f} h")
