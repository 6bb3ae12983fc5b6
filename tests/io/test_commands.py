"""The list of the commands that made a folder."""

import sys

from wespeaker_lap.io.commands import note_command, read_commands


def test_each_command_stands_once_in_the_order_of_use(tmp_path, monkeypatch):
    assert read_commands(tmp_path) == []
    for args in (["train", "--set", "a=[1, 2]"], ["score", "é"], ["train", "--set", "a=[1, 2]"]):
        monkeypatch.setattr(sys, "argv", ["anything", *args])
        note_command(tmp_path)
    want = ["wespeaker-lap train --set 'a=[1, 2]'", "wespeaker-lap score 'é'"]
    assert read_commands(tmp_path) == want
    assert (tmp_path / "commands.txt").read_text(encoding="utf-8") == "\n".join(want) + "\n"


def test_one_process_of_several_notes_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["anything", "train"])
    monkeypatch.setenv("RANK", "1")
    note_command(tmp_path)
    assert read_commands(tmp_path) == []
    monkeypatch.setenv("RANK", "0")
    note_command(tmp_path)
    assert read_commands(tmp_path) == ["wespeaker-lap train"]
