"""What crops read of a store, how every byte of them is checked, and where they are put."""

import multiprocessing
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from small_store import FEATS, D, L, find_values, flip, make_feats, without_index, write_store

from wespeaker_lap.io.codecs import CODECS
from wespeaker_lap.io.feats import FeatureStore, FeatureWriter, as_stored
from wespeaker_lap.io.feats_verify import verify_store

LONG = make_feats(40_000, 2)  # 18 blocks of 64 KiB and a part of one in float16
BLOCK = 1 << 16


@pytest.fixture(params=["float16", "float32"])
def directory(request, tmp_path):
    return write_store(tmp_path / "feats" / "train", request.param)


@pytest.fixture
def long_store(directory):
    """The folder of a store whose one entry has many blocks, of both codecs."""
    codec = FeatureStore(directory).identity["codec"]
    return write_store(directory.parent / "long", codec, {"first": FEATS["é"], "long": LONG})


def count_bytes(monkeypatch):
    """A list that gets the size of every read from now on."""
    sizes, preadv = [], os.preadv
    monkeypatch.setattr(os, "preadv", lambda file, buffers, at: sizes.append(
        sum(map(len, buffers))) or preadv(file, buffers, at))
    return sizes


@pytest.mark.parametrize(("start", "count"), [(0, 1), (0, 15_000), (11_003, 15_000), (39_999, 1),
                                              (0, None)])
