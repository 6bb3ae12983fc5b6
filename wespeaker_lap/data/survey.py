"""Measure every recording of a corpus once: length, rate, silence, clipping, a hash of the sound.

What was measured is kept in a file, so that a second call, with another split or after an
interruption, decodes only what is new or has changed.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from wespeaker_lap.data.audit import judge_samples
from wespeaker_lap.data.pool import open_pool
from wespeaker_lap.io.audio import AudioError, read_audio, read_info
from wespeaker_lap.io.riff import refuse_cut_wav
from wespeaker_lap.io.table import naming, read_lines, write_text

FRAME_SECONDS = 0.025
QUIET_DB = -40.0  # a frame this much below the loudest one holds no speech
FULL_SCALE = 0.999
CHECKS = 2  # of recordings; where they change, a cache of former ones is measured anew
CLIPPED_RUN = 3  # samples in a row at full scale: one or two may be a peak that just fits


@dataclass(frozen=True)
class Measure:
    """What one recording is.

    Attributes:
        seconds: 0 where it cannot be used.
        reason: why it cannot be used; empty where it can.
        sample_rate: samples per second, of the file.
        num_channels: of the file.
        silence: share of frames far below the loudest one, 0 to 1.
        clipping: share of samples in runs at full scale, 0 to 1.
        digest: hash of the sound, the same for a copy in another lossless format.
    """

    seconds: float = 0.0
    reason: str = ""
    sample_rate: int = 0
    num_channels: int = 0
    silence: float = 0.0
    clipping: float = 0.0
    digest: str = ""


def measure_recording(path: str, sample_rate: int, min_seconds: float) -> Measure:
    """Decode one recording and measure it.

    Args:
        path: the audio file.
        sample_rate: samples per second that the encoder wants; its digest is of this rate.
        min_seconds: shorter ones cannot be used.
    """
    try:
        info = read_info(path)
        refuse_cut_wav(path)
        samples = read_audio(path, sample_rate)
        # Resampling rounds clipped peaks off, so they are looked for as they were recorded.
        native = samples if info.sample_rate == sample_rate else read_audio(path, info.sample_rate)
    except AudioError as error:
        return Measure(reason=str(error).removeprefix(f"{path}: "))
    found = judge_samples(samples, info, sample_rate, min_seconds)
    if found.reason:
        return Measure(0.0, found.reason, info.sample_rate, info.num_channels)
    pcm = np.clip(np.round(samples * 32768), -32768, 32767).astype("<i2")
    return Measure(found.seconds, "", info.sample_rate, info.num_channels,
                   silence_share(samples, sample_rate), clipping_share(native),
                   hashlib.sha256(pcm.tobytes()).hexdigest()[:32])


def silence_share(samples: np.ndarray, sample_rate: int) -> float:
    """Share of frames of 25 ms whose level is more than 40 dB below that of the loudest one.

    Args:
        samples: (S,).
        sample_rate: samples per second.

    >>> silence_share(np.concatenate([np.ones(1200), np.zeros(400)]), 16000)
    0.25
    """
    size = max(1, round(FRAME_SECONDS * sample_rate))
    count = len(samples) // size
    if count < 2:
        return 0.0
    power = np.square(samples[:count * size].astype(np.float64)).reshape(count, size).mean(axis=1)
    return float(np.mean(power < power.max() * 10 ** (QUIET_DB / 10)))


def clipping_share(samples: np.ndarray) -> float:
    """Share of samples that stand in runs of at least three at full scale.

    Args:
        samples: (S,) as recorded.

    >>> clipping_share(np.array([0, 1, 1, 1, 0, -1, 1, 0, 1, 0]))
    0.3
    """
    full = np.abs(samples) >= FULL_SCALE
    edges = np.flatnonzero(np.diff(np.concatenate([[False], full, [False]]).astype(np.int8)))
    lengths = edges[1::2] - edges[::2]
    return float(lengths[lengths >= CLIPPED_RUN].sum() / len(samples))


def survey(paths: Mapping[str, str], cache: str | Path, sample_rate: int = 16000,
           min_seconds: float = 0.1, num_jobs: int = 1) -> dict[str, Measure]:
    """Measure recordings, those that a former call has measured excepted.

    Args:
        paths: name -> audio file.
        cache: the file that keeps what was measured.
        sample_rate, min_seconds: see `measure_recording`.
        num_jobs: processes.

    Returns:
        Name -> what it is, in the order of `paths`.
    """
    settings = {"sample_rate": sample_rate, "min_seconds": min_seconds, "checks": CHECKS}
    keys = {name: f"{path} {_stamp(path)}" for name, path in paths.items()}
    # What could not be used is looked at again: it may have been mended, or its disk was away.
    known = {key: found for key, found in _read_cache(Path(cache), settings).items()
             if not found.reason}
    todo = [name for name, key in keys.items() if key not in known]
    measure = partial(measure_recording, sample_rate=sample_rate, min_seconds=min_seconds)
    # What is known is written anew, so that what is gone does not stay for ever.
    kept = {key: known[key] for key in keys.values() if key in known}
    lines = [json.dumps(settings), *(_to_line(key, found) for key, found in kept.items())]
    write_text(cache, "".join(f"{line}\n" for line in lines))
    with naming(cache), open(cache, "a", encoding="utf-8") as journal:
        for name, found in zip(todo, _map(measure, [paths[name] for name in todo], num_jobs),
                               strict=True):
            known[keys[name]] = found
            journal.write(_to_line(keys[name], found) + "\n")
    return {name: known[key] for name, key in keys.items()}


def _map(measure, paths: list[str], num_jobs: int) -> Iterable[Measure]:
    progress = partial(tqdm, total=len(paths), desc="measure", unit="file", disable=None)
    if num_jobs <= 1 or len(paths) < 2:
        yield from progress(map(measure, paths))
        return
    with open_pool(num_jobs) as pool:
        yield from progress(pool.imap(measure, paths, chunksize=8))


def _stamp(path: str) -> str:
    """Size and time of a file: another one is another recording."""
    try:
        status = os.stat(path)
    except OSError:
        return "absent"
    return f"{status.st_size} {status.st_mtime_ns}"


def _to_line(key: str, found: Measure) -> str:
    return json.dumps([key, asdict(found)], ensure_ascii=False)


def _read_cache(path: Path, settings: dict) -> dict[str, Measure]:
    """What was measured with the same settings; a file that is none of ours holds nothing."""
    if not path.is_file():
        return {}
    known: dict[str, Measure] = {}
    try:
        lines = read_lines(path)
        if not lines or json.loads(lines[0]) != settings:
            return {}
        for line in lines[1:]:
            key, fields = json.loads(line)
            known[key] = Measure(**fields)
    except (ValueError, TypeError):  # the last line of a call that was killed
        return known
    return known
