"""A store that was killed, changed or cut becomes, byte for byte, what it should have been."""

import shutil
import signal
import time

import numpy as np
import programs
import pytest
from checks import snapshot
from tiny import write_voices

from wespeaker_lap.data.audit import audit_data_dir
from wespeaker_lap.data.datadir import DataDir, load_data_dir
from wespeaker_lap.engine import batches, entries, extract, repair
from wespeaker_lap.frontends.ssl import FrozenSSL
from wespeaker_lap.io.audio import read_audio
from wespeaker_lap.io.feats_verify import verify_store

SHARD_BYTES = 250_000  # two or three utterances


@pytest.fixture(scope="module")
def frontend():
    return FrozenSSL.load("wavlm_tiny")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = write_voices(tmp_path_factory.mktemp("data") / "set", "ayé语")
    audit_data_dir(path)
    return load_data_dir(path)


@pytest.fixture(scope="module")
def whole(launcher, data, tmp_path_factory):
    """A store that nothing disturbed."""
    directory = tmp_path_factory.mktemp("whole") / "feats"
    code, log = launcher.function("extract_set", data.path, directory, SHARD_BYTES)
    assert code == 0, log
    return directory


@pytest.fixture
def damaged(whole, tmp_path, monkeypatch):
    """A copy of the store to be damaged, and its files before that."""
    monkeypatch.setattr(extract, "MIN_SHARD_BYTES", SHARD_BYTES)
    directory = shutil.copytree(whole, tmp_path / "feats")
    for path in directory.glob("*.scp"):  # as if it were written here
        path.write_text(path.read_text().replace(str(whole), str(directory)))
    return directory, snapshot(directory)


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_any_moment_and_begun_again(launcher, data, whole, tmp_path, seed):
    directory, rng = tmp_path / "feats", np.random.default_rng(seed)
    writing = mtime(whole / "feats.scp") - mtime(whole / "feats.json")  # seconds
    function, *arguments = "extract_set", data.path, directory, SHARD_BYTES
    process = launcher.start(programs.run_function, function, arguments)
    while process.is_alive() and not (directory / "feats.json").is_file():
        time.sleep(0.001)
    time.sleep(rng.uniform(0.0, 0.9) * writing)
    process.kill()
    (code, log), = launcher.finish(process)
    assert code in (-signal.SIGKILL, 0), log  # it may have been quick
    code, log = launcher.function(function, *arguments)
    assert code == 0, log
    want = {name: content.replace(str(whole).encode(), str(directory).encode())
            for name, content in snapshot(whole).items()}
    assert snapshot(directory) == want


def mtime(path):
    return path.stat().st_mtime


def test_a_whole_store_is_left_alone(frontend, data, damaged, monkeypatch):
    directory, _ = damaged
    times = {path: path.stat().st_mtime_ns for path in directory.iterdir()}
    monkeypatch.setattr(entries, "encode_batch", None)
    done = repair.check_feats(directory, frontend, data, programs.ALONE)
    assert done == repair.check_feats(directory) == ([f"{directory}: all as it was written"], 0)
    assert {path: path.stat().st_mtime_ns for path in directory.iterdir()} == times


