"""The page on layer attention: what each layer gets over a set, and which layers to keep."""

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from wespeaker_lap.engine.attention import Attention
from wespeaker_lap.io.table import write_text
from wespeaker_lap.score.bootstrap import MAX_RESAMPLES
from wespeaker_lap.score.layer_mass import Mass, Suggestion, measure_mass, suggest_layers
from wespeaker_lap.share.attention_plots import plot_masses
from wespeaker_lap.share.results import find_commit, find_versions

HEADS = {"mass": "Scores %", "wins": "Values won %"}
METHOD = """Scores: a layer's mean score over frames and heads, as a part of all layers' (softmax
weights for a weighted sum). Values won: the part of the pooled values, over frames and dimensions,
that are taken from this layer because its scored value is the largest. Every frame counts alike.
A score says how a layer is weighed, not how large its values are: where a maximum is taken, values
won tell what passes on. Intervals are 95 %, over the speakers that one training looks at. Trainings
that differ in their seed alone may differ by more: look at several.
"""
FIXED = "The weights are the same in every frame, for every speaker: there is no interval.\n"
MIXED = """UniPool's convolutions mix neighbouring layers before these are scored, so a share is not
that of one layer alone. It never looks at the lowest layer that it gets, so the suggestion has one
more layer to leave out.
"""
ADVICE = """This is a suggestion that has to be verified: the shares describe a system that had all
layers, and one that is trained without some of them weighs the rest anew. Train with these layers
and compare (`wespeaker-lap compare`) before other features are deleted.
"""
NOTHING = "No layer can be spared for that; a lower `--keep` shows which would go first.\n"


@dataclass(frozen=True)
class Facts:
    """What was looked at, plain values.

    Args:
        system: name of the system.
        layer_pool: its pooling, in words.
        features: identity of the features.
        source: where the features came from.
        data: name of the set.
        num_utts, num_speakers, num_frames: what was measured of it.
        seed: of the draw and the bootstrap.
        keep: part of the attention that the suggested layers have, above 0, up to 1.
        layers: numbers of the layers in the encoder.
        is_fixed: whether the weights are the same in every frame.
        drops_first: whether the pooling leaves out the lowest layer.
        maps: utterance -> image file beside the page.
    """

    system: str
    layer_pool: str
    features: dict
    source: str
    data: str
    num_utts: int
    num_speakers: int
    num_frames: int
    seed: int
    keep: float
    layers: list[int]
    is_fixed: bool
    drops_first: bool
    maps: dict[str, str]


def write_page(directory: Path, facts: Facts, found: Attention) -> Path:
    """Write `attention.json`, `attention.png` and `attention.md`, replacing older ones.

    Args:
        directory: where to; made when it is not there.
        facts: what was looked at.
        found: the sums over the set.

    Returns:
        The page.

    Raises:
        ValueError: as `measure_mass` and `suggest_layers`.
    """
    masses = {name: {key: measure_mass(one, seed=facts.seed) for key, one in sums.items()}
              for name, sums in found.sums.items()}
    if facts.is_fixed:
        masses = {name: {key: Mass(mass.shares) for key, mass in one.items()}
                  for name, one in masses.items()}
    suggestions = suggest(facts, masses)
    title = f"What {facts.system} looks at in {facts.data} ({facts.layer_pool})"
    plot_masses(directory / "attention.png", masses, facts.layers, title)
    record = {"date": str(datetime.date.today()), **asdict(facts), "ci_level": 0.95,
              "ci_resamples": MAX_RESAMPLES, "versions": find_versions(), "commit": find_commit(),
              "shares": {name: make_rows(facts.layers, one) for name, one in masses.items()},
              "suggestions": [asdict(one) for one in suggestions]}
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
    write_text(directory / "attention.json", text + "\n")
    write_text(directory / "attention.md", format_page(title, record, suggestions))
    return directory / "attention.md"


def suggest(facts: Facts, masses: Mapping[str, Mapping[str, Mass]]) -> list[Suggestion]:
    """Which layers to keep, by scores and, where there are any, by values won."""
    kinds = list(next(iter(masses.values())))
    return [suggest_layers(kind, {name: one[kind].shares for name, one in masses.items()},
                           facts.layers, facts.features, facts.keep, facts.drops_first)
            for kind in kinds]


