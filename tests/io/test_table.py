"""Tables: what is read, what is refused with its line; files appear whole or not at all."""

import errno
import gzip
import os
import random

import pytest

from wespeaker_lap.io.table import (
    invert,
    name_some,
    naming,
    read_lines,
    read_table,
    replacing,
    write_table,
    write_text,
)


def names_in(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(("data", "lines"), [
    (b"", []),
    (b"\n", [""]),
    (b"a 1\n\nb 2", ["a 1", "", "b 2"]),
    (b"a 1\r\nb 2\r\n", ["a 1", "b 2"]),
    ("é 1\n中 2\n".encode(), ["é 1", "中 2"]),
    ("a x\u2028y\n".encode(), ["a x\u2028y"]),  # only a newline ends a line
    (b"\xef\xbb\xbfa 1\nb 2\n", ["a 1", "b 2"]),  # a byte order mark
    (b"a 1\n\xef\xbb\xbfb 2\n", ["a 1", "\ufeffb 2"]),  # elsewhere it is none
    (b"\xef\xbb\xbf", []),
])
@pytest.mark.parametrize("name", ["table", "table.gz"])
def test_lines(tmp_path, data, lines, name):
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    assert read_lines(tmp_path / name) == lines


@pytest.mark.parametrize(("name", "data"), [
    ("table", "é".encode("latin-1")),
    ("table.gz", b"a 1\n"),
    ("table.gz", gzip.compress(b"a 1\n" * 99)[:-9]),
], ids=["latin-1", "not compressed", "cut short"])
def test_what_is_no_text_is_named(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=f"{name}: not readable as UTF-8 text"):
        read_lines(tmp_path / name)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"wav\.scp: no such file; check the path or run"):
        read_table(tmp_path / "wav.scp")
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_table(tmp_path)  # a folder


def test_values_keep_their_blanks_and_the_order_of_the_file(tmp_path):
    path = tmp_path / "wav.scp"
    path.write_text("ü \t my file.wav \n\nа/б\tx  y\n", encoding="utf-8")
    assert list(read_table(path).items()) == [("ü", "my file.wav"), ("а/б", "x  y")]


@pytest.mark.parametrize(("text", "message"), [
    ("a 1\n\nb\n", ":3: expected 'key value', got 'b'"),
    ("a 1\nb \n", ":2: expected 'key value', got 'b '"),
    ("a 1\né 1\na 2\né 2\n", ":3: 'a' stands twice; remove one of the lines"),
])
def test_a_bad_line_is_named(tmp_path, text, message):
    path = tmp_path / "utt2spk"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError) as info:
        read_table(path)
    assert str(info.value) == f"{path}{message}"


def test_written_tables_are_sorted_as_the_c_locale_sorts(tmp_path):
    keys = ["a", "B", "a-", "a_", "a/1", "é", "z", "中", "\U0001f600", "\uff5e"]
    table = {key: index for index, key in enumerate(keys)}
    shuffled = dict(random.Random(0).sample(sorted(table.items()), len(table)))
    path = tmp_path / "new" / "folder" / "utt2num_frames"
    write_table(path, shuffled)
    expected = b"".join(b"%s %d\n" % pair for pair in
                        sorted((key.encode(), value) for key, value in table.items()))
    assert path.read_bytes() == expected
    assert read_table(path) == {key: str(value) for key, value in table.items()}


@pytest.mark.parametrize(("table", "message"), [
    ({"": 1}, "the id '' is empty"),
    ({"a b": 1}, "the id 'a b' is empty or holds white space; rename it"),
    ({" a": 1}, "the id ' a'"),
    ({"a\u00a0b": 1}, "white space"),
    ({"a": ""}, "the value '' of 'a' is blank"),
    ({"a": "x\ny 2"}, "of 'a' is blank or holds a new line"),
])
def test_what_could_not_be_read_back_is_not_written(tmp_path, table, message):
    path = tmp_path / "utt2spk"
    path.write_text("old 1\n")
    with pytest.raises(ValueError, match=message) as info:
        write_table(path, table)
    assert str(path) in str(info.value)
    assert path.read_text() == "old 1\n" and names_in(tmp_path) == ["utt2spk"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, MemoryError])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "file"
    write_text(path, "old\n")
    with pytest.raises(error), replacing(path) as aside:
        aside.write_text("half")
        assert path.read_text() == "old\n"
        raise error
    assert path.read_text() == "old\n" and names_in(tmp_path) == ["file"]
    write_text(path, "новый\n")
    assert path.read_text(encoding="utf-8") == "новый\n" and names_in(tmp_path) == ["file"]


def test_what_a_killed_process_left_aside_is_overwritten(tmp_path):
    with replacing(tmp_path / "file") as aside:
        aside.write_text("old")
    aside.write_text("left over by a kill, longer than what follows")
    write_text(tmp_path / "file", "whole")
    assert (tmp_path / "file").read_text() == "whole" and names_in(tmp_path) == ["file"]


def test_a_full_disk_is_told_with_the_file_and_what_to_do(tmp_path):
    with pytest.raises(OSError) as info, naming("feats.ark"), open("/dev/full", "w") as file:
        file.write("x")
    assert str(info.value) == ("feats.ark: No space left on device; make room and run the same "
                               "command again")
    with pytest.raises(OSError, match=r"^a: Input/output error$"), naming("a"):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize("error", [OSError("says all"), FileNotFoundError(2, "No such file", "b")])
def test_an_error_that_names_its_file_stays_as_it_is(error):
    with pytest.raises(OSError) as info, naming("a"):
        raise error
    assert info.value is error


def test_invert_and_name_some():
    assert list(invert({"u3": "é", "u2": "b", "u1": "é"}).items()) == [("b", ["u2"]),
                                                                       ("é", ["u1", "u3"])]
    assert name_some(iter("abc"), 3) == "a, b, c"
    assert name_some([]) == ""
    assert name_some(map(str, range(12))) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"
