"""Cosine scores of trials, computed once per utterance and in blocks of trials."""

from collections.abc import Sequence
from itertools import compress

import numpy as np

from wespeaker_lap.data.trials import Trials
from wespeaker_lap.io.table import name_some

TRIALS_PER_BLOCK = 1 << 14


def subtract_mean(emb: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Subtract the mean of the training embeddings.

    Args:
        emb: (n, E) embeddings.
        mean: (E,) mean embedding of the training set.

    Returns:
        (n, E) float32.

    Raises:
        ValueError: the shapes do not fit.
    """
    if emb.ndim != 2 or mean.shape != emb.shape[1:]:
        raise ValueError(f"want embeddings (n, E) and a mean (E,), got {emb.shape}, {mean.shape}")
    return emb.astype(np.float32) - mean.astype(np.float32)


def check_embeddings(utts: Sequence[str], emb: np.ndarray) -> None:
    """Check that every embedding can be compared, and name those that cannot.

    Args:
        utts: n utterance ids.
        emb: (n, E) their embeddings.

    Raises:
        ValueError: another number of rows, or rows that are all zero or not finite.
    """
    if emb.ndim != 2 or len(emb) != len(utts):
        raise ValueError(f"want embeddings ({len(utts)}, E), got {emb.shape}")
    bad = np.flatnonzero(~_is_usable(_row_norms(emb)))
    if bad.size:
        raise ValueError(f"the embeddings of {bad.size} utterances are zero or not finite: "
                         f"{name_some(utts[row] for row in bad)}; look at their audio")


def unit_rows(emb: np.ndarray, name: str = "embeddings") -> np.ndarray:
    """Scale every row to length 1.

    Args:
        emb: (n, E) embeddings.
        name: what they are, for the error message.

    Returns:
        (n, E) float32.

    Raises:
        ValueError: the shape is another, or rows are all zero or not finite.
    """
    if emb.ndim != 2:
        raise ValueError(f"want {name} (n, E), got {emb.shape}")
    norms = _row_norms(emb)
    bad = np.flatnonzero(~_is_usable(norms))
    if bad.size:
        raise ValueError(f"{bad.size} of {len(emb)} {name} are zero or not finite, at rows "
                         f"{name_some(map(str, bad))}; look at the audio they come from")
    return (emb / norms[:, None].astype(np.float32)).astype(np.float32, copy=False)


def _row_norms(emb: np.ndarray) -> np.ndarray:
    return np.sqrt(np.einsum("ij,ij->i", emb, emb, dtype=np.float64))


def _is_usable(norms: np.ndarray) -> np.ndarray:
    return np.isfinite(norms) & (norms > 0)


def index_trials(trials: Trials, utts: Sequence[str],
                 missing: str = "error") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the rows of the embedding matrix that the trials compare.

    Args:
        trials: n trials.
        utts: the utterance of each row.
        missing: what to do about trials with an utterance that has no row, "error" or "skip".

    Returns:
        enroll_index (k,) and test_index (k,), rows of the kept trials;
        kept (n,) bool, all True unless trials were skipped: the coverage is its mean.

    Raises:
        ValueError: utterances are missing (lists them), none is left, or `utts` has duplicates.

    >>> trials = Trials(["a", "a"], ["b", "c"], np.array([True, False]))
    >>> index_trials(trials, ["b", "a"], missing="skip")
    (array([1]), array([0]), array([ True, False]))
    """
    if missing not in ("error", "skip"):
        raise ValueError(f"want missing 'error' or 'skip', got {missing!r}")
    rows = {utt: row for row, utt in enumerate(utts)}
    if len(rows) != len(utts):
        raise ValueError(f"{len(utts) - len(rows)} utterances have more than one embedding")
    enroll, test = (np.array([rows.get(utt, -1) for utt in side], dtype=np.int64)
                    for side in (trials.enroll, trials.test))
    kept = (enroll >= 0) & (test >= 0)
    if missing == "error" and not kept.all():
        absent = sorted({*compress(trials.enroll, enroll < 0), *compress(trials.test, test < 0)})
        raise ValueError(f"{len(absent)} utterances in {int((~kept).sum())} of {len(trials)} "
                         f"trials have no embedding: {name_some(absent)}; extract them, or pass "
                         f"missing='skip'")
    if not kept.any():
        raise ValueError(f"none of the {len(trials)} trials has embeddings for both utterances; "
                         f"do the list and the embeddings belong together?")
    return enroll[kept], test[kept], kept


def cosine_scores(enroll: np.ndarray, test: np.ndarray, enroll_index: np.ndarray,
                  test_index: np.ndarray) -> np.ndarray:
    """Cosine similarity of every trial.

    Args:
        enroll: (n_e, E) embeddings, one row an utterance.
        test: (n_t, E) embeddings; may be the same array.
        enroll_index: (n,) row of each trial's enrolment side.
        test_index: (n,) row of each trial's test side.

    Returns:
        (n,) float64 in [-1, 1].

    Raises:
        ValueError: the shapes do not fit, or an embedding is zero or not finite.
    """
    check_index(enroll, test, enroll_index, test_index)
    is_shared = test is enroll
    enroll = unit_rows(enroll, "enrolment embeddings")
    test = enroll if is_shared else unit_rows(test, "test embeddings")
    scores = np.empty(len(enroll_index))
    for start in range(0, len(scores), TRIALS_PER_BLOCK):
        block = slice(start, start + TRIALS_PER_BLOCK)
        scores[block] = np.einsum("ij,ij->i", enroll[enroll_index[block]], test[test_index[block]])
    return scores.clip(-1, 1)


def check_index(enroll: np.ndarray, test: np.ndarray, enroll_index: np.ndarray,
                test_index: np.ndarray) -> None:
    """Check that the indices of n trials fit the two embedding matrices.

    Args:
        enroll: (n_e, E).
        test: (n_t, E).
        enroll_index: (n,) rows of `enroll`.
        test_index: (n,) rows of `test`.

    Raises:
        ValueError: a shape does not fit or an index points outside.
    """
    if enroll.ndim != 2 or test.ndim != 2 or enroll.shape[1] != test.shape[1]:
        raise ValueError(f"want embeddings (n_e, E) and (n_t, E), got {enroll.shape}, {test.shape}")
    if enroll_index.ndim != 1 or enroll_index.shape != test_index.shape:
        raise ValueError(f"want two indices (n,), got {enroll_index.shape}, {test_index.shape}")
    for name, emb, index in (("enrolment", enroll, enroll_index), ("test", test, test_index)):
        if index.size and not 0 <= index.min() <= index.max() < len(emb):
            raise ValueError(f"the {name} index runs from {index.min()} to {index.max()}, but "
                             f"there are {len(emb)} embeddings")
