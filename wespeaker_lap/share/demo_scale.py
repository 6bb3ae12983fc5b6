"""Where a score lies against its threshold: the numbers that the demo's picture is drawn with."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.ticker import MaxNLocator

from wespeaker_lap.score.operating import OperatingPoint
from wespeaker_lap.score.scorefile import read_scores
from wespeaker_lap.share import bundle
from wespeaker_lap.share.opening import read_rows

NUM_BINS = 40
NORMED_SIDE = 4.0  # deviations on either side of the threshold, of normalised scores
TOP = 92.0  # height of the highest bin, in percent of the picture


@dataclass(frozen=True, eq=False)
class Spread:
    """Scores of a trial list, by kind of trial.

    Args:
        targets: (n,) of one speaker.
        nontargets: (m,) of two.
    """

    targets: np.ndarray
    nontargets: np.ndarray


@dataclass(frozen=True)
class Scale:
    """An axis of scores and what lies on it; places in percent of its width.

    Args:
        low, high: its ends, in scores.
        threshold: place of the threshold.
        scores: places of the scores.
        ticks: places and labels.
        targets, nontargets: outlines of the two histograms, `x,y x,y …` in percent with y
            downwards; empty without a spread.
    """

    low: float
    high: float
    threshold: float
    scores: tuple[float, ...]
    ticks: tuple[tuple[float, str], ...]
    targets: str = ""
    nontargets: str = ""


def lay_out(scores: Sequence[float], threshold: float, norm: str,
            spread: Spread | None = None) -> Scale:
    """Choose an axis and place everything on it.

    Args:
        scores: at least one.
        threshold: what they are compared with.
        norm: of the scores; the axis of cosines ("none") holds 0 and 1, that of normalised ones
            `NORMED_SIDE` on either side of the threshold.
        spread: of the list that the threshold was measured on, to be drawn behind the scores.

    >>> scale = lay_out([0.5], 0.5, "none")
    >>> (round(scale.low, 2), round(scale.high, 2), round(scale.threshold, 1), scale.scores)
    (-0.05, 1.05, 50.0, (50.0,))
    >>> [label for _, label in scale.ticks]
    ['0', '0.2', '0.4', '0.6', '0.8', '1']
    """
    low, high = _choose_ends(scores, threshold, norm, spread)

    def place(score: float) -> float:
        return round(100 * (score - low) / (high - low), 3)

    ticks = tuple((place(float(tick)), f"{tick:.4g}")
                  for tick in MaxNLocator(6).tick_values(low, high) if low <= tick <= high)
    outlines = ("", "") if spread is None else _outline(spread, low, high)
    return Scale(low, high, place(threshold), tuple(place(one) for one in scores), ticks,
                 *outlines)


def _choose_ends(scores: Sequence[float], threshold: float, norm: str,
                 spread: Spread | None) -> tuple[float, float]:
    usual = (0.0, 1.0) if norm == "none" else (threshold - NORMED_SIDE, threshold + NORMED_SIDE)
    values = [*scores, threshold, *usual]
    if spread is not None:
        values += [float(end(kind)) for kind in (spread.targets, spread.nontargets)
                   for end in (np.min, np.max)]
    low, high = min(values), max(values)
    margin = 0.05 * (high - low)
    low, high = low - margin, high + margin
    # Each side of the threshold has room for its name: a quarter of the axis.
    low = min(low, threshold - (high - threshold) / 3)
    return low, max(high, threshold + (threshold - low) / 3)


def _outline(spread: Spread, low: float, high: float) -> tuple[str, str]:
    """Outlines of both histograms, each of area 1, on one common scale of heights."""
    edges = np.linspace(low, high, NUM_BINS + 1)
    heights = [np.histogram(kind, edges, density=True)[0]
               for kind in (spread.targets, spread.nontargets)]
    highest = max(one.max() for one in heights)
    x = np.repeat(np.linspace(0, 100, NUM_BINS + 1), 2)
    outlines = []
    for one in heights:
        y = 100 - TOP * np.repeat(np.concatenate([[0.0], one, [0.0]]) / highest, 2)[1:-1]
        outlines.append(" ".join(f"{a:.2f},{b:.2f}" for a, b in zip(x, y, strict=True)))
    return outlines[0], outlines[1]


def read_spread(source: str | Path, point: OperatingPoint) -> Spread | None:
    """The scores that a threshold was measured on, where they are at hand.

    Args:
        source: trained model; only the folder of its training holds the scores.
        point: of the threshold.

    Returns:
        None where the model has no such scores with it, as one that was packed.

    Raises:
        ValueError: score files that cannot be read.
    """
    exp_dir = Path(source)
    if not exp_dir.is_dir() or (exp_dir / bundle.MANIFEST).is_file():
        return None
    for file, row in read_rows(exp_dir):
        if all(getattr(row, name) == getattr(point, name)
               for name in ("trials", "norm", "cohort", "top_n")):
            trials, scores = read_scores(exp_dir / "scores" / file)
            return Spread(scores[trials.labels], scores[~trials.labels])
    return None
