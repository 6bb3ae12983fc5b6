"""The feature store: both codecs through kaldiio, crops at the cost of their bytes, resume."""

import json
import multiprocessing
import os
import shutil

import kaldiio
import numpy as np
import pytest
from small_store import FEATS, FRAMES, IDENTITY, D, L, make_feats, write_store

from wespeaker_lap.io import feats_writer
from wespeaker_lap.io.feats import (
    FeatureStore,
    FeatureWriter,
    index_store,
    shard_done,
    start_store,
)


@pytest.fixture(params=["float16", "float32"])
def directory(request, tmp_path):
    return write_store(tmp_path / "feats" / "train", request.param)


def test_what_is_read_is_what_was_written(directory):
    store = FeatureStore(directory)
    assert len(store) == 3 and list(store) == sorted(FRAMES) and "é" in store and "e" not in store
    assert (store.num_layers, store.dim) == (L, D)
    for utt, feats in FEATS.items():
        assert store[utt].dtype == np.float32 and store.num_frames(utt) == len(feats)
        np.testing.assert_array_equal(store[utt], feats)
    np.testing.assert_array_equal(store.read("语者/录音", 290), FEATS["语者/录音"][290:])
    np.testing.assert_array_equal(store.read("id1/b", 0, 7), FEATS["id1/b"])


def test_kaldiio_reads_every_entry_equal_to_ours(directory):
    store = FeatureStore(directory)
    loaded = kaldiio.load_scp(str(directory / "feats.scp"))
    assert sorted(loaded) == sorted(FRAMES)
    for utt in store:
        want = (FRAMES[utt], L * D) if store.identity["codec"] == "float32" else (FRAMES[utt], L, D)
        assert loaded[utt].shape == want and loaded[utt].dtype == store.identity["codec"]
        np.testing.assert_array_equal(loaded[utt].reshape(-1, L, D), store[utt])
    assert [key for key, _ in kaldiio.load_ark(str(directory / "feats.00000.ark"))] == list(FRAMES)


def test_float16_rounds_to_the_nearest_and_float32_keeps_all(tmp_path):
    feats = np.random.default_rng(0).standard_normal((9, L, D)).astype(np.float32)
    half = FeatureStore(write_store(tmp_path / "16", "float16", {"a": feats}))["a"]
    whole = FeatureStore(write_store(tmp_path / "32", "float32", {"a": feats}))["a"]
    np.testing.assert_array_equal(whole, feats)
    np.testing.assert_allclose(half, feats, rtol=2 ** -11, atol=2 ** -25)  # half a unit in place


def test_the_files_of_a_store(directory):
    assert sorted(path.name for path in directory.iterdir()) == [
        "feats.00000.ark", "feats.00000.idx", "feats.00000.num_frames", "feats.00000.scp",
        "feats.json", "feats.scp", "utt2num_frames"]
    assert (directory / "utt2num_frames").read_text() == "id1/b 7\né 1\n语者/录音 300\n"
    identity = json.loads((directory / "feats.json").read_text())
    assert {**IDENTITY, "codec": FeatureStore(directory).identity["codec"]} == identity


def test_a_read_that_the_system_cuts_in_pieces_goes_on(directory, monkeypatch):
    store, preadv = FeatureStore(directory), os.preadv
    # Linux gives 2 GiB at most in one call; here it is 301 bytes.
    monkeypatch.setattr(os, "preadv", lambda file, buffers, at: preadv(
        file, [memoryview(buffers[0])[:301]], at))
    np.testing.assert_array_equal(store["语者/录音"], FEATS["语者/录音"])


@pytest.mark.parametrize(("start", "count"), [(0, 8), (7, None), (-1, 2), (3, 0), (5, 3), (2, -1)])
def test_a_crop_beyond_the_utterance_is_refused(directory, start, count):
    with pytest.raises(ValueError, match="id1/b has 7 frames, no "):
        FeatureStore(directory).read("id1/b", start, count)


def test_an_unknown_utterance_is_named(directory):
    store = FeatureStore(directory)
    for read in (store.num_frames, store.read, store.__getitem__):
        with pytest.raises(KeyError, match="train: no features for 'nobody'"):
            read("nobody")


def test_a_moved_store_still_reads(directory):
    moved = directory.parent.parent / "elsewhere"
    directory.rename(moved)
    np.testing.assert_array_equal(FeatureStore(moved)["é"], FEATS["é"])
    # And one whose arks stay where they were written while the tables are copied.
    tables = shutil.copytree(moved, directory.parent / "tables",
                             ignore=shutil.ignore_patterns("*.ark"))
    with pytest.raises(ValueError, match=r"neither .* nor .* exists"):
        FeatureStore(tables)
    moved.rename(directory)
    np.testing.assert_array_equal(FeatureStore(tables)["é"], FEATS["é"])


