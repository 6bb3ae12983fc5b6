"""What a recording is before it is embedded."""

import numpy as np
import pytest
import soundfile

from wespeaker_lap.share.recording import measure_speech, read_recording

NOISE = 0.1 * np.random.default_rng(0).standard_normal(48000).astype(np.float32)


@pytest.mark.parametrize(("audio", "status", "reason"), [
    (NOISE, "ok", ""),
    (NOISE[:719], "short", "719 samples are too few, the encoder needs 720"),
    (NOISE[:0], "short", "0 samples are too few, the encoder needs 720"),
    (0 * NOISE, "silent", "silent (no sample above -80 dBFS)"),
    (0.0001 * NOISE, "silent", "silent (no sample above -80 dBFS)"),
    (np.where(np.arange(48000) == 7, np.inf, NOISE), "broken", "samples that are not finite"),
    (np.where(np.arange(48000) == 7, -9999.0, NOISE), "ok", ""),
    (np.where(np.arange(48000) == 7, -12345.0, NOISE), "broken",
     "far too loud (its peak is 1.23e+04 times full scale; "),
], ids=["good", "short", "empty", "zeros", "faint", "infinite", "loud", "too loud"])
def test_samples(audio, status, reason):
    found = read_recording(audio, 16000, 720)
    assert (found.name, found.status) == ("the samples", status)
    assert found.reason.startswith(reason) and bool(found.reason) == (status != "ok")
    assert (found.samples is None) == (status != "ok")


def test_files(tmp_path):
    assert read_recording(tmp_path / "a.wav", 16000, 720).status == "missing"
    (tmp_path / "a.wav").write_bytes(b"RIFF nothing")
    found = read_recording(tmp_path / "a.wav", 16000, 720)
    assert found.status == "broken" and "not readable as audio" in found.reason
    assert read_recording("rm x |", 16000, 720).status == "broken"
    soundfile.write(tmp_path / "a.wav", NOISE, 16000)
    found = read_recording(str(tmp_path / "a.wav"), 16000, 720)
    assert (found.status, found.seconds, found.warnings) == ("ok", 3.0, ())
    np.testing.assert_allclose(found.samples, NOISE, atol=1e-4)


def test_a_file_of_absurd_samples(tmp_path):
    soundfile.write(tmp_path / "a.wav", 1e31 * NOISE.clip(-0.1, 0.1), 16000, subtype="FLOAT")
    found = read_recording(tmp_path / "a.wav", 16000, 720)
    assert found.status == "broken"
    assert found.reason.startswith("far too loud (its peak is 1e+30 times full scale; ")


@pytest.mark.parametrize(("rate", "words"), [
    (8000, "8000 Hz, the model's rate is 16000 Hz, so nothing above 4000 Hz is in it"),
    (44100, "44100 Hz, the model's rate is 16000 Hz"),
])
def test_another_rate_is_a_warning(tmp_path, rate, words):
    soundfile.write(tmp_path / "a.wav", np.tile(NOISE, 3), rate)
    found = read_recording(tmp_path / "a.wav", 16000, 720)
    assert found.status == "ok" and found.warnings == (f"{tmp_path}/a.wav: {words}",)


def test_little_speech_is_a_warning_however_long_the_recording():
    pauses = 0.01 * NOISE  # 40 dB below
    found = read_recording(np.concatenate([pauses, NOISE[:24000], pauses]), 16000, 720)
    assert found.seconds == 7.5 and found.speech_seconds == pytest.approx(1.5, abs=0.05)
    assert found.warnings == ("the samples: about 1.5 s of speech; scores are reliable from 2 s",)
    again = read_recording(np.concatenate([pauses, NOISE[:36000], pauses]), 16000, 720)
    assert again.warnings == () and again.speech_seconds == pytest.approx(2.25, abs=0.05)


def test_a_click_does_not_hide_speech():
    click = np.where(np.arange(48000) == 100, 1.0, 0.001 * NOISE)
    assert measure_speech(click.astype(np.float32), 16000) == pytest.approx(3.0, abs=0.05)
    assert measure_speech(NOISE[:100], 16000) == 100 / 16000


@pytest.mark.parametrize("audio", [NOISE.reshape(2, -1), (1000 * NOISE).astype(np.int16)])
def test_samples_of_another_kind_are_an_error(audio):
    with pytest.raises(ValueError, match=r"the samples: want samples \(S,\) of floats in"):
        read_recording(audio, 16000, 720)
