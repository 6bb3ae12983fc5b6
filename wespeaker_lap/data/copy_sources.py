"""The tables of recordings that copies of a set are made from, as files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wespeaker_lap.data.augmenter import Augmenter
from wespeaker_lap.data.copies import CLEAN, Copy, check_ids
from wespeaker_lap.data.datadir import DataDir
from wespeaker_lap.io.audio import refuse_pipe
from wespeaker_lap.io.table import name_some, read_table


@dataclass(frozen=True)
class CopySources:
    """Where the recordings are: `wav.scp` tables, whose paths are relative to their own folder.

    Attributes:
        noise_scp: noises and music; a table `utt2category` beside it says which is which.
        rir_scp: room impulse responses.
        babble_scp: speech of others, with `utt2spk` beside it where speakers have several
            recordings; None for the set itself.
    """

    noise_scp: Path | None = None
    rir_scp: Path | None = None
    babble_scp: Path | None = None


def load_augmenter(copies: Sequence[Copy], seed: int, data: DataDir, sources: CopySources,
                   sample_rate: int = 16000) -> Augmenter | None:
    """Read the tables that some copies need.

    Args:
        copies: of every utterance.
        seed: of what is drawn.
        data: the set to be copied.
        sources: the tables; those of other copies are not read.
        sample_rate: of the utterances, in Hz.

    Returns:
        What makes the copies; None for the clean copy alone.

    Raises:
        FileNotFoundError: a table is missing.
        ValueError: ids of copies that are in the set already, a copy without its table, a broken
            table, a voice that is of another speaker in the set.
    """
    check_ids(data.utt2spk, copies)
    if tuple(copies) == (CLEAN,):
        return None
    kinds = {copy.kind for copy in copies}
    noises = _read_recordings(sources.noise_scp if "noise" in kinds else None)
    rirs = _read_recordings(sources.rir_scp if "reverb" in kinds else None)
    voices, utt2spk = data.wavs, data.utt2spk
    if "babble" in kinds and sources.babble_scp:
        voices = _read_recordings(sources.babble_scp)
        utt2spk = _join_speakers(data, sources.babble_scp, voices)
    categories = {}
    if noises:
        found = _read_beside(sources.noise_scp, "utt2category")
        categories = {name: found[name] for name in noises if name in found}
    return Augmenter(copies, seed, noises, rirs, voices, utt2spk, categories,
                     sample_rate=sample_rate)


def _read_recordings(scp: Path | None) -> dict[str, str]:
    table = read_table(scp) if scp else {}
    for entry in table.values():
        refuse_pipe(entry)
    return {name: str(scp.parent / entry) for name, entry in table.items()}


def _read_beside(scp: Path, name: str) -> dict[str, str]:
    path = scp.with_name(name)
    return read_table(path) if path.is_file() else {}


def _join_speakers(data: DataDir, scp: Path, voices: dict[str, str]) -> dict[str, str]:
    """Speakers of the set and of the voices; a voice without one is its own."""
    known = _read_beside(scp, "utt2spk")
    speakers = {utt: known.get(utt, data.utt2spk.get(utt, utt)) for utt in voices}
    differing = [utt for utt in voices if data.utt2spk.get(utt, speakers[utt]) != speakers[utt]]
    if differing:
        raise ValueError(f"{scp}: of another speaker than in {data.path}: {name_some(differing)}; "
                         f"rename one of the two")
    return {**data.utt2spk, **speakers}
