"""speechocean762: its split, what is missing, and the download from a server on this machine."""

import functools
import importlib.util
import tarfile
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from wespeaker_lap.data.datadir import load_data_dir
from wespeaker_lap.io.audio import write_wav

SCRIPT = (Path(__file__).resolve().parents[2] / "egs" / "speechocean762" / "v1" / "local"
          / "prepare_data.py")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prepare_speechocean762", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def plant(root: Path, num_train: int = 6, num_test: int = 3) -> Path:
    """A corpus in the upstream shape: tabs, paths relative to its folder, two utterances each."""
    numbers = {"train": range(1, num_train + 1), "test": range(51, 51 + num_test)}
    for part, speakers in numbers.items():
        tables = {"wav.scp": [], "utt2spk": [], "spk2gender": []}
        for speaker in speakers:
            tables["spk2gender"].append(f"{speaker:04d}\t{'mf'[speaker % 2]}")
            for utt in (f"{speaker:05d}0011", f"{speaker:05d}0035"):
                path = f"WAVE/SPEAKER{speaker:04d}/{utt}.WAV"
                write_wav(root / path, np.zeros(1600), 16000)
                tables["wav.scp"].append(f"{utt}\t{path}")
                tables["utt2spk"].append(f"{utt}\t{speaker:04d}")
        (root / part).mkdir()
        for name, lines in tables.items():
            (root / part / name).write_text("\n".join(lines) + "\n")
    return root


def run(script: ModuleType, corpus: Path, data: Path, *options: str) -> int:
    return script.main(["--corpus_dir", str(corpus), "--data", str(data), "--num_valid_speakers",
                        "2", *options])


def test_the_sets(script: ModuleType, tmp_path: Path) -> None:
    corpus = plant(tmp_path / "corpus")
    assert run(script, corpus, tmp_path / "data") == 0
    train, valid, test = (load_data_dir(tmp_path / "data" / name)
                          for name in ("train", "valid", "test"))
    assert [len(data.speakers) for data in (train, valid, test)] == [4, 2, 3]
    assert sorted(train.speakers + valid.speakers) == [f"{n:04d}" for n in range(1, 7)]
    assert test.speakers == ["0051", "0052", "0053"]
    assert test.spk2gender == {"0051": "f", "0052": "m", "0053": "f"}
    assert set(valid.spk2gender) == set(valid.speakers)
    assert test.wavs["000510011"] == str(
        corpus.resolve() / "WAVE" / "SPEAKER0051" / "000510011.WAV")


def test_the_split_follows_its_own_seed(script: ModuleType, tmp_path: Path) -> None:
    corpus = plant(tmp_path / "corpus")
    held = {}
    for name, options in {"a": (), "b": ("--seed", "7"), "c": ("--split_seed", "3")}.items():
        assert run(script, corpus, tmp_path / name, *options) == 0
        held[name] = load_data_dir(tmp_path / name / "valid").speakers
    assert held["a"] == held["b"] != held["c"]


def test_the_real_corpus(script: ModuleType, shared: Path, tmp_path: Path) -> None:
    corpus = shared / "corpora" / "speechocean762"
    assert script.main(["--corpus_dir", str(corpus), "--data", str(tmp_path)]) == 0
    sizes = {"train": (112, 2240), "valid": (13, 260), "test": (125, 2500)}
    for name, size in sizes.items():
        data = load_data_dir(tmp_path / name)
        assert (len(data.speakers), len(data.wavs)) == size
        assert set(data.spk2gender) == set(data.speakers)


def test_a_missing_corpus_says_how_to_get_it(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert run(script, tmp_path / "nothing", tmp_path / "data") == 1
    told = capsys.readouterr().err
    assert "run.sh --stage 0 --stop_stage 0`" in told and "openslr.org/resources/101" in told
    assert not (tmp_path / "data").exists()


def test_broken_corpora(script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    corpus = plant(tmp_path / "corpus")
    (corpus / "WAVE" / "SPEAKER0002" / "000020035.WAV").unlink()
    assert run(script, corpus, tmp_path / "data") == 1
    assert "1 of 12 recordings are missing: " in capsys.readouterr().err
    corpus = plant(tmp_path / "second")
    text = (corpus / "test" / "utt2spk").read_text()
    (corpus / "test" / "utt2spk").write_text(text.replace("0051\n", "0001\n"))
    assert run(script, corpus, tmp_path / "data") == 1
    assert "speakers in train and test: 0001" in capsys.readouterr().err
    (corpus / "test" / "utt2spk").write_text("\n".join(text.splitlines()[1:]))
    assert run(script, corpus, tmp_path / "data") == 1
    assert "name different utterances: 000510011" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """A server of the archive, packed like the original."""
    served = tmp_path / "served"
    plant(served / "speechocean762")
    with tarfile.open(served / "corpus.tar.gz", "w:gz") as tar:
        tar.add(served / "speechocean762", "speechocean762")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            """Keep the test's output clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=served)) as http:
        threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}/corpus.tar.gz"
        http.shutdown()


def test_download_then_prepare(
    script: ModuleType, tmp_path: Path, url: str, capsys: pytest.CaptureFixture
) -> None:
    corpus = tmp_path / "corpora" / "speechocean762"
    fetch = ("--download", "true", "--url", url)
    assert run(script, corpus, tmp_path / "data", *fetch) == 0
    assert run(script, corpus, tmp_path / "data") == 0
    assert len(load_data_dir(tmp_path / "data" / "test").wavs) == 6
    capsys.readouterr()
    assert run(script, corpus, tmp_path / "data", *fetch) == 0
    assert "there already" in capsys.readouterr().out


def test_a_failed_download_ends_in_one_line(
    script: ModuleType, tmp_path: Path, url: str, capsys: pytest.CaptureFixture
) -> None:
    code = run(script, tmp_path / "corpora" / "c", tmp_path / "data", "--download", "true",
               "--url", url + ".absent")
    told = capsys.readouterr().err
    assert code == 1 and "404" in told and len(told.splitlines()) == 1
    assert not (tmp_path / "corpora" / "c").exists()
