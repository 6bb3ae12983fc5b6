"""LibriSpeech-shaped trees through the recipe's script: parts, readers, trials, download."""

import csv
import gzip
import hashlib
import importlib.util
import io
import tarfile
from collections import Counter
from itertools import combinations
from pathlib import Path
from types import ModuleType

import pytest
import soundfile
from calling import REPO
from serving import serve

from wespeaker_lap.data.datadir import load_data_dir
from wespeaker_lap.data.trials import read_trials
from wespeaker_lap.io.audio import read_audio

LOCAL = REPO / "egs" / "librispeech" / "v1" / "local"
READERS = {"train-clean-100": ("19", "26"), "train-clean-360": ("14", "16"),
           "train-other-500": ("20", "38"), "dev-clean": ("84",), "dev-other": ("116",),
           "test-clean": ("61", "121"), "test-other": ("367",)}
TABLE = """\
; Some pipe(|) separated metadata
;ID  |SEX| SUBSET           |MINUTES| NAME
"""


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prepare_librispeech", LOCAL / "prepare_data.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def list_utts(part: str) -> list[str]:
    return [f"{reader}-{chapter}-{number:04d}" for reader in READERS[part]
            for chapter in (198, 4519) for number in range(2)]


def plant(root: Path) -> Path:
    """The tree as the archives unpack to, and a table with a name that holds a bar."""
    sound = io.BytesIO()
    soundfile.write(sound, [0.1, -0.1] * 800, 16000, format="flac")
    rows = []
    for part, readers in READERS.items():
        rows += [f"{reader:5}| {'MF'[int(reader) % 2]} | {part:16} | 25.1 | |CBW|Simon"
                 for reader in readers]
        for utt in list_utts(part):
            reader, chapter, _ = utt.split("-")
            path = root / part / reader / chapter / f"{utt}.flac"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(sound.getvalue())
            (path.parent / f"{reader}-{chapter}.trans.txt").write_text(f"{utt} A WORD\n")
    (root / "SPEAKERS.TXT").write_text(TABLE + "\n".join(rows) + "\n")
    return root


def plant_lists(root: Path) -> Path:
    root.mkdir()
    for name in ("valid", "test"):
        kind = {"valid": "dev", "test": "test"}[name]
        utts = [*list_utts(f"{kind}-clean"), *list_utts(f"{kind}-other")]
        lines = [f"{a} {b} {'target' if a.split('-')[0] == b.split('-')[0] else 'nontarget'}\n"
                 for a, b in combinations(utts, 2)]
        (root / f"{name}.kaldi.gz").write_bytes(gzip.compress("".join(lines).encode()))
    return root


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return plant(tmp_path / "LibriSpeech")


@pytest.fixture
def options(corpus: Path, tmp_path: Path) -> list[str]:
    lists = plant_lists(tmp_path / "lists")
    return ["--data", str(tmp_path / "data"), "--corpus_dir", str(corpus), "--lists_dir",
            str(lists)]


def test_the_sets(script: ModuleType, options: list[str], tmp_path: Path, corpus: Path) -> None:
    assert script.main(options) == 0
    sets = {name: load_data_dir(tmp_path / "data" / name) for name in ("train", "valid", "test")}
    for name, parts in {"train": script.TRAIN_PARTS, **script.HELD_OUT}.items():
        assert sorted(sets[name].wavs) == sorted(utt for part in parts for utt in list_utts(part))
    assert sets["test"].speakers == ["121", "367", "61"]
    assert sets["test"].spk2gender == {"61": "f", "121": "f", "367": "f"}
    assert sets["train"].spk2gender["14"] == "m"
    assert sets["test"].utt2spk["61-198-0001"] == "61"
    path = sets["test"].wavs["61-198-0001"]
    assert path == str(corpus.resolve() / "test-clean" / "61" / "198" / "61-198-0001.flac")
    assert len(read_audio(path)) == 1600
    trials = read_trials(tmp_path / "data" / "test" / "trials" / "unipool_test.kaldi")
    # 3 readers of 4 utterances: 3 x 6 target pairs of 66.
    assert (len(trials), trials.num_target) == (66, 18)
    names = {path.name for path in (tmp_path / "data" / "valid" / "trials").iterdir()}
    assert names == {"unipool_valid.kaldi", "valid.kaldi"}


def test_a_part_of_the_training_set(script: ModuleType, options: list[str],
                                    tmp_path: Path) -> None:
    assert script.main([*options, "--train_parts", "train-clean-100 train-other-500"]) == 0
    assert load_data_dir(tmp_path / "data" / "train").speakers == ["19", "20", "26", "38"]
    with pytest.raises(SystemExit):
        script.main([*options, "--train_parts", "dev-clean"])


