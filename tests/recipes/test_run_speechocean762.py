"""The speechocean762 recipe's run.sh on a part of the corpus: its sets, its trials, its errors."""

from pathlib import Path

import pytest
from calling import REPO, Recipe, list_files
from small_corpus import write_small_corpus

from wespeaker_lap.data.trials import read_trials
from wespeaker_lap.io.table import read_table

SCRIPT = REPO / "egs" / "speechocean762" / "v1" / "run.sh"
NUM_SPEAKERS = {"train": 16, "test": 4}  # 13 of the first are held back


@pytest.fixture(scope="module")
def corpus(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first speakers of both parts with two utterances each, the sounds where they are."""
    return write_small_corpus(shared / "corpora" / "speechocean762",
                              tmp_path_factory.mktemp("speechocean762"), NUM_SPEAKERS, 2)


def read_speakers(recipe: Recipe, name: str) -> set[str]:
    return set(read_table(recipe.data / name / "utt2spk").values())


def test_stage_1(corpus: Path, tmp_path: Path) -> None:
    recipe = Recipe(SCRIPT, tmp_path, ("--corpus_dir", str(corpus), "--stop_stage", "1"))
    told = recipe.run("--seed", "1").stderr
    sets = {name: read_speakers(recipe, name) for name in ("train", "valid", "test")}
    assert {name: len(speakers) for name, speakers in sets.items()} == {
        "train": 3, "valid": 13, "test": 4}
    assert not sets["train"] & sets["valid"]
    assert sets["train"] | sets["valid"] == set(
        read_table(corpus / "train" / "utt2spk").values())
    for name in sets:
        assert list_files(recipe.data / name) >= {"wav.scp", "utt2spk", "spk2utt", "utt2dur",
                                                  "spk2gender"}
    genders = read_table(recipe.data / "valid" / "spk2gender")
    utt2spk = read_table(recipe.data / "valid" / "utt2spk")
    trials = read_trials(recipe.data / "valid" / "trials" / "valid.kaldi")
    assert (trials.num_target, trials.num_nontarget) == (13, 13)  # one pair a speaker
    for a, b in zip(trials.enroll, trials.test, strict=True):
        assert genders[utt2spk[a]] == genders[utt2spk[b]]
    assert "stage 1 (prepare the data) took" in told

    recipe.run("--seed", "2")
    assert read_speakers(recipe, "valid") == sets["valid"]  # whatever the training's seed
    recipe.run("--split_seed", "2")
    assert read_speakers(recipe, "valid") != sets["valid"]


def test_no_corpus_is_told(tmp_path: Path) -> None:
    told = Recipe(SCRIPT, tmp_path).fail("--corpus_dir", tmp_path / "absent")
    assert f"{tmp_path}/absent/train/wav.scp: no such file" in told
    assert "openslr.org" in told
    assert "stage 1 (prepare the data) failed with exit code 1" in told
    assert list(tmp_path.iterdir()) == []
