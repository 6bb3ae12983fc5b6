"""Packs of recordings made here, and a way to start processes."""

import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_pretraining import write_pack

sys.path.append(str(Path(__file__).resolve().parents[1] / "engine"))  # launcher.py, programs.py


@pytest.fixture(scope="session")
def launcher(tmp_path_factory):
    """Starts processes, alone or as a world of two."""
    from launcher import Launcher

    return Launcher(tmp_path_factory.mktemp("logs"))


@pytest.fixture(scope="session")
def pack(tmp_path_factory) -> Path:
    """Twenty recordings of 0.4 s to 1 s at 16 kHz, noises that differ in colour and loudness."""
    rng = np.random.default_rng(0)
    recordings = []
    for _ in range(20):
        colour = rng.standard_normal(24) * np.hanning(24)
        loudness = np.repeat(rng.uniform(0.05, 1.0, 20), 800)
        samples = np.convolve(rng.standard_normal(16000), colour, "same") * loudness
        recordings.append(0.05 * samples[:int(rng.integers(6400, 16000))])
    return write_pack(tmp_path_factory.mktemp("packs") / "speech", recordings)
