"""The model card: README.md of a packed model, in the form of the Hugging Face hub."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from wespeaker_lap.config import Config, EncoderFrontend
from wespeaker_lap.io.facts import find_features, name_encoder
from wespeaker_lap.score.evaluate import ResultRow
from wespeaker_lap.score.operating import TITLES, OperatingPoint
from wespeaker_lap.share.norms import LABELS
from wespeaker_lap.share.results import Results

NOT_STATED = "not stated"
INTENDED_USE = """Speaker verification: do two recordings hold the same voice? Also finding a voice
among enrolled ones, and embeddings for research. Rates were measured on the lists below; other
languages, channels, ages or noise change them, so measure a threshold on recordings of your own
before anything depends on it. Not meant to decide by itself about a person's rights, access to
services or guilt, nor to identify people without their consent."""


@dataclass(frozen=True)
class Licences:
    """Under what the parts are given away; as SPDX names, links or words."""

    code: str = "Apache-2.0"  # of this toolkit
    encoder: str = NOT_STATED
    data: str = NOT_STATED


def format_card(results: Results, config: Config, facts: dict, licences: Licences,
                points: Sequence[OperatingPoint], is_included: bool,
                plots: Sequence[str] = ()) -> str:
    """Write the card.

    Args:
        results: of the system, on all its trial lists.
        config, facts: of the training.
        licences: of its parts.
        points: operating points.
        is_included: whether the encoder is part of the model.
        plots: image files beside the card.

    Returns:
        Markdown with a YAML header.
    """
    parts = [
        f"---\n{yaml.safe_dump(_header(results, licences), sort_keys=False)}---\n",
        f"# {results.system}\n", _describe(results, config, facts, is_included),
        "## Intended use\n", f"{INTENDED_USE}\n",
        "## Use\n", USE,
        "## Training data\n", _describe_data(facts, config),
        "## Results\n", _format_rows(results.rows),
        "## Thresholds\n",
        "A score at or above the threshold is accepted. Raw scores are cosines.\n",
        _format_points(points),
        "## Licences\n",
        f"- Code: {licences.code}\n- Encoder: {licences.encoder}\n- Data: {licences.data}\n"]
    if plots:
        parts += ["## Plots\n", *(f"![{Path(plot).stem}]({plot})\n" for plot in plots)]
    return "\n".join(parts)


USE = """With `wespeaker_lap` installed (with its extra `[hub]` to load from the hub):

```bash
wespeaker-lap verify MODEL a.wav b.wav   # MODEL: this folder, its tar file, or hf://org/name
```

```python
from wespeaker_lap import load_model

model = load_model("MODEL")
print(model.verify("a.wav", "b.wav"))    # decision, score, threshold, where it was measured
```
"""


def _header(results: Results, licences: Licences) -> dict:
    measured = [{"task": {"type": "speaker-verification"},
                 "dataset": {"name": row.trials, "type": row.trials},
                 "metrics": [{"type": "eer", "name": f"EER %, {LABELS[row.norm]}",
                              "value": round(row.eer, 3)},
                             {"type": "min_dcf", "value": round(row.min_dcf, 3),
                              "name": f"minDCF (p_target {row.p_target:g}), {LABELS[row.norm]}"}]}
                for row in results.rows]
    return {"library_name": "wespeaker_lap",
            "tags": ["speaker-verification", "speaker-recognition", "speaker-embedding", "audio"],
            "license": "other", "license_name": "see-model-card",
            "code_license": licences.code, "encoder_license": licences.encoder,
            "data_license": licences.data,
            "model-index": [{"name": results.system, "results": measured}]}


def _describe(results: Results, config: Config, facts: dict, is_included: bool) -> str:
    features, model = find_features(facts), config.model
    nets = [model.layer_pool.name, model.frame_net and model.frame_net.name, model.time_pool.name]
    front = f"{name_encoder(facts)}, {features['num_layers']} layers of {features['dim']}"
    if isinstance(config.frontend, EncoderFrontend):
        place = "included in `encoder/`" if is_included else "not included, found by its name"
        front += f"; {place}; SHA-256 of its weights `{features['weights_sha256']}`"
    lines = {"Input": f"speech, {features['sample_rate']} Hz, one channel",
             f"Frontend, {'tuned' if config.train.encoder else 'frozen'}": front,
             "Back end": f"{', '.join(filter(None, nets))}; {results.params / 1e6:.2f} M weights, "
                         f"embeddings of {model.embed_dim} numbers",
             "Mean subtracted": results.mean_subtraction or "none",
             "Seed": results.seed, "Date": results.date,
             "Versions": ", ".join(f"{name} {text}" for name, text in results.versions.items()),
             "Commit": results.commit or "unknown"}
    return "".join(f"- {name}: {text}\n" for name, text in lines.items())


def _describe_data(facts: dict, config: Config) -> str:
    copies, augment = ", ".join(config.features.copies), config.data.augment
    copies += f"; of their crops {augment.prob:.0%} augmented in training" if augment else ""
    return (f"Set `{facts['train_set']}`: {facts['num_speakers']:,} speakers (`speakers.txt`; a "
            f"speaker at another speed counts as one more). Utterances: {copies}. What the encoder "
            f"was trained on, its own card tells.\n")


def _format_rows(rows: Sequence[ResultRow]) -> str:
    lines = [["List", "Scores", "EER %", "95 % interval", "minDCF", "Trials"], ["---"] * 6]
    for row in rows:
        lines.append([row.trials, LABELS[row.norm], f"{row.eer:.3f}",
                      f"[{row.eer_ci[0]:.3f}, {row.eer_ci[1]:.3f}]",
                      f"{row.min_dcf:.3f} (p_target {row.p_target:g})", f"{row.num_trials:,}"])
    return _table(lines)


def _format_points(points: Sequence[OperatingPoint]) -> str:
    lines = [["List", "Scores", "Point", "Threshold", "False acceptance %", "False rejection %",
              "False acceptances counted"], ["---"] * 7]
    for one in points:
        lines.append([one.trials, LABELS[one.norm], TITLES[one.point], f"{one.threshold:.5f}",
                      f"{100 * one.false_accept:.3f}", f"{100 * one.false_reject:.3f}",
                      f"{one.num_false_accepts} of {one.num_nontarget:,}"])
    return _table(lines)


def _table(lines: Sequence[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