def test_a_crop_reads_the_crops_bytes(long_store, monkeypatch, start, count):
    """And at the first time what is missing of its first and last block, and their checksums."""
    store, unchecked = FeatureStore(long_store), FeatureStore(without_index(long_store))
    store.read("first"), unchecked.read("first")  # the files are open, and the index is loaded
    crop = LONG[start:][:count]
    size = crop.size * np.dtype(store.identity["codec"]).itemsize
    read = count_bytes(monkeypatch)
    np.testing.assert_array_equal(store.read("long", start, count), crop)
    assert size <= sum(read) <= size + 2 * BLOCK + 4 * (size // BLOCK + 2) + 256
    read.clear()
    np.testing.assert_array_equal(store.read("long", start, count), crop)
    assert read == [size]
    read.clear()
    np.testing.assert_array_equal(unchecked.read("long", start, count), crop)
    assert sum(read) == size + 256  # the entry's header


@pytest.mark.parametrize("place", ["first", "inside", "last"])
def test_a_changed_byte_of_a_crop_is_noticed_wherever_it_is(long_store, place):
    ark, codec = long_store / "feats.00000.ark", FeatureStore(long_store).identity["codec"]
    crop = slice(20_011, 25_011)
    begin = find_values(ark, LONG[crop])
    size = 5000 * L * D * np.dtype(codec).itemsize
    flip(ark, {"first": begin, "inside": begin + size // 2, "last": begin + size - 1}[place], 7)
    store = FeatureStore(long_store)
    for _ in range(2):  # what was not good is not taken for checked
        with pytest.raises(ValueError, match=r"00000.ark: long is not what was written, in the 64 "
                                             r"KiB from byte \d+; mend it with 'wesp"):
            store.read("long", crop.start, 5000)
    with pytest.raises(ValueError, match="long is not what was written"):
        store.read("long")
    # Far from it nothing is wrong, and the other entry is whole.
    np.testing.assert_array_equal(store.read("long", 0, 100), LONG[:100])
    np.testing.assert_array_equal(store["first"], FEATS["é"])


def test_every_byte_of_an_entry_is_checked(tmp_path):
    """The header's too, when it is read whole."""
    write_store(tmp_path, feats={"id1/b": FEATS["id1/b"]})
    ark = tmp_path / "feats.00000.ark"
    for at in range(len("id1/b "), ark.stat().st_size):
        flip(ark, at, at % 8)
        with pytest.raises(ValueError, match=r"feats\.00000\.ark: id1/b "):
            FeatureStore(tmp_path).read("id1/b")
        flip(ark, at, at % 8)
    np.testing.assert_array_equal(FeatureStore(tmp_path)["id1/b"], FEATS["id1/b"])


def test_what_was_checked_is_not_checked_again(tmp_path):
    store = FeatureStore(write_store(tmp_path, feats={"long": LONG, "é": FEATS["é"]}))
    ark = tmp_path / "feats.00000.ark"
    store.read("long", 0, 20_000)
    flip(ark, find_values(ark, LONG[10_000:10_100]), 3)
    assert (store.read("long", 9_000, 2_000) != LONG[9_000:11_000]).sum() == 1
    flip(ark, find_values(ark, LONG[30_000:30_100]), 3)
    with pytest.raises(ValueError, match="long is not what was written"):
        store.read("long", 29_000, 2_000)
    flip(ark, find_values(ark, FEATS["é"]), 3)
    with pytest.raises(ValueError, match="é is not what was written"):
        store.read("é")


@pytest.mark.parametrize("seed", range(3))
def test_random_crops_are_right_checked_or_not(long_store, seed):
    store, rng = FeatureStore(long_store), np.random.default_rng(seed)
    for _ in range(60):
        start = int(rng.integers(40_000))
        count = int(rng.integers(1, min(6000, 40_001 - start)))
        np.testing.assert_array_equal(store.read("long", start, count), LONG[start:start + count])


def test_a_store_without_an_index_is_read_unchecked(directory):
    store = FeatureStore(without_index(directory))
    for utt, feats in FEATS.items():
        np.testing.assert_array_equal(store[utt], feats)
    ark = store.directory / "feats.00000.ark"
    flip(ark, find_values(ark, FEATS["é"]), 0)
    assert (store["é"] != FEATS["é"]).sum() == 1
    store.directory.joinpath("feats.00000.num_frames").unlink()  # nor has Kaldi's such files
    np.testing.assert_array_equal(FeatureStore(store.directory)["id1/b"], FEATS["id1/b"])


def test_a_damaged_or_foreign_index_is_refused(directory):
    path = directory / "feats.00000.idx"
    whole = path.read_bytes()
    for at in range(0, len(whole), 3):
        flip(path, at, 2)
        with pytest.raises(ValueError, match=r"feats\.00000\.idx: damaged, or no index"):
            FeatureStore(directory).read("é")
        path.write_bytes(whole)
    codec = FeatureStore(directory).identity["codec"]
    other = write_store(directory.parent / "other", codec, {"id1/b": make_feats(8)})
    shutil.copy(other / "feats.00000.idx", path)
    with pytest.raises(ValueError, match=r"id1/b at byte 6 is another entry in .*00000.idx; mend"):
        FeatureStore(directory).read("id1/b")


@pytest.mark.parametrize("read_before", [False, True])
def test_features_are_read_into_an_array(directory, read_before):
    store = FeatureStore(directory)
    if read_before:
        store.read("语者/录音")
    batch = np.full((3, 20, L, D), np.nan, np.float32)
    assert store.read("语者/录音", 31, 20, out=batch[1]) is not None
    np.testing.assert_array_equal(batch[1], FEATS["语者/录音"][31:51])
    assert np.isnan(batch[[0, 2]]).all()
    out = np.empty((7, L, D), np.float32)
    assert store.read("id1/b", out=out) is out


@pytest.mark.parametrize("out", [
    np.empty((6, L, D), np.float32), np.empty((7, L, D)), np.empty((7, D, L), np.float32),
    np.empty((14, L, D), np.float32)[::2], np.empty((7, D, L), np.float32).transpose(0, 2, 1)])
def test_an_array_that_does_not_fit_is_refused(directory, out):
    with pytest.raises(ValueError, match=r"want out as contiguous float32 \(7, 3, 5\), got"):
        FeatureStore(directory).read("id1/b", out=out)


def test_threads_read_the_same_store(long_store):
    """Many at once from a store that nobody has read of: what is checked must not get mixed up."""
    store, rng = FeatureStore(long_store), np.random.default_rng(0)
    crops = [(int(start), int(count)) for start, count in
             zip(rng.integers(0, 30_000, 200), rng.integers(1, 9000, 200), strict=True)]

    def read(crop):
        return np.array_equal(store.read("long", *crop), LONG[crop[0]:crop[0] + crop[1]])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, crops))
    flip(long_store / "feats.00000.ark", find_values(long_store / "feats.00000.ark", LONG[39_900:]))
    with ThreadPoolExecutor(8) as pool, pytest.raises(ValueError, match="not what was written"):
        list(pool.map(read, [(39_000 + n, 1000 - n) for n in range(50)]))


def _read_and_spoil(store, ark):
    store.read("long", 0, 20_000)
    flip(ark, find_values(ark, LONG[10_000:10_100]))


def test_forked_processes_share_what_was_checked(long_store):
    ark = long_store / "feats.00000.ark"
    store = FeatureStore(long_store)
    worker = multiprocessing.get_context("fork").Process(target=_read_and_spoil, args=(store, ark))
    worker.start()
    worker.join()
    assert worker.exitcode == 0
    assert (store.read("long", 9_000, 2_000) != LONG[9_000:11_000]).sum() == 1
    with pytest.raises(ValueError, match="long is not what was written"):
        FeatureStore(long_store).read("long", 9_000, 2_000)


@pytest.mark.parametrize("codec", CODECS)
def test_every_codec_comes_back_and_is_checked(tmp_path, codec):
    """To the codec's own rounding, whole and in crops; what a model sees of a file is the same."""
    feats = np.random.default_rng(0).standard_normal((5000, 3, 16)).astype(np.float32)
    with FeatureWriter(tmp_path, {"num_layers": 3, "dim": 16}, codec) as writer:
        writer.write("a", feats[:3])
        writer.write("b", feats)
    store, ark = FeatureStore(tmp_path), tmp_path / "feats.00000.ark"
    whole = store["b"]
    np.testing.assert_allclose(whole, feats, atol={"float32": 0, "float16": 0.002}.get(codec, 0.1))
    np.testing.assert_array_equal(as_stored(codec, feats), whole)
    sizes = {"float32": 4 * 48, "float16": 2 * 48}
    assert store.frame_bytes == sizes.get(codec, store.frame_bytes)
    for start, count in ((0, 1), (1234, 777), (4999, 1)):
        for reader in (store, FeatureStore(tmp_path)):
            np.testing.assert_array_equal(reader.read("b", start, count), whole[start:][:count])
    assert verify_store(tmp_path) == []
    flip(ark, ark.stat().st_size - 3000 * store.frame_bytes // 2)
    assert [(finding.shard, finding.utt) for finding in verify_store(tmp_path)] == [(0, "b")]
    with pytest.raises(ValueError, match="b is not what was written"):
        FeatureStore(tmp_path).read("b")
    np.testing.assert_array_equal(FeatureStore(tmp_path)["a"], as_stored(codec, feats[:3]))
