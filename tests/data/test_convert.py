"""m4a to wav with a real ffmpeg: good, damaged and interrupted files."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wespeaker_lap.data import convert
from wespeaker_lap.data.convert import convert_all, convert_file, find_ffmpeg

FFMPEG = find_ffmpeg()


def make_tone(hertz: float, rate: int, seconds: float = 1.0) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)


def write_m4a(path: Path, samples: np.ndarray, rate: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    wav = path.with_suffix(".source.wav")
    soundfile.write(wav, samples, rate)
    subprocess.run([FFMPEG, "-v", "error", "-y", "-i", wav, "-c:a", "aac", "-b:a", "64k",
                    "-movflags", "+faststart", path], check=True)
    wav.unlink()
    return path


def test_stereo_at_another_rate_becomes_16_khz_mono(tmp_path: Path) -> None:
    tone = make_tone(440, 44100)
    source = write_m4a(tmp_path / "in.m4a", np.stack([tone, tone], 1), 44100)
    target = tmp_path / "out" / "a.wav"
    assert convert_file(source, target, FFMPEG) == ""
    info = soundfile.info(target)
    assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
    samples, _ = soundfile.read(target)
    assert abs(len(samples) - 16000) <= 2048  # AAC frames of 1,024 samples, padding at the end
    spectrum = np.abs(np.fft.rfft(samples[4000:12000]))
    assert np.argmax(spectrum) * 2 == 440  # bins of 2 Hz
    assert os.listdir(target.parent) == ["a.wav"]


def test_a_finished_wav_is_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "a.wav"
    target.write_bytes(b"finished")
    assert convert_file(tmp_path / "absent.m4a", target, "no-such-program") == ""
    assert target.read_bytes() == b"finished"


def test_damaged_files_fail_and_leave_nothing(tmp_path: Path) -> None:
    good = write_m4a(tmp_path / "good.m4a", make_tone(300, 16000, 3), 16000).read_bytes()
    flipped = bytearray(good)
    flipped[len(good) // 2:len(good) // 2 + 400] = b"\xff" * 400
    damaged = {"empty": b"", "truncated": good[:len(good) // 2], "flipped": bytes(flipped),
               "text": b"<html>not found</html>" * 20}
    for name, data in damaged.items():
        source = tmp_path / f"{name}.m4a"
        source.write_bytes(data)
        reason = convert_file(source, tmp_path / "out" / f"{name}.wav", FFMPEG)
        assert reason, name
        assert "\n" not in reason and "\t" not in reason
    assert list((tmp_path / "out").iterdir()) == []


def test_the_good_ones_go_on_when_one_fails(tmp_path: Path) -> None:
    sources = {f"id0000{i}/v/1.wav": write_m4a(tmp_path / f"{i}.m4a", make_tone(300, 16000, 0.3),
                                               16000) for i in range(3)}
    sources["id00001/v/1.wav"].write_bytes(b"broken")
    wavs, failures = convert_all(sources, tmp_path / "out", 2)
    assert list(wavs) == ["id00000/v/1.wav", "id00002/v/1.wav"]
    assert all(soundfile.info(path).samplerate == 16000 for path in wavs.values())
    assert list(failures) == ["id00001/v/1.wav"]


def test_nothing_to_convert_needs_no_ffmpeg(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert, "find_ffmpeg", lambda: pytest.fail("looked for ffmpeg"))
    assert convert_all({}, tmp_path, 2) == ({}, {})


def test_ffmpeg_on_the_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_ffmpeg() == str(program)


def test_no_ffmpeg_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(FileNotFoundError, match="pip install imageio-ffmpeg"):
        find_ffmpeg()
