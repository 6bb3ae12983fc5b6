"""The tables of a store in memory: look-ups, order, and what is wrong with them."""

import os
import subprocess
import sys

import numpy as np
import pytest

from wespeaker_lap.io import scp_index
from wespeaker_lap.io.open_files import OpenFiles
from wespeaker_lap.io.scp_index import ScpIndex


def write_tables(directory, lines, counts=None):
    """feats.scp, utt2num_frames (in another order), and the arks."""
    for name in ("a.ark", "b.ark"):
        (directory / name).touch()
    (directory / "feats.scp").write_text("".join(f"{line}\n" for line in lines))
    counts = [f"{line.split()[0]} {n + 1}" for n, line in enumerate(lines)][::-1] \
        if counts is None else counts
    (directory / "utt2num_frames").write_text("".join(f"{line}\n" for line in counts))
    return directory


def make_ids(count):
    rng = np.random.default_rng(0)
    return [f"id{n}/{'录é'[n % 2] * int(rng.integers(0, 4))}{n}" for n in rng.permutation(count)]


def test_rows_are_in_the_order_of_the_table_and_found_again(tmp_path):
    utts = make_ids(3000)
    index = ScpIndex(write_tables(tmp_path, [
        f"{utt} /elsewhere/{'ab'[n % 2]}.ark:{10 ** 10 + 7 * n}" for n, utt in enumerate(utts)]))
    assert len(index) == 3000 and list(index) == utts
    for row, utt in enumerate(utts):
        assert index.find(utt) == row and index.utt(row) == utt
        assert index.arks[index.ark_numbers[row]] == tmp_path / f"{'ab'[row % 2]}.ark"
        assert (index.offsets[row], index.num_frames[row]) == (10 ** 10 + 7 * row, row + 1)
    for absent in ("", "id", utts[0] + "x", utts[0][:-1] + "\udcff", "nobody", 5, None):
        assert index.find(absent) == -1


def test_ids_with_one_hash_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(scp_index, "hash", len, raising=False)
    utts = make_ids(200)
    index = ScpIndex(write_tables(tmp_path, [f"{utt} a.ark:{n}" for n, utt in enumerate(utts)]))
    assert [index.find(utt) for utt in utts] == list(range(200))
    assert index.find("id0/zz") == -1
    with pytest.raises(ValueError, match=f"twice in this table: {utts[7]}, {utts[3]}; verify"):
        ScpIndex(write_tables(tmp_path, [f"{utt} a.ark:1" for utt in [*utts, utts[7], utts[3]]]))


def test_utterances_that_stand_twice_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"feats\.scp: twice in this table: é, b; verify"):
        ScpIndex(write_tables(tmp_path, ["é a.ark:1", "c a.ark:2", "é b.ark:1", "b a.ark:3",
                                         "b a.ark:3"], []))


@pytest.mark.parametrize(("line", "message"), [
    ("x", r"feats\.scp:2: expected 'key value', got 'x\\n'"),
    ("x a.ark", r"feats\.scp: x: expected 'ark:offset', got 'a\.ark'"),
    ("x a.ark:²", r"feats\.scp: x: expected 'ark:offset'"),
    ("x a.ark:9999999999999999999", r"feats\.scp: x: expected 'ark:offset'"),
    ("x a.ark:-1", r"feats\.scp: x: expected 'ark:offset'"),
    ("x copy-feats |", r"feats\.scp: x: expected 'ark:offset'"),
    ("x a.ark:5[0:3]", r"feats\.scp: x: expected 'ark:offset'"),
    ("x gone.ark:5", r"feats\.scp: x: neither .* nor gone\.ark exists"),
])
def test_a_line_that_is_none(tmp_path, line, message):
    with pytest.raises(ValueError, match=message):
        ScpIndex(write_tables(tmp_path, ["w a.ark:0", line], ["w 1", "x 1"]))


@pytest.mark.parametrize("counts", [
    [], ["a 1"], ["a 1", "b 2", "c 3"], ["a 1", "c 2"], ["a 1", "b two"], ["a 1", "a 1"],
    ["b 2", "b 2"], ["a 1", "b -2"], ["a 1", "b 0"], ["a 1", f"b {2 ** 70}"]])
def test_counts_that_do_not_agree(tmp_path, counts):
    with pytest.raises(ValueError, match=r"feats\.scp and utt2num_frames name different"):
        ScpIndex(write_tables(tmp_path, ["a a.ark:0", "b a.ark:9"], counts))


def test_tables_that_are_missing_or_no_text(tmp_path):
    write_tables(tmp_path, ["a a.ark:0"])
    (tmp_path / "utt2num_frames").unlink()
    with pytest.raises(FileNotFoundError, match="utt2num_frames: no such file; run stage 2"):
        ScpIndex(tmp_path)
    (tmp_path / "feats.scp").write_bytes(b"\xff\xfe a.ark:0\n")
    with pytest.raises(ValueError, match=r"feats\.scp: not readable as UTF-8"):
        ScpIndex(tmp_path)


def test_windows_line_ends_and_empty_lines_are_passed_over(tmp_path):
    write_tables(tmp_path, ["a a.ark:3\r", "", " \t", "b  a.ark:5  "], ["a 1\r", "", "b\t2"])
    index = ScpIndex(tmp_path)
    assert list(index) == ["a", "b"] and list(index.offsets) == [3, 5]
    assert list(index.num_frames) == [1, 2]


def test_an_index_takes_little_memory(tmp_path):
    """Beyond its ids' bytes some 60 an utterance; a dictionary takes hundreds."""
    utts = [f"{n:012d}" for n in range(20_000)]
    write_tables(tmp_path, [f"{utt} a.ark:{n}" for n, utt in enumerate(utts)])
    code = ("import sys, tracemalloc; from wespeaker_lap.io.scp_index import ScpIndex\n"
            "tracemalloc.start(); index = ScpIndex(sys.argv[1])\n"
            "print(tracemalloc.get_traced_memory()[0])")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True,
                          text=True, check=True)
    assert int(done.stdout) < 20_000 * (12 + 70)


def test_many_files_are_read_with_few_open(tmp_path):
    paths = [tmp_path / f"{n}.bin" for n in range(40)]
    for n, path in enumerate(paths):
        path.write_bytes(bytes([n]) * 9 + b"end")
    before, files = len(os.listdir("/proc/self/fd")), OpenFiles(limit=5)
    for _ in range(2):
        for n, path in enumerate(paths):
            data = np.full(6, 99, np.uint8)
            assert files.read(path, data, 8) == 4  # bytes that are there
            assert bytes(data) == bytes([n]) + b"end\x63\x63"
            assert len(os.listdir("/proc/self/fd")) <= before + 6
    del files
    assert len(os.listdir("/proc/self/fd")) == before
