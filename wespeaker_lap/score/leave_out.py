"""AS-norm of trials between speakers of the cohort: each trial's own speakers are left out of it.

Otherwise a training speaker would find himself in his cohort, which never happens to the speakers
of a test, and the normalised scores would be others than theirs.
"""

from collections.abc import Sequence

import numpy as np

from wespeaker_lap.io.table import name_some
from wespeaker_lap.score.asnorm import BLOCK_BYTES, MIN_STD
from wespeaker_lap.score.cosine import check_index, unit_rows


def as_norm_leaving_out(scores: np.ndarray, emb: np.ndarray, speakers: Sequence[str],
                        enroll_index: np.ndarray, test_index: np.ndarray, cohort: np.ndarray,
                        cohort_speakers: Sequence[str], top_n: int = 300) -> np.ndarray:
    """Adaptive symmetric normalisation, see `asnorm.as_norm`, with a cohort for each trial.

    Args:
        scores: (n,) cosine scores.
        emb: (m, E) embeddings of the trials' utterances, the mean subtracted as in `cohort`.
        speakers: m speaker ids.
        enroll_index: (n,) row in `emb` of each trial's enrolment side.
        test_index: (n,) row in `emb` of each trial's test side.
        cohort: (C, E) cohort embeddings, one a speaker.
        cohort_speakers: C speaker ids; a trial's speakers need not be among them.
        top_n: how many of the remaining cohort scores count; all where fewer remain.

    Returns:
        (n,) float64.

    Raises:
        ValueError: the shapes do not fit, fewer than two speakers remain for a trial, or the
            cohort scores of a trial do not differ.
    """
    check_index(emb, emb, enroll_index, test_index)
    if scores.shape != enroll_index.shape or len(speakers) != len(emb):
        raise ValueError(f"want scores {enroll_index.shape} and {len(emb)} speakers, got "
                         f"{scores.shape}, {len(speakers)}")
    if len(set(cohort_speakers)) != len(cohort):
        raise ValueError(f"want a speaker of his own for each of {len(cohort)} cohort embeddings, "
                         f"got {len(set(cohort_speakers))}")
    columns = {speaker: column for column, speaker in enumerate(cohort_speakers)}
    own = np.array([columns.get(speaker, -1) for speaker in speakers])  # (m,)
    own = np.stack([own[enroll_index], own[test_index]], axis=1)  # (n, 2)
    num_left = len(cohort) - (own >= 0).sum(axis=1) + ((own[:, 0] == own[:, 1]) & (own[:, 0] >= 0))
    top_n = min(top_n, num_left.min())
    if top_n < 2:
        raise ValueError(f"AS-norm wants two speakers or more: top_n is {top_n}, of the cohort's "
                         f"{len(cohort)} {num_left.min()} are left without those of a trial")
    best, who = _rank_cohort(emb, cohort, min(top_n + 2, len(cohort)))
    stats = [_stats_without(best, who, index, own, top_n) for index in (enroll_index, test_index)]
    return 0.5 * sum((scores - mean) / std for mean, std in stats)


def _rank_cohort(emb: np.ndarray, cohort: np.ndarray, num: int) -> tuple[np.ndarray, np.ndarray]:
    """The `num` highest cohort scores of each embedding in falling order, and whose they are."""
    emb, cohort = unit_rows(emb), unit_rows(cohort, "cohort embeddings").T  # (E, C)
    best = np.empty((len(emb), num), np.float32)
    who = np.empty((len(emb), num), np.int32)
    num_rows = max(1, BLOCK_BYTES // (8 * cohort.shape[1]))
    for start in range(0, len(emb), num_rows):
        block = slice(start, start + num_rows)
        cosines = emb[block] @ cohort  # (rows, C)
        top = np.argpartition(-cosines, num - 1, axis=1)[:, :num]
        found = np.take_along_axis(cosines, top, axis=1)
        order = np.argsort(-found, axis=1)
        best[block] = np.take_along_axis(found, order, axis=1)
        who[block] = np.take_along_axis(top, order, axis=1)
    return best, who


def _stats_without(best: np.ndarray, who: np.ndarray, index: np.ndarray, own: np.ndarray,
                   top_n: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of one side's cohort scores, (n,) each, without both speakers of a trial.

    Args:
        best, who: (m, num) of `_rank_cohort`.
        index: (n,) rows of one side.
        own: (n, 2) columns of both speakers; -1 where one is not in the cohort.
        top_n: how many count.
    """
    mean, std = np.empty(len(index)), np.empty(len(index))
    num_rows = max(1, BLOCK_BYTES // (16 * best.shape[1]))
    for start in range(0, len(index), num_rows):
        block = slice(start, start + num_rows)
        left = (who[index[block], :, None] != own[block, None, :]).all(axis=2)  # (rows, num)
        counted = left & (left.cumsum(axis=1) <= top_n)
        top = best[index[block]][counted].reshape(-1, top_n).astype(np.float64)
        mean[block], std[block] = top.mean(axis=1), top.std(axis=1)
    flat = np.flatnonzero(std < MIN_STD)
    if flat.size:
        raise ValueError(f"the top {top_n} cohort scores of {flat.size} trials do not differ, the "
                         f"first at {name_some(map(str, flat), 1)}; does the cohort hold "
                         f"duplicates?")
    return mean, std