def test_incomplete_lists(script: ModuleType, options: list[str], tmp_path: Path, corpus: Path,
                          capsys: pytest.CaptureFixture) -> None:
    (corpus / "test-other" / "367" / "198" / "367-198-0000.flac").unlink()
    assert script.main(options) == 1
    assert "1 utterances are absent: 367-198-0000; complete the corpus" in capsys.readouterr().err
    assert script.main([*options, "--incomplete_lists", "skip"]) == 0
    assert not (tmp_path / "data" / "test" / "trials" / "unipool_test.kaldi").exists()


def test_what_is_wrong_is_told(script: ModuleType, options: list[str], corpus: Path,
                               capsys: pytest.CaptureFixture) -> None:
    def fail() -> str:
        assert script.main(options) == 1
        told = capsys.readouterr().err
        assert len(told.splitlines()) == 1
        return told

    table = corpus / "SPEAKERS.TXT"
    text = table.read_text()
    table.write_text(text.replace("26   | M | train-clean-100", "26   | M | test-clean     "))
    assert "in another part: 26;" in fail()
    table.write_text(text.replace("84   | M", "84   | X"))
    assert f"{table}:9: expected 'reader | F or M | part | minutes | name'" in fail()
    table.write_text(text)
    stray = corpus / "test-clean" / "61" / "198" / "121-999-0000.flac"
    stray.write_bytes(b"")
    assert f"{stray}: in another reader's folder" in fail()
    stray.unlink()
    (corpus / "dev-other").rename(corpus / "elsewhere")
    told = fail()
    assert "run.sh --stage 0 --stop_stage 0`" in told
    assert "openslr.org/resources/12/dev-other.tar.gz" in told
    table.unlink()
    assert "SPEAKERS.TXT: no such file" in fail()


def test_the_published_lists() -> None:
    for name in ("valid", "test"):
        trials = read_trials(LOCAL / "lists" / f"{name}.kaldi.gz")
        pairs = list(zip(trials.enroll, trials.test, strict=True))
        assert len(set(map(frozenset, pairs))) == len(pairs) == 36427
        readers = [tuple(utt.split("-")[0] for utt in pair) for pair in pairs]
        assert [a == b for a, b in readers] == trials.labels.tolist()
        counts = Counter(map(frozenset, readers))
        assert {(len(pair), count) for pair, count in counts.items()} == {(1, 247), (2, 7)}
        assert len(counts) == 73 + 73 * 72 / 2
        assert len({utt for pair in pairs for utt in pair}) == {"valid": 5567, "test": 5559}[name]


def test_they_are_those_of_the_paper(shared: Path) -> None:
    folder = shared / "lists" / "unipool" / "LibriSpeech" / "preprocess" / "trials"
    for name, file in (("valid", "trials-dev.csv.gz"), ("test", "trials-test.csv.gz")):
        with gzip.open(folder / file, "rt") as lines:
            rows = list(csv.DictReader(lines))
        trials = read_trials(LOCAL / "lists" / f"{name}.kaldi.gz")
        for ours, theirs in ((trials.enroll, "SAMPLE1"), (trials.test, "SAMPLE2")):
            assert ours == [Path(row[theirs]).stem for row in rows]
        assert trials.labels.tolist() == [row["LABEL"] == "1" for row in rows]


def test_download_then_prepare(script: ModuleType, options: list[str], tmp_path: Path,
                               corpus: Path, monkeypatch: pytest.MonkeyPatch,
                               capsys: pytest.CaptureFixture) -> None:
    served = tmp_path / "served"
    served.mkdir()
    for part in READERS:
        with tarfile.open(served / f"{part}.tar.gz", "w:gz") as tar:
            for name in ("SPEAKERS.TXT", part):
                tar.add(corpus / name, f"LibriSpeech/{name}")
    md5 = {part: hashlib.md5((served / f"{part}.tar.gz").read_bytes()).hexdigest()
           for part in READERS}
    monkeypatch.setattr(script, "MD5", {**md5, "test-other": "0" * 32})
    corpus.rename(tmp_path / "away")
    with serve(served) as url:
        fetch = [*options, "--download", "true", "--url", url]
        assert script.main(fetch) == 1
        assert f"{tmp_path / 'test-other.tar.gz'}: md5 is" in capsys.readouterr().err
        monkeypatch.setattr(script, "MD5", md5)
        assert script.main(fetch) == 0
        told = capsys.readouterr().out
        assert "dev-clean: there already" in told and "test-other: unpacked" in told
    assert {path.name for path in corpus.iterdir()} == {"SPEAKERS.TXT", *READERS}
    assert script.main(options) == 0
    assert len(load_data_dir(tmp_path / "data" / "test").wavs) == 12
