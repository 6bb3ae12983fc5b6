"""Whose recordings are: folders, regular expressions, tables, and all that can be wrong in them."""

import pytest

from wespeaker_lap.data.naming import name_speakers, read_rows


def table(tmp_path, *lines, encoding="utf-8"):
    path = tmp_path / "speakers.csv"
    path.write_text("".join(f"{line}\n" for line in lines), encoding=encoding)
    return path


def test_by_the_folder():
    named = name_speakers(["ann lee/1.wav", "ben/2.wav", "3.wav"], "parent")
    assert named.speakers == {"ann lee/1.wav": "ann_lee", "ben/2.wav": "ben"}
    assert named.rejects == {"3.wav": "lies in no speaker's folder"}
    assert named.genders == {} and named.warnings == []


def test_sessions_that_pass_for_speakers_are_told():
    merged = name_speakers(["ann/s1/1.wav", "ben/s1/1.wav", "ben/s2/1.wav"], "parent").warnings
    assert len(merged) == 1
    assert merged[0].startswith("1 speakers have recordings in several folders") and (
        "s1 (ann/s1, ben/s1)" in merged[0] and "--spk_from regex" in merged[0])
    deep, = name_speakers(["id1/v1/1.wav", "id2/v2/1.wav"], "parent").warnings
    assert "'id1/v1/1.wav' is of 'v1'" in deep


def test_by_an_expression():
    names = ["id1/v/1.wav", "id2/v/1.wav", "x-id3.wav"]
    named = name_speakers(names, "regex", r"^(?P<spk>[^/]+)/")
    assert named.speakers == {names[0]: "id1", names[1]: "id2"}
    assert named.rejects == {names[2]: "the regular expression finds no speaker in the path"}
    assert name_speakers(names, "regex", r"(?P<spk>id\d)").speakers[names[2]] == "id3"


@pytest.mark.parametrize(("lines", "genders"), [
    (["path,speaker,gender", "a/1.wav,ann lee,F", '"a,b/2.wav",ben,male'], {"ann_lee": "f",
                                                                            "ben": "m"}),
    (["client_id\tage\tpath", "ann lee\t3\ta/1.wav", "ben\t\ta,b/2.wav"], {}),
    (["\ufeffFile; Spk ;sex", "./a/1.wav;ann lee;female_feminine", "a,b/2.wav;ben;other", ""],
     {"ann_lee": "f"}),
    (["wav,speaker_id", "/root/a/1.wav,ann lee", '"a,b\\2.wav",ben'], {}),
])
def test_by_a_table(tmp_path, lines, genders):
    named = name_speakers(["a/1.wav", "a,b/2.wav", "c/3.wav"], "csv",
                          table=table(tmp_path, *lines), root="/root")
    assert named.speakers == {"a/1.wav": "ann_lee", "a,b/2.wav": "ben"}
    assert named.genders == genders
    assert named.rejects == {"c/3.wav": "the table does not name it"}
    known = len(genders) == 1
    assert named.warnings == (["the gender of 1 of 2 speakers is not known; trials pair them among "
                               "themselves"] if known else [])


def test_lines_without_a_recording_are_told(tmp_path):
    path = table(tmp_path, "path,speaker", "a/1.wav,ann", "b/2.wav,ben")
    named = name_speakers(["a/1.wav"], "csv", table=path)
    assert named.warnings == ["1 lines of the table name no recording below the folder: b/2.wav"]


def test_genders_beside_folders(tmp_path):
    path = table(tmp_path, "speaker,gender", "ann,f", "ben,m", "stranger,f")
    named = name_speakers(["ann/1.wav", "ben/1.wav"], "parent", table=path)
    assert named.genders == {"ann": "f", "ben": "m"} and named.warnings == []


@pytest.mark.parametrize(("options", "message"), [
    (("folder",), "--spk_from folder: want one of parent, regex, csv"),
    (("regex",), "--regex go together"),
    (("parent", "(?P<spk>.)"), "--regex go together"),
    (("regex", "(?P<spk>"), "no regular expression"),
    (("regex", "(?P<speaker>.)"), "want a group called spk"),
    (("regex", "(?P<spk>xyz)"), "no recording has a speaker; of 'a b/1.wav', for instance"),
    (("regex", "^(?P<spk>a.b)/"), "'a b' and 'a_b' would both be called 'a_b'"),
    (("csv",), "needs --csv FILE"),
])
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(").replace("?", r"\?")):
        name_speakers(["a b/1.wav", "a_b/1.wav"], *options)


@pytest.mark.parametrize(("lines", "message"), [
    (["path,speaker"], "want a line with the names of the columns and lines below"),
    (["path,speaker", "a/1.wav"], r":2: 1 columns, the first line has 2"),
    (["path,name", "a/1.wav,ann"], r":2: no column speaker \(or spk, "),
    (["path,speaker", "a/1.wav,"], r":2: nothing in the column speaker"),
    (["path,speaker", "a/1.wav,ann", "a/1.wav,ben"], r":3: a/1.wav is said to be of ben, above"),
    (["path,speaker,sex", "a/1.wav,ann,f", "b/1.wav,ann,m"], r":3: ann is m here and f above"),
    (["path,speaker", '"a/1.wav,ann'], "1 columns"),
])
def test_broken_tables(tmp_path, lines, message):
    with pytest.raises(ValueError, match=message):
        name_speakers(["a/1.wav", "b/1.wav"], "csv", table=table(tmp_path, *lines))


def test_a_field_beyond_all_measure(tmp_path):
    with pytest.raises(ValueError, match=r"speakers\.csv:2: field larger than field limit"):
        read_rows(table(tmp_path, "path,speaker", "x" * 200_000 + ",ann"))


def test_no_table(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        name_speakers(["a/1.wav"], "csv", table=tmp_path / "absent.csv")
