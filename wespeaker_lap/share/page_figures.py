"""Which figures the report page has, with their legends and the words for those who cannot see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from wespeaker_lap.share.figures import line_key, make_bars, make_det, make_histogram, make_lines

if TYPE_CHECKING:
    from wespeaker_lap.share.page import ScoredList, System

# Name in metrics.jsonl -> what it is, and the label of its axis.
CURVES = {"loss": ("Training loss", "Loss"), "acc": ("Training accuracy", "Accuracy"),
          "lr": ("Learning rate", "Learning rate"),
          "valid_eer": ("Validation EER", "EER (%)")}


@dataclass(frozen=True)
class Entry:
    """A line of a legend: colour, CSS border style, text."""

    color: str
    style: str
    text: str


@dataclass(frozen=True)
class Plot:
    """A figure, what stands above it, and its legend."""

    title: str
    svg: Markup
    legend: tuple[Entry, ...] = ()
    note: str = ""


def draw_dets(systems: Sequence[System]) -> list[Plot]:
    """One figure a trial list, one curve a system and normalisation."""
    groups: dict[str, dict[str, ScoredList]] = {}
    for system in systems:
        for one in system.lists:
            groups.setdefault(one.row.trials, {})[f"{system.name}, {one.norm}"] = one
    plots = []
    for trials, curves in groups.items():
        texts = [f"{name}: EER {one.row.eer:.3f} %" for name, one in curves.items()]
        alt = (f"Detection error trade-off on {trials}: false rejections over false acceptances, "
               f"normal-deviate axes; {'; '.join(texts)}")
        svg = make_det([(one.scores, one.labels) for one in curves.values()], alt)
        plots.append(Plot(trials, svg, _number_entries(dict(enumerate(texts)))))
    return plots


def draw_scores(systems: Sequence[System]) -> list[Plot]:
    """One figure a score file."""
    return [_draw_scores(system, one) for system in systems for one in system.lists]


def _draw_scores(system: System, one: ScoredList) -> Plot:
    row, lowest = one.row, one.min_dcf_threshold
    title = f"{system.name}: {row.trials}, {one.norm}"
    where = "by rejecting every trial" if lowest is None else f"at {lowest:.3f} (dotted)"
    note = (f"{row.num_trials - row.num_target:,} non-target and {row.num_target:,} target trials; "
            f"EER {row.eer:.3f} % at {row.threshold:.3f} (dashed), minDCF {row.min_dcf:.3f} "
            f"{where}.")
    thresholds = {"EER": row.threshold, **({} if lowest is None else {"minDCF": lowest})}
    svg = make_histogram(one.scores, one.labels, thresholds, f"Histogram of {title}. {note}")
    return Plot(title, svg, note=note)


def draw_curves(systems: Sequence[System]) -> list[Plot]:
    """Loss, accuracy, learning rate and validation EER, all systems in one figure each."""
    plots = []
    for name, (title, label) in CURVES.items():
        curves = {number: system.curves[name] for number, system in enumerate(systems)
                  if name in system.curves}
        if curves:
            ends = {number: f"{systems[number].name}: {values[-1]:.3g} at the end"
                    for number, (_, values) in curves.items()}
            alt = f"{title} over training steps; {'; '.join(ends.values())}"
            plots.append(Plot(title, make_lines(curves, label, alt), _number_entries(ends)))
    return plots


def draw_weights(systems: Sequence[System]) -> list[Plot]:
    """One figure a weighted sum of layers."""
    plots = []
    for system in systems:
        layers = system.facts["features"].get("layers", "all")
        for stream, weights in system.weights.items():
            numbers = list(range(len(weights))) if layers == "all" else layers
            title = f"{system.name}: {stream}"
            shares = ", ".join(f"layer {layer} {weight:.3f}"
                               for layer, weight in zip(numbers, weights, strict=True))
            svg = make_bars(weights, numbers, f"Weights of the encoder's {title}. {shares}")
            plots.append(Plot(title, svg, note=f"{shares}; dashed: all alike."))
    return plots


def _number_entries(texts: dict[int, str]) -> tuple[Entry, ...]:
    return tuple(Entry(*line_key(number), text) for number, text in texts.items())
