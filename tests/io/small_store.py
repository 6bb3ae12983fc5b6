"""A feature store of three utterances, and one of a long one; damage to them."""

import shutil
from pathlib import Path

import numpy as np

from wespeaker_lap.io.feats import FeatureWriter

L, D = 3, 5
IDENTITY = {"encoder": "tiny", "num_layers": L, "dim": D, "sample_rate": 16000, "data_hash": "0a"}
FRAMES = {"id1/b": 7, "é": 1, "语者/录音": 300}


def make_feats(num_frames: int, seed: int = 0) -> np.ndarray:
    """(T, L, D) float32 that float16 holds without rounding."""
    return np.random.default_rng(seed).integers(-2048, 2048, (num_frames, L, D)).astype(
        np.float32) / 8


FEATS = {utt: make_feats(frames, frames) for utt, frames in FRAMES.items()}


def write_store(directory: Path, codec: str = "float16", feats: dict | None = None) -> Path:
    """A store of one shard; of FEATS where nothing else is given."""
    with FeatureWriter(directory, IDENTITY, codec) as writer:
        for utt, array in (FEATS if feats is None else feats).items():
            writer.write(utt, array)
    return directory


def without_index(directory: Path) -> Path:
    """A copy of a store as earlier versions wrote it."""
    return shutil.copytree(directory, directory.parent / "earlier",
                           ignore=shutil.ignore_patterns("*.idx"))


def flip(path: Path, at: int, bit: int = 0) -> None:
    """Change a bit of a file."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


def find_values(path: Path, values: np.ndarray) -> int:
    """Where some values, (n, L, D), stand in an ark."""
    data = path.read_bytes()
    at = max(data.find(values.astype(dtype).tobytes()) for dtype in ("<f2", "<f4"))
    assert at > 0
    return at