def test_a_store_that_is_dropped_leaves_no_file_open(directory):
    def count_open():
        return len(os.listdir("/proc/self/fd"))

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("no /proc/self/fd to count open files in")
    before = count_open()
    store = FeatureStore(directory)
    store.read("é")
    assert count_open() == before + 2  # the ark and its index
    del store
    assert count_open() == before


def _read_in_worker(store, utt, queue):
    queue.put(store.read(utt, 1, 2))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_store_goes_to_workers(tmp_path, method):
    store = FeatureStore(write_store(tmp_path))
    store.read("é")  # has the ark open by now
    context = multiprocessing.get_context(method)
    queue = context.SimpleQueue()
    worker = context.Process(target=_read_in_worker, args=(store, "id1/b", queue))
    worker.start()
    np.testing.assert_array_equal(queue.get(), FEATS["id1/b"][1:3])
    worker.join()
    assert worker.exitcode == 0


@pytest.mark.parametrize(("change", "codec", "field"), [
    ({"encoder": "other"}, "float16", "encoder is 'tiny', expected 'other'"),
    ({"data_hash": "ff"}, "float16", "data_hash is '0a', expected 'ff'"),
    ({}, "float32", "codec is 'float16', expected 'float32'"),
])
def test_a_folder_of_another_identity_is_refused_by_field(tmp_path, change, codec, field):
    write_store(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=f"holds features of another identity: {field}. Remove"):
        start_store(tmp_path, {**IDENTITY, **change}, codec)
    with pytest.raises(ValueError, match=field):
        FeatureWriter(tmp_path, {**IDENTITY, **change}, codec)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_identity_is_compared_as_json_has_it(tmp_path):
    for _ in range(2):
        assert start_store(tmp_path, {**IDENTITY, "layers": (0, 1)}, "float16")["layers"] == [0, 1]


def test_an_unknown_codec(tmp_path):
    with pytest.raises(ValueError, match="unknown codec 'int4'; choose one of float32, float16"):
        FeatureWriter(tmp_path, IDENTITY, "int4")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("utt", "feats", "message"), [
    ("new", np.zeros((4, L * D)), r"new: want \(T, 3, 5\), got \(4, 15\)"),
    ("new", np.zeros((4, D, L)), r"new: want \(T, 3, 5\), got \(4, 5, 3\)"),
    ("new", np.zeros((0, L, D)), r"want \(T, 3, 5\), got \(0, 3, 5\)"),
    ("new", np.full((1, L, D), 65520.0), "new: features that are not finite in float16.*float32"),
    ("new", np.full((1, L, D), np.nan), "new: features that are not finite"),
    ("old", np.zeros((1, L, D)), "'old' was written before"),
    ("a b", np.zeros((1, L, D)), "'a b' was written before, or holds white space"),
    (" a", np.zeros((1, L, D)), "white space"),
    ("", np.zeros((1, L, D)), "white space"),
])
def test_what_is_not_written(tmp_path, utt, feats, message):
    with pytest.raises(ValueError, match=message), \
            FeatureWriter(tmp_path, IDENTITY, "float16") as writer:
        writer.write("old", make_feats(2))
        writer.write(utt, feats)
    assert [path.name for path in tmp_path.iterdir()] == ["feats.json"]


def test_the_largest_float16_is_kept_and_float32_takes_more(tmp_path):
    feats = np.full((1, L, D), 65504.0, np.float32)
    assert FeatureStore(write_store(tmp_path / "16", "float16", {"a": feats}))["a"].max() == 65504
    feats *= 1e6
    store = FeatureStore(write_store(tmp_path / "32", "float32", {"a": feats}))
    np.testing.assert_array_equal(store["a"], feats)


def write_shard(directory, shard, feats):
    with FeatureWriter(directory, IDENTITY, "float16", shard) as writer:
        for utt, array in feats.items():
            writer.write(utt, array)


