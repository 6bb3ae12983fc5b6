"""Augmented waveforms: ratios as asked, the direct sound in its place, the power kept."""

import numpy as np
import pytest

from wespeaker_lap.data.augment import (
    add_babble,
    add_noise,
    change_speed,
    find_gain,
    fit_length,
    reverberate,
)

RATE = 16000


def make_wave(seed: int, num_samples: int = 8000, level: float = 0.1) -> np.ndarray:
    return (level * np.random.default_rng(seed).standard_normal(num_samples)).astype(np.float32)


def make_rng() -> np.random.Generator:
    return np.random.default_rng(3)


def power(x: np.ndarray) -> float:
    return float(np.mean(np.asarray(x, np.float64) ** 2))


def measure_snr(wave: np.ndarray, result: np.ndarray) -> float:
    return 10 * np.log10(power(wave) / power(result.astype(np.float64) - wave))


@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 7.3, 20.0])
@pytest.mark.parametrize("num_samples", [1, 300, 8000, 20000])
def test_noise_has_the_ratio_asked_for(snr_db, num_samples):
    """Whatever the levels; also where the stretch is louder than the whole recording."""
    wave, noise = make_wave(1), make_wave(2, num_samples, 0.01)
    noise *= np.linspace(1, 0.1, num_samples, dtype=np.float32)
    result = add_noise(wave, noise, snr_db, make_rng())
    assert result.dtype == np.float32 and result.shape == wave.shape
    assert measure_snr(wave, result) == pytest.approx(snr_db, abs=0.01)


def test_loud_noise_is_not_clipped():
    wave = make_wave(1, level=0.5)
    result = add_noise(wave, make_wave(2), -6.0, make_rng())
    assert np.abs(result).max() > 2
    assert measure_snr(wave, result) == pytest.approx(-6, abs=0.01)


def test_stretches_come_from_everywhere_and_short_ones_are_repeated():
    rng, long = make_rng(), np.arange(12, dtype=np.float32)
    cuts = [fit_length(long, 10, rng).tolist() for _ in range(200)]
    assert {cut[0] for cut in cuts} == {0, 1, 2}
    assert all(np.diff(cut).tolist() == [1] * 9 for cut in cuts)
    assert fit_length(long[:3], 7, rng).tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert fit_length(long, 12, rng).tolist() == long.tolist()


def test_gain_is_by_mean_square():
    """Amplitudes 0.4 and 0.1 at 6.0206 dB: 0.1 g = 0.4 / 2."""
    x, y = np.full(4, 0.4, np.float32), np.full(9, 0.1, np.float32)
    assert find_gain(x, y, 20 * np.log10(2)) == pytest.approx(2.0, rel=1e-5)
    assert find_gain(x, y, -20 * np.log10(2)) == pytest.approx(8.0, rel=1e-5)


@pytest.mark.parametrize("change", [
    lambda wave: add_noise(wave, make_wave(2), 5.0, make_rng()),
    lambda wave: add_babble(wave, [make_wave(2), make_wave(3)], 5.0, make_rng()),
    lambda wave: reverberate(wave, make_wave(2, 50))])
def test_silence_stays_silent(change):
    result = change(np.zeros(500, np.float32))
    assert result.shape == (500,) and not result.any()


def test_silent_noise_and_voices_add_nothing():
    wave, silence = make_wave(1), np.zeros(900, np.float32)
    assert np.array_equal(add_noise(wave, silence, 0.0, make_rng()), wave)
    assert np.array_equal(add_babble(wave, [silence, silence], 0.0, make_rng()), wave)
    with_one = add_babble(wave, [silence, make_wave(2)], 9.0, make_rng())
    assert measure_snr(wave, with_one) == pytest.approx(9.0, abs=0.01)


def test_babble_is_a_sum_of_equally_loud_voices():
    """Of whole, short and long ones; a least-squares fit tells the gain of each."""
    wave = make_wave(1)
    voices = [make_wave(seed, n, level) for seed, n, level in
              ((2, 8000, 0.5), (3, 8000, 0.01), (4, 8000, 0.1), (5, 3000, 0.03))]
    result = add_babble(wave, voices, 13.0, make_rng())
    assert result.dtype == np.float32 and result.shape == wave.shape
    assert measure_snr(wave, result) == pytest.approx(13.0, abs=0.01)
    parts = np.stack([np.resize(voice, 8000) for voice in voices]).astype(np.float64)
    added = result.astype(np.float64) - wave
    gains, *_ = np.linalg.lstsq(parts.T, added, rcond=None)
    np.testing.assert_allclose(gains @ parts, added, atol=1e-5)
    loudness = gains * np.sqrt(np.mean(parts ** 2, axis=1))
    np.testing.assert_allclose(loudness, loudness.mean(), rtol=1e-3)


