"""docs/pages/own_corpus.md, followed word for word on a corpus that it was not written for."""

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from blocks import list_blocks
from scene import copy_checkout

from wespeaker_lap.data.datadir import load_data_dir

NUM_VOICES = 72  # 51 to train on, as AS-norm with 50 speakers needs


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Coloured noises in flac, with blanks in all names, and a table as a spreadsheet writes it."""
    root = tmp_path_factory.mktemp("some one's voices")
    rows = ["\ufeffFile;Speaker;Sex"]
    for voice in range(NUM_VOICES):
        rng = np.random.default_rng(voice)
        colour = rng.standard_normal(32)
        (root / f"voice {voice}").mkdir()
        for take in range(3):
            sound = 0.02 * np.convolve(rng.standard_normal(rng.integers(6000, 10000)), colour)
            name = f"voice {voice}/take {take}.flac"
            soundfile.write(root / name, sound.clip(-1, 1), 16000)
            rows.append(f"{name};v{voice};{'fm'[voice % 2]}")
    (root / "speakers.csv").write_text("\r\n".join(rows) + "\r\n", encoding="utf-8")
    return root


def read_commands(corpus: Path) -> str:
    """The page's fenced commands, with the folder and two recordings put in."""
    script = "\n".join(block.text for block in list_blocks("run", "own_corpus"))
    recordings = [f'"{corpus}/voice 3/take {take}.flac"' for take in (0, 1)]
    # The folder may have blanks, which is why what is typed here has to be quoted.
    script = re.sub(r"\bDIR(/\S+)?", lambda found: f'"{corpus}{found[1] or ""}"', script)
    return script.replace("OTHER_RECORDING", recordings[1]).replace("RECORDING", recordings[0])


def read_times(folder: Path) -> dict[Path, int]:
    """When each file was last written, in ns."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_the_guide(corpus: Path, shell, tmp_path: Path) -> None:
    copy_checkout(tmp_path)
    before = read_times(corpus)
    done = shell(read_commands(corpus), tmp_path)
    assert read_times(corpus) == before

    check = {way: {name: load_data_dir(tmp_path / "check" / way / name)
                   for name in ("train", "valid", "test")} for way in ("parent", "regex", "csv")}
    for way, sets in check.items():
        speakers = {name: len(data.speakers) for name, data in sets.items()}
        assert speakers == {"train": 51, "valid": 7, "test": 14}, way
        assert (tmp_path / "check" / way / "audit.html").is_file()
    assert check["parent"]["test"].speakers == check["regex"]["test"].speakers
    assert check["csv"]["test"].spk2gender.keys() == set(check["csv"]["test"].speakers)
    assert check["csv"]["test"].speakers[0].startswith("v") and (
        check["parent"]["test"].speakers[0].startswith("voice_"))

    recipe = tmp_path / "egs" / "mycorpus" / "v1"
    for name in ("RESULTS.md", "scores/test.score", "scores/train_asnorm50_test.score"):
        assert (recipe / "exp" / "lap" / name).is_file()
    assert "20 utterances of these sets" in done.stdout and "# missing" not in done.stdout
    score = float(done.stdout.splitlines()[-1])
    assert -1 <= score <= 1

