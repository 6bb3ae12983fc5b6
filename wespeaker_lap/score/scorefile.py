"""Score files: `enroll test score target|nontarget`, the score with 5 decimals."""

from pathlib import Path

import numpy as np

from wespeaker_lap.data.trials import KALDI_LABELS, Trials, parse_labels, read_columns
from wespeaker_lap.io.table import read_lines, write_text

EXPECTED = "'enroll test score target|nontarget'"


def write_scores(path: str | Path, trials: Trials, scores: np.ndarray) -> None:
    """Write scored trials in one piece, in the order of the list.

    Args:
        path: the file, replaced as a whole.
        trials: n trials.
        scores: (n,) their scores.

    Raises:
        ValueError: the numbers of trials and scores differ, there are none, or a score is not
            finite.
    """
    if scores.shape != (len(trials),) or not len(trials):
        raise ValueError(f"{path}: want a score for each of {len(trials)} trials and at least "
                         f"one, got {scores.shape}")
    bad = np.flatnonzero(~np.isfinite(scores))
    if bad.size:
        raise ValueError(f"{path}: {bad.size} scores are not finite, the first is that of "
                         f"{trials.enroll[bad[0]]} and {trials.test[bad[0]]}")
    numbers = map("{:.5f}".format, scores.tolist())
    words = np.where(trials.labels, "target\n", "nontarget\n").tolist()
    lines = map(" ".join, zip(trials.enroll, trials.test, numbers, words, strict=True))
    write_text(path, "".join(lines))


def read_scores(path: str | Path) -> tuple[Trials, np.ndarray]:
    """Read a score file.

    Args:
        path: the file.

    Returns:
        The n trials in the order of the file, and (n,) float64 scores.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is empty, or a line has another number of fields, a score that is
            not a finite number, or an unknown label; names the line.
    """
    enroll, test, numbers, words = read_columns(path, 4, EXPECTED)
    try:
        scores = np.array(list(map(float, numbers)))
        labels = parse_labels(words)
    except (ValueError, KeyError) as error:
        raise ValueError(_describe_bad_line(path)) from error
    if not np.isfinite(scores).all():
        raise ValueError(_describe_bad_line(path))
    return Trials(enroll, test, labels), scores


def _describe_bad_line(path: str | Path) -> str:
    """Find the first line whose score or label cannot be used."""
    for number, line in enumerate(read_lines(path), 1):
        fields = line.split()
        if fields and not (_is_finite_number(fields[2]) and fields[3] in KALDI_LABELS):
            return f"{path}:{number}: expected {EXPECTED} with a finite score, got {line!r}"
    return f"{path}: expected {EXPECTED} on every line"


def _is_finite_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False
