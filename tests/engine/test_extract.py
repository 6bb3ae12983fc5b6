"""Extraction: the same store for any number of processes, after any accident, in any batch."""

import json
import signal
from pathlib import Path
from types import SimpleNamespace

import kaldiio
import numpy as np
import programs
import pytest
import torch

from wespeaker_lap.data.datadir import DataDir, load_data_dir, write_data_dir
from wespeaker_lap.engine import batches, entries, extract
from wespeaker_lap.frontends.ssl import FrozenSSL
from wespeaker_lap.io.audio import read_audio, write_wav
from wespeaker_lap.io.feats import FeatureStore
from wespeaker_lap.io.table import write_table

FEATS = "wespeaker_lap.io.feats"
SHARD_BYTES = 250_000  # two or three utterances of the test set
FRAME_BYTES = 7 * 192 * 2  # float16


@pytest.fixture(scope="module")
def frontend() -> FrozenSSL:
    return FrozenSSL.load("wavlm_tiny")


@pytest.fixture(scope="module")
def data_path(tmp_path_factory) -> Path:
    """Twelve utterances of 0.3 to 1.2 s."""
    root, rng = tmp_path_factory.mktemp("audio"), np.random.default_rng(0)
    wavs, durations = {}, {}
    for n in range(12):
        utt, num_samples = f"s{n % 4}-{n}", int(rng.integers(4800, 19200))
        wavs[utt] = str(root / f"{utt}.wav")
        write_wav(wavs[utt], 0.1 * rng.normal(size=num_samples).astype(np.float32), 16000)
        durations[utt] = num_samples / 16000
    write_data_dir(root / "set", wavs, {utt: utt.split("-")[0] for utt in wavs})
    write_table(root / "set" / "utt2dur", {utt: f"{s:.4f}" for utt, s in durations.items()})
    return root / "set"


@pytest.fixture(scope="module")
def whole_store(launcher, data_path, tmp_path_factory) -> Path:
    """Written by one process that nothing disturbed."""
    directory = tmp_path_factory.mktemp("store") / "feats"
    code, log = launcher.function("extract_set", data_path, directory, SHARD_BYTES)
    assert code == 0, log
    return directory


def read_files(directory: Path) -> dict[str, bytes]:
    """All files; the folder's own name in the tables replaced."""
    return {path.name: path.read_bytes().replace(str(directory).encode(), b"DIR")
            for path in directory.iterdir()}


def done_shards(directory: Path) -> set[str]:
    return {path.stem for path in directory.glob("feats.0*.scp")}


def test_a_store_is_what_kaldiio_reads(frontend, data_path, whole_store):
    """And what each utterance has on its own, to the precision of float16."""
    data, store = load_data_dir(data_path), FeatureStore(whole_store)
    arks = kaldiio.load_scp(str(whole_store / "feats.scp"))
    assert sorted(store) == sorted(arks) == sorted(data.wavs)
    assert len(done_shards(whole_store)) >= 4
    for utt, wav in data.wavs.items():
        alone = frontend.encode(torch.from_numpy(read_audio(wav))).numpy()
        np.testing.assert_allclose(store[utt], alone, rtol=1e-3, atol=1e-3 * np.abs(alone).max())
        assert np.array_equal(arks[utt].astype(np.float32), store[utt])
    assert store.identity["encoder"] == "wavlm_tiny"
    assert store.identity["frame_shift"] == 320


def test_two_processes_write_the_same_files(launcher, data_path, whole_store, tmp_path):
    done = launcher.function_by_two("extract_set", data_path, tmp_path / "feats", SHARD_BYTES)
    assert [code for code, _ in done] == [0, 0], done
    assert read_files(tmp_path / "feats") == read_files(whole_store)


