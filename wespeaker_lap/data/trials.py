"""Trial lists: pairs of utterances, and whether one speaker said both.

Two styles are read, `enroll test target|nontarget` (Kaldi) and `1|0 enroll test` (VoxCeleb). Lists
run to half a million lines, so whole columns are handled at once; lines are looked at one by one
only to find the bad one for the error message.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import compress
from operator import itemgetter
from pathlib import Path

import numpy as np

from wespeaker_lap.io.table import name_some, read_lines, write_text

KALDI_LABELS = {"target": True, "nontarget": False}
VOXCELEB_LABELS = {"1": True, "0": False}
EXPECTED = "'enroll test target|nontarget' or '1|0 enroll test'"


@dataclass(frozen=True, eq=False)
class Trials:
    """A trial list of n pairs.

    Args:
        enroll: n utterance ids.
        test: n utterance ids.
        labels: (n,) bool, True where both are of one speaker (a target trial).

    Raises:
        ValueError: the three differ in length, or the labels are not bool.

    >>> trials = Trials(["a1", "a1"], ["a2", "b1"], np.array([True, False]))
    >>> len(trials), trials.num_target, trials.num_nontarget
    (2, 1, 1)
    """

    enroll: list[str]
    test: list[str]
    labels: np.ndarray

    def __post_init__(self):
        if self.labels.dtype != bool or self.labels.shape != (len(self.enroll),):
            raise ValueError(f"want labels ({len(self.enroll)},) bool, got "
                             f"{self.labels.shape} {self.labels.dtype}")
        if len(self.test) != len(self.enroll):
            raise ValueError(f"{len(self.enroll)} enrolment ids but {len(self.test)} test ids")

    def __len__(self) -> int:
        return len(self.enroll)

    @property
    def num_target(self) -> int:
        """Number of trials of one speaker."""
        return int(self.labels.sum())

    @property
    def num_nontarget(self) -> int:
        """Number of trials of two speakers."""
        return len(self) - self.num_target

    def select(self, kept: np.ndarray) -> "Trials":
        """Keep the trials where `kept` (n,) bool is True."""
        return Trials(list(compress(self.enroll, kept)), list(compress(self.test, kept)),
                      self.labels[kept])


def read_columns(path: str | Path, num_fields: int, expected: str) -> list[list[str]]:
    """Read a table with the same number of blank-separated fields on every line.

    Args:
        path: a text file, plain or `.gz`; empty lines are passed over.
        num_fields: the number of fields.
        expected: how a line should look, for the error message.

    Returns:
        `num_fields` columns of equal length.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is empty, or a line has another number of fields; names the line.
    """
    lines = read_lines(path)
    rows = list(filter(None, map(str.split, lines)))
    if not rows:
        raise ValueError(f"{path}: the file is empty; expected lines of {expected}")
    if set(map(len, rows)) != {num_fields}:
        for number, line in enumerate(lines, 1):
            if len(line.split()) not in (0, num_fields):
                raise ValueError(f"{path}:{number}: expected {expected}, got {line!r}")
    return [list(map(itemgetter(field), rows)) for field in range(num_fields)]


def parse_labels(words: Iterable[str], names: Mapping[str, bool] = KALDI_LABELS) -> np.ndarray:
    """Turn label words into (n,) bool.

    >>> parse_labels(["target", "nontarget"])
    array([ True, False])
    """
    return np.array(list(map(names.__getitem__, words)), dtype=bool)


def read_trials(path: str | Path) -> Trials:
    """Read a trial list of either style; one file holds one style.

    Args:
        path: a text file, plain or `.gz`.

    Returns:
        The trials in the order of the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is empty, a line has another number of fields or another label, or
            the styles are mixed; names the line.
    """
    columns = read_columns(path, 3, EXPECTED)
    if KALDI_LABELS.keys() >= set(columns[2]):
        enroll, test, words = columns
        return Trials(enroll, test, parse_labels(words))
    if VOXCELEB_LABELS.keys() >= set(columns[0]):
        words, enroll, test = columns
        return Trials(enroll, test, parse_labels(words, VOXCELEB_LABELS))
    raise ValueError(_describe_bad_label(path))


def count_odd_trials(trials: Trials) -> tuple[int, int]:
    """Count trials that repeat one above them, and trials of an utterance with itself.

    The other way round it is another trial: the published list of VoxCeleb1 has such pairs.

    >>> count_odd_trials(Trials(["a", "b", "a", "b"], ["b", "a", "b", "b"], np.ones(4, bool)))
    (1, 1)
    """
    pairs = list(zip(trials.enroll, trials.test, strict=True))
    return len(pairs) - len(set(pairs)), sum(enroll == test for enroll, test in pairs)


def _describe_bad_label(path: str | Path) -> str:
    """Find the first line without a label, or the first that departs from the style before it."""
    first_style = None
    for number, line in enumerate(read_lines(path), 1):
        fields = line.split()
        if not fields:
            continue
        styles = {name for name, known in (("target|nontarget last", fields[2] in KALDI_LABELS),
                                           ("1|0 first", fields[0] in VOXCELEB_LABELS)) if known}
        if not styles:
            return f"{path}:{number}: unknown label; expected {EXPECTED}, got {line!r}"
        # A line such as `1 b target` fits both styles and decides nothing.
        if first_style and not styles & first_style:
            return (f"{path}:{number}: the style changes, the lines above have "
                    f"{first_style.pop()}, got {line!r}; write the whole list in one style")
        first_style = styles & first_style if first_style else styles
    return f"{path}: the styles are mixed; expected {EXPECTED} throughout"


def format_trials(trials: Trials) -> str:
    """Write trials as text, `enroll test target|nontarget` lines.

    >>> format_trials(Trials(["a1"], ["b1"], np.array([False])))
    'a1 b1 nontarget\\n'
    """
    words = np.where(trials.labels, "target\n", "nontarget\n").tolist()
    return "".join(map(" ".join, zip(trials.enroll, trials.test, words, strict=True)))


def write_trials(path: str | Path, trials: Trials) -> None:
    """Write a trial list in the Kaldi style, as plain text, in one piece.

    Args:
        path: the file, replaced as a whole.
        trials: what to write.

    Raises:
        ValueError: there are no trials.
    """
    if not len(trials):
        raise ValueError(f"{path}: no trials to write")
    write_text(path, format_trials(trials))


def trials_hash(trials: Trials | str | Path) -> str:
    """SHA-256 of a trial list, the same for either style and for a gzipped copy.

    Args:
        trials: the trials, or the file they stand in.

    Returns:
        64 hexadecimal digits: what `sha256sum` says of the file that `write_trials` writes.
    """
    if not isinstance(trials, Trials):
        trials = read_trials(trials)
    return hashlib.sha256(format_trials(trials).encode("utf-8")).hexdigest()


def make_trials(utt2spk: Mapping[str, str], spk2gender: Mapping[str, str] | None = None,
                seed: int = 0, max_target: int | None = None) -> Trials:
    """Make a balanced list: all target pairs and as many non-target pairs of the same gender.

    A pair is unordered, stands once, and never joins an utterance with itself. Speakers whose
    gender is not known are paired among themselves.

    Args:
        utt2spk: utterance -> speaker; its order does not matter.
        spk2gender: speaker -> gender, where known; None pairs any two speakers.
        seed: of the random draw.
        max_target: draw only so many target pairs, when there are more.

    Returns:
        The trials, sorted by gender, speaker and utterance.

    Raises:
        ValueError: fewer than two speakers, no target pair, or too few non-target pairs.
    """
    if len(set(utt2spk.values())) < 2:
        raise ValueError(f"trials need at least 2 speakers, got "
                         f"{name_some(sorted(set(utt2spk.values()))) or 'none'}; add speakers")
    # Sorted like this, the partners of an utterance that come after it lie in two runs: first
    # the rest of its speaker's utterances, then the other speakers of the same gender.
    genders = spk2gender or {}
    keys = sorted((genders.get(spk, ""), spk, utt) for utt, spk in utt2spk.items())
    after = np.arange(1, len(keys) + 1)
    speaker_end = _run_ends([key[:2] for key in keys])
    gender_end = _run_ends([key[:1] for key in keys])
    num_target = _choose_num_target(int((speaker_end - after).sum()),
                                    int((gender_end - speaker_end).sum()), max_target)
    rng = np.random.default_rng(seed)
    targets = _draw_pairs(after, speaker_end, num_target, rng)
    nontargets = _draw_pairs(speaker_end, gender_end, num_target, rng)
    first, second = np.concatenate([targets, nontargets], axis=1)
    order = np.lexsort((second, first))
    utts = list(map(itemgetter(2), keys))
    return Trials([utts[i] for i in first[order]], [utts[i] for i in second[order]],
                  order < num_target)


def _choose_num_target(num_pairs: int, num_nontarget: int, max_target: int | None) -> int:
    """How many of the target pairs to take, if there are as many non-target pairs."""
    if max_target is not None and max_target < 1:
        raise ValueError(f"want max_target >= 1, got {max_target}")
    if not num_pairs:
        raise ValueError("no target pair: every speaker has one utterance; add utterances")
    num_target = min(num_pairs, max_target or num_pairs)
    if num_nontarget < num_target:
        raise ValueError(f"only {num_nontarget} non-target pairs of the same gender for "
                         f"{num_target} target pairs; pass a smaller max_target, add speakers, or "
                         f"leave the genders out")
    return num_target


def _run_ends(values: list) -> np.ndarray:
    """For sorted values, the position after the last equal one: [a a b] -> [2 2 3]."""
    ends: dict = {}
    for position, value in enumerate(values, 1):
        ends[value] = position
    return np.array([ends[value] for value in values])


def _draw_pairs(start: np.ndarray, stop: np.ndarray, num_pairs: int,
                rng: np.random.Generator) -> np.ndarray:
    """Draw different pairs (i, j) with start[i] <= j < stop[i]; all of them when so many exist.

    The pairs are numbered through, i by i, so that a draw of different numbers is a uniform draw
    of different pairs, however few of many are wanted.

    Returns:
        (2, num_pairs) positions.
    """
    offsets = np.concatenate([[0], np.cumsum(stop - start)])
    total = int(offsets[-1])
    numbers = (np.arange(total) if num_pairs == total
               else rng.choice(total, num_pairs, replace=False, shuffle=False))
    first = np.searchsorted(offsets, numbers, side="right") - 1
    return np.stack([first, start[first] + numbers - offsets[first]])
