"""A small system with AS-norm scores, and the same one packed."""

import shutil
from pathlib import Path

import pytest

from wespeaker_lap.data.datadir import load_data_dir


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