@pytest.mark.parametrize("num_processes", [1, 2])
def test_killed_and_finished_by_one_or_two(launcher, data_path, whole_store, tmp_path,
                                           num_processes):
    """Whole shards are kept as they are."""
    directory = tmp_path / "feats"
    died = {"module": FEATS, "function": "FeatureWriter.write", "call": 7, "what": "SIGKILL"}
    code, _ = launcher.function("extract_set", data_path, directory, SHARD_BYTES, accident=died)
    assert code == -signal.SIGKILL
    assert not (directory / "feats.scp").exists()
    with pytest.raises(FileNotFoundError, match="run stage 2 again"):
        FeatureStore(directory)
    before = {name: (directory / f"{name}.ark").stat().st_mtime_ns
              for name in done_shards(directory)}
    assert 0 < len(before) < len(done_shards(whole_store))
    run = launcher.function if num_processes == 1 else launcher.function_by_two
    run("extract_set", data_path, directory, SHARD_BYTES)
    assert read_files(directory) == read_files(whole_store)
    after = {name: (directory / f"{name}.ark").stat().st_mtime_ns for name in before}
    assert after == before


def test_ctrl_c_leaves_nothing_half_written(launcher, data_path, tmp_path):
    died = {"module": FEATS, "function": "FeatureWriter.write", "call": 3, "what": "SIGINT"}
    command = ["extract-feats", data_path, "--out", tmp_path / "feats", "--device", "cpu"]
    code, log = launcher.verb(command, died)
    assert code == 130, log
    assert "interrupted; the same command goes on" in log
    assert [path.name for path in (tmp_path / "feats").iterdir()] == ["feats.json"]


def test_a_finished_store_is_left_alone(frontend, data_path, whole_store, monkeypatch):
    monkeypatch.setattr(extract, "MIN_SHARD_BYTES", SHARD_BYTES)
    monkeypatch.setattr(entries, "encode_batch", None)
    before = read_files(whole_store)
    extract.extract_feats(frontend, load_data_dir(data_path), whole_store, "float16",
                          programs.ALONE)
    assert read_files(whole_store) == before


def test_the_shards_to_do_are_the_same_for_all(launcher, tmp_path):
    """Though the second process looks when the first has already written one of them."""
    done = launcher.function_by_two("find_missing_late", tmp_path, 3)
    assert [code for code, _ in done] == [0, 0], done
    assert [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)] == [
        [0, 1, 2], [0, 1, 2]]


def test_windows_do_not_depend_on_the_batch(data_path, tmp_path):
    """A frontend with windows shorter than the utterances cuts them in a set as it does alone."""
    short = FrozenSSL.load("wavlm_tiny", max_seconds=0.5, overlap_seconds=0.1)
    data = load_data_dir(data_path)
    extract.extract_feats(short, data, tmp_path / "feats", "float32", programs.ALONE)
    store = FeatureStore(tmp_path / "feats")
    for utt, wav in data.wavs.items():
        alone = short.encode(torch.from_numpy(read_audio(wav))).numpy()
        np.testing.assert_allclose(store[utt], alone, atol=1e-4)


def test_another_identity_is_refused_by_field(frontend, data_path, whole_store):
    data = load_data_dir(data_path)
    with pytest.raises(ValueError, match="codec is 'float16', expected 'float32'"):
        extract.extract_feats(frontend, data, whole_store, "float32", programs.ALONE)
    fewer = {utt: s for utt, s in data.durations.items() if utt != "s0-0"}
    other = DataDir(data.path, dict.fromkeys(fewer, ""), dict.fromkeys(fewer, "s"), {}, fewer)
    with pytest.raises(ValueError, match="data_hash is"):
        extract.extract_feats(frontend, other, whole_store, "float16", programs.ALONE)
    windows = FrozenSSL.load("wavlm_tiny", max_seconds=9.0)
    with pytest.raises(ValueError, match=r"max_seconds is 30\.0, expected 9\.0"):
        extract.extract_feats(windows, data, whole_store, "float16", programs.ALONE)


def test_data_that_were_not_audited_are_refused(frontend, data_path, tmp_path):
    data = load_data_dir(data_path)
    with pytest.raises(ValueError, match="no utt2dur; run 'wespeaker-lap audit-data"):
        extract.extract_feats(frontend, DataDir(data.path, data.wavs, data.utt2spk, {}, {}),
                              tmp_path, "float16", programs.ALONE)


