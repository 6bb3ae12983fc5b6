"""Reading recordings of any rate, width and number of channels, and refusing what is none."""

import wave

import numpy as np
import pytest
import soundfile

from wespeaker_lap.io.audio import (
    AudioError,
    AudioInfo,
    read_audio,
    read_crop,
    read_info,
    write_wav,
)


def tone(seconds, rate, hertz=440.0, level=0.5):
    return (level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(
        np.float32)


def write_pcm(path, channels, rate):
    """A 16-bit wav by the standard library; channels: (S, C) int16."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(channels.astype("<i2").tobytes())


def test_pcm_values_and_header(tmp_path):
    path = tmp_path / "é 1.wav"
    write_pcm(path, np.array([[-32768], [0], [16384], [32767]]), 16000)
    samples = read_audio(path)
    assert samples.dtype == np.float32 and samples.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(samples, np.array([-1, 0, 0.5, 32767 / 32768], np.float32))
    assert read_info(str(path)) == AudioInfo(4, 16000, 1)


def test_channels_are_averaged(tmp_path):
    write_pcm(tmp_path / "a.wav", np.array([[16384, 0, -8192], [0, 16384, 8192]]), 16000)
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav"), [0.25 / 3, 0.75 / 3], atol=1e-7)
    assert read_info(tmp_path / "a.wav").num_channels == 3


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_other_rates_are_resampled(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", tone(0.5, rate), rate, subtype="FLOAT")
    samples = read_audio(tmp_path / "a.wav", 16000)
    assert abs(len(samples) - 8000) <= 1
    inner = slice(800, 7200)  # away from the ends, where the filter has half its input
    np.testing.assert_allclose(samples[inner], tone(0.5, 16000)[:len(samples)][inner], atol=2e-3)


@pytest.mark.parametrize("form", ["flac", "ogg"])
def test_other_formats(tmp_path, form):
    wanted = tone(0.3, 16000)
    soundfile.write(tmp_path / f"a.{form}", wanted, 16000)
    samples = read_audio(tmp_path / f"a.{form}")
    assert samples.shape == wanted.shape
    np.testing.assert_allclose(samples, wanted, atol=1e-4 if form == "flac" else 0.1)


def test_write_wav_clips_and_reads_back(tmp_path):
    path = tmp_path / "new" / "a.wav"
    write_wav(path, np.array([-2.0, -0.5, 0.25, 2.0]), 8000)
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 8000)
    np.testing.assert_allclose(read_audio(path, 8000), [-1, -0.5, 0.25, 1], atol=2 / 32768)
    assert [file.name for file in path.parent.iterdir()] == ["a.wav"]


def test_write_wav_refuses_what_is_no_number(tmp_path):
    with pytest.raises(ValueError, match=r"a\.wav: not written, there are samples that are not"):
        write_wav(tmp_path / "a.wav", np.array([0.0, np.nan]), 16000)
    assert not list(tmp_path.iterdir())


def put(content):
    return lambda path: path.write_bytes(content)


@pytest.mark.parametrize(("make", "reason"), [
    (lambda path: None, "no such file"),
    (lambda path: path.mkdir(), "no such file"),
    (put(b""), "not readable as audio"),
    (put(b"RIFF"), "not readable as audio"),
    (put(b"this is text, and not audio at all\n" * 9), "not readable as audio"),
    (lambda path: write_pcm(path, np.zeros((0, 1)), 16000), "has a header and no samples"),
    (lambda path: soundfile.write(path, np.array([0, np.nan, 1], np.float32), 16000,
                                  subtype="FLOAT"), "not finite"),
    (lambda path: soundfile.write(path, np.array([0, np.inf, 1], np.float32), 8000,
                                  subtype="FLOAT"), "not finite"),
    (lambda path: write_pcm(path, np.ones((1, 1)), 48000), "1 samples at 48000 Hz, none at 16000"),
])
def test_what_cannot_be_used_is_named(tmp_path, make, reason):
    path = tmp_path / "ö.wav"
    make(path)
    with pytest.raises(AudioError, match=reason) as info:
        read_audio(path)
    assert str(info.value).startswith(f"{path}: ")


def test_a_file_cut_short_gives_what_is_there_or_an_error(tmp_path):
    path = tmp_path / "a.wav"
    write_wav(path, tone(0.1, 16000))
    whole = path.read_bytes()
    path.write_bytes(whole[:44 + 2 * 700])
    np.testing.assert_allclose(read_audio(path), tone(0.1, 16000)[:700], atol=2 / 32768)
    soundfile.write(tmp_path / "a.flac", tone(1.0, 16000), 16000)
    flac = (tmp_path / "a.flac").read_bytes()
    (tmp_path / "a.flac").write_bytes(flac[:100])
    with pytest.raises(AudioError, match=r"a\.flac: "):
        read_audio(tmp_path / "a.flac")


@pytest.mark.parametrize("entry", ["touch ran |", "sox a.wav -t wav - | ", "| cat", " |cat"])
def test_a_pipe_is_refused_and_never_run(tmp_path, monkeypatch, entry):
    monkeypatch.chdir(tmp_path)
    for read in (read_info, read_audio):
        with pytest.raises(AudioError, match="a pipe, which is never run; convert the audio"):
            read(entry)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize("place", [0.0, 0.3, 0.99999])
def test_a_crop_is_a_stretch_of_the_whole(tmp_path, form, place):
    path = tmp_path / f"a.{form}"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 30000), 16000)
    whole, crop = read_audio(path), read_crop(path, 1000, place)
    start = int(place * (read_info(path).num_samples - 1000 + 1))
    assert crop.dtype == np.float32 and len(crop) == 1000
    np.testing.assert_allclose(crop, whole[start:start + 1000], atol=1e-6 if form != "mp3" else 0.1)


def test_a_crop_at_another_rate_and_of_two_channels(tmp_path):
    two = np.stack([tone(1.0, 48000), np.zeros(48000)], axis=1)
    soundfile.write(tmp_path / "a.wav", two, 48000, subtype="FLOAT")
    crop, whole = read_crop(tmp_path / "a.wav", 4000, 0.5, 16000), read_audio(tmp_path / "a.wav")
    first = int(0.5 * (48000 - 12000 + 1)) // 3
    assert len(crop) == 4000
    np.testing.assert_allclose(crop[100:-100], whole[first:first + 4000][100:-100], atol=1e-3)


def test_a_crop_of_a_shorter_recording_is_all_of_it(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(0.1, 16000), 16000, subtype="FLOAT")
    np.testing.assert_array_equal(read_crop(tmp_path / "a.wav", 1601, 0.7), tone(0.1, 16000))
    with pytest.raises(AudioError, match="no such file"):
        read_crop(tmp_path / "b.wav", 100, 0.0)


def test_a_format_that_cannot_seek_is_read_whole(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "a.wav", tone(0.5, 16000), 16000, subtype="FLOAT")
    monkeypatch.setattr(soundfile.SoundFile, "seekable", lambda file: False)
    np.testing.assert_array_equal(read_crop(tmp_path / "a.wav", 500, 0.5),
                                  tone(0.5, 16000)[3750:4250])
