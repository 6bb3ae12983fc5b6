"""Speed-perturbed copies of a set, whose speakers are new speakers (as WeSpeaker and LAP train).

Playing a recording faster raises pitch and formants together: another voice, not another session.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from wespeaker_lap.data.augment import change_speed
from wespeaker_lap.data.copies import Copy
from wespeaker_lap.data.datadir import DataDir, write_data_dir
from wespeaker_lap.data.pool import open_pool
from wespeaker_lap.io.audio import read_audio, write_wav


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
        ValueError: a factor that is 1 or out of range, see `data.copies.Copy`.
        AudioError: a recording that cannot be read.
    """
    copies = [Copy("speed", factor) for factor in factors]
    wavs, utt2spk, jobs = dict(data.wavs), dict(data.utt2spk), []
    for copy in copies:
        for utt, path in data.wavs.items():
            copy_utt = copy.utt_id(utt)
            wavs[copy_utt] = str(Path(wav_dir) / copy.tag / f"{utt}.wav")
            utt2spk[copy_utt] = copy.speaker(data.utt2spk[utt])
            if not Path(wavs[copy_utt]).is_file():
                jobs.append((path, wavs[copy_utt], copy.factor))
    with open_pool(num_jobs) as pool:
        for _ in pool.imap_unordered(partial(_copy, sample_rate), jobs, chunksize=16):
            pass
    genders = {copy.speaker(speaker): gender for copy in copies
               for speaker, gender in data.spk2gender.items()}
    write_data_dir(directory, wavs, utt2spk, {**data.spk2gender, **genders})


def _copy(sample_rate: int, job: tuple[str, str, float]) -> None:
    source, target, factor = job
    write_wav(target, change_speed(read_audio(source, sample_rate), factor), sample_rate)