def make_rows(layers: Sequence[int], masses: Mapping[str, Mass]) -> list[dict]:
    """One plain row a layer: `mass`, `mass_ci` and, where there are any, `wins`, `wins_ci`.

    >>> import numpy as np
    >>> make_rows([0, 4], {"mass": Mass(np.array([0.25, 0.75]))})[1]
    {'layer': 4, 'mass': 0.75, 'mass_ci': None}
    """
    rows: list[dict] = [{"layer": layer} for layer in layers]
    for key, mass in masses.items():
        for at, row in enumerate(rows):
            row[key] = float(mass.shares[at])
            row[f"{key}_ci"] = (None if mass.low is None
                                else [float(mass.low[at]), float(mass.high[at])])
    return rows


def format_shares(shares: Mapping[str, Sequence[dict]]) -> str:
    """The shares of all layers as a table, the largest of each column in bold.

    Args:
        shares: stream -> rows of `make_rows`.

    >>> rows = [{"layer": 0, "mass": 0.25, "mass_ci": [0.2, 0.3]},
    ...         {"layer": 4, "mass": 0.75, "mass_ci": [0.7, 0.8]}]
    >>> print(format_shares({"layers": rows}))
    | Layer | Scores % | 95 % |
    | --- | --- | --- |
    | 0 | 25.0 | [20.0, 30.0] |
    | 4 | **75.0** | [70.0, 80.0] |
    <BLANKLINE>
    """
    columns = [(stream, key, max(row[key] for row in rows)) for stream, rows in shares.items()
               for key in HEADS if key in rows[0]]
    lines = [["Layer"]]
    for stream, key, _ in columns:
        head = HEADS[key] if stream == "layers" else f"{stream.capitalize()}: {HEADS[key].lower()}"
        lines[0] += [head, "95 %"]
    lines.append(["---"] * len(lines[0]))
    for at, first in enumerate(next(iter(shares.values()))):
        line = [str(first["layer"])]
        for stream, key, largest in columns:
            row = shares[stream][at]
            bold = "**" if row[key] == largest else ""
            ends = row[f"{key}_ci"]
            line += [f"{bold}{100 * row[key]:.1f}{bold}",
                     "-" if ends is None else f"[{100 * ends[0]:.1f}, {100 * ends[1]:.1f}]"]
        lines.append(line)
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def format_suggestions(suggestions: Sequence[Suggestion]) -> str:
    """The suggestions as a table; the layers as they are written in a configuration."""
    lines = [["By", "Configuration", "Keeps %", "Bytes a second", "Disk saved %"], ["---"] * 5]
    for one in suggestions:
        kept = ", ".join(f"{100 * share:.1f}" if name == "layers" else f"{name} {100 * share:.1f}"
                         for name, share in one.kept.items())
        setting = f"`features.layers={json.dumps(one.layers)}`".replace(", ", ",")
        lines.append([HEADS[one.by].removesuffix(" %").lower(), setting, kept,
                      f"{one.bytes_per_second:,.0f}", f"{100 * one.saved:.1f}"])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def format_page(title: str, record: dict, suggestions: Sequence[Suggestion]) -> str:
    """The page in Markdown.

    Args:
        title: what stands above.
        record: what `attention.json` holds.
        suggestions: the layers to keep.
    """
    features = record["features"]
    lines = {
        "Date": record["date"],
        "Encoder": f"{features['encoder']}, {features['num_layers']} layers of {features['dim']}",
        "Features": f"{record['source']}, codec {features['codec']}",
        "Measured": f"{record['num_utts']:,} utterances of {record['num_speakers']:,} speakers, "
                    f"{record['num_frames']:,} frames",
        "Interval": f"{record['ci_resamples']} speaker resamples",
        "Seed": record["seed"],
        "Versions": ", ".join(f"{name} {version}" for name, version in record["versions"].items()),
        "Commit": record["commit"] or "unknown"}
    parts = [f"# {title}\n", "".join(f"- {name}: {text}\n" for name, text in lines.items()),
             format_shares(record["shares"]), METHOD]
    parts += [FIXED] * record["is_fixed"] + [MIXED] * record["drops_first"]
    parts += ["![Shares of the layers](attention.png)\n", "## Layers to keep\n",
              f"The fewest layers that have at least {100 * record['keep']:g} %"
              f"{' of each stream' * (len(record['shares']) > 1)}:\n",
              format_suggestions(suggestions)]
    spared = any(one.saved > 0 for one in suggestions)
    parts.append(ADVICE if spared else NOTHING)
    parts += [f"## {utt}\n\n![Layers over time]({image})\n"
              for utt, image in record["maps"].items()]
    return "\n".join(parts)
