"""VoxCeleb-shaped trees through the recipe's script: layouts, m4a, lists, noises, refusals."""

import functools
import gzip
import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile

from wespeaker_lap.data.convert import find_ffmpeg
from wespeaker_lap.data.datadir import load_data_dir
from wespeaker_lap.data.trials import read_trials
from wespeaker_lap.io.audio import read_audio
from wespeaker_lap.io.table import read_table

REPO = Path(__file__).resolve().parents[2]
SCRIPT = REPO / "egs" / "voxceleb" / "v1" / "local" / "prepare_data.py"
VOX1 = [f"id1000{s}/1zcIwhmdeo{s}/{u:05d}" for s in range(3) for u in (1, 2)]
VOX2 = [f"id0001{s}/21Uxsk56VD{s}/{u:05d}" for s in range(5) for u in (1, 2)]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prepare_voxceleb", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The bytes of one short recording in each format."""
    folder = tmp_path_factory.mktemp("sounds")
    noise = 0.1 * np.random.default_rng(0).standard_normal(8000)
    for suffix in ("wav", "flac"):
        soundfile.write(folder / f"a.{suffix}", noise, 16000)
    subprocess.run([find_ffmpeg(), "-v", "error", "-i", folder / "a.wav", "-c:a", "aac",
                    folder / "a.m4a"], check=True)
    return {suffix: (folder / f"a.{suffix}").read_bytes() for suffix in ("wav", "flac", "m4a")}


