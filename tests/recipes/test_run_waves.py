"""The stages where a configuration trains from waveforms: what each command is given."""

import shlex
import subprocess
from pathlib import Path

import pytest
from calling import REPO, make_environment

OPTIONS = ("--dry_run", "true", "--noise_scp", "n.scp", "--init", "exp/first", "--seed", "3")


def list_commands(folder: Path, *options: str) -> list[list[str]]:
    """The verbs that the mini recipe would run, with their arguments."""
    done = subprocess.run(["bash", str(REPO / "egs/mini/v1/run.sh"), *OPTIONS, *options],
                          cwd=folder, env=make_environment(), capture_output=True, text=True,
                          check=True, timeout=300)
    lines = [shlex.split(line) for line in done.stdout.splitlines() if not line.startswith("#")]
    return [words[words.index("wespeaker_lap") + 1:] for words in lines if "wespeaker_lap" in words]


def find(commands: list[list[str]], verb: str) -> list[list[str]]:
    return [words for words in commands if words[0] == verb]


def value_of(words: list[str], option: str) -> str | None:
    return words[words.index(option) + 1] if option in words else None


@pytest.fixture(scope="module")
def waves(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    return list_commands(tmp_path_factory.mktemp("run"), "--overrides", "data.source=wave")


def test_nothing_is_stored(waves: list[list[str]]) -> None:
    assert find(waves, "extract-feats") == []
    assert all("--feats" not in words for words in waves)
    assert len(find(waves, "extract-embeddings")) == 2
    (words,) = find(waves, "train-calibration")
    assert words[2] == "data/train"


def test_training_gets_recordings(waves: list[list[str]]) -> None:
    (words,) = find(waves, "train")
    assert (value_of(words, "--data"), value_of(words, "--valid_data"), value_of(
        words, "--valid_trials")) == ("data/train", "data/valid", "data/valid/trials/valid.kaldi")
    assert (value_of(words, "--init"), value_of(words, "--noise_scp")) == ("exp/first", "n.scp")
    assert "--training" not in words and "--rir_scp" not in words


def test_features_are_as_before(tmp_path: Path) -> None:
    commands = list_commands(tmp_path, "--valid_set=")
    (words,) = find(commands, "train")
    assert (value_of(words, "--feats"), value_of(words, "--init")) == (
        "feats/wavlm_tiny/train", "exp/first")
    assert {"--noise_scp", "--valid_trials", "--valid_data"}.isdisjoint(words)
    extracted = find(commands, "extract-feats")
    assert [("--training" in words, value_of(words, "--noise_scp")) for words in extracted] == [
        (True, "n.scp"), (False, None)]
    assert [value_of(words, "--feats") for verb in ("extract-embeddings", "train-calibration")
            for words in find(commands, verb)] == [
        "feats/wavlm_tiny/train", "feats/wavlm_tiny/test", "feats/wavlm_tiny/train"]
