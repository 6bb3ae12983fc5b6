"""A small training: its features, its settings, how it is started here, and what it leaves."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import programs
import torch

from wespeaker_lap.config import Config, load_config
from wespeaker_lap.data.datadir import DataDir, load_data_dir
from wespeaker_lap.data.trials import Trials, read_trials
from wespeaker_lap.engine.train import Validation, train
from wespeaker_lap.io.feats import FeatureStore, FeatureWriter

NUM_LAYERS, DIM = 3, 8
IDENTITY = {"encoder": "made_up", "num_layers": NUM_LAYERS, "dim": DIM, "sample_rate": 16000,
            "frame_shift": 320, "data_hash": "0", "toolkit_version": "0"}
# 48 utterances: 6 steps an epoch.
SETTINGS = {
    "seed": 7,
    "model": {"layer_pool": {"name": "lap", "out_dim": 16, "num_heads": 4, "dropout": 0.1},
              "time_pool": {"name": "astp", "dropout": 0.1}, "embed_dim": 8},
    "loss": {"margin": 0.2, "num_subcenters": 2, "top_k": 2,
             "schedule": {"start_epoch": 0.5, "end_epoch": 2}},
    "train": {"epochs": 3, "batch_size": 8, "crop_seconds": 0.2, "precision": "float32",
              "num_workers": 0, "checkpoint_steps": 4, "warmup_share": 0.2, "lr": 0.01},
}
STEPS_PER_EPOCH, NUM_STEPS = 6, 18
NO_DROPOUT = ("model.layer_pool.dropout=0", "model.time_pool.dropout=0")


def write_store(directory: Path, utt2spk: dict[str, str], seed: int, **identity) -> None:
    """Features that tell speakers apart, a little: each has a mean of its own."""
    rng = np.random.default_rng(seed)
    means = {spk: rng.normal(size=(NUM_LAYERS, DIM)) for spk in sorted(set(utt2spk.values()))}
    with FeatureWriter(directory, {**IDENTITY, **identity}, "float32") as writer:
        for utt, spk in utt2spk.items():
            noise = rng.normal(size=(int(rng.integers(7, 30)), NUM_LAYERS, DIM))
            writer.write(utt, (means[spk] + 1.5 * noise).astype(np.float32))


@dataclass(frozen=True)
class Corpus:
    """Where a training set, a validation set and their features are."""

    root: Path

    @property
    def data(self) -> DataDir:
        """The training set."""
        return load_data_dir(self.root / "train")

    @property
    def validation(self) -> Validation:
        """The validation trials."""
        return Validation(FeatureStore(self.root / "feats_valid"), self.trials)

    @property
    def trials(self) -> Trials:
        """The validation list."""
        return read_trials(self.root / "valid.kaldi")

    def command(self, exp_dir: Path, *overrides: str) -> list:
        """The arguments of `wespeaker-lap train`."""
        chosen = [word for item in overrides for word in ("--set", item)]
        return ["train", "--data", self.root / "train", "--feats", self.root / "feats",
                "--exp_dir", exp_dir, "--config", self.root / "config.yaml", "--valid_feats",
                self.root / "feats_valid", "--valid_trials", self.root / "valid.kaldi",
                "--device", "cpu", *chosen]

    def config(self, *overrides: str) -> Config:
        """The settings with some changed."""
        return load_config(self.root / "config.yaml", overrides)

    def train(self, exp_dir: Path, *overrides: str, **others) -> None:
        """Train in this process."""
        arguments = {"data": self.data, "feats": self.root / "feats",
                     "validation": self.validation, "world": programs.ALONE, **others}
        train(self.config(*overrides), exp_dir=exp_dir, **arguments)


def read_metrics(exp_dir: Path) -> list[dict]:
    """The records of metrics.jsonl."""
    return [json.loads(line) for line in (exp_dir / "metrics.jsonl").read_text().splitlines()]


def read_steps(exp_dir: Path) -> list[dict]:
    """Those of single steps."""
    return [record for record in read_metrics(exp_dir) if "epoch" not in record]


def strip_times(records: list[dict]) -> list[dict]:
    """Records without what the clock and the machine decide."""
    times = ("seconds", "utts_per_s", "read_mb_per_s", "data_wait", "host_gb")
    return [{key: value for key, value in record.items() if key not in times}
            for record in records]


def weights_of(exp_dir: Path, epoch: int = 3) -> bytes:
    """The bytes of an epoch's weights."""
    return (exp_dir / "models" / f"epoch_{epoch:03d}.safetensors").read_bytes()


def load_last(exp_dir: Path) -> dict:
    """The state to go on from."""
    return torch.load(exp_dir / "models" / "last.pt", weights_only=True)
