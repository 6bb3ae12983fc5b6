"""Writing by a thread: the same files, errors that come up, and no more in memory than allowed."""

import threading

import numpy as np
import pytest
from checks import snapshot
from small_store import FEATS, IDENTITY, make_feats, write_store

from wespeaker_lap.io.feats import FeatureWriter
from wespeaker_lap.io.write_behind import WriteBehind


def write_behind(directory, feats, **options):
    with FeatureWriter(directory, IDENTITY) as writer, WriteBehind(writer, **options) as behind:
        for utt, array in feats.items():
            behind.write(utt, array)


def test_the_files_are_those_written_without_it(tmp_path):
    write_store(tmp_path / "feats")
    expected = snapshot(tmp_path / "feats")
    for path in (tmp_path / "feats").iterdir():
        path.unlink()
    write_behind(tmp_path / "feats", FEATS)
    assert snapshot(tmp_path / "feats") == expected


def test_the_caller_goes_on_while_the_thread_writes(tmp_path, monkeypatch):
    """All but the utterance that is being written wait, in the order in which they were given."""
    gate, order, write = threading.Event(), [], FeatureWriter.write

    def wait_and_write(writer, utt, feats):
        assert gate.wait(60) and threading.current_thread() is not threading.main_thread()
        order.append(utt)
        write(writer, utt, feats)

    monkeypatch.setattr(FeatureWriter, "write", wait_and_write)
    with FeatureWriter(tmp_path, IDENTITY) as writer, WriteBehind(writer) as behind:
        for n in range(20):
            behind.write(f"u{n}", make_feats(3, n))
        assert order == []
        gate.set()
    assert order == [f"u{n}" for n in range(20)] and (tmp_path / "feats.scp").is_file()


@pytest.mark.parametrize("max_bytes", [0, 1000])
def test_no_more_waits_than_is_allowed(tmp_path, monkeypatch, max_bytes):
    """Entries of 180 bytes; one that is larger than the bound waits alone."""
    seen, write = [], FeatureWriter.write

    def watched(writer, utt, feats):
        seen.append(behind._num_bytes)
        write(writer, utt, feats)

    monkeypatch.setattr(FeatureWriter, "write", watched)
    with FeatureWriter(tmp_path, IDENTITY) as writer, WriteBehind(writer, max_bytes) as behind:
        for n in range(50):
            behind.write(f"u{n}", make_feats(3, n))
            assert behind._num_bytes <= max(max_bytes, 180)
    assert len(seen) == 50


@pytest.mark.parametrize("place", [0, 5, 9])
def test_an_error_leaves_no_shard(tmp_path, place):
    feats = {f"u{n}": make_feats(3, n) for n in range(10)}
    feats[f"u{place}"] = np.full((3, 3, 5), np.nan, np.float32)
    with pytest.raises(ValueError, match=f"^u{place}: features that are not finite"):
        write_behind(tmp_path, feats)
    assert [path.name for path in tmp_path.iterdir()] == ["feats.json"]


def test_an_error_of_the_caller_leaves_no_shard_either(tmp_path):
    threads = threading.active_count()
    with (pytest.raises(KeyboardInterrupt), FeatureWriter(tmp_path, IDENTITY) as writer,
          WriteBehind(writer) as behind):
        behind.write("a", make_feats(3))
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["feats.json"]
    assert threading.active_count() == threads
