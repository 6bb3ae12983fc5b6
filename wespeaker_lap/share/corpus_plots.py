"""Plots of a corpus, as PNG in memory."""

import base64
import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from wespeaker_lap.data.corpus import Corpus

NUM_BINS = 40
COLORS = {"train": "tab:blue", "valid": "tab:green", "test": "tab:orange", "all": "tab:gray"}


def plot_corpus(corpus: Corpus) -> dict[str, str]:
    """Draw durations, utterances and minutes a speaker, and silence, each by set.

    Args:
        corpus: with utterances; without sets all of them are drawn as one.

    Returns:
        Title -> `data:` address of a PNG, which a page can hold without a file beside it.
    """
    groups = {name: list(corpus.of_set(name).values()) for name in corpus.sets}
    groups = groups or {"all": list(corpus.utts.values())}
    seconds = {name: [one.measure.seconds for one in own] for name, own in groups.items()}
    per_speaker = {name: _sum_by_speaker(own) for name, own in groups.items()}
    counts = {name: [count for count, _ in own] for name, own in per_speaker.items()}
    minutes = {name: [total / 60 for _, total in own] for name, own in per_speaker.items()}
    silence = {name: [100 * one.measure.silence for one in own] for name, own in groups.items()}
    return {
        "Durations": _histogram(seconds, "Seconds", "Utterances"),
        "Utterances per speaker": _histogram(counts, "Utterances", "Speakers", are_counts=True),
        "Minutes per speaker": _histogram(minutes, "Minutes", "Speakers"),
        "Silence": _histogram(silence, "Frames 40 dB below the loudest (%)", "Utterances")}


def _sum_by_speaker(utts: Sequence) -> list[tuple[int, float]]:
    """Utterances and seconds of each speaker."""
    sums: dict[str, tuple[int, float]] = {}
    for one in utts:
        count, total = sums.get(one.speaker, (0, 0.0))
        sums[one.speaker] = (count + 1, total + one.measure.seconds)
    return list(sums.values())


def _histogram(groups: Mapping[str, Sequence[float]], xlabel: str, ylabel: str,
               are_counts: bool = False) -> str:
    """Stack the sets' histograms, so that the height is that of the corpus."""
    figure = Figure(figsize=(5.4, 3.2), layout="constrained")
    axes: Axes = figure.add_subplot()
    values = np.concatenate([np.asarray(own, dtype=float) for own in groups.values()])
    # A few very long recordings must not press all others into one bar.
    top = min(values.max(), np.percentile(values, 99) * 1.5) or 1.0
    bins = np.linspace(0, np.nextafter(top, np.inf), NUM_BINS + 1)
    if are_counts:
        step = max(1, math.ceil(top / NUM_BINS))
        bins = np.arange(0, top + 1 + step, step) - 0.5
    axes.hist([np.minimum(own, top) for own in groups.values()], bins, stacked=True,
              label=[f"{name} ({len(own):,})" for name, own in groups.items()],
              color=[COLORS[name] for name in groups])
    axes.set_xlabel(f"{xlabel} (the last bar: and more)" if top < values.max() else xlabel)
    axes.set_ylabel(ylabel)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return _to_address(figure)


def _to_address(figure: Figure) -> str:
    png = io.BytesIO()
    FigureCanvasAgg(figure).print_figure(png, format="png", dpi=110, metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(png.getvalue()).decode("ascii")
