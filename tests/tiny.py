"""A complete system in seconds: noises for voices, the packaged encoder, two training steps."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wespeaker_lap import build
from wespeaker_lap.config import load_config
from wespeaker_lap.data import trials
from wespeaker_lap.data.audit import audit_data_dir
from wespeaker_lap.data.datadir import load_data_dir, write_data_dir
from wespeaker_lap.engine import checkpoint, dist, embed, extract, train
from wespeaker_lap.io.audio import write_wav
from wespeaker_lap.score.stages import ScoringJob, score_trials

TINY_CONFIG = (
    "model.layer_pool.out_dim=32", "model.layer_pool.num_heads=4", "model.embed_dim=16",
    "loss.num_subcenters=1", "loss.top_k=2", "train.epochs=1", "train.batch_size=8",
    "train.crop_seconds=0.3", "train.num_workers=0", "train.precision=float32", "score.top_n=3")


@dataclass(frozen=True)
class TinySystem:
    """A small system as stages 1 to 5 leave it."""

    root: Path
    exp_dir: Path
    trials: Path

    def data(self, name: str) -> Path:
        """Data directory of the set "train" or "test"."""
        return self.root / "data" / name

    def feats(self, name: str) -> Path:
        """Feature store of a set."""
        return self.root / "feats" / name


def make_system(root: Path) -> TinySystem:
    """Run the functions of stages 1 to 5."""
    system = TinySystem(root, root / "exp" / "tiny", root / "data/test/trials/pairs.kaldi")
    config = load_config(overrides=TINY_CONFIG)
    frontend = build.build_frontend(config.frontend)
    with dist.join_world("cpu") as world:
        for name, speakers in {"train": "abcé", "test": "xy语"}.items():
            write_voices(system.data(name), speakers)
            audit_data_dir(system.data(name))
            extract.extract_feats(frontend, load_data_dir(system.data(name)), system.feats(name),
                                  config.features.codec, world)
        data = load_data_dir(system.data("train"))
        train.train(config, data, system.feats("train"), system.exp_dir, world)
        checkpoint.average_epochs(system.exp_dir, 1)
        for name in ("train", "test"):
            utts = sorted(load_data_dir(system.data(name)).wavs)
            embed.embed_set(system.exp_dir, system.feats(name), utts, name, world)
    utt2spk = load_data_dir(system.data("test")).utt2spk
    trials.write_trials(system.trials, trials.make_trials(utt2spk))
    score_trials(ScoringJob(system.exp_dir, system.data("test"), system.trials, "train"))
    return system


def write_voices(path: Path, speakers: str, num_utts: int = 4) -> Path:
    """Write a data directory of noises, each speaker's of its own colour.

    Ids are not ASCII, utterances are 0.5 s to 0.95 s long.
    """
    wavs, utt2spk = {}, {}
    for speaker in speakers:
        rng = np.random.default_rng(ord(speaker))
        colour = rng.standard_normal(32)
        for number in range(num_utts):
            utt = f"{speaker}/录音-{number}"
            samples = rng.standard_normal(rng.integers(8000, 15000))
            wavs[utt] = str(path / "wav" / f"{utt.replace('/', '_')}.wav")
            write_wav(wavs[utt], 0.02 * np.convolve(samples, colour), 16000)
            utt2spk[utt] = speaker
    write_data_dir(path, wavs, utt2spk)
    return path
