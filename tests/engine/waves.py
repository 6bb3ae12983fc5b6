"""A small corpus of recordings, and trainings from its waveforms."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import programs
import yaml
from tiny import write_voices

from wespeaker_lap.config import Config, load_config
from wespeaker_lap.data.copy_sources import CopySources
from wespeaker_lap.data.datadir import DataDir, load_data_dir
from wespeaker_lap.data.trials import make_trials, read_trials, write_trials
from wespeaker_lap.engine.train import Validation, train
from wespeaker_lap.io.audio import write_wav
from wespeaker_lap.io.table import write_table

# 24 utterances, 72 with speeds: 3 or 9 steps an epoch.
FBANK = {
    "seed": 7,
    "frontend": {"name": "fbank", "num_mels": 8},
    "data": {"source": "wave"},
    "model": {"layer_pool": {"name": "single", "layer": 0},
              "time_pool": {"name": "astp", "dropout": 0.1}, "embed_dim": 8},
    "loss": {"margin": 0.1, "num_subcenters": 1, "top_k": 2, "schedule": {"end_epoch": 1}},
    "train": {"epochs": 2, "batch_size": 8, "crop_seconds": 0.4, "precision": "float32",
              "num_workers": 0, "checkpoint_steps": 2, "lr": 0.01},
}
AUGMENTED = ("data.augment={prob: 0.8}", "data.speeds=[0.9, 1.0, 1.1]")


@dataclass(frozen=True)
class WaveCorpus:
    """Where a training set, a validation set, and recordings to augment with are."""

    root: Path

    @property
    def data(self) -> DataDir:
        """The training set."""
        return load_data_dir(self.root / "train")

    @property
    def tables(self) -> CopySources:
        """Noises and an impulse response; babble is made of the set."""
        return CopySources(self.root / "noise.scp", self.root / "rir.scp")

    @property
    def validation(self) -> Validation:
        """Trials of the other set."""
        return Validation(load_data_dir(self.root / "valid"),
                          read_trials(self.root / "valid.kaldi"))

    def config(self, *overrides: str) -> Config:
        """The settings with some changed."""
        return load_config(self.root / "config.yaml", overrides)

    def command(self, exp_dir: Path, *overrides: str) -> list:
        """The arguments of `wespeaker-lap train`."""
        chosen = [word for item in overrides for word in ("--set", item)]
        return ["train", "--data", self.root / "train", "--exp_dir", exp_dir, "--config",
                self.root / "config.yaml", "--valid_data", self.root / "valid", "--valid_trials",
                self.root / "valid.kaldi", "--noise_scp", self.tables.noise_scp, "--rir_scp",
                self.tables.rir_scp, "--device", "cpu", *chosen]

    def train(self, exp_dir: Path, *overrides: str, **others) -> None:
        """Train in this process."""
        arguments = {"data": self.data, "feats": None, "validation": self.validation,
                     "world": programs.ALONE, "tables": self.tables, **others}
        train(self.config(*overrides), exp_dir=exp_dir, **arguments)


def make_wave_corpus(root: Path) -> WaveCorpus:
    """Write it: six speakers to learn, two to test."""
    corpus, rng = WaveCorpus(root), np.random.default_rng(5)
    write_voices(root / "train", "abcdef")
    write_voices(root / "valid", "xy")
    write_trials(root / "valid.kaldi", make_trials(load_data_dir(root / "valid").utt2spk))
    for number in range(3):
        write_wav(root / f"noise{number}.wav", 0.1 * rng.standard_normal(5000 + 4000 * number))
    write_table(root / "noise.scp", {f"n{number}": f"noise{number}.wav" for number in range(3)})
    response = np.zeros(800)
    response[[50, 300, 500]] = 0.5, 0.3, -0.2
    write_wav(root / "rir.wav", response)
    write_table(root / "rir.scp", {"r": "rir.wav"})
    (root / "config.yaml").write_text(yaml.safe_dump(FBANK))
    return corpus
