"""Wav files that end before their header says, and headers that do not know the size."""

import struct

import pytest
import soundfile
from checks import assert_refused

from wespeaker_lap.data.audit import inspect_recording
from wespeaker_lap.data.datadir import load_data_dir
from wespeaker_lap.data.survey import measure_recording
from wespeaker_lap.io.audio import AudioError
from wespeaker_lap.io.riff import refuse_cut_wav
from wespeaker_lap.share.recording import read_recording

FORMAT = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, 16000, 32000, 2, 16)
SECOND = struct.pack("<2h", 3000, -3000) * 8000  # 32000 bytes


def riff(size, samples=SECOND, before=b"", head=b"RIFF"):
    """A wav whose header promises `size` bytes of samples; 0: its writer left both sizes open."""
    chunks = b"WAVE" + FORMAT + before + b"data" + struct.pack("<I", size) + samples
    return head + struct.pack("<I", len(chunks) if size else 8) + chunks


@pytest.mark.parametrize(("content", "promised", "there"), [
    (riff(32000)[:21348], 32000, 21304),  # 44 bytes of header
    (riff(32000)[:-1], 32000, 31999),
    (riff(32000, before=b"LIST\3\0\0\0abc\0")[:1056], 32000, 1000),  # 12 more, one is padding
    (riff(0x7FFE0000), 0x7FFE0000, 32000),
], ids=["copied in part", "a byte is lacking", "after another chunk", "2 GB"])
def test_a_wav_that_is_cut_short_cannot_be_used(tmp_path, content, promised, there):
    path = tmp_path / "ö.wav"
    path.write_bytes(content)
    reason = f"cut short (the header promises {promised} bytes of samples, {there} are there; "
    with pytest.raises(AudioError) as info:
        refuse_cut_wav(path)
    assert str(info.value).startswith(f"{path}: {reason}")
    assert inspect_recording(str(path), 16000, 0.1).reason.startswith(reason)
    assert measure_recording(str(path), 16000, 0.1).reason.startswith(reason)
    found = read_recording(path, 16000, 720)
    assert found.status == "broken" and found.reason.startswith(reason)


@pytest.mark.parametrize("content", [
    riff(32000),
    *(riff(size) for size in (0, 0x7FFEFFFC, 0x7FFFF000, 0x80000000, 0xFFFFFFFF)),
    riff(32000, SECOND + b"LIST\4\0\0\0abcd"),
    riff(31999, SECOND[:-1]),
    riff(32000, before=b"junk\3\0\0\0abc\0"),
], ids=["whole", "no size", "sox, 6 bytes a block", "sox", "arecord", "ffmpeg", "more after it",
        "odd, no padding", "odd before"])
def test_what_a_program_writes_to_a_pipe_can_be_used(tmp_path, content):
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    finding = inspect_recording(str(path), 16000, 0.1)
    assert finding.reason == "" and finding.seconds == pytest.approx(1.0, abs=1e-3)
    assert measure_recording(str(path), 16000, 0.1).reason == ""
    assert read_recording(path, 16000, 720).status == "ok"


@pytest.mark.parametrize("content", [
    b"", b"RIFF", b"RIFF\0\0\0\0WAVE", riff(32000)[:42], riff(99, head=b"RF64"),
    b"RIFF\0\0\0\0WAVE" + bytes(10**6), b"fLaC" + riff(32000)[:900],
], ids=["empty", "a word", "no chunk", "half a chunk", "64 bits", "zeros", "flac"])
def test_what_is_no_riff_wav_is_left_to_libsndfile(tmp_path, content):
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    refuse_cut_wav(path)


@pytest.mark.parametrize("form", ["WAV", "WAVEX", "RF64", "W64", "AIFF"])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "ULAW"])
def test_whole_files_of_every_kind_pass(tmp_path, form, subtype):
    path = tmp_path / "a.wav"
    soundfile.write(path, [0.1, -0.2, 0.3] * 1001, 16000, format=form, subtype=subtype)
    refuse_cut_wav(path)


def test_an_interrupted_copy_turns_up_in_the_rejects(lap, data):
    utt, path = sorted(load_data_dir(data).wavs.items())[0]
    with open(path, "r+b") as file:
        file.truncate(10_044)
    done = lap("audit-data", data)
    assert_refused(done, f"{data}: 1 of 8 recordings cannot be used")
    assert (data / "rejects.tsv").read_text(encoding="utf-8").startswith(
        f"{utt}\t{path}\tcut short (the header promises ")
