"""Plots of layer attention: heat maps of layers over time, bars of layers over a set."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from wespeaker_lap.io.table import replacing
from wespeaker_lap.score.layer_mass import Mass

LABELS = {"mass": "mean score of the heads", "wins": "share of values won"}
BARS = {"mass": ("share of the scores", "tab:blue"), "wins": ("share of values won", "tab:orange")}
MAP_HEIGHT, LAYER_HEIGHT, LEVEL_HEIGHT = 0.9, 0.14, 1.1  # inches: of a map, a layer more, the level


def plot_heat_map(path: str | Path, maps: Mapping[str, np.ndarray], layers: Sequence[int],
                  frame_seconds: float, level: np.ndarray | None, title: str) -> None:
    """Draw layers over time, one map below the other, and the level of the recording above.

    Args:
        path: the PNG file, replaced as a whole.
        maps: `<stream>_mass` or `<stream>_wins` -> (T, L).
        layers: numbers of the L layers.
        frame_seconds: from one frame to the next.
        level: (T,) in dB; None draws none.
        title: what stands above.
    """
    num_frames = len(next(iter(maps.values())))
    heights = [LEVEL_HEIGHT] * (level is not None)
    heights += [MAP_HEIGHT + LAYER_HEIGHT * len(layers)] * len(maps)
    figure = Figure(figsize=(10, sum(heights) + 0.7), layout="constrained")
    rows = list(figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights,
                                )[:, 0])
    end = num_frames * frame_seconds
    if level is not None:
        axes = rows.pop(0)
        axes.plot((np.arange(num_frames) + 0.5) * frame_seconds, level, color="0.3", linewidth=1)
        axes.set_ylabel("level (dB)")
        axes.grid(color="0.9")
    for axes, (name, shares) in zip(rows, maps.items(), strict=True):
        image = axes.imshow(shares.T, origin="lower", aspect="auto", interpolation="nearest",
                            extent=(0, end, -0.5, len(layers) - 0.5), cmap="viridis")
        figure.colorbar(image, ax=axes, pad=0.01)
        stream, key = name.rsplit("_", 1)
        axes.set_title(LABELS[key] if stream == "layers" else f"{stream}: {LABELS[key]}",
                       fontsize="medium", loc="left")
        axes.set_ylabel("layer")
        axes.set_yticks(*pick_ticks(layers))
    rows[-1].set_xlabel("seconds")
    rows[-1].set_xlim(0, end)
    figure.suptitle(title, parse_math=False)  # ids and names may hold a $
    _save(figure, path)


def plot_masses(path: str | Path, masses: Mapping[str, Mapping[str, Mass]],
                layers: Sequence[int], title: str) -> None:
    """Draw the shares of all layers with their intervals, one plot a stream.

    Args:
        path: the PNG file, replaced as a whole.
        masses: stream -> "mass" or "wins" -> the shares.
        layers: numbers of the L layers.
        title: what stands above.
    """
    figure = Figure(figsize=(8, 0.8 + 3.4 * len(masses)), layout="constrained")
    for axes, (stream, found) in zip(figure.subplots(len(masses), 1, sharex=True, squeeze=False,
                                                     )[:, 0], masses.items(), strict=True):
        width = 0.8 / len(found)
        for number, (key, mass) in enumerate(found.items()):
            label, color = BARS[key]
            at = np.arange(len(layers)) + (number - (len(found) - 1) / 2) * width
            axes.bar(at, 100 * mass.shares, width, label=label, color=color, alpha=0.75)
            if mass.low is not None:
                axes.vlines(at, 100 * mass.low, 100 * mass.high, color="black", linewidth=1.5)
        axes.axhline(100 / len(layers), color="0.4", linestyle="--", linewidth=1,
                     label="all layers alike")
        axes.set(ylabel="%", title="" if stream == "layers" else stream, axisbelow=True)
        axes.set_xticks(*pick_ticks(layers))
        axes.grid(color="0.9", axis="y")
    axes.set_xlabel("layer")
    figure.suptitle(title, parse_math=False)  # ids and names may hold a $
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    _save(figure, path)


def pick_ticks(layers: Sequence[int]) -> tuple[list[int], list[str]]:
    """Where ticks are and what they say: all layers, every second one of more than 14."""
    step = 1 if len(layers) <= 14 else 2
    at = list(range(0, len(layers), step))
    return at, [str(layers[one]) for one in at]


def _save(figure: Figure, path: str | Path) -> None:
    """Write a figure in one piece, without a display."""
    with replacing(path) as aside:
        FigureCanvasAgg(figure).print_figure(aside, format="png", dpi=120)
