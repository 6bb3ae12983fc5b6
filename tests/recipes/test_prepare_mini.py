"""The synthetic corpus: the same bytes whatever happens on the way, and what it sounds like."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile

from wespeaker_lap.data.datadir import load_data_dir

pytest.importorskip("espeakng_loader")
LOCAL = Path(__file__).resolve().parents[2] / "egs" / "mini" / "v1" / "local"
SMALL = ("--train_size", "4x3", "--valid_size", "2x2", "--test_size", "3x2")


def command(data: Path, *options: str) -> list[str]:
    return [sys.executable, str(LOCAL / "prepare_data.py"), "--data", str(data), *SMALL, *options]


def prepare(data: Path, *options: str) -> str:
    done = subprocess.run(command(data, *options), env=make_environment(), capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def make_environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(LOCAL.parents[3]), "OMP_NUM_THREADS": "1"}


def read_wavs(data: Path) -> dict[str, bytes]:
    return {str(path.relative_to(data)): path.read_bytes() for path in data.rglob("*.wav")}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("mini") / "data"
    prepare(data, "--nj", "1")
    return data


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, with the module beside it."""
    monkeypatch.syspath_prepend(LOCAL)
    monkeypatch.delitem(sys.modules, "voices", raising=False)
    spec = importlib.util.spec_from_file_location("prepare_mini", LOCAL / "prepare_data.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_data_directories(corpus: Path) -> None:
    sizes = {"train": (4, 12), "valid": (2, 4), "test": (3, 6)}
    speakers = set()
    for name, (num_speakers, num_utts) in sizes.items():
        data = load_data_dir(corpus / name)
        assert (len(data.speakers), len(data.wavs)) == (num_speakers, num_utts)
        assert all(utt.startswith(f"{spk}-") for utt, spk in data.utt2spk.items())
        assert all(Path(path) == corpus.resolve() / "wav" / name / data.utt2spk[utt] / f"{utt}.wav"
                   for utt, path in data.wavs.items())
        assert not speakers & set(data.speakers)
        speakers |= set(data.speakers)


def test_the_recordings(corpus: Path) -> None:
    levels = []
    for path in corpus.rglob("*.wav"):
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
        assert 1.5 < info.duration < 5
        samples, _ = soundfile.read(path)
        assert np.abs(samples).max() < 1
        levels.append(20 * np.log10(samples.std()))
    assert -33 < min(levels) < max(levels) < -10
    assert max(levels) - min(levels) > 5


def test_neither_processes_nor_order_change_a_sample(corpus: Path, tmp_path: Path) -> None:
    prepare(tmp_path, "--nj", "3")
    assert read_wavs(tmp_path) == read_wavs(corpus)


def test_a_missing_utterance_comes_back_the_same(corpus: Path, tmp_path: Path) -> None:
    prepare(tmp_path)
    before = read_wavs(tmp_path)
    gone = tmp_path / "wav" / "train" / "train001" / "train001-0002.wav"
    gone.unlink()
    kept = tmp_path / "wav" / "train" / "train001" / "train001-0001.wav"
    stamp = kept.stat().st_mtime_ns
    prepare(tmp_path)
    assert read_wavs(tmp_path) == before == read_wavs(corpus)
    assert kept.stat().st_mtime_ns == stamp


def test_a_killed_run_is_taken_up(corpus: Path, tmp_path: Path) -> None:
    with subprocess.Popen(command(tmp_path, "--nj", "1"), env=make_environment(),
                          start_new_session=True) as process:
        while process.poll() is None and not list(tmp_path.rglob("*.wav")):
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
    whole = read_wavs(corpus)
    assert all(whole[name] == data for name, data in read_wavs(tmp_path).items()
               if not Path(name).name.startswith("."))
    prepare(tmp_path)
    assert read_wavs(tmp_path) == whole


def test_another_seed_replaces_the_corpus(corpus: Path, tmp_path: Path) -> None:
    prepare(tmp_path)
    assert "with other settings" in prepare(tmp_path, "--seed", "7")
    other, same = read_wavs(tmp_path), read_wavs(corpus)
    assert other.keys() == same.keys()
    assert all(other[name] != same[name] for name in same)


def test_files_of_others_are_not_touched(tmp_path: Path) -> None:
    mine = tmp_path / "wav" / "train" / "mine.wav"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    done = subprocess.run(command(tmp_path), env=make_environment(), capture_output=True,
                          text=True, check=False)
    assert done.returncode == 1
    assert "files of another origin" in done.stderr and "Traceback" not in done.stderr
    assert mine.read_bytes() == b"mine"


def test_no_two_sentences_are_equal(script: ModuleType) -> None:
    sentences = [script.voices.make_sentence(number) for number in range(20_000)]
    sentences += [script.voices.make_sentence(2_000_000 + number) for number in range(20_000)]
    assert len(set(sentences)) == 40_000
    for kind, words in script.voices.WORDS.items():
        assert len(set(words)) == len(words), kind
    # Neighbours share few words.
    shared = [len(set(a.split()) & set(b.split())) for a, b in pairwise(sentences)]
    assert np.mean(shared) < 3


def test_no_variant_is_in_two_sets(script: ModuleType) -> None:
    sizes = {"train": 60, "valid": 10, "test": 20}
    speakers = script.make_speakers(42, sizes)
    variants = [{s.variant for s in speakers if s.subset == subset} for subset in range(3)]
    assert not (variants[0] & variants[1] or variants[0] & variants[2] or variants[1] & variants[2])
    assert len(set.union(*variants)) >= 80
    assert len({(s.accent, s.variant, s.pitch, s.rate, s.tract) for s in speakers}) == 90
    assert speakers == script.make_speakers(42, sizes) != script.make_speakers(43, sizes)


@pytest.mark.parametrize("how", ["raises", "dies"])
def test_a_failing_speaker_is_named(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str,
    capfd: pytest.CaptureFixture,
) -> None:
    def fail(_data, speaker, *_rest):
        if speaker.name == "test001":
            if how == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError("no space left on device")

    monkeypatch.setattr(script, "speak_speaker", fail)
    code = script.main(["--data", str(tmp_path), *SMALL, "--nj", "2"])
    told = capfd.readouterr().err
    assert code == 1
    assert "speaking test001 failed with exit code" in told
    assert ("no space left" in told) == (how == "raises")
    assert not (tmp_path / "test").exists()


@pytest.mark.parametrize("options", [["--train_size", "60"], ["--train_size", "0x3"],
                                     ["--seed", "-1"], ["--nj", "0"], ["--sed", "1"]])
def test_wrong_options_are_refused(script: ModuleType, tmp_path: Path, options: list) -> None:
    with pytest.raises(SystemExit) as end:
        script.parse_args(["--data", str(tmp_path), *options])
    assert end.value.code == 2


def test_there_is_nothing_to_download(script: ModuleType, tmp_path: Path) -> None:
    assert script.main(["--data", str(tmp_path), "--download", "true"]) == 0
    assert list(tmp_path.iterdir()) == []
