"""Augmentation of waveforms: noise, babble, reverberation, speed. Pure functions on numpy arrays.

Powers are mean squares over everything given. Nothing is clipped: a result may go beyond -1 to 1,
which encoders and features do not mind; `io.audio.write_wav` would clip it.
"""

from collections.abc import Sequence

import numpy as np
import soxr
from scipy import fft

POWER_FLOOR = 1e-8  # below this mean square (-80 dB) is silence, which nothing is measured against


def find_gain(wave: np.ndarray, other: np.ndarray, decibels: float) -> float:
    """The factor that puts `other` so many decibels under `wave`, by mean square.

    Args:
        wave, other: (S,) and (N,) samples.
        decibels: the ratio wanted; negative puts `other` above.

    Returns:
        The factor, 0 where one of the two is silence.
    """
    power, other_power = np.mean(wave ** 2), np.mean(other ** 2)
    if min(power, other_power) < POWER_FLOOR:
        return 0.0
    return float(np.sqrt(power / other_power) * 10 ** (-decibels / 20))


def find_direct(rir: np.ndarray) -> int:
    """Where the direct sound of an impulse response (N,) is: its largest peak."""
    return int(np.abs(rir).argmax())


def fit_length(noise: np.ndarray, num_samples: int, rng: np.random.Generator) -> np.ndarray:
    """A random stretch of a long recording; a short one repeated from its beginning.

    Args:
        noise: (N,) samples.
        num_samples: S.
        rng: draws the place, once, where N > S.

    Returns:
        (S,) samples, a view of a long recording.
    """
    spare = len(noise) - num_samples
    if spare <= 0:
        return np.resize(noise, num_samples)
    start = int(rng.integers(spare + 1))
    return noise[start:start + num_samples]


def add_noise(wave: np.ndarray, noise: np.ndarray, snr_db: float,
              rng: np.random.Generator) -> np.ndarray:
    """Add a recording at a signal-to-noise ratio.

    Args:
        wave: (S,) float32.
        noise: (N,) float32; a random stretch of it is added, or all of it over and over.
        snr_db: power of the wave over that of what is added, in dB.
        rng: draws the stretch.

    Returns:
        (S,) float32, which may exceed 1; the wave's samples where it or the stretch is silence.

    Raises:
        ValueError: no samples, or not one channel.
    """
    _check(wave, "a wave")
    _check(noise, "a noise")
    noise = fit_length(noise, len(wave), rng)
    return (wave + find_gain(wave, noise, snr_db) * noise).astype(np.float32)


def add_babble(wave: np.ndarray, voices: Sequence[np.ndarray], snr_db: float,
               rng: np.random.Generator) -> np.ndarray:
    """Add several people who speak at the same time, each as loud as the others.

    Args:
        wave: (S,) float32.
        voices: (N_i,) float32 each, of other speakers; fitted to S as noise is.
        snr_db: power of the wave over that of all voices together, in dB.
        rng: draws the stretches.

    Returns:
        (S,) float32, which may exceed 1; a stretch that is silence adds nothing.

    Raises:
        ValueError: no voices, no samples, or not one channel.
    """
    _check(wave, "a wave")
    if not len(voices):
        raise ValueError("want one voice or more for babble, got none")
    babble = np.zeros(len(wave), np.float32)
    for voice in voices:
        _check(voice, "a voice")
        voice = fit_length(voice, len(wave), rng)
        power = np.mean(voice ** 2)
        if power >= POWER_FLOOR:
            babble += voice / np.sqrt(power)
    return add_noise(wave, babble, snr_db, rng)


def reverberate(wave: np.ndarray, rir: np.ndarray) -> np.ndarray:
    """Convolve with an impulse response; the direct sound stays where the input is.

    What the response has before its largest peak is kept, and comes before the direct sound. Like
    Kaldi's wav-reverberate with --shift-output and --normalize-output.

    Args:
        wave: (S,) float32.
        rir: (N,) float32, at any level.

    Returns:
        (S,) float32 of the input's power, in which sample t belongs to sample t of the input. It
        may exceed 1. The tail beyond the last sample is cut.

    Raises:
        ValueError: no samples, not one channel, or a response of zeros.
    """
    _check(wave, "a wave")
    _check(rir, "an impulse response")
    direct = find_direct(rir)
    if not rir[direct]:
        raise ValueError("the impulse response is all zeros; remove it from the table")
    rir = rir / np.abs(rir[direct])
    size = fft.next_fast_len(len(wave) + len(rir) - 1, real=True)
    wet = fft.irfft(fft.rfft(wave, size) * fft.rfft(rir, size), size)[direct:direct + len(wave)]
    power, wet_power = (np.mean(np.square(x, dtype=np.float64)) for x in (wave, wet))
    return (wet * np.sqrt(power / wet_power) if wet_power else wet).astype(np.float32)


def change_speed(samples: np.ndarray, factor: float) -> np.ndarray:
    """Play faster or slower, pitch included.

    Args:
        samples: (S,) float32.
        factor: 1.1 is ten percent faster.

    Returns:
        (S / factor,) float32 at the same sample rate, which may exceed 1 a little.

    Raises:
        ValueError: no samples, not one channel, or a factor that is not positive.
    """
    _check(samples, "a wave")
    if not factor > 0:
        raise ValueError(f"want a speed factor above 0, got {factor}")
    return soxr.resample(samples, factor, 1.0, quality="HQ")


def _check(samples: np.ndarray, what: str) -> None:
    if samples.ndim != 1 or not len(samples):
        raise ValueError(f"want {what} of one channel with samples, (S,), got "
                         f"{tuple(samples.shape)}")
