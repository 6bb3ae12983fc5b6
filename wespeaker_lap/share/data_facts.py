"""What a data directory holds and what its audit rejected, in numbers."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from wespeaker_lap.data.datadir import DataDir
from wespeaker_lap.io.table import invert, read_lines


@dataclass(frozen=True)
class DataFacts:
    """Numbers of one set.

    Args:
        name: of the set.
        num_utts, num_speakers: how many.
        genders: speakers of each gender, by the letter of spk2gender; empty where not known.
        hours: of speech, None before the audit has measured it.
        seconds: shortest, mean and longest utterance, None before the audit.
        num_single: speakers with a single utterance, so without a target trial.
        rejects: reason -> recordings that the audit took out.
    """

    name: str
    num_utts: int
    num_speakers: int
    genders: dict[str, int]
    hours: float | None
    seconds: tuple[float, float, float] | None
    num_single: int
    rejects: dict[str, int]


def measure_data(data: DataDir) -> DataFacts:
    """Count what is in a data directory, its rejects.tsv included.

    Args:
        data: the directory.
    """
    spoken = list(data.durations.values())
    speakers = invert(data.utt2spk)
    return DataFacts(
        name=data.path.resolve().name, num_utts=len(data.wavs), num_speakers=len(speakers),
        genders=dict(sorted(Counter(gender for speaker, gender in data.spk2gender.items()
                                    if speaker in speakers).items())),
        hours=sum(spoken) / 3600 if spoken else None,
        seconds=(min(spoken), sum(spoken) / len(spoken), max(spoken)) if spoken else None,
        num_single=sum(len(own) == 1 for own in speakers.values()),
        rejects=_count_rejects(data.path / "rejects.tsv"))


def _count_rejects(path: Path) -> dict[str, int]:
    """Reason -> number; the details in brackets differ from file to file and do not count."""
    lines = [line.split("\t") for line in read_lines(path)] if path.is_file() else []
    return dict(Counter(fields[-1].split(" (")[0] for fields in lines if len(fields) == 3))
