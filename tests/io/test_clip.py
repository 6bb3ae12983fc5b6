"""The middle of a recording as a data URI."""

import base64
import io

import numpy as np
import pytest
import soundfile

from wespeaker_lap.io.audio import AudioError, write_wav
from wespeaker_lap.io.clip import read_clip


def decode(uri):
    kind, content = uri.split(";base64,")
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(content)))
    return kind, samples, rate


@pytest.fixture
def recording(tmp_path):
    """Two seconds of 300 Hz, two of 1000 Hz, two of 300 Hz, at 8 kHz."""
    time = np.arange(2 * 8000) / 8000
    parts = [0.3 * np.sin(2 * np.pi * pitch * time) for pitch in (300, 1000, 300)]
    write_wav(tmp_path / "a.wav", np.concatenate(parts), 8000)
    return tmp_path / "a.wav"


def find_pitch(samples, rate):
    return np.argmax(np.abs(np.fft.rfft(samples))) * rate / len(samples)


@pytest.mark.parametrize(("formats", "kind"), [({"MP3", "WAV"}, "data:audio/mpeg"),
                                               ({"WAV"}, "data:audio/wav")])
def test_the_middle_is_taken(recording, monkeypatch, formats, kind):
    monkeypatch.setattr(soundfile, "available_formats", lambda: dict.fromkeys(formats))
    found, samples, rate = decode(read_clip(recording, 1.5))
    assert (found, rate) == (kind, 16000) and len(samples) == pytest.approx(24000, abs=2400)
    assert find_pitch(samples, rate) == pytest.approx(1000, abs=5)
    assert np.abs(samples[4000:-4000]).max() == pytest.approx(0.3, abs=0.03)


def test_a_short_one_is_taken_whole(recording):
    _, samples, rate = decode(read_clip(recording, 60))
    assert len(samples) == pytest.approx(6 * 16000, abs=2400)
    assert find_pitch(samples, rate) == pytest.approx(300, abs=5)


def test_no_audio_is_told(tmp_path):
    with pytest.raises(AudioError, match=r"b\.wav: no such file"):
        read_clip(tmp_path / "b.wav")
