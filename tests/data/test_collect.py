"""Recordings below a folder: which are found, what is passed over, what they are called."""

import os

import pytest
import soundfile

from wespeaker_lap.data.collect import find_recordings, make_ids


def plant(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def test_every_kind_at_every_depth(tmp_path):
    found = find_recordings(plant(
        tmp_path, "b/1.wav", "a/x/y/2.FLAC", "a/3.mp3", "4.m4a", "a/5.opus", "a/notes.txt",
        "README", "a/.hidden.wav", ".git/6.wav", "b/table.csv", "c/table.csv"))
    assert found.names == ["4.m4a", "a/3.mp3", "a/5.opus", "a/x/y/2.FLAC", "b/1.wav"]
    assert found.others == {".csv": 2, ".txt": 1, "no ending": 1}
    assert found.rejects == {} and found.path("b/1.wav") == str(tmp_path.resolve() / "b/1.wav")


def record(root, *names):
    plant(root, *names)
    for name in names:
        soundfile.write(root / name, [0.1, -0.1] * 800, 16000)
    return root


def test_one_format_of_a_recording_is_kept(tmp_path):
    plant(record(tmp_path, "a/1.mp3", "a/1.flac", "b/1.mp3"), "a/1.M4A")
    found = find_recordings(tmp_path)
    assert found.names == ["a/1.flac", "b/1.mp3"]
    reason = "another format of one that is kept (a/1.flac)"
    assert found.rejects == {"a/1.mp3": reason, "a/1.M4A": reason}


@pytest.mark.parametrize("num_jobs", [1, 2])
def test_of_several_formats_one_that_can_be_decoded_is_kept(tmp_path, num_jobs):
    root = record(tmp_path, "a/1.flac", "a/1.ogg", "a/3.wav", "a/3.flac", "a/4.flac")
    plant(root, "a/2.wav", "a/2.m4a", "a/4.wav", "a/5.flac", "a/5.mp3")
    (root / "a" / "1.wav").touch()
    with open(root / "a" / "3.wav", "r+b") as file:
        file.truncate(1044)  # of 3244
    with open(root / "a" / "4.flac", "r+b") as file:
        file.truncate(100)  # its header is whole
    found = find_recordings(root, num_jobs)
    # of 4 and 5 nothing can be decoded, which is told later of the one that is kept
    assert found.names == ["a/1.flac", "a/2.m4a", "a/3.flac", "a/4.wav", "a/5.flac"]
    assert {name: reason.split(" (")[0] for name, reason in found.rejects.items()} == {
        "a/1.wav": "not readable as audio", "a/2.wav": "not readable as audio",
        "a/3.wav": "cut short", "a/5.mp3": "not readable as audio",
        "a/1.ogg": "another format of one that is kept", "a/4.flac": "broken audio"}
    assert found.rejects["a/1.ogg"].endswith("(a/1.flac)")


def test_names_that_no_table_can_hold(tmp_path):
    plant(tmp_path, "a/good.wav", "a/new\nline.wav")
    with open(os.fsencode(tmp_path / "a") + b"/latin\xe9.wav", "wb"):
        pass
    found = find_recordings(tmp_path)
    assert found.names == ["a/good.wav"]
    assert found.rejects == {"a/latin?.wav": "the file name is not UTF-8; rename it",
                             "a/new\nline.wav": "a line break in the file name; rename it"}


def test_links_are_followed_once_and_loops_end(tmp_path):
    plant(tmp_path / "elsewhere", "1.wav")
    root = plant(tmp_path / "root", "a/2.wav")
    (root / "b").symlink_to(tmp_path / "elsewhere")
    (root / "a" / "up").symlink_to(root)
    assert find_recordings(root).names == ["a/2.wav", "b/1.wav"]


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        find_recordings(tmp_path / "absent")
    plant(tmp_path, "a.txt", "b.txt")
    with pytest.raises(FileNotFoundError, match=r"no recordings.*other files: 2 x \.txt"):
        find_recordings(tmp_path)


def test_ids_are_the_folder_and_the_file():
    assert make_ids(["ann/01.wav", "x/ben/02.flac", "03.wav"]) == {
        "ann/01.wav": "ann-01", "x/ben/02.flac": "ben-02", "03.wav": "03"}


@pytest.mark.parametrize(("names", "ids"), [
    (["a/s/1.wav", "b/s/1.wav", "c/t/1.wav"], ["a-s-1", "b-s-1", "t-1"]),
    # the first two differ in a blank alone, and their whole path is no other
    (["a/1 2.wav", "a/1_2.wav", "a/1  2.wav"], ["a-1_2", "a-1_2-2", "a-1_2-3"]),
    # the whole path of the others is the short name of the last one
    (["s/x/1.wav", "t/x/1.wav", "u/s-x/1.wav"], ["s-x-1-2", "t-x-1", "s-x-1"]),
    (["é语/1.wav", "e e/1.wav"], ["é语-1", "e_e-1"]),
])
def test_ids_are_unique_and_without_blanks(names, ids):
    made = make_ids(names)
    assert sorted(made.values()) == sorted(ids)
    assert make_ids(names[::-1]) == made
    assert all(utt.split() == [utt] for utt in made.values())
    if names[0].startswith(("s/", "a/s")):
        assert [made[name] for name in names] == ids
