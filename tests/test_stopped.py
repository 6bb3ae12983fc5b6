"""A full disk and Ctrl-C, in every stage but the training: one message, nothing half-written under
a final name, and the same command finishes the work."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.torch
from checks import assert_refused, snapshot

from wespeaker_lap.data.datadir import load_data_dir, write_data_dir
from wespeaker_lap.io.audio import write_wav
from wespeaker_lap.io.feats import FeatureStore
from wespeaker_lap.io.table import write_table
from wespeaker_lap.io.vectors import read_vectors, write_vectors
from wespeaker_lap.score import stages
from wespeaker_lap.share import report


def test_features_that_would_not_fit_on_the_disk(lap, data, monkeypatch):
    assert lap("audit-data", data).code == 0
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10_000))
    done = lap("extract-feats", data, "--out", data / "feats", "--device", "cpu")
    assert_refused(done, f"{data}/feats: the features need", "the disk has 0.0 GB free; make room")
    assert [path.name for path in (data / "feats").iterdir()] == ["feats.json"]


def fill(path):
    """Let what is written aside for `path` end on a full disk, at the first byte."""
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parent / f".{path.name}.tmp").symlink_to("/dev/full")
    return path


FULL = "No space left on device; make room and run the same command again"


@pytest.mark.parametrize(("name", "write"), [
    ("utt2spk", lambda path: write_table(path, {"é": "x"})),
    ("a.wav", lambda path: write_wav(path, np.zeros(100))),
    ("xvector.ark", lambda path: write_vectors(path.parent, ["é"], np.ones((1, 4)))),
])
def test_a_disk_that_is_full(tmp_path, name, write):
    with pytest.raises(OSError) as info:
        write(fill(tmp_path / name))
    assert str(info.value) == f"{tmp_path}/{name}: {FULL}"
    assert not list(tmp_path.iterdir())
    write(tmp_path / name)  # there is room now
    assert (tmp_path / name).is_file()


@pytest.mark.parametrize("file", ["feats.json", "feats.00000.ark", "feats.00000.idx",
                                  "feats.00000.num_frames", "feats.00000.scp", "utt2num_frames",
                                  "feats.scp"])
def test_a_disk_that_fills_up_while_features_are_written(lap, data, tiny_system, file):
    assert lap("audit-data", data).code == 0
    extract = ("extract-feats", data, "--out", data / "feats", "--device", "cpu")
    fill(data / "feats" / file)
    assert_refused(lap(*extract), f"{data}/feats/{file}: {FULL}")
    assert not (data / "feats" / "feats.scp").exists()
    assert not [path for path in (data / "feats").iterdir() if path.name.startswith(".")]
    assert lap(*extract).code == 0  # goes on
    assert len(FeatureStore(data / "feats")) == 8


@pytest.mark.parametrize(("file", "is_left"), [("rejects.tsv", False), ("utt2dur", True)])
def test_a_disk_that_fills_up_in_the_audit(lap, data, file, is_left):
    (data / "wav" / "empty.wav").touch()
    loaded = load_data_dir(data)
    write_data_dir(data, {**loaded.wavs, "bad": str(data / "wav" / "empty.wav")},
                   {**loaded.utt2spk, "bad": "a"})
    audit = ("audit-data", data, "--max_reject_share", "0.2")
    fill(data / file)
    assert_refused(lap(*audit), f"{data}/{file}: {FULL}")
    assert not (data / file).exists() and (data / "rejects.tsv").exists() == is_left
    assert lap(*audit).code == 0
    assert len(load_data_dir(data).durations) == 8 and (data / "rejects.tsv").is_file()


PAUSE = '''
import sys, time
from wespeaker_lap.{module} import {owner}
real = {owner}.{function}
calls = []
def pausing(*args, **options):
    calls.append(args)
    if len(calls) == {call}:
        print("here", flush=True)
        time.sleep(60)
    return real(*args, **options)
{owner}.{function} = pausing
from wespeaker_lap.cli import main
main()
'''


def interrupt(args, **where):
    """Start a verb, send Ctrl-C to all its processes when it has come to a place, return its end.

    Args:
        args: the verb and its arguments.
        where: module, owner (a name in it), function of it, and the number of the call.
    """
    repo = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": str(repo), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PAUSE.format(**where), *map(str, args)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          env=environment, start_new_session=True) as process:
        try:
            assert process.stdout.readline() == "here\n", process.stderr.read()
            os.killpg(process.pid, signal.SIGINT)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    return SimpleNamespace(code=process.returncode, out=out, err=err)


def assert_interrupted(done):
    assert done.code == 130 and "Traceback" not in done.err
    messages = [line for line in done.err.splitlines() if "interrupt" in line.lower()]
    assert messages == ["interrupted; the same command goes on where this one stopped"]


@pytest.mark.parametrize("num_jobs", [1, 2])
def test_ctrl_c_in_the_audit(lap, data, num_jobs):
    before = snapshot(data)
    done = interrupt(("audit-data", data, "--nj", num_jobs), module="data", owner="audit",
                     function="inspect_recording", call=3)
    assert_interrupted(done)
    assert snapshot(data) == before
    assert lap("audit-data", data, "--nj", num_jobs).code == 0
    assert len(load_data_dir(data).durations) == 8


def test_ctrl_c_while_features_are_written(lap, data, tmp_path):
    assert lap("audit-data", data).code == 0
    extract = ("extract-feats", data, "--out", tmp_path / "feats", "--device", "cpu")
    done = interrupt(extract, module="io.write_behind", owner="WriteBehind", function="write",
                     call=4)
    assert_interrupted(done)
    assert [path.name for path in (tmp_path / "feats").iterdir()] == ["feats.json"]
    assert lap(*extract).code == 0
    store = FeatureStore(tmp_path / "feats")
    assert len(store) == 8 and all(np.isfinite(store[utt]).all() for utt in store)


def press_ctrl_c(monkeypatch, lap, args, owner, name):
    """The same in this process, where a function is called: SIGINT itself, at that line."""
    def press(*_, **__):
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, press)
        done = lap(*args)
    assert_interrupted(done)


def test_ctrl_c_while_embeddings_are_computed(lap, tiny_system, copied, monkeypatch):
    shutil.rmtree(copied / "embeddings" / "test")
    before = snapshot(copied)
    args = ("extract-embeddings", copied, tiny_system.data("test"), "--feats",
            tiny_system.feats("test"), "--device", "cpu")
    press_ctrl_c(monkeypatch, lap, args, FeatureStore, "read")
    assert snapshot(copied) == before
    assert lap(*args).code == 0
    assert len(read_vectors(copied / "embeddings" / "test" / "xvector.scp")[0]) == 12


def test_ctrl_c_while_weights_are_averaged(lap, copied, monkeypatch):
    before = snapshot(copied)
    args = ("average-model", copied)
    press_ctrl_c(monkeypatch, lap, args, safetensors.torch, "save")
    assert snapshot(copied) == before and lap(*args).code == 0


@pytest.mark.parametrize("verb", ["score", "norm-scores"])
def test_ctrl_c_while_scores_are_computed(lap, tiny_system, copied, monkeypatch, verb):
    shutil.rmtree(copied / "scores")
    cohort = ("--cohort", tiny_system.data("train")) if verb == "norm-scores" else ()
    args = (verb, copied, tiny_system.data("test"), "--trials", tiny_system.trials, *cohort)
    press_ctrl_c(monkeypatch, lap, args, stages, "measure_row")
    assert not (copied / "scores").exists()
    assert lap(*args).code == 0


def test_ctrl_c_in_the_report(lap, copied, monkeypatch):
    before = snapshot(copied)
    press_ctrl_c(monkeypatch, lap, ("report", copied), report, "plot_det")
    left = snapshot(copied)
    assert before.items() <= left.items()
    assert left.keys() - before.keys() == {"histogram_pairs.png"}  # whole, and of use later
    assert lap("report", copied).code == 0 and (copied / "RESULTS.md").is_file()
