"""A small system with AS-norm scores, packed and loaded; recordings, good ones and bad ones."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wespeaker_lap import load_model
from wespeaker_lap.data.datadir import load_data_dir
from wespeaker_lap.share.speaker import SpeakerModel


@pytest.fixture(scope="session")
def scored(tiny_system, tmp_path_factory) -> Path:
    """Folder of a training with cosine and AS-norm scores; not to be changed."""
    from wespeaker_lap.score.stages import ScoringJob, normalise_trials

    exp_dir = shutil.copytree(tiny_system.exp_dir, tmp_path_factory.mktemp("scored") / "lap-é")
    job = ScoringJob(exp_dir, tiny_system.data("test"), tiny_system.trials, "train")
    normalise_trials(job, tiny_system.data("train"), "asnorm", 3)
    return exp_dir


@pytest.fixture(scope="session")
def packed(scored, tmp_path_factory) -> Path:
    """The system packed, its encoder included, and checked; not to be changed."""
    from wespeaker_lap.share.pack import pack

    return pack(scored, tmp_path_factory.mktemp("packed") / "modèle", with_encoder=True)


@pytest.fixture(scope="session")
def test_wavs(tiny_system) -> dict[str, str]:
    """Utterance -> file of the test set."""
    return load_data_dir(tiny_system.data("test")).wavs


@pytest.fixture(scope="module")
def model(scored) -> SpeakerModel:
    """The system as people load it."""
    return load_model(scored)


@pytest.fixture(scope="session")
def voices(test_wavs) -> dict[str, list[str]]:
    """Files of speakers x and y."""
    return {name: [path for utt, path in test_wavs.items() if utt[0] == name] for name in "xy"}


@pytest.fixture
def bad(tmp_path) -> dict[str, str]:
    """Files that cannot be used, by status."""
    soundfile.write(tmp_path / "silent.wav", np.zeros(16000), 16000)
    soundfile.write(tmp_path / "short.wav", np.full(100, 0.1), 16000)
    (tmp_path / "broken.wav").write_bytes(b"no audio")
    return {name: str(tmp_path / f"{name}.wav") for name in ("missing", "broken", "silent",
                                                             "short")}
