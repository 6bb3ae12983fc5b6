"""Figures of the report page: SVG that stands inside HTML and takes its colours from the page.

No word of a user enters a figure: names and legends stand in the page around it, which escapes
them and breaks their lines on a narrow screen.
"""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib import cycler
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from wespeaker_lap.share.plots import draw_det, draw_histogram

INK = "#123457"  # stands for the page's own text colour, and for nothing else
# Seen well on white and on black; after the last one the same again, dashed, then dotted.
PALETTE = ("#2f7fc1", "#d55e00", "#1a9e77", "#c2649a", "#8a72d8", "#a98600")
LINE_STYLES = ("-", "--", ":")
THRESHOLD_STYLES = {"EER": "--", "minDCF": ":"}
STYLE = {
    "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9.5,
    "path.simplify_threshold": 0.3, "lines.linewidth": 1.4, "axes.linewidth": 0.7,
    "axes.prop_cycle": cycler(linestyle=LINE_STYLES) * cycler(color=PALETTE),
    "axes.grid": True, "axes.axisbelow": True, "grid.alpha": 0.15, "grid.linewidth": 0.7,
    "axes.facecolor": "none", "figure.facecolor": "none", "savefig.facecolor": "none",
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color",
                     "ytick.color", "grid.color"), INK)}


def line_key(number: int) -> tuple[str, str]:
    """Colour and CSS border style of the n-th line of a figure, for its legend.

    >>> line_key(0), line_key(7)
    (('#2f7fc1', 'solid'), ('#d55e00', 'dashed'))
    """
    style = number // len(PALETTE) % len(LINE_STYLES)
    return PALETTE[number % len(PALETTE)], ("solid", "dashed", "dotted")[style]


def make_det(curves: Sequence[tuple[np.ndarray, np.ndarray]], alt: str) -> Markup:
    """DET curves of several systems on one trial list.

    Args:
        curves: scores (n,) and labels (n,) bool of each; drawn as `line_key` says.
        alt: what is to be seen, in words.
    """
    with _drawing((4.4, 4.2), alt) as (axes, parts):
        draw_det(axes, {str(number): curve for number, curve in enumerate(curves)})
    return parts[0]


def make_histogram(scores: np.ndarray, labels: np.ndarray, thresholds: Mapping[str, float],
                   alt: str) -> Markup:
    """Scores of targets and non-targets.

    Args:
        scores: (n,).
        labels: (n,) bool.
        thresholds: the scores at `EER` and `minDCF`.
        alt: what is to be seen, in words.
    """
    with _drawing((4.4, 2.6), alt) as (axes, parts):
        draw_histogram(axes, scores, labels, {name: (score, THRESHOLD_STYLES[name])
                                              for name, score in thresholds.items()})
    return parts[0]


def make_lines(curves: Mapping[int, tuple[np.ndarray, np.ndarray]], label: str,
               alt: str) -> Markup:
    """Values over training steps.

    Args:
        curves: number of the system, for its `line_key` -> steps (n,) and values (n,).
        label: of the vertical axis.
        alt: what is to be seen, in words.
    """
    styles = {"solid": "-", "dashed": "--", "dotted": ":"}
    with _drawing((4.4, 2.5), alt) as (axes, parts):
        for number, (steps, values) in curves.items():
            color, style = line_key(number)
            axes.plot(steps, values, color=color, linestyle=styles[style],
                      marker="o" if len(steps) < 40 else None, markersize=2.5)
        axes.set(xlabel="Step", ylabel=label)
        if min(np.nanmin(values, initial=0) for _, values in curves.values()) >= 0:
            axes.set_ylim(bottom=0)
    return parts[0]


def make_bars(weights: np.ndarray, layers: Sequence[int], alt: str) -> Markup:
    """Weights of the encoder's layers.

    Args:
        weights: (L,), which sum to 1.
        layers: L numbers of layers.
        alt: what is to be seen, in words.
    """
    with _drawing((4.4, 2.3), alt) as (axes, parts):
        axes.bar(layers, weights, color=PALETTE[0])
        axes.axhline(1 / len(weights), color=INK, linestyle="--", linewidth=0.8)
        axes.set(xlabel="Layer", ylabel="Weight")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return parts[0]


@contextmanager
def _drawing(size: tuple[float, float], alt: str) -> Iterator[tuple[Axes, list[Markup]]]:
    """Axes to draw on, in inches; when the block ends, the list holds the figure."""
    parts: list[Markup] = []
    # The salt makes the ids of one figure differ from the next one's, and the same in every run.
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": alt}):
        figure = Figure(figsize=size, layout="constrained")
        yield figure.add_subplot(), parts
        file = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        FigureCanvasSVG(figure).print_svg(file, metadata=nothing)
    parts.append(_inline(file.getvalue(), alt))


def _inline(svg: str, alt: str) -> Markup:
    """An SVG file as a part of a page: no header, no names that two figures would share."""
    svg = svg[svg.index("<svg"):]
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg)
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    svg = svg.replace(INK, "currentColor")
    return Markup(svg.replace("<svg", f'<svg role="img" aria-label="{escape(alt)}"', 1))
