"""Kaldi data directories: wav.scp, utt2spk, spk2utt, spk2gender, utt2dur."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wespeaker_lap.io.table import invert, name_some, read_table, write_table


@dataclass(frozen=True)
class DataDir:
    """What a data directory holds.

    Attributes:
        path: the folder.
        wavs: utterance -> audio file.
        utt2spk: utterance -> speaker.
        spk2gender: speaker -> `m` or `f`; empty where it is not known.
        durations: utterance -> seconds; empty before the audit has measured them.
    """

    path: Path
    wavs: dict[str, str]
    utt2spk: dict[str, str]
    spk2gender: dict[str, str]
    durations: dict[str, float]

    @property
    def speakers(self) -> list[str]:
        """The speakers, sorted."""
        return sorted(set(self.utt2spk.values()))


def load_data_dir(path: str | Path, with_durations: bool = True) -> DataDir:
    """Load a data directory and check that its tables agree.

    Args:
        path: a folder with wav.scp and utt2spk; spk2gender and utt2dur are optional.
        with_durations: whether utt2dur is read; not by the audit, which is about to write it.

    Raises:
        FileNotFoundError: the folder or a table is missing.
        ValueError: an empty set, an utterance without a speaker or without audio, a broken line.
    """
    path = Path(path)
    wavs, utt2spk = read_table(path / "wav.scp"), read_table(path / "utt2spk")
    if not wavs:
        raise ValueError(f"{path}/wav.scp: the set is empty")
    without = [utt for utt in wavs if utt not in utt2spk]
    if without:
        raise ValueError(f"{path}/utt2spk: no speaker for {name_some(without)}")
    extra = [utt for utt in utt2spk if utt not in wavs]
    if extra:
        raise ValueError(f"{path}/wav.scp: no audio for {name_some(extra)}, which utt2spk names")
    blank = [utt for utt, speaker in utt2spk.items() if len(speaker.split()) != 1]
    if blank:
        raise ValueError(f"{path}/utt2spk: white space in the speaker of {name_some(blank)}; "
                         f"expected 'utt speaker' lines")
    genders = read_table(path / "spk2gender") if (path / "spk2gender").is_file() else {}
    durations = _read_durations(path, wavs) if with_durations else {}
    return DataDir(path, wavs, utt2spk, genders, durations)


def _read_durations(path: Path, wavs: Mapping[str, str]) -> dict[str, float]:
    if not (path / "utt2dur").is_file():
        return {}
    durations = {}
    for utt, text in read_table(path / "utt2dur").items():
        try:
            durations[utt] = float(text)
        except ValueError:
            raise ValueError(f"{path}/utt2dur: {utt}: {text!r} is no number of seconds") from None
    missing = [utt for utt in wavs if utt not in durations]
    if missing:
        raise ValueError(f"{path}/utt2dur: no duration for {name_some(missing)}; audit it again")
    return {utt: durations[utt] for utt in wavs}  # the set may have been cut down since


def write_data_dir(path: str | Path, wavs: Mapping[str, str], utt2spk: Mapping[str, str],
                   spk2gender: Mapping[str, str] | None = None) -> None:
    """Write wav.scp, utt2spk, spk2utt and, where given, spk2gender, sorted in the C locale.

    Durations that an audit has measured before are removed: audit again.

    Args:
        path: the folder; made where it is missing.
        wavs: utterance -> audio file.
        utt2spk: utterance -> speaker, for the same utterances.
        spk2gender: speaker -> `m` or `f`; speakers beyond utt2spk are left out.

    Raises:
        ValueError: an empty set, or the two tables name different utterances.
    """
    path = Path(path)
    if not wavs:
        raise ValueError(f"{path}: no utterances to write; check the corpus folder")
    if wavs.keys() != utt2spk.keys():
        raise ValueError(f"{path}: wav.scp and utt2spk would name different utterances: "
                         f"{name_some(sorted(wavs.keys() ^ utt2spk.keys()))}")
    spk2utt = {spk: " ".join(utts) for spk, utts in invert(utt2spk).items()}
    # What an earlier corpus left behind must not be taken for this one's.
    (path / "utt2dur").unlink(missing_ok=True)
    (path / "spk2gender").unlink(missing_ok=True)
    write_table(path / "utt2spk", utt2spk)
    write_table(path / "spk2utt", spk2utt)
    if spk2gender:
        write_table(path / "spk2gender", {s: g for s, g in spk2gender.items() if s in spk2utt})
    write_table(path / "wav.scp", wavs)


def split_by_speaker(utt2spk: Mapping[str, str], num_held_out: int,
                     seed: int) -> tuple[list[str], list[str]]:
    """Hold some speakers back, for instance for validation.

    Args:
        utt2spk: utterance -> speaker.
        num_held_out: how many speakers to hold back.
        seed: which ones.

    Returns:
        The utterances of the speakers that stay, and those of the held-out ones, both sorted.

    Raises:
        ValueError: fewer than one speaker would stay.
    """
    speakers = sorted(set(utt2spk.values()))
    if not 0 <= num_held_out < len(speakers):
        raise ValueError(f"cannot hold {num_held_out} of {len(speakers)} speakers back; "
                         f"at least one must stay")
    order = np.random.default_rng(seed).permutation(len(speakers))
    held = {speakers[i] for i in order[:num_held_out]}
    utts = sorted(utt2spk)
    return [u for u in utts if utt2spk[u] not in held], [u for u in utts if utt2spk[u] in held]


def data_hash(data: DataDir) -> str:
    """A short hash of the utterances and their durations: changes when the data changes.

    Paths do not count, so that a corpus may be moved.
    """
    digest = hashlib.sha256()
    for utt in sorted(data.wavs):
        digest.update(f"{utt} {data.durations.get(utt, 0.0):.3f}\n".encode())
    return digest.hexdigest()[:16]
