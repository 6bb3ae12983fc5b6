"""Verification finds every changed byte of a store, and names the file and the utterance."""

import shutil

import kaldiio
import numpy as np
import pytest
from small_store import FEATS, IDENTITY, find_values, flip, make_feats, without_index, write_store

from wespeaker_lap.io.feats import FeatureWriter, index_store
from wespeaker_lap.io.feats_verify import verify_store

SHARDS = [{"a": make_feats(3), "语/b": make_feats(9, 1)}, {"c": make_feats(70_000, 2)},
          {"d": make_feats(5, 3), "é": make_feats(1, 4)}]


@pytest.fixture
def directory(tmp_path):
    """A store of three shards."""
    for number, feats in enumerate(SHARDS):
        with FeatureWriter(tmp_path / "feats", IDENTITY, "float16", number) as writer:
            for utt in reversed(feats):  # as extraction, not in the order of the ids
                writer.write(utt, feats[utt])
    index_store(tmp_path / "feats", len(SHARDS))
    return tmp_path / "feats"


def find(directory):
    """Findings as (file, shard, utterance, text)."""
    return [(finding.path.name, finding.shard, finding.utt, finding.what)
            for finding in verify_store(directory)]


def find_one(directory):
    found = find(directory)
    assert len(found) == 1, found
    return found[0]


def test_a_whole_store_and_one_that_was_moved(directory):
    assert find(directory) == []
    directory.rename(directory.parent / "moved")
    assert find(directory.parent / "moved") == []


def test_what_is_no_store(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"feats\.json: no such file"):
        verify_store(tmp_path)


@pytest.mark.parametrize(("shard", "utts"), [(0, ["a", "语/b"]), (2, ["d", "é"])])
def test_every_byte_of_an_ark_is_checked(directory, shard, utts):
    """Names, headers and numbers; what is found is laid to the entry that it is in."""
    ark = directory / f"feats.{shard:05d}.ark"
    begin_of_last = ark.read_bytes().index(f"{utts[0]} NPY".encode())  # written in reverse
    for at in range(0, ark.stat().st_size, 1 + shard):
        flip(ark, at, at % 8)
        name, number, utt, what = find_one(directory)
        assert (name, number, utt) == (ark.name, shard, utts[at < begin_of_last]), at
        assert what.startswith(("another name stands", "wrong header", "changed in the 64 KiB"))
        flip(ark, at, at % 8)
    assert find(directory) == []


def test_a_change_in_a_large_entry_is_found_in_its_block(directory):
    ark = directory / "feats.00001.ark"
    entry_at = len("c ")
    for block in (0, 1, 17, 31, 32):
        at = entry_at + block * 65536 + 1234
        flip(ark, at)
        want = f"changed in the 64 KiB from byte {entry_at + block * 65536}"
        assert find_one(directory) == ("feats.00001.ark", 1, "c", want)
        flip(ark, at)


@pytest.mark.parametrize("name", ["feats.00000.idx", "feats.00001.scp", "feats.00002.num_frames"])
def test_every_byte_of_an_index_and_of_the_shards_tables_is_checked(directory, name):
    shard, size = int(name[6:11]), (directory / name).stat().st_size
    folder = str(directory).encode()
    text = (directory / name).read_bytes()
    for at in range(size):
        if text.find(folder) <= at < text.find(folder) + len(folder):
            continue  # of a shard with one entry: nobody reads where it once was
        flip(directory / name, at, 1)
        found = find(directory)
        assert [(file, number) for file, number, *_ in found] == [(name, shard)], (at, found)
        flip(directory / name, at, 1)


@pytest.mark.parametrize("name", ["feats.scp", "utt2num_frames"])
def test_changes_of_the_joined_tables_are_found(directory, name):
    text, folder = (directory / name).read_bytes(), str(directory).encode()
    unread = text.find(b"c " + folder) + len(b"c ")  # the folder of an ark's only entry
    for at in range(len(text) - 1):
        if name == "feats.scp" and unread <= at <= unread + len(folder):
            continue
        flip(directory / name, at, 0)  # turns a blank into "!", a digit into its neighbour
        found = find(directory)
        assert found and all(shard is None for _, shard, *_ in found), (at, text[at:at + 9])
        flip(directory / name, at, 0)


def test_an_ark_cut_short_names_the_first_utterance_that_is_lost(directory):
    ark = directory / "feats.00002.ark"
    data = ark.read_bytes()
    for cut in range(0, len(data), 7):
        ark.write_bytes(data[:cut])
        utt, lost = ("é", 2) if cut < data.index(b"d NPY") else ("d", 1)
        assert find_one(directory) == (ark.name, 2, utt, f"cut short here; {lost} entries are lost")
    ark.write_bytes(data + b"x" * 30)
    assert find_one(directory) == (ark.name, 2, None, "30 bytes behind the last entry")