@pytest.mark.parametrize("add", [
    add_noise, lambda wave, noise, snr_db, rng: add_babble(wave, [noise], snr_db, rng)])
def test_of_long_recordings_a_random_stretch_is_added(add):
    wave, noise, rng = make_wave(1, 100), make_wave(2, 5000), make_rng()
    windows = np.lib.stride_tricks.sliding_window_view(noise.astype(np.float64), 100)
    places = set()
    for _ in range(5):
        added = add(wave, noise, 0.0, rng).astype(np.float64) - wave
        likeness = windows @ added / np.linalg.norm(windows, axis=1) / np.linalg.norm(added)
        assert likeness.max() == pytest.approx(1, abs=1e-6)
        places.add(int(likeness.argmax()))
    assert len(places) == 5


@pytest.mark.parametrize("peak", [0, 37, 400])
@pytest.mark.parametrize("num_samples", [5, 300, 4000])
def test_reverberation_is_a_shifted_convolution(peak, num_samples):
    """Also with a peak that is negative, and a response longer than the wave."""
    wave, rir = make_wave(1, num_samples), make_wave(2, 900, 0.05)
    rir[peak] = -0.9
    result = reverberate(wave, rir)
    assert result.dtype == np.float32 and result.shape == wave.shape
    want = np.convolve(wave.astype(np.float64), rir.astype(np.float64))[peak:peak + num_samples]
    want *= np.sqrt(power(wave) / power(want))
    np.testing.assert_allclose(result, want, atol=1e-5)
    assert power(result) == pytest.approx(power(wave), rel=1e-4)


def test_the_direct_sound_stays_in_its_place():
    """A click comes out as a click where it was, an echo 80 samples later at half of it."""
    wave, rir = np.zeros(1000, np.float32), np.zeros(600, np.float32)
    wave[200], rir[[123, 203]] = 0.5, (1e-3, 5e-4)
    result = reverberate(wave, rir)
    assert np.flatnonzero(np.abs(result) > 1e-4).tolist() == [200, 280]
    assert result[280] == pytest.approx(result[200] / 2, rel=1e-4)
    assert np.sum(result.astype(np.float64) ** 2) == pytest.approx(0.25, rel=1e-4)


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.1, 2.0])
def test_another_speed_changes_length_and_pitch(factor):
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE).astype(np.float32)
    result = change_speed(tone, factor)
    assert result.dtype == np.float32
    assert len(result) == pytest.approx(RATE / factor, abs=2)
    spectrum = np.abs(np.fft.rfft(result * np.hanning(len(result))))
    assert spectrum.argmax() * RATE / len(result) == pytest.approx(1000 * factor, abs=2)


EMPTY, STEREO = np.zeros(0, np.float32), np.ones((100, 2), np.float32)


@pytest.mark.parametrize("wrong", [EMPTY, STEREO])
@pytest.mark.parametrize(("what", "change"), [
    ("a wave", lambda x: add_noise(x, make_wave(1), 0.0, make_rng())),
    ("a wave", lambda x: add_babble(x, [make_wave(1)], 0.0, make_rng())),
    ("a wave", lambda x: reverberate(x, make_wave(1))),
    ("a wave", lambda x: change_speed(x, 0.9)),
    ("a noise", lambda x: add_noise(make_wave(1), x, 0.0, make_rng())),
    ("a voice", lambda x: add_babble(make_wave(1), [make_wave(2), x], 0.0, make_rng())),
    ("an impulse response", lambda x: reverberate(make_wave(1), x))])
def test_what_is_no_recording_is_refused(wrong, what, change):
    with pytest.raises(ValueError, match=rf"want {what} of one channel .* got \({len(wrong)},"):
        change(wrong)


def test_nothing_to_augment_with_is_refused():
    with pytest.raises(ValueError, match="one voice or more"):
        add_babble(make_wave(1), [], 0.0, make_rng())
    with pytest.raises(ValueError, match="all zeros"):
        reverberate(make_wave(1), np.zeros(9, np.float32))
    for factor in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="above 0"):
            change_speed(make_wave(1), factor)