def test_a_full_disk_is_refused_before_the_start(frontend, data_path, tmp_path, monkeypatch):
    data = load_data_dir(data_path)
    need = sum(extract.estimate_bytes(frontend, data, "float16").values())
    monkeypatch.setattr(extract.shutil, "disk_usage", lambda path: SimpleNamespace(free=need - 1))
    with pytest.raises(OSError, match=r"need 0\.0 GB and the disk has 0\.0 GB free.*--feats_dir, "
                                      r"or store less: .*frame_stride"):
        extract.extract_feats(frontend, data, tmp_path, "float16", programs.ALONE)
    assert not list(tmp_path.glob("*.ark"))
    # What is there already need not fit again.
    monkeypatch.setattr(extract.shutil, "disk_usage", lambda path: SimpleNamespace(free=need))
    extract.extract_feats(frontend, data, tmp_path, "float16", programs.ALONE)
    monkeypatch.setattr(extract.shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    extract.extract_feats(frontend, data, tmp_path, "float16", programs.ALONE)


def count_bytes(directory: Path, utts) -> int:
    """Bytes of all entries, without the names in front of them."""
    written = sum(ark.stat().st_size for ark in directory.glob("*.ark"))
    return written - sum(len(f"{utt} ".encode()) for utt in utts)


def test_the_estimate_is_what_is_written(frontend, data_path, whole_store):
    """Twice as many bytes a number in float32."""
    data, store = load_data_dir(data_path), FeatureStore(whole_store)
    sizes = extract.estimate_bytes(frontend, data, "float16")
    assert sum(sizes.values()) == count_bytes(whole_store, data.wavs)
    whole = extract.estimate_bytes(frontend, data, "float32")
    for utt in store:
        numbers = FRAME_BYTES * store.num_frames(utt)
        assert numbers < sizes[utt] < numbers + 256
        assert 2 * numbers < whole[utt] < 2 * numbers + 256


def test_too_short_utterances_are_named(frontend):
    fits, short = np.zeros(frontend.min_samples, np.float32), np.zeros(719, np.float32)
    for utts, waves in ((["a", "b"], [fits, short]), (["b"], [short])):
        with pytest.raises(ValueError, match=r"^b: 719 samples are too few .* needs 720; audit"):
            batches.encode_batch(frontend, utts, waves)
    assert batches.encode_batch(frontend, ["a"], [fits])[0].shape == (1, 7, 192)


def test_a_recording_that_fails_is_named_and_leaves_no_shard(frontend, data_path, tmp_path):
    data = load_data_dir(data_path)
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF")
    wavs = {**data.wavs, "s1-1": str(broken)}
    with pytest.raises(ValueError, match=r"broken\.wav"):
        extract.extract_feats(frontend, DataDir(data.path, wavs, data.utt2spk, {}, data.durations),
                              tmp_path / "feats", "float16", programs.ALONE)
    assert [path.name for path in (tmp_path / "feats").iterdir()] == ["feats.json"]


def test_batches_hold_all_once_and_do_not_overflow():
    rng = np.random.default_rng(0)
    for max_seconds in (30.0, 4.0):
        durations = {f"u{n}": float(rng.uniform(0.1, 40.0)) for n in range(200)}
        made = batches.make_batches(durations, max_seconds)
        assert sorted(utt for batch in made for utt in batch) == sorted(durations)
        for batch in made:
            padded = len(batch) * max(durations[utt] for utt in batch)
            assert len(batch) == 1 or padded <= max_seconds
        ordered = [durations[utt] for batch in made for utt in batch]
        assert ordered == sorted(ordered)


def test_shards_hold_all_once_in_order_within_their_limits():
    rng = np.random.default_rng(0)
    for num_utts, scale in ((1, 1e6), (500, 1e6), (3000, 3e7), (40, 6e9)):
        sizes = {f"u{n:05d}": int(rng.uniform(0.5, 1.5) * scale) for n in range(num_utts)}
        shards = extract.plan_shards(sizes)
        assert [utt for shard in shards for utt in shard] == sorted(sizes)
        totals = [sum(sizes[utt] for utt in shard) for shard in shards]
        assert min(totals[:-1], default=extract.MIN_SHARD_BYTES) >= extract.MIN_SHARD_BYTES
        assert max(totals) < extract.MAX_SHARD_BYTES + max(sizes.values())
        if sum(totals) < 64 * extract.MAX_SHARD_BYTES:
            assert len(shards) <= 65
    # The same cut whatever the order of the table.
    assert extract.plan_shards(dict(reversed(sizes.items()))) == shards