def test_files_that_are_missing(directory):
    for name in ("feats.00001.scp", "feats.00001.num_frames"):
        data = (directory / name).read_bytes()
        (directory / name).unlink()
        assert find_one(directory) == (name, 1, None, "missing")
        (directory / name).write_bytes(data)
    (directory / "feats.scp").unlink()
    name, shard, _, what = find_one(directory)
    assert (name, shard) == ("feats.scp", None) and what.startswith("not readable (")
    (directory / "feats.00001.ark").unlink()
    assert find(directory)[1:] == [("feats.00001.ark", 1, None, "missing")]


def test_leftovers_are_found(directory):
    for name in (".feats.00007.ark.tmp", ".feats.scp.tmp", ".utt2num_frames.tmp"):
        (directory / name).touch()
    (directory / "README").touch()
    assert find(directory) == [
        (name, None, None, "left behind by an interrupted run")
        for name in (".feats.00007.ark.tmp", ".feats.scp.tmp", ".utt2num_frames.tmp")]


def test_a_shard_more_is_found(directory):
    with FeatureWriter(directory, IDENTITY, "float16", 3) as writer:
        writer.write("d", make_feats(2))
        writer.write("z", make_feats(2))
    assert find(directory) == [
        ("feats.00003.ark", 3, "d", "in another place of the store too"),
        ("feats.scp", None, None,
         "it or utt2num_frames disagrees with feats.00003.idx on z")]


def test_lines_that_stand_twice_or_are_lost(directory):
    for name in ("feats.scp", "utt2num_frames"):
        lines = (directory / name).read_text().splitlines(keepends=True)
        (directory / name).write_text("".join([*lines, lines[0]]))
        assert "not readable (" in find_one(directory)[3]
        (directory / name).write_text("".join(lines))
    for name in ("feats.scp", "utt2num_frames"):
        lines = (directory / name).read_text().splitlines(keepends=True)
        (directory / name).write_text("".join(lines[1:]))
    assert find_one(directory)[2:] == (
        None, "it or utt2num_frames disagrees with feats.00000.idx on a")


def test_an_entry_in_the_table_that_no_ark_has(directory):
    with open(directory / "feats.scp", "a") as scp, open(directory / "utt2num_frames", "a") as num:
        scp.write(f"zz {directory}/feats.00001.ark:2\n")
        num.write("zz 7\n")
    assert find_one(directory) == ("feats.scp", None, None, "in no ark: zz")


def test_a_store_without_indexes_is_checked_as_far_as_that_goes(directory):
    """Names, headers and lengths; and that there is no index is said."""
    earlier = without_index(directory)
    missing = [(f"feats.{n:05d}.idx", n) for n in range(3)]
    assert [finding[:2] for finding in find(earlier)] == missing
    ark = earlier / "feats.00000.ark"
    at = ark.read_bytes().index(b"a NPY")
    flip(ark, at)
    assert find(earlier)[1] == (ark.name, 0, "a", "another name stands before the entry")
    flip(ark, at)
    flip(ark, at + 8)
    assert find(earlier)[1][:3] == (ark.name, 0, "a")
    flip(ark, at + 8)
    flip(ark, find_values(ark, SHARDS[0]["a"]))
    assert [finding[:2] for finding in find(earlier)] == missing
    ark.write_bytes(ark.read_bytes()[:-1])
    assert find(earlier)[1] == (ark.name, 0, "a", "cut short here; 1 entries are lost")


def test_a_store_of_kaldis_tools(tmp_path):
    write_store(tmp_path, "float32")
    for path in [*tmp_path.glob("feats.0*"), tmp_path / "feats.scp"]:
        path.unlink()
    with open(tmp_path / "raw_feats.1.ark", "wb") as ark:
        lines = []
        for utt, feats in FEATS.items():
            lines.append(f"{utt} somewhere/raw_feats.1.ark:{ark.tell() + len(utt.encode()) + 1}\n")
            kaldiio.save_ark(ark, {utt: feats.reshape(len(feats), -1)})
    (tmp_path / "feats.scp").write_text("".join(lines))
    assert [finding[:1] for finding in find(tmp_path)] == [("raw_feats.1.idx",)]
    flip(tmp_path / "raw_feats.1.ark", len("id1/b ") + 8)
    assert find(tmp_path)[1][:3] == ("raw_feats.1.ark", None, "id1/b")


def test_an_index_of_another_shape(directory):
    other = directory.parent / "other"
    with FeatureWriter(other, {**IDENTITY, "dim": 4}, "float16", 0) as writer:
        writer.write("a", np.zeros((3, 3, 4)))
    shutil.copy(other / "feats.00000.idx", directory)
    assert find_one(directory) == ("feats.00000.idx", 0, None,
                                   "entries of (L, D) (3, 4), feats.json says (3, 5)")
