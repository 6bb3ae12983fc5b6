"""A pre-training that takes a second: its settings, its recordings, what it leaves."""

import json
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch

from wespeaker_lap.data.packed import PackedAudio
from wespeaker_lap.engine.dist import World, join_world
from wespeaker_lap.pretrain.config import PretrainConfig
from wespeaker_lap.pretrain.train import pretrain

ALONE = World(0, 1, torch.device("cpu"))
SAMPLE_RATE = 16000
SETTINGS = {
    "seed": 5,
    "encoder": {"conv_layers": [[16, 400, 160], [16, 3, 2]], "dim": 16, "num_layers": 2,
                "num_heads": 2, "ff_dim": 32, "pos_conv_kernel": 8, "pos_conv_groups": 4,
                "num_buckets": 16, "max_distance": 40},
    "crops": {"seconds": 0.25, "clean_share": 0.0},
    "masked": {"span": 3, "codebook_size": 16},
    "contrastive": {"layer": 1, "dim": 8, "pairs": "all"},
    "train": {"front_steps": 3, "steps": 7, "batch_size": 8, "lr": 5e-3, "warmup_share": 0.2,
              "valid_share": 0.2, "precision": "float32", "valid_steps": 5, "checkpoint_steps": 4},
}


def make_config(**changes) -> PretrainConfig:
    """The settings with some changed: `train__lr=0.1`."""
    tree = deepcopy(SETTINGS)
    for name, value in changes.items():
        *sections, key = name.split("__")
        branch = tree
        for section in sections:
            branch = branch.setdefault(section, {})
        branch[key] = value
    return PretrainConfig.model_validate(tree)


def write_pack(directory: Path, recordings: list[np.ndarray], sample_rate: int = SAMPLE_RATE,
               name: str = "0") -> Path:
    """A pack as `data.packed` describes it; samples in [-1, 1]."""
    directory.mkdir(parents=True)
    ends = np.cumsum([len(samples) for samples in recordings])
    whole = np.concatenate(recordings)
    (directory / "audio.int16").write_bytes(
        np.round(np.clip(whole, -1, 1) * 32767).astype("<i2").tobytes())
    (directory / "index.tsv").write_text("".join(
        f"utt{n}\t{end - len(samples)}\t{len(samples)}\n"
        for n, (samples, end) in enumerate(zip(recordings, ends, strict=True))))
    (directory / "audio.json").write_text(json.dumps({"sample_rate": sample_rate,
                                                      "data_hash": name}))
    return directory


def run_tiny(exp_dir: Path, pack: Path, **changes) -> None:
    """Pre-train in this process."""
    pretrain(make_config(**changes), PackedAudio(pack), exp_dir, ALONE)


def run_alone_or_joined(arguments: tuple, log_path: Path, environment: dict,
                        accident: dict | None) -> None:
    """Pre-train in a process of its own, as `programs.run_function` runs functions."""
    import programs

    programs._begin(log_path, environment)
    if accident:
        programs.plan_accident(**accident)
    exp_dir, pack, changes = arguments
    with join_world("cpu") as world:
        pretrain(make_config(**changes), PackedAudio(pack), exp_dir, world)


def load_last(exp_dir: Path) -> dict:
    """The state to go on from."""
    return torch.load(exp_dir / "models" / "last.pt", weights_only=True)


def read_metrics(exp_dir: Path) -> list[dict]:
    """The records of metrics.jsonl."""
    return [json.loads(line) for line in (exp_dir / "metrics.jsonl").read_text().splitlines()]


def read_valid(exp_dir: Path) -> list[tuple[int, dict]]:
    """Step and terms of each validation."""
    return [(record["step"], record["valid"]) for record in read_metrics(exp_dir)
            if "valid" in record]
