"""egs/template/v1 as its README says: copied, five lines edited, run; on real speech."""

import re
import shutil
from pathlib import Path

import pytest
from calling import REPO, Recipe, list_files, read_times

from wespeaker_lap.data.trials import read_trials
from wespeaker_lap.io.table import invert, read_table

TEMPLATE = REPO / "egs" / "template" / "v1"
NUM_SPEAKERS, NUM_UTTS = 12, 4
SMALL = ("--nj", "1", "--device", "cpu", "--stop_stage", "3", "--overrides",
         "train.epochs=1 train.batch_size=16 train.num_workers=0 model.layer_pool.out_dim=64")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The parts of this checkout that a copy of the template needs, and the copy."""
    root = tmp_path / "check out"
    for name in ("tools", "egs/template", "egs/speechocean762/v1/conf"):
        shutil.copytree(REPO / name, root / name)
    shutil.copy(REPO / "egs" / "sv.sh", root / "egs" / "sv.sh")
    return Path(shutil.copytree(TEMPLATE, root / "egs" / "mine" / "v1"))


@pytest.fixture
def speech(shared: Path, tmp_path: Path) -> Path:
    """Folders of the first speakers, each with the first recordings."""
    source = shared / "corpora" / "speechocean762" / "WAVE"
    for speaker in sorted(source.iterdir())[:NUM_SPEAKERS]:
        (tmp_path / "speech" / speaker.name).mkdir(parents=True)
        for wav in sorted(speaker.iterdir())[:NUM_UTTS]:
            shutil.copy(wav, tmp_path / "speech" / speaker.name)
    return tmp_path / "speech"


def edit(script: Path, **lines: str) -> None:
    """Write values into lines of a run.sh."""
    text = script.read_text()
    for name, value in lines.items():
        text, count = re.subn(rf"(?<![\w-]){name}=\S*", lambda _, new=f"{name}={value}": new, text)
        assert count == 1, name
    script.write_text(text)


def test_five_lines_are_to_be_edited() -> None:
    text = (TEMPLATE / "run.sh").read_text()
    block = text.split(". ../../sv.sh\n\n")[1].split("\n\n")[0].splitlines()
    assert [line.split("=")[0] for line in block] == [
        "wav_dir", "spk_from", "regex", "valid", "config"]
    assert all(" # " in line for line in block)


def test_data_features_and_training_on_real_speech(checkout: Path, speech: Path) -> None:
    before = read_times(speech)
    edit(checkout / "run.sh", wav_dir=f"'{speech}'", valid="2", test="4")
    recipe = Recipe(checkout / "run.sh", checkout, SMALL)
    recipe.run()
    sets = {name: invert(read_table(recipe.data / name / "utt2spk"))
            for name in ("train", "valid", "test")}
    assert {name: len(own) for name, own in sets.items()} == {"train": 6, "valid": 2, "test": 4}
    assert set().union(*sets.values()) == {path.name for path in speech.iterdir()}
    trials = read_trials(recipe.data / "test" / "trials" / "test.kaldi")
    assert (trials.num_target, trials.num_nontarget) == (24, 24)  # 4 speakers, 6 pairs each
    assert "models/epoch_001.safetensors" in list_files(recipe.exp)
    assert {"audit.html", "audit.md"} <= list_files(recipe.data)
    assert read_times(speech) == before


def test_trials_of_make_data_are_kept(checkout: Path, tmp_path: Path) -> None:
    """Stage 1 makes no others, which would not keep to the limit of make-data."""
    done = Recipe(checkout / "run.sh", checkout).run("--wav_dir", tmp_path, "--dry_run", "true")
    assert "local/prepare_data.py" in done.stdout and "make-trials" not in done.stdout


def test_options_reach_make_data(checkout: Path, tmp_path: Path) -> None:
    recipe = Recipe(checkout / "run.sh", checkout, ("--stop_stage", "1"))
    assert "set wav_dir in run.sh, or pass --wav_dir DIR" in recipe.fail()
    (tmp_path / "empty").mkdir()
    assert "no recordings (.wav, .flac" in recipe.fail("--wav_dir", tmp_path / "empty")
    told = recipe.fail("--wav_dir", tmp_path / "empty", "--spk_from", "regex")
    assert "stage 1 (prepare the data) failed with exit code 1" in told
    assert "no recordings" in told  # which are looked for before the expression is used
    assert "nothing to download" in recipe.run("--stage", "0", "--stop_stage", "0").stdout
