"""Plots of scored trials: DET curves and score histograms, as PNG files."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.special import ndtri

from wespeaker_lap.io.table import replacing
from wespeaker_lap.score.metrics import check_scored, eer, eer_threshold, error_rates

DET_TICKS = np.array([0.0001, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6])
NUM_BINS = 80


def plot_det(path: str | Path, curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
             title: str) -> None:
    """Draw detection error trade-off curves into a file; see `draw_det`.

    Args:
        path: the PNG file, replaced as a whole.
        curves: name -> scores (n,) and labels (n,) bool.
        title: what stands above.

    Raises:
        ValueError: there are no curves, or as `metrics.check_scored`.
    """
    if not curves:
        raise ValueError(f"{path}: no curves to draw")
    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.add_subplot()
    draw_det(axes, curves)
    axes.set(title=title, axisbelow=True)
    axes.grid(color="0.9")
    axes.legend(loc="upper right")
    _save(figure, path)


def draw_det(axes: Axes, curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Draw detection error trade-off curves on normal-deviate axes, a dot at each EER.

    Source: Martin et al., "The DET curve in assessment of detection task performance"
    (Eurospeech 1997).

    Args:
        axes: to draw on; its property cycle gives the curves their colours.
        curves: name -> scores (n,) and labels (n,) bool.

    Raises:
        ValueError: as `metrics.check_scored`.
    """
    axes.plot(ndtri(DET_TICKS), ndtri(DET_TICKS), color="0.5", alpha=0.5, linewidth=1,
              linestyle="-")
    for name, (scores, labels) in curves.items():
        _, fnr, fpr = error_rates(scores, labels)
        # Rates of 0 and 1 lie at infinity: draw them at half an error, outside what was measured.
        num_target = int(np.sum(labels))
        half = [0.5 / num_target, 0.5 / (len(labels) - num_target)]
        miss, alarm = fnr.clip(half[0], 1 - half[0]), fpr.clip(half[1], 1 - half[1])
        rate = eer(scores, labels)
        line, = axes.plot(ndtri(alarm), ndtri(miss), label=f"{name}: EER {100 * rate:.2f} %")
        axes.plot(ndtri(rate), ndtri(rate), "o", color=line.get_color(), markersize=5)
    ticks, names = ndtri(DET_TICKS), [f"{100 * tick:g}" for tick in DET_TICKS]
    axes.set_xticks(ticks, names)
    axes.set_yticks(ticks, names)
    axes.set(xlim=(ticks[0], ticks[-1]), ylim=(ticks[0], ticks[-1]))
    axes.set_xlabel("False acceptance rate (%)")
    axes.set_ylabel("False rejection rate (%)")


def plot_histogram(path: str | Path, scores: np.ndarray, labels: np.ndarray,
                   title: str) -> None:
    """Draw the scores of targets and non-targets, and the threshold of the EER, into a file.

    Args:
        path: the PNG file, replaced as a whole.
        scores: (n,) scores.
        labels: (n,) bool, true for target trials.
        title: what stands above.

    Raises:
        ValueError: as `metrics.check_scored`.
    """
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    threshold = eer_threshold(scores, labels)
    name = f"EER {100 * eer(scores, labels):.2f} % at {threshold:.3f}"
    draw_histogram(axes, scores, labels, {name: (threshold, "--")})
    axes.set_title(title)
    axes.legend(loc="upper left")
    _save(figure, path)


def draw_histogram(axes: Axes, scores: np.ndarray, labels: np.ndarray,
                   thresholds: Mapping[str, tuple[float, str]]) -> None:
    """Draw the scores of targets and non-targets, and thresholds.

    Args:
        axes: to draw on.
        scores: (n,) scores.
        labels: (n,) bool, true for target trials.
        thresholds: name -> score and line style.

    Raises:
        ValueError: as `metrics.check_scored`.
    """
    scores, labels = check_scored(scores, labels)
    bins = np.histogram_bin_edges(scores, bins=NUM_BINS)
    for name, chosen, color in (("non-target", scores[~labels], "tab:orange"),
                                ("target", scores[labels], "tab:blue")):
        # Densities, so that kinds of very different number can be seen side by side.
        axes.hist(chosen, bins, density=True, histtype="stepfilled", alpha=0.55, color=color,
                  label=f"{name} ({len(chosen):,})")
    for name, (threshold, style) in thresholds.items():
        axes.axvline(threshold, color=matplotlib.rcParams["text.color"], linestyle=style,
                     linewidth=1, label=name)
    axes.set_xlabel("Score")
    axes.set_ylabel("Density")


def _save(figure: Figure, path: str | Path) -> None:
    """Write a figure in one piece, without a display and without matplotlib's global state."""
    with replacing(path) as aside:
        FigureCanvasAgg(figure).print_figure(aside, format="png", dpi=120)
