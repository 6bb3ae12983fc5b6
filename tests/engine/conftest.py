"""Small corpora of features and of recordings, trainings on them, a way to start processes."""

from pathlib import Path

import pytest
import yaml
from launcher import Launcher
from trainings import NO_DROPOUT, SETTINGS, Corpus, write_store
from waves import WaveCorpus, make_wave_corpus

from wespeaker_lap.data.datadir import write_data_dir
from wespeaker_lap.data.trials import make_trials, write_trials


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Corpus:
    root = tmp_path_factory.mktemp("corpus")
    for name, num_speakers, seed in (("train", 12, 0), ("valid", 4, 1)):
        utt2spk = {f"{name}{s:02d}-{u}": f"{name}{s:02d}" for s in range(num_speakers)
                   for u in range(4)}
        write_data_dir(root / name, {utt: f"{utt}.wav" for utt in utt2spk}, utt2spk)
        write_store(root / ("feats" if name == "train" else "feats_valid"), utt2spk, seed)
    write_trials(root / "valid.kaldi", make_trials(utt2spk))
    (root / "config.yaml").write_text(yaml.safe_dump(SETTINGS))
    return Corpus(root)


@pytest.fixture(scope="session")
def wave_corpus(tmp_path_factory) -> WaveCorpus:
    return make_wave_corpus(tmp_path_factory.mktemp("waves"))


@pytest.fixture(scope="session")
def launcher(tmp_path_factory) -> Launcher:
    return Launcher(tmp_path_factory.mktemp("logs"))


@pytest.fixture(scope="session")
def whole_training(corpus, launcher, tmp_path_factory) -> Path:
    """The folder of a training with dropout that nothing interrupted."""
    exp_dir = tmp_path_factory.mktemp("whole") / "exp"
    code, log = launcher.verb(corpus.command(exp_dir))
    assert code == 0, log
    return exp_dir


@pytest.fixture(scope="session")
def plain_training(corpus, launcher, tmp_path_factory) -> Path:
    """One without dropout, where every number of processes computes the same."""
    exp_dir = tmp_path_factory.mktemp("plain") / "exp"
    code, log = launcher.verb(corpus.command(exp_dir, *NO_DROPOUT))
    assert code == 0, log
    return exp_dir
