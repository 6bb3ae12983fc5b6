"""What is measured of recordings, by hand, and that nothing is decoded twice."""

import numpy as np
import pytest
import soundfile

from wespeaker_lap.data import survey as surveying
from wespeaker_lap.data.survey import clipping_share, measure_recording, silence_share, survey
from wespeaker_lap.io.audio import write_wav


def noise(seconds, rate=16000, seed=0, level=0.1):
    return level * np.random.default_rng(seed).uniform(-1, 1, round(seconds * rate))


def test_length_rate_and_channels(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.stack([noise(1.5, 8000)] * 2, 1), 8000)
    found = measure_recording(str(tmp_path / "a.wav"), 16000, 0.1)
    assert found.seconds == pytest.approx(1.5, abs=1e-4)
    assert (found.reason, found.sample_rate, found.num_channels) == ("", 8000, 2)


def test_silence_by_hand():
    """Frames of 400 samples: 4 loud, 3 at -39 dB, 2 at -41 dB, 1 of zeros; a rest is left out."""
    levels = [1.0] * 4 + [10 ** (-39 / 20)] * 3 + [10 ** (-41 / 20)] * 2 + [0.0]
    samples = np.concatenate([np.full(400, level) for level in levels] + [np.zeros(399)])
    assert silence_share(samples, 16000) == pytest.approx(0.3)
    assert silence_share(0.001 * samples, 16000) == pytest.approx(0.3)  # whatever the level
    assert silence_share(np.zeros(399), 16000) == 0.0


def test_clipping_by_hand():
    """Runs of 4 and 3 samples at full scale count, a run of 2 and lone peaks do not."""
    samples = np.array([0, 1, -1, 1, 1, 0, 1, 1, 0.5, -1, -1, -1, 0.9, 1])
    assert clipping_share(samples) == pytest.approx(7 / 14)
    assert clipping_share(0.9 * samples) == 0.0
    assert clipping_share(np.ones(5)) == 1.0


def test_clipping_is_looked_for_before_resampling(tmp_path):
    square = np.where(np.arange(44100) // 50 % 2, 1.0, -1.0)
    soundfile.write(tmp_path / "a.wav", square, 44100)
    assert measure_recording(str(tmp_path / "a.wav"), 16000, 0.1).clipping == pytest.approx(1.0)


def test_the_digest_is_of_the_sound(tmp_path):
    sound = noise(0.5)
    write_wav(tmp_path / "a.wav", sound)
    pcm, _ = soundfile.read(tmp_path / "a.wav", dtype="int16")
    soundfile.write(tmp_path / "b.flac", pcm, 16000)
    soundfile.write(tmp_path / "c.wav", np.stack([pcm, pcm], 1), 16000)
    write_wav(tmp_path / "d.wav", noise(0.5, seed=1))
    a, b, c, d = (measure_recording(str(tmp_path / name), 16000, 0.1).digest
                  for name in ("a.wav", "b.flac", "c.wav", "d.wav"))
    assert a == b == c != d


@pytest.mark.parametrize(("content", "reason"), [
    (None, "no such file"), (b"RIFF", "not readable as audio"), (np.zeros(8000), "silent ("),
    (noise(0.05), "too short (0.050 s"), (1e30, "far too loud (its peak is 1e+30 times ")])
def test_reasons(tmp_path, content, reason):
    path = tmp_path / "a.wav"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, float):
        soundfile.write(path, [content] * 8000, 16000, subtype="FLOAT")
    elif content is not None:
        write_wav(path, content)
    found = measure_recording(str(path), 16000, 0.1)
    assert found.reason.startswith(reason) and (found.seconds, found.digest) == (0, "")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Three recordings, the last one broken, and the list of those that are decoded."""
    paths = {name: str(tmp_path / f"{name}.wav") for name in "abc"}
    for seed, name in enumerate("ab"):
        write_wav(paths[name], noise(0.5 + 0.1 * seed, seed=seed))
    (tmp_path / "c.wav").write_bytes(b"RIFF")
    decoded = []

    def spy(path, *args, **kwargs):
        decoded.append(path[-5])
        return measure_recording(path, *args, **kwargs)

    monkeypatch.setattr(surveying, "measure_recording", spy)
    return tmp_path, paths, decoded


def test_what_is_known_is_not_decoded_again(folder):
    root, paths, decoded = folder
    first = survey(paths, root / "cache.jsonl")
    assert decoded == ["a", "b", "c"] and list(first) == ["a", "b", "c"]
    assert [one.seconds for one in first.values()] == [0.5, 0.6, 0.0]
    decoded.clear()
    assert survey(paths, root / "cache.jsonl") == first
    assert decoded == ["c"]  # broken ones are looked at again
    write_wav(paths["c"], noise(0.7))
    write_wav(paths["a"], noise(0.5, seed=9))  # of the same size
    decoded.clear()
    second = survey(paths, root / "cache.jsonl")
    assert [one.seconds for one in second.values()] == [0.5, 0.6, 0.7]
    assert decoded == ["a", "c"] and second["a"].digest != first["a"].digest


def test_other_settings_measure_anew(folder):
    root, paths, decoded = folder
    survey(paths, root / "cache.jsonl")
    decoded.clear()
    found = survey(paths, root / "cache.jsonl", min_seconds=0.55)
    assert decoded == ["a", "b", "c"] and found["a"].reason.startswith("too short")


def test_other_checks_measure_anew(folder, monkeypatch):
    root, paths, decoded = folder
    survey(paths, root / "cache.jsonl")
    decoded.clear()
    monkeypatch.setattr(surveying, "CHECKS", surveying.CHECKS + 1)
    survey(paths, root / "cache.jsonl")
    assert decoded == ["a", "b", "c"]


@pytest.mark.parametrize("cut", [0, 10, 60, 200, -5, -1])
def test_a_cache_that_was_cut_or_is_none(folder, cut):
    root, paths, _ = folder
    cache = root / "cache.jsonl"
    first = survey(paths, cache)
    cache.write_bytes(cache.read_bytes()[:cut])
    assert survey(paths, cache) == first
    cache.write_text("[1, 2]\nnonsense\n")
    assert survey(paths, cache) == first


def test_processes_change_nothing(tmp_path):
    paths = {str(n): str(tmp_path / f"{n}.wav") for n in range(5)}
    for seed, path in enumerate(paths.values()):
        write_wav(path, noise(0.2 + 0.1 * seed, seed=seed))
    alone = survey(paths, tmp_path / "1.jsonl")
    assert survey(paths, tmp_path / "2.jsonl", num_jobs=2) == alone
    assert (tmp_path / "1.jsonl").read_bytes() == (tmp_path / "2.jsonl").read_bytes()