def plant(root: Path, names: list[str], suffix: str, data: bytes) -> Path:
    for name in names:
        path = root / f"{name}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def write_lists(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    text = f"1 {VOX1[0]}.wav {VOX1[1]}.wav\n0 {VOX1[0]}.wav {VOX1[2]}.wav\n"
    for name in names:
        data = text.encode()
        (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return folder


@pytest.fixture
def trees(tmp_path: Path, sounds: dict[str, bytes]) -> Path:
    """vox1 as distributed (dev and test wav), vox2 as distributed (dev/aac m4a), one list."""
    plant(tmp_path / "vox1" / "dev" / "wav", VOX1[:4], "wav", sounds["wav"])
    plant(tmp_path / "vox1" / "test" / "wav", VOX1[4:], "wav", sounds["wav"])
    plant(tmp_path / "vox2" / "dev" / "aac", VOX2, "m4a", sounds["m4a"])
    write_lists(tmp_path / "lists", "veri_test2.txt.gz")
    return tmp_path


def make_args(root: Path, *options: str) -> list[str]:
    return ["--data", str(root / "data"), "--vox1_dir", str(root / "vox1"), "--vox2_dir",
            str(root / "vox2"), "--lists_dir", str(root / "lists"), "--num_valid_speakers", "2",
            "--nj", "2", *options]


def test_the_distributed_trees(
    script: ModuleType, trees: Path, capsys: pytest.CaptureFixture
) -> None:
    assert script.main(make_args(trees)) == 0
    vox1, vox2, valid = (load_data_dir(trees / "data" / name)
                         for name in ("vox1", "vox2_dev", "valid"))
    assert sorted(vox1.wavs) == [f"{name}.wav" for name in VOX1]
    assert sorted([*vox2.wavs, *valid.wavs]) == [f"{name}.wav" for name in VOX2]
    assert (len(vox2.speakers), len(valid.speakers)) == (3, 2)
    assert vox1.utt2spk[f"{VOX1[0]}.wav"] == "id10000"
    for utt, path in {**vox1.wavs, **vox2.wavs, **valid.wavs}.items():
        assert path.endswith(f"/{utt}")
        assert 7900 < len(read_audio(path)) < 11000
    assert Path(vox2.wavs[min(vox2.wavs)]).is_relative_to(trees.resolve() / "data" / "wav_vox2")
    trials = read_trials(trees / "data" / "vox1" / "trials" / "vox1_O_cleaned.kaldi")
    assert (trials.enroll[1], trials.test[1]) == (f"{VOX1[0]}.wav", f"{VOX1[2]}.wav")
    assert trials.labels.tolist() == [True, False]
    told = capsys.readouterr().out
    assert "not found and left out: vox1_O (veri_test.txt), vox1_E (" in told
    assert "NOT the official 37611" in told
    assert not list((trees / "data").rglob("convert_failures.tsv"))


@pytest.mark.parametrize("suffix", ["wav", "flac", "m4a"])
@pytest.mark.parametrize("between", ["", "wav", "dev/wav", "dev/aac"])
def test_other_trees_give_the_same_ids(
    script: ModuleType, tmp_path: Path, sounds: dict, between: str, suffix: str
) -> None:
    plant(tmp_path / "vox1" / between, VOX1, suffix, sounds[suffix])
    plant(tmp_path / "vox2" / between, VOX2, suffix, sounds[suffix])
    plant(tmp_path / "vox2" / "test" / "aac", ["id00099/a/00001"], suffix, sounds[suffix])
    write_lists(tmp_path / "vox1", "list_test_hard.txt")
    assert script.main(make_args(tmp_path)) == 0
    data = tmp_path / "data"
    assert sorted(load_data_dir(data / "vox1").wavs) == [f"{name}.wav" for name in VOX1]
    trained = [*load_data_dir(data / "vox2_dev").wavs, *load_data_dir(data / "valid").wavs]
    assert sorted(trained) == [f"{name}.wav" for name in VOX2]
    assert os.listdir(data / "vox1" / "trials") == ["vox1_H.kaldi"]


def test_all_six_lists(script: ModuleType, trees: Path) -> None:
    write_lists(trees / "lists", "veri_test.txt", "list_test_all.txt", "list_test_all2.txt.gz")
    write_lists(trees / "vox1", "list_test_hard.txt", "list_test_hard2.txt")
    assert script.main(make_args(trees)) == 0
    assert sorted(os.listdir(trees / "data" / "vox1" / "trials")) == [
        f"vox1_{name}.kaldi" for name in ("E", "E_cleaned", "H", "H_cleaned", "O", "O_cleaned")]


def test_metadata_gives_genders_and_the_test_speakers(script: ModuleType, trees: Path) -> None:
    (trees / "lists" / "vox1_meta.csv").write_text(
        "VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet\nid10000\tA\tm\tIreland\tdev\n")
    rows = [f"id0001{s} ,n{s} ,{'mf'[s % 2]} ,{'test' if s == 4 else 'dev'}" for s in range(5)]
    (trees / "lists" / "vox2_meta.csv").write_text(
        "\n".join(["VoxCeleb2 ID ,VGGFace2 ID ,Gender ,Set", *rows]) + "\n")
    assert script.main(make_args(trees)) == 0
    assert load_data_dir(trees / "data" / "vox1").spk2gender == {"id10000": "m"}
    trained, valid = (load_data_dir(trees / "data" / name) for name in ("vox2_dev", "valid"))
    assert {**trained.spk2gender, **valid.spk2gender} == {
        "id00010": "m", "id00011": "f", "id00012": "m", "id00013": "f"}


def test_a_broken_m4a_is_listed(
    script: ModuleType, trees: Path, capsys: pytest.CaptureFixture
) -> None:
    broken = trees / "vox2" / "dev" / "aac" / f"{VOX2[3]}.m4a"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:len(whole) // 2])
    report = trees / "data" / "vox2_dev" / "convert_failures.tsv"
    assert script.main(make_args(trees)) == 1
    assert f"1 of 10 m4a files could not be converted, see {report}" in capsys.readouterr().err
    assert not (trees / "data" / "vox2_dev" / "wav.scp").exists()
    path, reason = report.read_text().rstrip("\n").split("\t")
    assert path == str(broken) and "Invalid data" in reason
    assert script.main(make_args(trees, "--max_failures", "0.1")) == 0
    known = [*load_data_dir(trees / "data" / "vox2_dev").wavs,
             *load_data_dir(trees / "data" / "valid").wavs]
    assert sorted(known) == [f"{name}.wav" for name in VOX2 if name != VOX2[3]]
    broken.write_bytes(whole)
    assert script.main(make_args(trees)) == 0
    assert not report.exists()


def test_a_killed_conversion_is_taken_up(trees: Path, tmp_path: Path) -> None:
    slow = tmp_path / "bin" / "ffmpeg"
    slow.parent.mkdir()
    slow.write_text(f'#!/bin/sh\n"{find_ffmpeg()}" "$@" && sleep 0.1\n')
    slow.chmod(0o755)
    environment = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    slowed = {**environment, "PATH": f"{slow.parent}{os.pathsep}{os.environ['PATH']}"}
    command = [sys.executable, str(SCRIPT), *make_args(trees)]
    wav_dir = trees / "data" / "wav_vox2"
    with subprocess.Popen(command, env=slowed, start_new_session=True) as process:
        while process.poll() is None and len(list(wav_dir.rglob("[0-9]*.wav"))) < 2:
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
    done = {path: path.stat().st_mtime_ns for path in wav_dir.rglob("[0-9]*.wav")}
    assert 2 <= len(done) < len(VOX2)
    assert all(len(read_audio(path)) > 7900 for path in done)
    subprocess.run(command, env=environment, check=True)
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert len(list(wav_dir.rglob("*.wav"))) == len(VOX2)
    assert not list(wav_dir.rglob("*.tmp"))


def test_a_second_run_changes_nothing(script: ModuleType, trees: Path) -> None:
    assert script.main(make_args(trees)) == 0
    files = {path: path.read_bytes() for path in (trees / "data").rglob("*") if path.is_file()}
    assert script.main(make_args(trees, "--seed", "9")) == 0
    assert {p: p.read_bytes() for p in (trees / "data").rglob("*") if p.is_file()} == files


def test_noises_and_rooms(script: ModuleType, trees: Path, sounds: dict) -> None:
    musan = ["noise/free-sound/noise-free-sound-0000", "music/fma/music-fma-0000",
             "speech/us-gov/speech-us-gov-0000"]
    plant(trees / "musan", musan, "wav", sounds["wav"])
    rirs = trees / "RIRS_NOISES"
    plant(rirs / "simulated_rirs", ["smallroom/Room001/Room001-00001"], "wav", sounds["wav"])
    plant(rirs / "pointsource_noises", ["noise-0"], "wav", sounds["wav"])
    assert script.main(make_args(trees, "--musan_dir", str(trees / "musan"), "--rirs_dir",
                                 str(rirs))) == 0
    assert read_table(trees / "data" / "musan" / "wav.scp").keys() == {f"{n}.wav" for n in musan}
    assert read_table(trees / "data" / "musan" / "utt2category") == {
        f"{name}.wav": name.split("/")[0] for name in musan}
    assert list(read_table(trees / "data" / "rirs" / "wav.scp")) == [
        "smallroom/Room001/Room001-00001.wav"]


def test_real_noises_and_rooms(script: ModuleType, shared: Path, trees: Path) -> None:
    real = shared / "corpora" / "noise_rir"
    assert script.main(make_args(trees, "--musan_dir", str(real / "noise"), "--rirs_dir",
                                 str(real / "rir"))) == 0
    assert len(read_table(trees / "data" / "musan" / "wav.scp")) == 60
    assert len(read_table(trees / "data" / "rirs" / "wav.scp")) == 24


def test_what_is_refused(
    script: ModuleType, trees: Path, sounds: dict, capsys: pytest.CaptureFixture
) -> None:
    def refuse(reason: str, *options: str) -> None:
        assert script.main(make_args(trees, *options)) == 1
        told = capsys.readouterr().err
        assert reason in told and len(told.splitlines()) == 1

    plant(trees / "vox2" / "dev" / "aac", VOX1[:1], "m4a", sounds["m4a"])
    refuse("must not be trained on: id10000")
    (trees / "vox2" / "dev" / "aac" / f"{VOX1[0]}.m4a").unlink()
    refuse("on request", "--vox2_dir", str(trees / "absent"))
    refuse("cannot hold 5 of 5 speakers back", "--num_valid_speakers", "5")
    refuse("no .wav, .flac, .ogg files", "--musan_dir", str(trees / "lists"))
    absent = trees / "vox1" / "dev" / "wav" / f"{VOX1[2]}.wav"
    absent.unlink()
    refuse(f"1 utterances are absent: {VOX1[2]}.wav")
    (trees / "lists" / "veri_test2.txt.gz").unlink()
    refuse("no official trial list in")


@pytest.mark.parametrize("options", [["--nj", "0"], ["--max_failures", "1.5"],
                                     ["--num_valid_speakers", "1"], ["--vox3_dir", "x"]])
def test_wrong_options_are_refused(script: ModuleType, trees: Path, options: list) -> None:
    with pytest.raises(SystemExit) as end:
        script.main(make_args(trees, *options))
    assert end.value.code == 2


def test_no_folders_says_how_to_get_the_audio(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit):
        script.main(["--data", str(tmp_path)])
    assert "on request at https://www.robots.ox.ac.uk" in capsys.readouterr().err


def test_the_lists_are_downloaded(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    served = write_lists(tmp_path / "served", "veri_test.txt", "list_test_hard2.txt")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            """Keep the test's output clean."""

    handler = functools.partial(Quiet, directory=served)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
        url = f"http://127.0.0.1:{http.server_port}/"
        lists = tmp_path / "data" / "voxceleb_lists"
        options = ["--data", str(tmp_path / "data"), "--download", "true", "--url", url]
        assert script.main(options) == 0
        assert sorted(os.listdir(lists)) == ["list_test_hard2.txt", "veri_test.txt"]
        told = capsys.readouterr()
        assert "list_test_all.txt: the server says 404" in told.err
        assert "The audio cannot be downloaded automatically" in told.out
        assert script.main([*options[:-1], url + "absent/", "--lists_dir", str(tmp_path)]) == 1
        assert "no trial list could be downloaded" in capsys.readouterr().err
        http.shutdown()
