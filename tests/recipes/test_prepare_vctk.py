"""VCTK-shaped trees through the recipe's script: releases, microphones, the split, trials."""

import csv
import gzip
import hashlib
import importlib.util
import io
import zipfile
from collections import Counter
from itertools import combinations
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
from calling import REPO
from serving import serve

from wespeaker_lap.data.datadir import load_data_dir
from wespeaker_lap.data.trials import read_trials
from wespeaker_lap.io.audio import read_audio

LOCAL = REPO / "egs" / "vctk" / "v1" / "local"
SPLIT = {"p225": "train f", "p280": "train f", "p226": "train m", "p239": "valid f",
         "p237": "valid m", "p231": "test f", "p260": "test m"}
SPEAKERS = [*SPLIT, "p315", "s5"]  # the last two are in no set
SENTENCES = (1, 24, 25, 26, 300)
RELEASES = {"0.92": ("wav48_silence_trimmed", ("_mic1.flac", "_mic2.flac")),
            "0.80": ("wav48", (".wav",))}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prepare_vctk", LOCAL / "prepare_data.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def plant(root: Path, release: str) -> Path:
    """As the archive unpacks to: p280 and p315 without a second microphone, p315 without text."""
    folder, endings = RELEASES[release]
    for ending in endings:
        sound = io.BytesIO()
        soundfile.write(sound, 0.1 * np.ones(4800), 48000, format=ending.split(".")[1])
        for speaker in SPEAKERS:
            if "mic2" in ending and speaker in ("p280", "p315"):
                continue
            for number in SENTENCES:
                path = root / folder / speaker / f"{speaker}_{number:03d}{ending}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(sound.getvalue())
    (root / folder / "log.txt").touch()
    for speaker in set(SPEAKERS) - {"p315"}:
        (root / "txt" / speaker).mkdir(parents=True)
    return root


def plant_lists(root: Path) -> Path:
    root.mkdir()
    (root / "speakers").write_text("".join(f"{s} {text}\n" for s, text in SPLIT.items()))
    for name in ("valid", "test"):
        utts = [f"{speaker}_{number:03d}" for speaker, text in SPLIT.items() if name in text
                for number in SENTENCES if number > 24]
        lines = [f"{a} {b} {'target' if a[:4] == b[:4] else 'nontarget'}\n"
                 for a, b in combinations(utts, 2)]
        (root / f"{name}.kaldi.gz").write_bytes(gzip.compress("".join(lines).encode()))
    return root


def make_options(root: Path) -> list[str]:
    return ["--data", str(root / "data"), "--corpus_dir", str(root / "corpus"), "--lists_dir",
            str(plant_lists(root / "lists"))]


@pytest.mark.parametrize(("release", "mic", "ending"), [
    ("0.92", "1", "_mic1.flac"), ("0.92", "2", "_mic2.flac"), ("0.80", "1", ".wav")])
def test_releases_and_microphones(script: ModuleType, tmp_path: Path, release: str, mic: str,
                                  ending: str, capsys: pytest.CaptureFixture) -> None:
    corpus = plant(tmp_path / "corpus", release)
    assert script.main([*make_options(tmp_path), "--mic", mic]) == 0
    for name in ("train", "valid", "test"):
        data = load_data_dir(tmp_path / "data" / name)
        there = {s: text.split()[1] for s, text in SPLIT.items()
                 if text.startswith(name) and (s, mic) != ("p280", "2")}
        assert data.spk2gender == there
        assert sorted(data.wavs) == sorted(f"{s}_{n}" for s in there for n in ("025", "026", "300"))
        utt = min(data.wavs)
        assert data.wavs[utt] == str(
            corpus.resolve() / RELEASES[release][0] / utt[:4] / f"{utt}{ending}")
        assert len(read_audio(data.wavs[utt])) == 1600  # 0.1 s
        assert data.utt2spk[utt] == utt[:4]
    trials = read_trials(tmp_path / "data" / "test" / "trials" / "unipool_test.kaldi")
    assert (len(trials), trials.num_target) == (15, 6)  # 2 speakers of 3
    assert {path.name for path in (tmp_path / "data" / "valid" / "trials").iterdir()} == {
        "unipool_valid.kaldi", "valid.kaldi"}
    told = capsys.readouterr().out
    strangers = "p315, s5" if mic == "1" else "s5"
    assert f"speakers not in the split, left out: {strangers}\n" in told
    assert ("speakers without recordings: p280\n" in told) == (mic == "2")


