"""Speed-perturbed copies of a set, whose speakers are new speakers (as WeSpeaker and LAP train).

Playing a recording faster raises pitch and formants together: another voice, not another session.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import soxr

from wespeaker_lap.data.datadir import DataDir, write_data_dir
from wespeaker_lap.data.pool import open_pool
from wespeaker_lap.io.audio import read_audio, write_wav


def change_speed(samples: np.ndarray, factor: float) -> np.ndarray:
    """Play faster or slower, pitch included.

    Args:
        samples: (S,) float32.
        factor: 1.1 is ten percent faster.

    Returns:
        (S / factor,) float32 at the same sample rate.
    """
    return soxr.resample(samples, factor, 1.0, quality="HQ")


def add_speed_copies(data: DataDir, directory: str | Path, wav_dir: str | Path,
                     factors: Sequence[float], num_jobs: int = 1, sample_rate: int = 16000) -> None:
    """Write a set with its own recordings and a copy of each at every factor.

    The copies are wav files, written once; ids and speakers begin with `sp<factor>-`.

    Args:
        data: the set.
        directory: the data directory to write.
        wav_dir: where the copies go.
        factors: speeds, such as (0.9, 1.1).
        num_jobs: processes.
        sample_rate: of the copies.

    Raises:
        ValueError: a factor that is not positive, or 1.
        AudioError: a recording that cannot be read.
    """
    if any(factor <= 0 or factor == 1 for factor in factors):
        raise ValueError(f"want speed factors above 0 and not 1, got {list(factors)}")
    wavs, utt2spk, jobs = dict(data.wavs), dict(data.utt2spk), []
    for factor in factors:
        for utt, path in data.wavs.items():
            copy = f"sp{factor:g}-{utt}"
            wavs[copy] = str(Path(wav_dir) / f"sp{factor:g}" / f"{utt}.wav")
            utt2spk[copy] = f"sp{factor:g}-{data.utt2spk[utt]}"
            if not Path(wavs[copy]).is_file():
                jobs.append((path, wavs[copy], factor))
    with open_pool(num_jobs) as pool:
        for _ in pool.imap_unordered(partial(_copy, sample_rate), jobs, chunksize=16):
            pass
    genders = {f"sp{factor:g}-{speaker}": gender for factor in factors
               for speaker, gender in data.spk2gender.items()}
    write_data_dir(directory, wavs, utt2spk, {**data.spk2gender, **genders})


def _copy(sample_rate: int, job: tuple[str, str, float]) -> None:
    source, target, factor = job
    write_wav(target, change_speed(read_audio(source, sample_rate), factor), sample_rate)
