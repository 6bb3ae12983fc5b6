"""speechocean762's comparisons: the draw of speakers, and that every system can be configured."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from calling import REPO, make_environment

from wespeaker_lap.config import load_config
from wespeaker_lap.data.datadir import load_data_dir, write_data_dir

RECIPE = REPO / "egs" / "speechocean762" / "v1"
SPEEDS = ("0.9", "1.1")


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    """`train` of 6 speakers with 4 utterances each, and `train_sp` with their speed copies."""
    utt2spk = {f"s{spk}u{utt}": f"s{spk}" for spk in range(6) for utt in range(4)}
    genders = {f"s{spk}": "mf"[spk % 2] for spk in range(6)}
    copies = dict(utt2spk)
    for speed in SPEEDS:
        copies |= {f"sp{speed}-{utt}": f"sp{speed}-{spk}" for utt, spk in utt2spk.items()}
        genders |= {f"sp{speed}-s{spk}": "mf"[spk % 2] for spk in range(6)}
    for name, table in (("train", utt2spk), ("train_sp", copies)):
        write_data_dir(tmp_path / name, {utt: f"/{utt}.wav" for utt in table}, table, genders)
    return tmp_path


def draw(sets: Path, num_speakers: int, num_utts: int, seed: int,
         name: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, RECIPE / "local" / "draw_speakers.py", "--data", sets / "train",
         "--copies", sets / "train_sp", "--num_speakers", str(num_speakers), "--num_utts",
         str(num_utts), "--seed", str(seed), "--out", sets / name],
        capture_output=True, text=True, check=False)


def test_drawn_speakers_bring_their_copies(sets: Path) -> None:
    found = {}
    for seed, name in ((1, "a"), (1, "again"), (2, "b")):
        assert draw(sets, 3, 2, seed, name).returncode == 0
        found[name] = load_data_dir(sets / name).utt2spk
    plain = {utt: spk for utt, spk in found["a"].items() if not utt.startswith("sp")}
    assert len(plain) == 6 and len(set(plain.values())) == 3
    assert set(found["a"]) == {*plain, *(f"sp{speed}-{utt}" for speed in SPEEDS for utt in plain)}
    assert found["again"] == found["a"] != found["b"]


def test_more_speakers_than_there_are(sets: Path) -> None:
    done = draw(sets, 7, 2, 1, "c")
    assert done.returncode != 0
    assert "6 speakers, cannot draw 7" in done.stderr and "Traceback" not in done.stderr
    assert not (sets / "c").exists()


def test_every_system_can_be_configured() -> None:
    done = subprocess.run(
        ["bash", RECIPE / "local" / "compare_systems.sh", "--dry_run", "true"],
        env=make_environment(), capture_output=True, text=True, check=True)
    calls = [shlex.split(line) for line in done.stdout.splitlines()]
    names = set()
    for call in (call for call in calls if call[1:2] == ["run.sh"]):
        options = dict(zip(call[2::2], call[3::2], strict=True))
        load_config(RECIPE / options["--config"], options["--overrides"].split())
        names.add(Path(options["--exp_dir"]).name)
    compared = {Path(exp).name for call in calls if "compare" in call
                for exp in call if exp.startswith("exp/compare/") and not exp.endswith(".md")}
    assert names == compared
    assert len(names) == 3 * (11 + 6 + 5 + 6 + 4 + 3 + 7)  # systems of the tables, none twice