def test_shards_are_finished_one_by_one_and_joined(tmp_path):
    parts = [{utt: FEATS[utt]} for utt in FRAMES]
    write_shard(tmp_path, 2, parts[2])
    write_shard(tmp_path, 0, parts[0])
    with pytest.raises(RuntimeError, match="killed"), \
            FeatureWriter(tmp_path, IDENTITY, "float16", 1) as writer:
        writer.write("é", FEATS["é"])
        assert not shard_done(tmp_path, 1) and not (tmp_path / "feats.00001.ark").exists()
        raise RuntimeError("killed")
    assert [shard_done(tmp_path, n) for n in range(3)] == [True, False, True]
    with pytest.raises(FileNotFoundError, match=r"feats\.00001\.scp"):
        index_store(tmp_path, 3)
    with pytest.raises(FileNotFoundError, match="run stage 2 again, it goes on where it stopped"):
        FeatureStore(tmp_path)
    untouched = (tmp_path / "feats.00000.ark").stat().st_mtime_ns
    write_shard(tmp_path, 1, parts[1])
    index_store(tmp_path, 3)
    assert (tmp_path / "feats.00000.ark").stat().st_mtime_ns == untouched
    store = FeatureStore(tmp_path)
    assert list(store) == sorted(FRAMES)
    for utt, feats in FEATS.items():
        np.testing.assert_array_equal(store[utt], feats)


def test_a_shard_that_is_written_again_is_not_done_before_its_end(tmp_path, monkeypatch):
    """Its old table must not vouch for a new ark."""
    write_shard(tmp_path, 0, FEATS)

    def die(*_):
        raise RuntimeError("killed")

    monkeypatch.setattr(feats_writer, "write_index", die)
    with pytest.raises(RuntimeError, match="killed"):
        write_shard(tmp_path, 0, {"é": FEATS["é"]})
    assert not shard_done(tmp_path, 0)


def test_an_utterance_in_two_shards_is_named(tmp_path):
    write_shard(tmp_path, 0, {"é": FEATS["é"]})
    write_shard(tmp_path, 1, {"é": FEATS["é"]})
    with pytest.raises(ValueError, match=r"feats\.00001\.scp: é is in another shard too; remove"):
        index_store(tmp_path, 2)
    assert not (tmp_path / "feats.scp").exists()


def test_an_ark_cut_anywhere_names_the_utterance_and_what_to_remove(directory):
    ark = directory / "feats.00000.ark"
    whole, last = ark.read_bytes(), "语者/录音"
    offset = whole.index(f"{last} ".encode()) + len(f"{last} ".encode())
    cuts = {*range(offset, offset + 300), (offset + len(whole)) // 2, len(whole) - 1}
    for cut in sorted(cuts):
        ark.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=f"{last}.*; mend it with 'wespeaker-lap verify-feats "
                                             f"{directory} --repair --data DATA'") as info:
            FeatureStore(directory).read(last)
        assert str(info.value).startswith(f"{ark}: ")
        np.testing.assert_array_equal(FeatureStore(directory)["id1/b"], FEATS["id1/b"])
    ark.write_bytes(whole)
    np.testing.assert_array_equal(FeatureStore(directory)[last], FEATS[last])


def test_an_ark_of_another_extraction_is_refused(directory, tmp_path):
    other = {"id1/b": make_feats(6), "é": make_feats(2), "语者/录音": make_feats(300)}
    codec = FeatureStore(directory).identity["codec"]
    write_store(tmp_path / "other", codec, other)
    shutil.copy(tmp_path / "other" / "feats.00000.ark", directory)
    with pytest.raises(ValueError, match=r"00000.ark: id1/b at byte 6: .*; mend it"):
        FeatureStore(directory).read("id1/b")
    swapped = {"float16": "float32", "float32": "float16"}[codec]
    write_store(tmp_path / "codec", swapped)
    shutil.copy(tmp_path / "codec" / "feats.00000.ark", directory)
    with pytest.raises(ValueError, match=f"id1/b at byte 6: .*{codec}"):
        FeatureStore(directory).read("id1/b")


def test_a_pickle_is_never_unpickled_and_a_pipe_never_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_store(tmp_path, feats={"a": FEATS["é"]})
    kaldiio.save_ark(str(tmp_path / "feats.00000.ark"), {"a": FEATS["é"]}, write_function="pickle")
    with pytest.raises(ValueError, match=r"a at byte 2: .*float16"):
        FeatureStore(tmp_path).read("a")
    (tmp_path / "feats.scp").write_text("a touch ran |\n")
    with pytest.raises(ValueError, match=r"feats\.scp: a: expected 'ark:offset'"):
        FeatureStore(tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("text", ["a 1\nb 2\n", "", "a one\n"])
def test_tables_that_do_not_agree(tmp_path, text):
    write_store(tmp_path, feats={"a": FEATS["é"]})
    (tmp_path / "utt2num_frames").write_text(text)
    with pytest.raises(ValueError, match=r"name different utterances, or .*; remove both"):
        FeatureStore(tmp_path)
