"""Many short recordings in one file of 16-bit samples, for training that cuts at random places.

`audio.int16` has the samples one recording after the other (little-endian), `index.tsv` a line a
recording (id, first sample, number of samples), `audio.json` the sample rate and the data's hash.
The samples are mapped, not read, so that processes share them and only what is used is in memory.
"""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from wespeaker_lap.data.datadir import DataDir, data_hash
from wespeaker_lap.data.pool import open_pool
from wespeaker_lap.io.audio import read_audio
from wespeaker_lap.io.table import read_lines, replacing, write_text

SAMPLES, INDEX, FACTS = "audio.int16", "index.tsv", "audio.json"
SCALE = 32767  # what lies beyond -1 to 1 is clipped
AGAIN = "remove the folder and run 'wespeaker-lap pack-audio' again"


class PackedAudio:
    """Recordings that `pack_audio` wrote.

    Args:
        directory: of the pack.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is not whole.
    """

    def __init__(self, directory: str | Path):
        self.directory = Path(directory)
        facts = _read_facts(self.directory / FACTS)
        if facts is None:
            raise FileNotFoundError(f"{self.directory / FACTS}: no such file; run 'wespeaker-lap "
                                    f"pack-audio'")
        path = self.directory / SAMPLES
        try:
            self.sample_rate: int = facts["sample_rate"]
            self.data_hash: str = facts["data_hash"]
            rows = [line.split("\t") for line in read_lines(self.directory / INDEX)]
            self.utts = [utt for utt, _, _ in rows]
            self.starts = np.array([int(start) for _, start, _ in rows])
            self.lengths = np.array([int(length) for _, _, length in rows])  # samples
            is_whole = rows and path.stat().st_size == 2 * self.lengths.sum()
        except (FileNotFoundError, KeyError, ValueError) as error:
            raise ValueError(f"{self.directory}: no whole pack ({error}); {AGAIN}") from error
        if not is_whole:
            raise ValueError(f"{path}: not as long as its index says; {AGAIN}")
        self.samples = np.memmap(path, "<i2", "r")

    def __len__(self) -> int:
        return len(self.utts)

    def read(self, index: int, start: int = 0, num_samples: int | None = None) -> np.ndarray:
        """Samples of recording number `index`: (S,) float32 in [-1, 1]."""
        length = int(self.lengths[index])
        stop = length if num_samples is None else start + num_samples
        if not 0 <= start < stop <= length:
            raise ValueError(f"{self.utts[index]}: want samples {start} to {stop} of {length}")
        first = int(self.starts[index])
        return self.samples[first + start:first + stop].astype(np.float32) / SCALE


def pack_audio(sets: Sequence[DataDir], directory: str | Path, num_jobs: int = 1,
               sample_rate: int = 16000) -> None:
    """Write the recordings of some sets into one pack; does nothing where that is done.

    Args:
        sets: audited data directories; their utterance ids must differ.
        directory: of the pack.
        num_jobs: processes that decode.
        sample_rate: of the pack, in Hz.

    Raises:
        ValueError: an id twice, no recordings, or the folder has another pack.
        AudioError: a recording that cannot be read.
    """
    directory, wavs = Path(directory), _join(sets)
    facts = {"sample_rate": sample_rate, "data_hash": " ".join(data_hash(data) for data in sets)}
    packed = _read_facts(directory / FACTS)
    if packed == facts:
        return
    if packed is not None:
        raise ValueError(f"{directory}: holds a pack of other data; choose another folder or "
                         f"remove this one")
    rows, start = [], 0
    with replacing(directory / SAMPLES) as aside, open(aside, "wb") as file, \
            open_pool(num_jobs) as pool:
        decoded = pool.imap(partial(_decode, sample_rate), wavs.values(), chunksize=32)
        for utt, samples in zip(wavs, decoded, strict=True):
            file.write(samples.tobytes())
            rows.append(f"{utt}\t{start}\t{len(samples)}\n")
            start += len(samples)
    write_text(directory / INDEX, "".join(rows))
    write_text(directory / FACTS, json.dumps(facts) + "\n")  # last: the mark of a whole pack


def _join(sets: Sequence[DataDir]) -> dict[str, str]:
    """Utterance -> audio file of all sets."""
    wavs: dict[str, str] = {}
    for data in sets:
        twice = wavs.keys() & data.wavs.keys()
        if twice:
            raise ValueError(f"{data.path}: utterance {min(twice)!r} is in another set too; give "
                             f"the utterances of one of them other ids")
        wavs.update(data.wavs)
    if not wavs:
        raise ValueError("there are no recordings to pack")
    return wavs


def _read_facts(path: Path) -> dict | None:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}); {AGAIN}") from error


def _decode(sample_rate: int, path: str) -> np.ndarray:
    samples = read_audio(path, sample_rate)
    return (np.clip(samples, -1, 1) * SCALE).round().astype("<i2")
