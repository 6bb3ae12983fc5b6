"""The audit: what is rejected with which reason, what is only noted, what is written."""

import numpy as np
import pytest
import soundfile

from wespeaker_lap.data.audit import Finding, audit_data_dir, inspect_recording
from wespeaker_lap.data.datadir import load_data_dir, write_data_dir
from wespeaker_lap.io.audio import write_wav


def noise(seconds, rate=16000, channels=None, seed=0, level=0.1):
    shape = round(seconds * rate) if channels is None else (round(seconds * rate), channels)
    return level * np.random.default_rng(seed).standard_normal(shape).clip(-3, 3)


def write_set(path, recordings, utt2spk=None):
    """recordings: utterance -> a function that writes its file, or samples at 16 kHz."""
    wavs = {}
    for number, (utt, make) in enumerate(recordings.items()):
        wavs[utt] = str(path / f"{number}.wav")
        path.mkdir(parents=True, exist_ok=True)
        make(wavs[utt]) if callable(make) else write_wav(wavs[utt], make)
    write_data_dir(path, wavs, utt2spk or {utt: utt[0] for utt in wavs}, {"a": "f"})
    return path


def good(count, prefix="a"):
    return {f"{prefix}{n}": noise(0.2 + 0.1 * n, seed=n) for n in range(count)}


@pytest.mark.parametrize(("make", "reason"), [
    (lambda path: None, "no such file"),
    (lambda path: open(path, "wb").close(), "not readable as audio"),
    (lambda path: soundfile.write(path, np.zeros(0), 16000), "the file has a header and no sampl"),
    (lambda path: write_wav(path, np.zeros(16000)), "silent (no sample above -80 dBFS)"),
    (lambda path: soundfile.write(path, noise(1, level=2e-5), 16000, subtype="FLOAT"), "silent ("),
    (lambda path: write_wav(path, noise(0.05)), "too short (0.050 s, want at least 0.1 s)"),
    (lambda path: soundfile.write(path, noise(1) * np.nan, 16000, subtype="FLOAT"),
     "holds samples that are not finite numbers"),
    (lambda path: soundfile.write(path, [0.1] * 8000 + [-2e4], 16000, subtype="FLOAT"),
     "far too loud (its peak is 2e+04 times full scale; make the file again)"),
])
def test_reasons(tmp_path, make, reason):
    path = str(tmp_path / "é.wav")
    make(path)
    finding = inspect_recording(path, 16000, 0.1)
    assert finding.reason.startswith(reason) and (finding.seconds, finding.notes) == (0, ())


@pytest.mark.parametrize(("rate", "channels", "notes"), [
    (16000, None, ()),
    (8000, None, ("resampled from 8000 Hz",)),
    (16000, 2, ("2 channels averaged to one",)),
    (44100, 6, ("resampled from 44100 Hz", "6 channels averaged to one")),
])
def test_what_is_converted_is_noted(tmp_path, rate, channels, notes):
    soundfile.write(tmp_path / "a.wav", noise(0.5, rate, channels), rate)
    finding = inspect_recording(str(tmp_path / "a.wav"), 16000, 0.1)
    assert finding == Finding(pytest.approx(0.5, abs=1e-4), "", notes)


def test_opposite_channels_are_silence(tmp_path):
    left = noise(0.5)
    soundfile.write(tmp_path / "a.wav", np.stack([left, -left], axis=1), 16000, subtype="FLOAT")
    assert inspect_recording(str(tmp_path / "a.wav"), 16000, 0.1).reason.startswith("silent")


