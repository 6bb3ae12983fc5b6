"""The tables that copies are made from: where they are looked for, and what they must not be."""

import numpy as np
import pytest

from wespeaker_lap.data.copies import check_ids, parse_copies, read_copies
from wespeaker_lap.data.copy_sources import CopySources, load_augmenter
from wespeaker_lap.data.datadir import DataDir
from wespeaker_lap.io.audio import write_wav
from wespeaker_lap.io.table import write_table

UTT2SPK = {f"{speaker}{n}": speaker for speaker in "abcd" for n in range(2)}


@pytest.fixture
def data(tmp_path):
    wavs = {utt: str(tmp_path / f"{utt}.wav") for utt in UTT2SPK}
    for path in wavs.values():
        write_wav(path, 0.1 * np.random.default_rng(0).standard_normal(800))
    return DataDir(tmp_path, wavs, UTT2SPK, {}, {})


def load(data, *names, **sources):
    return load_augmenter(parse_copies(names), 7, data, CopySources(**sources))


def test_nothing_is_read_for_the_clean_copy(data, tmp_path):
    gone = dict.fromkeys(("noise_scp", "rir_scp", "babble_scp"), tmp_path / "gone.scp")
    assert load(data, "clean", **gone) is None
    assert load(data, "clean", "speed0.9", **gone).identity() == {"copies": ["clean", "speed0.9"]}
    with pytest.raises(FileNotFoundError, match=r"gone\.scp: no such file"):
        load(data, "clean", "noise", **gone)


def test_paths_are_relative_to_the_tables_folder(data, tmp_path):
    folder = tmp_path / "musan"
    write_wav(folder / "wav" / "x.wav", np.full(100, 0.1))
    write_table(folder / "wav.scp", {"x": "wav/x.wav", "y": str(folder / "wav" / "x.wav")})
    write_table(folder / "utt2category", {"y": "music", "other": "speech"})
    made = load(data, "noise", noise_scp=folder / "wav.scp")
    assert made.tables == {"noise": dict.fromkeys("xy", str(folder / "wav" / "x.wav"))}
    assert made.categories == {"y": "music"} and made.seed == 7
    write_table(folder / "wav.scp", {"x": "sox x.wav |"})
    with pytest.raises(ValueError, match="a pipe, which is never run"):
        load(data, "reverb", rir_scp=folder / "wav.scp")


def test_babble_is_the_set_itself_or_a_table(data, tmp_path):
    assert load(data, "babble").tables["babble"] == data.wavs
    folder = tmp_path / "voices"
    for n in range(5):
        write_wav(folder / f"{n}.wav", np.full(100, 0.1))
    write_table(folder / "wav.scp", {f"v{n}": f"{n}.wav" for n in range(5)})
    write_table(folder / "utt2spk", {"v0": "v", "v1": "v"})
    made = load(data, "babble", babble_scp=folder / "wav.scp")
    assert sorted(made.tables["babble"]) == ["v0", "v1", "v2", "v3", "v4"]
    assert made.utt2spk == {**UTT2SPK, "v0": "v", "v1": "v", "v2": "v2", "v3": "v3", "v4": "v4"}
    write_table(folder / "wav.scp", {"a0": "0.wav", "a1": "1.wav"})
    write_table(folder / "utt2spk", {"a0": "v"})
    with pytest.raises(ValueError, match=r"of another speaker than in .*: a0; rename"):
        load(data, "babble", babble_scp=folder / "wav.scp")


@pytest.mark.parametrize(("utt2spk", "names", "message"), [
    ({"a": "x", "noise-a": "x"}, ["noise"], "the copy 'noise' would be called .*: noise-a;"),
    ({"a": "x", "sp0.9-a": "y"}, ["clean", "speed0.9"], "already: sp0.9-a; rename"),
    ({"a": "x", "b": "sp1.1-x"}, ["speed0.9", "speed1.1"], "already: sp1.1-x; rename"),
])
def test_ids_that_are_taken_are_refused(utt2spk, names, message):
    with pytest.raises(ValueError, match=message):
        check_ids(utt2spk, parse_copies(names))
    check_ids(utt2spk, parse_copies(["clean", "reverb", "speed1.2"]))


def test_ids_that_are_taken_are_refused_before_any_table_is_read(tmp_path):
    data = DataDir(tmp_path, {}, {"a": "x", "noise-a": "x"}, {}, {})
    with pytest.raises(ValueError, match=r"would be called .*: noise-a;"):
        load(data, "clean", "noise", noise_scp=tmp_path / "gone.scp")


def test_an_identity_is_read_back():
    names = ["clean", "speed0.9", "noise"]
    assert read_copies({"augmentation": {"copies": names}}) == parse_copies(names)
    for identity in ({}, {"augmentation": "clean"}):
        assert read_copies(identity) == parse_copies(["clean"])
