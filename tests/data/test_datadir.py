"""Kaldi data directories: what is loaded, what is refused, what is written."""

import hashlib
from pathlib import Path

import pytest

from wespeaker_lap.data.datadir import (
    DataDir,
    data_hash,
    load_data_dir,
    split_by_speaker,
    write_data_dir,
)

WAVS = {"é1": "my audio/1.wav", "a/1": "x.wav", "a/2": "y.flac"}
UTT2SPK = {"a/2": "a", "é1": "é", "a/1": "a"}


def put(path, **tables):
    path.mkdir(parents=True, exist_ok=True)
    for name, text in tables.items():
        (path / name.replace("wav", "wav.scp")).write_text(text, encoding="utf-8")
    return path


def test_what_is_written_is_what_kaldi_reads(tmp_path):
    write_data_dir(tmp_path, WAVS, UTT2SPK, {"é": "f", "a": "m", "nobody": "f"})
    assert {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()} == {
        "wav.scp": "a/1 x.wav\na/2 y.flac\né1 my audio/1.wav\n",
        "utt2spk": "a/1 a\na/2 a\né1 é\n",
        "spk2utt": "a a/1 a/2\né é1\n",
        "spk2gender": "a m\né f\n"}
    data = load_data_dir(str(tmp_path))
    assert data == DataDir(tmp_path, WAVS, UTT2SPK, {"é": "f", "a": "m"}, {})
    assert data.speakers == ["a", "é"]


def test_what_an_earlier_corpus_left_is_removed(tmp_path):
    put(tmp_path, utt2dur="a/1 1\n", spk2gender="a f\n")
    write_data_dir(tmp_path, WAVS, UTT2SPK)
    data = load_data_dir(tmp_path)
    assert data.durations == {} and data.spk2gender == {}


def test_durations_are_those_of_the_set(tmp_path):
    put(tmp_path, wav="a 1\nb 2\n", utt2spk="a x\nb x\n", utt2dur="b 2.5\na 1\ngone 3\n")
    assert load_data_dir(tmp_path).durations == {"a": 1.0, "b": 2.5}
    put(tmp_path, wav="a 1\nb 2\nc 2\n", utt2spk="a x\nb x\nc x\n")
    with pytest.raises(ValueError, match="utt2dur: no duration for c; audit it again"):
        load_data_dir(tmp_path)
    assert load_data_dir(tmp_path, with_durations=False).durations == {}


@pytest.mark.parametrize(("tables", "message"), [
    ({"wav": "", "utt2spk": ""}, "/wav.scp: the set is empty"),
    ({"wav": "a 1\né 2\n", "utt2spk": "a x\n"}, "/utt2spk: no speaker for é"),
    ({"wav": "a 1\n", "utt2spk": "a x\né y\nb y\n"}, "/wav.scp: no audio for é, b, which utt2spk"),
    ({"wav": "a 1\na 2\n", "utt2spk": "a x\n"}, "/wav.scp:2: 'a' stands twice"),
    ({"wav": "a 1\n", "utt2spk": "a x\na x\n"}, "/utt2spk:2: 'a' stands twice"),
    ({"wav": "a 1\n", "utt2spk": "a\n"}, "/utt2spk:1: expected 'key value', got 'a'"),
    ({"wav": "a 1\n", "utt2spk": "a x y\n"}, "/utt2spk: white space in the speaker of a"),
    ({"wav": "a 1\n", "utt2spk": "a x\n", "utt2dur": "a 1s\n"},
     "/utt2dur: a: '1s' is no number of seconds"),
])
def test_tables_that_do_not_fit(tmp_path, tables, message):
    put(tmp_path, **tables)
    with pytest.raises(ValueError) as info:
        load_data_dir(tmp_path)
    assert str(info.value).startswith(f"{tmp_path}{message}")


@pytest.mark.parametrize("missing", ["wav.scp", "utt2spk"])
def test_a_missing_table_is_named(tmp_path, missing):
    write_data_dir(tmp_path, WAVS, UTT2SPK)
    (tmp_path / missing).unlink()
    with pytest.raises(FileNotFoundError, match=f"{missing}: no such file"):
        load_data_dir(tmp_path)


@pytest.mark.parametrize(("wavs", "utt2spk", "message"), [
    ({}, {}, "no utterances to write; check the corpus folder"),
    ({"a": "1", "b": "2"}, {"a": "x", "é": "x"}, "would name different utterances: b, é"),
])
def test_what_is_not_written(tmp_path, wavs, utt2spk, message):
    with pytest.raises(ValueError, match=message):
        write_data_dir(tmp_path / "set", wavs, utt2spk)
    assert not (tmp_path / "set").exists()


def test_ten_names_are_enough_for_a_message(tmp_path):
    put(tmp_path, wav="".join(f"u{n:02d} x\n" for n in range(30)), utt2spk="u00 a\n")
    with pytest.raises(ValueError, match=r"no speaker for u01, .*, u10 and 19 more$"):
        load_data_dir(tmp_path)


def test_split_by_speaker():
    utt2spk = {f"{spk}-{n}": spk for spk in "fghijé" for n in range(3)}
    kept, held = split_by_speaker(utt2spk, 2, seed=1)
    assert sorted(kept + held) == sorted(utt2spk)
    assert kept == sorted(kept) and held == sorted(held)
    assert len({utt2spk[u] for u in held}) == 2
    assert not {utt2spk[u] for u in held} & {utt2spk[u] for u in kept}
    backwards = dict(reversed(utt2spk.items()))
    assert split_by_speaker(backwards, 2, seed=1) == (kept, held)
    drawn = {tuple(split_by_speaker(utt2spk, 2, seed=seed)[1]) for seed in range(20)}
    assert len(drawn) > 5
    assert split_by_speaker(utt2spk, 0, seed=1) == (sorted(utt2spk), [])


@pytest.mark.parametrize("number", [-1, 6, 7])
def test_at_least_one_speaker_stays(number):
    with pytest.raises(ValueError, match=f"cannot hold {number} of 6 speakers back; at least one"):
        split_by_speaker({f"u{n}": f"s{n}" for n in range(6)}, number, seed=0)


def test_the_hash_follows_the_data_and_not_its_place():
    data = DataDir(Path("x"), {"b": "1", "é": "2"}, {}, {}, {"b": 1.25, "é": 0.5})
    expected = hashlib.sha256("b 1.250\né 0.500\n".encode()).hexdigest()[:16]
    moved = DataDir(Path("y"), {"é": "/3", "b": "/4"}, {}, {}, {"é": 0.5, "b": 1.25})
    other = DataDir(Path("x"), data.wavs, {}, {}, {"b": 1.25, "é": 0.501})
    assert data_hash(data) == data_hash(moved) == expected != data_hash(other)