def test_the_first_sentences(script: ModuleType, tmp_path: Path) -> None:
    plant(tmp_path / "corpus", "0.92")
    assert script.main([*make_options(tmp_path), "--first_sentence", "24"]) == 0
    utts = load_data_dir(tmp_path / "data" / "train").wavs
    assert len(utts) == 3 * 4 and "p225_024" in utts and "p225_001" not in utts


def test_what_is_wrong_is_told(script: ModuleType, tmp_path: Path,
                               capsys: pytest.CaptureFixture) -> None:
    corpus, options = plant(tmp_path / "corpus", "0.92"), make_options(tmp_path)
    audio = corpus / "wav48_silence_trimmed"
    (audio / "p231" / "p231_025_mic1.flac").unlink()
    assert script.main(options) == 1
    assert "1 utterances are absent: p231_025; complete" in capsys.readouterr().err
    assert script.main([*options, "--incomplete_lists", "keep"]) == 0
    assert "15 trials (6 target)" in capsys.readouterr().out
    (audio / "p231" / "p231_026_mic1.wav").touch()
    assert script.main(options) == 1
    assert "p231_026: two recordings, " in capsys.readouterr().err
    speakers = tmp_path / "lists" / "speakers"
    speakers.write_text("p225 train x\n")
    assert script.main(options) == 1
    assert "speakers: p225: expected 'train|valid|test m|f'" in capsys.readouterr().err
    speakers.write_text("p225 train f\n")
    audio.rename(corpus / "wav24")
    assert script.main(options) == 1
    told = capsys.readouterr().err
    assert "run.sh --stage 0 --stop_stage 0`" in told and "VCTK-Corpus-0.92.zip" in told


def test_the_published_split_and_lists(script: ModuleType) -> None:
    speakers = script.read_speakers(LOCAL / "lists" / "speakers")
    assert Counter(name for name, _ in speakers.values()) == {"train": 72, "valid": 18, "test": 18}
    for name, num_trials in (("valid", 16040), ("test", 16072)):
        trials = read_trials(LOCAL / "lists" / f"{name}.kaldi.gz")
        pairs = list(zip(trials.enroll, trials.test, strict=True))
        assert len(set(map(frozenset, pairs))) == len(pairs) == num_trials
        assert trials.labels.tolist() == [a[:4] == b[:4] for a, b in pairs]
        targets = Counter(a[:4] for (a, _), same in zip(pairs, trials.labels, strict=True) if same)
        assert targets == {s: 445 for s, (part, _) in speakers.items() if part == name}
        assert min(int(utt[5:]) for pair in pairs for utt in pair) == 25


def test_they_are_those_of_the_paper(script: ModuleType, shared: Path) -> None:
    folder = shared / "lists" / "unipool" / "VCTK-Corpus" / "preprocess"

    def read(path: Path) -> list[dict]:
        with gzip.open(path, "rt") as lines:
            return list(csv.DictReader(lines))

    wanted = {row["ID"]: (name, row["GENDER"].lower()) for name in ("train", "valid", "test")
              for row in read(folder / "speakers" / f"speaker-{name}.csv.gz")}
    assert script.read_speakers(LOCAL / "lists" / "speakers") == wanted
    for name in ("valid", "test"):
        rows = read(folder / "trials" / f"trials-{name}.csv.gz")
        trials = read_trials(LOCAL / "lists" / f"{name}.kaldi.gz")
        for ours, theirs in ((trials.enroll, "SAMPLE1"), (trials.test, "SAMPLE2")):
            assert ours == [Path(row[theirs]).stem for row in rows]
        assert trials.labels.tolist() == [row["LABEL"] == "1" for row in rows]


def test_download_then_prepare(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                               capsys: pytest.CaptureFixture) -> None:
    original, served = plant(tmp_path / "original", "0.92"), tmp_path / "served"
    served.mkdir()
    with zipfile.ZipFile(served / "VCTK.zip", "w") as archive:  # without a folder around all
        for path in original.rglob("*"):
            archive.write(path, path.relative_to(original))
    options = make_options(tmp_path)
    with serve(served) as url:
        fetch = [*options, "--download", "true", "--url", f"{url}VCTK.zip"]
        assert script.main(fetch) == 1
        assert "VCTK.zip: md5 is" in capsys.readouterr().err
        md5 = hashlib.md5((served / "VCTK.zip").read_bytes()).hexdigest()
        monkeypatch.setattr(script, "MD5", md5)
        assert script.main(fetch) == 0
        assert script.main(fetch) == 0
        assert "there already" in capsys.readouterr().out
    assert script.main(options) == 0
    assert len(load_data_dir(tmp_path / "data" / "test").wavs) == 6
