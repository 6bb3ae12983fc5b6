"""A corpus made of a folder of recordings: how it was asked for, what it holds, and its tables."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from wespeaker_lap.data.datadir import write_data_dir
from wespeaker_lap.data.survey import Measure
from wespeaker_lap.data.trials import Trials, write_trials
from wespeaker_lap.io.table import write_table, write_text

ERROR, WARNING, NOTE = LEVELS = ("error", "warning", "note")
SHARED = ("error", "drop")


@dataclass(frozen=True)
class Wishes:
    """How a corpus is to be made.

    Attributes:
        wav_dir: folder of the recordings; never changed.
        out: folder of the data directories.
        spk_from, regex, table: who speaks, see `naming.name_speakers`.
        held_out: set -> speakers held back, see `split.split_speakers`.
        seed: of the split and of the trials.
        max_target: target trials of a list at most, and as many non-target trials.
        sample_rate: samples per second that the encoder wants.
        min_seconds: shorter recordings cannot be used.
        max_reject_share: more recordings that cannot be used are an error.
        shared_sound: the same sound under two speakers: `error`, or `drop` all of its copies.
        num_jobs: processes.
    """

    wav_dir: Path
    out: Path
    spk_from: str = "parent"
    regex: str = ""
    table: Path | None = None
    held_out: Mapping[str, float] = field(default_factory=lambda: {"valid": 0.1, "test": 0.2})
    seed: int = 0
    max_target: int = 20_000
    sample_rate: int = 16000
    min_seconds: float = 0.1
    max_reject_share: float = 0.05
    shared_sound: str = "error"
    num_jobs: int = 1


@dataclass(frozen=True)
class Utterance:
    """A recording that can be used: its name below the corpus folder, its wav, its speaker."""

    name: str
    wav: str
    speaker: str
    measure: Measure


@dataclass(frozen=True)
class Remark:
    """A sentence that a person should read; an `error` forbids to write the corpus."""

    level: str
    text: str

    @property
    def rank(self) -> int:
        """0 for the worst level."""
        return LEVELS.index(self.level)


@dataclass(frozen=True)
class Corpus:
    """What a folder of recordings holds.

    Attributes:
        wishes: how it was asked for.
        utts: utterance id -> what it is, sorted.
        genders: speaker -> `m` or `f`, where known.
        sets: `train`, `valid`, `test` -> its speakers; empty where the split is impossible.
        trials: held-out set -> its list.
        rejects: (utterance id or `-`, file, reason) of each recording that is left out.
        remarks: what a person should know, errors first.
    """

    wishes: Wishes
    utts: dict[str, Utterance]
    genders: dict[str, str]
    sets: dict[str, list[str]]
    trials: dict[str, Trials]
    rejects: list[tuple[str, str, str]]
    remarks: list[Remark]

    @property
    def errors(self) -> list[str]:
        """What forbids to write the corpus."""
        return [remark.text for remark in self.remarks if remark.level == ERROR]

    def of_set(self, name: str) -> dict[str, Utterance]:
        """The utterances of a set."""
        speakers = set(self.sets[name])
        return {utt: one for utt, one in self.utts.items() if one.speaker in speakers}


# What would end a field or a line of rejects.tsv, which names files that no other table can.
ESCAPES = str.maketrans({"\t": "\\t", "\n": "\\n", "\r": "\\r"})


def count_kinds(reasons: Iterable[str]) -> list[tuple[str, int]]:
    """Count reasons by what stands before their details, the most frequent first.

    >>> count_kinds(["too short (0.010 s)", "silent (no sample)", "too short (0.020 s)"])
    [('too short', 2), ('silent', 1)]
    """
    return Counter(reason.split(" (")[0] for reason in reasons).most_common()


def write_rejects(corpus: Corpus) -> None:
    """Write `rejects.tsv`: utterance id or `-`, file, reason; removed where there is none."""
    path = corpus.wishes.out / "rejects.tsv"
    if corpus.rejects:
        write_text(path, "".join("\t".join(field.translate(ESCAPES) for field in fields) + "\n"
                                 for fields in corpus.rejects))
    else:
        path.unlink(missing_ok=True)


def write_corpus(corpus: Corpus) -> None:
    """Write a data directory with durations for every set, and the trials of those held out.

    Raises:
        ValueError: the corpus has errors.
    """
    if corpus.errors:
        raise ValueError("; ".join(corpus.errors))
    for name in corpus.sets:
        path, own = corpus.wishes.out / name, corpus.of_set(name)
        write_data_dir(path, {utt: one.wav for utt, one in own.items()},
                       {utt: one.speaker for utt, one in own.items()}, corpus.genders)
        write_table(path / "utt2dur", {u: f"{one.measure.seconds:.4f}" for u, one in own.items()})
        if name in corpus.trials:
            write_trials(path / "trials" / f"{name}.kaldi", corpus.trials[name])
