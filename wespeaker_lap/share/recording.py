"""A recording before it is embedded: can it be used, how much speech is in it, what is odd."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wespeaker_lap.data.audit import MAX_PEAK, SILENCE_PEAK, describe_peak
from wespeaker_lap.io.audio import AudioError, read_audio, read_info
from wespeaker_lap.io.riff import refuse_cut_wav

STATUSES = ("ok", "missing", "broken", "silent", "short")
MIN_SPEECH_SECONDS = 2.0  # below it, errors are well above those that thresholds were measured at
SPEECH_RANGE_DB = 30.0  # what is farther below the loud parts is counted as pause
FRAME_SECONDS = 0.02


@dataclass(frozen=True, eq=False)
class Recording:
    """What is known of a recording.

    Args:
        name: the file, or "the samples".
        status: one of `STATUSES`; only "ok" can be embedded.
        reason: why it cannot be used, empty when it can.
        samples: (S,) float32 at the model's rate, None when it cannot be used.
        seconds: its length.
        speech_seconds: roughly how much of that is not pause.
        warnings: what makes its scores less reliable.
    """

    name: str
    status: str
    reason: str = ""
    samples: np.ndarray | None = None
    seconds: float = 0.0
    speech_seconds: float = 0.0
    warnings: tuple[str, ...] = ()


def read_recording(audio: str | Path | np.ndarray, sample_rate: int,
                   min_samples: int) -> Recording:
    """Read and judge a recording.

    Args:
        audio: a file, or samples (S,) float in [-1, 1] at `sample_rate`.
        sample_rate: that the model wants, in Hz.
        min_samples: that one frame takes.

    Raises:
        ValueError: samples of another type or shape. All else is told by the status.
    """
    name, warnings = "the samples", []
    try:
        if isinstance(audio, str | Path):
            name = str(audio)
            samples = _read_file(name, sample_rate, warnings)
        else:
            samples = _check_samples(audio)
    except AudioError as error:
        reason = str(error).removeprefix(f"{name}: ")
        return Recording(name, "missing" if reason == "no such file" else "broken", reason)
    seconds = len(samples) / sample_rate
    if len(samples) < min_samples:
        reason = f"{len(samples)} samples are too few, the encoder needs {min_samples}"
        return Recording(name, "short", reason, seconds=seconds)
    peak = float(np.abs(samples).max())
    if peak > MAX_PEAK:
        return Recording(name, "broken", describe_peak(peak), seconds=seconds)
    if peak < SILENCE_PEAK:
        return Recording(name, "silent", "silent (no sample above -80 dBFS)", seconds=seconds)
    speech = measure_speech(samples, sample_rate)
    if speech < MIN_SPEECH_SECONDS:
        warnings.append(f"{name}: about {speech:.1f} s of speech; scores are reliable from "
                        f"{MIN_SPEECH_SECONDS:g} s")
    return Recording(name, "ok", "", samples, seconds, speech, tuple(warnings))


def _read_file(name: str, sample_rate: int, warnings: list[str]) -> np.ndarray:
    """(S,) at the wanted rate; a warning is added where the file has another one."""
    rate = read_info(name).sample_rate
    refuse_cut_wav(name)
    if rate != sample_rate:
        lost = f", so nothing above {rate // 2} Hz is in it" if rate < sample_rate else ""
        warnings.append(f"{name}: {rate} Hz, the model's rate is {sample_rate} Hz{lost}")
    return read_audio(name, sample_rate)


def _check_samples(audio: np.ndarray) -> np.ndarray:
    samples = np.asarray(audio)
    if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
        raise ValueError(f"the samples: want samples (S,) of floats in [-1, 1], got "
                         f"{samples.shape} {samples.dtype}")
    if not np.isfinite(samples).all():
        raise AudioError("the samples: samples that are not finite numbers")
    return samples.astype(np.float32)


def measure_speech(samples: np.ndarray, sample_rate: int) -> float:
    """Seconds in frames whose level is within 30 dB of the loud ones: speech, roughly.

    The loud ones are the upper twentieth, so that a click does not count. Steady noise at the
    level of speech is taken for speech.

    Args:
        samples: (S,) float in [-1, 1].
        sample_rate: in Hz.

    >>> tone = np.sin(np.arange(16000.0))
    >>> round(measure_speech(np.concatenate([tone, 0 * tone, 0.5 * tone]), 16000), 1)
    2.0
    """
    size = max(1, round(FRAME_SECONDS * sample_rate))
    whole = len(samples) // size * size
    if not whole:
        return len(samples) / sample_rate
    power = np.square(samples[:whole].reshape(-1, size), dtype=np.float64).mean(axis=1)
    loud = np.quantile(power, 0.95)
    return float((power > loud * 10 ** (-SPEECH_RANGE_DB / 10)).sum() * size / sample_rate)
