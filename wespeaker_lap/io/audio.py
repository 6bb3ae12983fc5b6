"""Audio files to `(S,)` float32 and back: whatever libsndfile reads, at the rate that is wanted."""

import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from wespeaker_lap.io.table import replacing


class AudioError(ValueError):
    """A recording that cannot be used; the message names the file and the reason."""


@dataclass(frozen=True)
class AudioInfo:
    """What a header says: samples per channel, samples per second, channels."""

    num_samples: int
    sample_rate: int
    num_channels: int


def read_info(path: str | Path) -> AudioInfo:
    """Read the header of a recording.

    Args:
        path: the file.

    Raises:
        AudioError: no such file, not audio, or a header without samples.
    """
    refuse_pipe(path)
    if not Path(path).is_file():
        raise AudioError(f"{path}: no such file")
    try:
        info = soundfile.info(str(path))
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise AudioError(f"{path}: not readable as audio ({error})") from error
    if info.frames <= 0:
        raise AudioError(f"{path}: the file has a header and no samples")
    return AudioInfo(info.frames, info.samplerate, info.channels)


def read_audio(path: str | Path, sample_rate: int = 16000) -> np.ndarray:
    """Read a recording as one channel at the wanted rate.

    Channels are averaged, other rates are resampled (soxr, high quality).

    Args:
        path: a file in any format libsndfile reads (wav, flac, ogg/opus, mp3, …).
        sample_rate: samples per second wanted.

    Returns:
        (S,) float32 in about [-1, 1].

    Raises:
        AudioError: no such file, not audio, no samples, or samples that are not finite.
    """
    info = read_info(path)
    samples = _read_frames(path, 0, info.num_samples)
    if len(samples) == 0:
        raise AudioError(f"{path}: the header promises {info.num_samples} samples, none is there")
    return _convert(path, samples, info.sample_rate, sample_rate)


def read_crop(path: str | Path, num_samples: int, place: float,
              sample_rate: int = 16000) -> np.ndarray:
    """Read a stretch of a recording, at the cost of that stretch where the format can seek.

    Args:
        path: as for `read_audio`.
        num_samples: S at the wanted rate.
        place: of the stretch among all there are, from 0 (the first) to below 1; as drawn evenly.
        sample_rate: samples per second wanted.

    Returns:
        (S,) float32, as `read_audio` has them there, but for the ends of a stretch that is
        resampled; a shorter recording as a whole.

    Raises:
        AudioError: as for `read_audio`.
    """
    info = read_info(path)
    start, count = _place_crop(info, num_samples, place, sample_rate)
    if count == info.num_samples:
        return read_audio(path, sample_rate)[:num_samples]
    samples = _read_frames(path, start, count)
    if len(samples) == 0:
        raise AudioError(f"{path}: the header promises {info.num_samples} samples, none is there "
                         f"from {start} on")
    return _convert(path, samples, info.sample_rate, sample_rate)[:num_samples]


def find_crop(path: str | Path, num_samples: int, place: float,
              sample_rate: int = 16000) -> tuple[float, float]:
    """Where the stretch lies that `read_crop` reads: its first second, and how many it has.

    Args, Raises: as of `read_crop`.
    """
    info = read_info(path)
    start, count = _place_crop(info, num_samples, place, sample_rate)
    return start / info.sample_rate, count / info.sample_rate


def _place_crop(info: AudioInfo, num_samples: int, place: float,
                sample_rate: int) -> tuple[int, int]:
    """First sample of a stretch and their number, as they are in the file."""
    count = math.ceil(num_samples * info.sample_rate / sample_rate)
    if info.num_samples <= count:
        return 0, info.num_samples
    return int(place * (info.num_samples - count + 1)), count


def _read_frames(path: str | Path, start: int, count: int) -> np.ndarray:
    """Samples (S, C) as they are in the file."""
    try:
        with soundfile.SoundFile(str(path)) as file:
            if start and not file.seekable():
                return file.read(start + count, dtype="float32", always_2d=True)[start:]
            if start:
                file.seek(start)
            return file.read(count, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise AudioError(f"{path}: broken audio ({error})") from error


def _convert(path: str | Path, samples: np.ndarray, rate: int, sample_rate: int) -> np.ndarray:
    """(S, C) at a file's rate -> (S',) at the wanted one."""
    mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
    if rate != sample_rate:
        mono = soxr.resample(mono, rate, sample_rate, quality="HQ")
    if len(mono) == 0:
        raise AudioError(f"{path}: {len(samples)} samples at {rate} Hz, none at {sample_rate} Hz")
    if not np.isfinite(mono).all():
        raise AudioError(f"{path}: holds samples that are not finite numbers")
    return np.ascontiguousarray(mono, dtype=np.float32)


def write_wav(path: str | Path, samples: np.ndarray, sample_rate: int = 16000) -> None:
    """Write a 16-bit mono wav in one piece.

    Args:
        path: the file, replaced as a whole.
        samples: (S,) float in [-1, 1]; what lies beyond is clipped.
        sample_rate: samples per second.

    Raises:
        ValueError: samples that are not finite.
        OSError: the file cannot be written; names it.
    """
    if not np.isfinite(samples).all():
        raise ValueError(f"{path}: not written, there are samples that are not finite numbers")
    wav = io.BytesIO()  # libsndfile would not say that the disk is full
    soundfile.write(wav, np.clip(samples, -1.0, 1.0), sample_rate, subtype="PCM_16", format="WAV")
    with replacing(path) as aside:
        aside.write_bytes(wav.getvalue())


def refuse_pipe(path: str | Path) -> None:
    """Raise on Kaldi's `command |` entries: a data file must not be able to run a program."""
    if str(path).strip().endswith("|") or str(path).strip().startswith("|"):
        raise AudioError(f"{path}: a pipe, which is never run; convert the audio to files first")