@pytest.mark.parametrize("num_jobs", [1, 2])
def test_tables_after_an_audit(tmp_path, num_jobs):
    path = write_set(tmp_path / "train", {**good(3), "é1": noise(0.05), "é2": noise(0.3),
                                          "b1": np.zeros(8000)})
    audit = audit_data_dir(path, max_reject_share=0.5, num_jobs=num_jobs)
    assert audit.seconds == {"a0": 0.2, "a1": 0.3, "a2": 0.4, "é2": 0.3}
    assert (path / "utt2dur").read_text() == "a0 0.2000\na1 0.3000\na2 0.4000\né2 0.3000\n"
    assert (path / "rejects.tsv").read_text() == (
        f"b1\t{path}/5.wav\tsilent (no sample above -80 dBFS)\n"
        f"é1\t{path}/3.wav\ttoo short (0.050 s, want at least 0.1 s)\n")
    data = load_data_dir(path)
    assert sorted(data.wavs) == sorted(data.utt2spk) == ["a0", "a1", "a2", "é2"]
    assert data.spk2gender == {"a": "f"} and (path / "spk2utt").read_text() == "a a0 a1 a2\né é2\n"
    assert audit.singletons == ["é"]
    assert audit.lines() == [
        "4 utterances, 0.00 h; 2 rejected", "rejected: 1 x silent", "rejected: 1 x too short",
        "note: 1 speakers with a single utterance, so without a target trial (é)"]


def test_a_second_audit_changes_nothing_and_keeps_the_rejects(tmp_path):
    path = write_set(tmp_path / "train", {**good(3), "é1": noise(0.05)})
    audit_data_dir(path, max_reject_share=0.5)
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    audit = audit_data_dir(path)
    assert audit.rejects == {} and len(audit.seconds) == 3
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before


def test_a_mended_recording_leaves_the_rejects(tmp_path):
    path = write_set(tmp_path / "train", {**good(3), "é1": noise(0.05)})
    tables = {name: (path / name).read_bytes() for name in ("wav.scp", "utt2spk")}
    audit_data_dir(path, max_reject_share=0.5)
    write_wav(path / "3.wav", noise(0.7))
    for name, data in tables.items():  # stage 1 again, or by hand
        (path / name).write_bytes(data)
    audit = audit_data_dir(path)
    assert audit.seconds["é1"] == 0.7 and not (path / "rejects.tsv").exists()
    assert load_data_dir(path).durations["é1"] == 0.7


def test_too_many_rejects_change_nothing_but_the_list(tmp_path):
    path = write_set(tmp_path / "train", {**good(3), "é1": noise(0.05)})
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    with pytest.raises(ValueError, match=r"1 of 4 recordings cannot be used, more than 5%; see "
                                         r".*rejects\.tsv, mend them or raise --max_reject_share"):
        audit_data_dir(path)
    rejects = (path / "rejects.tsv").read_text()
    assert rejects.startswith("é1\t") and rejects.count("\n") == 1
    (path / "rejects.tsv").unlink()
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before


def test_a_set_of_which_nothing_is_left(tmp_path):
    path = write_set(tmp_path / "train", {"a1": np.zeros(8000)})
    with pytest.raises(ValueError, match="no utterances to write"):
        audit_data_dir(path, max_reject_share=1.0)
    assert load_data_dir(path).wavs.keys() == {"a1"}


def test_notes_are_counted(tmp_path):
    path = write_set(tmp_path / "train", {
        **good(2), "b1": lambda p: soundfile.write(p, noise(0.5, 8000), 8000),
        "b2": lambda p: soundfile.write(p, noise(0.5, 8000, 2), 8000)})
    audit = audit_data_dir(path)
    assert audit.notes == {"resampled from 8000 Hz": 2, "2 channels averaged to one": 1}
    assert audit.lines()[1:] == ["note: 1 x 2 channels averaged to one",
                                 "note: 2 x resampled from 8000 Hz"]
    assert audit.seconds["b1"] == pytest.approx(0.5, abs=1e-4) and not audit.singletons


def test_many_singletons_are_not_all_named(tmp_path):
    path = write_set(tmp_path / "train", good(8), {f"a{n}": f"s{n}" for n in range(8)})
    assert audit_data_dir(path).lines()[-1].endswith("(s0, s1, s2, s3, s4 and 3 more)")