def test_only_what_is_damaged_is_computed_again(frontend, data, damaged, caplog):
    directory, before = damaged
    caplog.set_level("INFO")
    ark = directory / "feats.00001.ark"
    untouched = {path: path.stat().st_mtime_ns for path in directory.glob("feats.0000[023].ark")}
    change(ark, ark.stat().st_size // 2)
    lines, status = repair.check_feats(directory)
    assert status == 1 and len(lines) == 2 and lines[0].startswith(f"{ark}: ")
    assert lines[1].startswith(f"{directory}: 1 findings; mend it with")
    assert repair.check_feats(directory, frontend, data, programs.ALONE) == (
        [lines[0], f"{directory}: 1 findings, repaired"], 0)
    assert snapshot(directory) == before and verify_store(directory) == []
    assert [message for message in caplog.messages if "again" in message] == [
        f"{ark}: 1 of {len(read_lines(ark.with_suffix('.scp')))} utterances computed again"]
    assert {path: path.stat().st_mtime_ns for path in untouched} == untouched


def change(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 0x41
    path.write_bytes(data)


def read_lines(path):
    return path.read_text().splitlines()


@pytest.mark.parametrize("harm", [
    lambda store: change(store / "feats.00002.ark", 0),
    lambda store: change(store / "feats.00000.idx", 70),
    lambda store: change(store / "feats.scp", 1),
    lambda store: change(store / "utt2num_frames", 3),
    lambda store: (store / "feats.00001.ark").write_bytes(b""),
    lambda store: (store / "feats.00001.ark").unlink(),
    lambda store: [path.unlink() for path in store.glob("feats.00003.*")],
    lambda store: [path.unlink() for path in store.glob("*.idx")],
    lambda store: [path.unlink() for path in store.glob("*.scp")],
    lambda store: shutil.copy(store / "feats.00001.ark", store / "feats.00002.ark"),
    lambda store: shutil.copy(store / "feats.00001.idx", store / "feats.00002.idx"),
    lambda store: (store / ".feats.00001.ark.tmp").write_bytes(b"half"),
], ids=range(12))
def test_every_harm_is_undone(frontend, data, damaged, harm):
    directory, before = damaged
    harm(directory)
    assert repair.check_feats(directory)[1] == 1
    assert repair.check_feats(directory, frontend, data, programs.ALONE)[1] == 0
    assert snapshot(directory) == before


def test_two_processes_repair_together(launcher, data, damaged):
    directory, before = damaged
    for number in (0, 2, 3):
        change(directory / f"feats.{number:05d}.ark", 1000)
    done = launcher.function_by_two("repair_set", data.path, directory, SHARD_BYTES)
    assert [code for code, _ in done] == [0, 0], done
    assert snapshot(directory) == before


def test_a_repair_that_is_killed_is_begun_again(launcher, frontend, data, damaged):
    directory, before = damaged
    for number in (0, 2, 3):
        change(directory / f"feats.{number:05d}.ark", 1000)
    died = {"module": "wespeaker_lap.io.feats_writer", "function": "write_index", "call": 2,
            "what": "SIGKILL"}
    code, _ = launcher.function("repair_set", data.path, directory, SHARD_BYTES, accident=died)
    assert code == -signal.SIGKILL and snapshot(directory) != before
    assert repair.check_feats(directory, frontend, data, programs.ALONE)[1] == 0
    assert snapshot(directory) == before


def test_the_batch_matters_to_the_last_bit(frontend, data):
    """Why a whole batch is computed again for one utterance of it."""
    utts = sorted(data.wavs)[:4]
    waves = [read_audio(data.wavs[utt]) for utt in utts]
    together = batches.encode_batch(frontend, utts, waves)
    again = batches.encode_batch(frontend, utts, waves)
    alone = [batches.encode_batch(frontend, [u], [w])[0] for u, w in zip(utts, waves, strict=True)]
    for number in range(4):
        np.testing.assert_array_equal(together[number], again[number])
        np.testing.assert_allclose(together[number], alone[number], atol=1e-4)
    assert any((a != b).any() for a, b in zip(together, alone, strict=True))


def test_another_set_or_another_cut_is_refused(frontend, data, damaged, monkeypatch):
    directory, _ = damaged
    change(directory / "feats.00001.ark", 1000)
    before = snapshot(directory)
    fewer = dict(list(data.durations.items())[1:])
    other = DataDir(data.path, dict.fromkeys(fewer, ""), dict.fromkeys(fewer, "s"), {}, fewer)
    with pytest.raises(ValueError, match="holds features of another identity: data_hash is"):
        repair.repair_feats(frontend, other, directory, programs.ALONE)
    for shard_bytes in (2 * SHARD_BYTES, SHARD_BYTES // 2):
        monkeypatch.setattr(extract, "MIN_SHARD_BYTES", shard_bytes)
        with pytest.raises(ValueError, match=r"not of the . shards that this version cuts the set"):
            repair.repair_feats(frontend, data, directory, programs.ALONE)
    assert snapshot(directory) == before
