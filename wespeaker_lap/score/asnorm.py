"""Score normalisation with a cohort: S-norm and adaptive S-norm.

The cohort's mean and deviation are computed once per utterance that the trials use, never per
trial, in blocks of bounded size.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from wespeaker_lap.io.table import name_some
from wespeaker_lap.score.cosine import check_index, unit_rows

BLOCK_BYTES = 32 << 20
# Cosines are float32, with rounding errors near 1e-7: a deviation below this is no deviation.
MIN_STD = 1e-6


def speaker_means(utts: Sequence[str], emb: np.ndarray,
                  utt2spk: Mapping[str, str]) -> tuple[list[str], np.ndarray]:
    """Average the embeddings of each speaker, to be used as a cohort.

    Args:
        utts: n utterance ids.
        emb: (n, E) their embeddings, with the training mean already subtracted where it is.
        utt2spk: utterance -> speaker; may hold other utterances too.

    Returns:
        The C speakers in sorted order, and (C, E) float32, their means.

    Raises:
        ValueError: the shapes do not fit, there are no utterances, or one has no speaker.
    """
    if emb.ndim != 2 or len(emb) != len(utts) or not len(utts):
        raise ValueError(f"want embeddings ({len(utts)}, E) of at least one utterance, got "
                         f"{emb.shape}")
    unknown = [utt for utt in utts if utt not in utt2spk]
    if unknown:
        raise ValueError(f"{len(unknown)} utterances have no speaker: {name_some(unknown)}; add "
                         f"them to utt2spk")
    rows: dict[str, list[int]] = {}
    for row, utt in enumerate(utts):
        rows.setdefault(utt2spk[utt], []).append(row)
    speakers = sorted(rows)
    means = [emb[rows[speaker]].mean(axis=0, dtype=np.float64) for speaker in speakers]
    return speakers, np.stack(means).astype(np.float32)


def cohort_stats(emb: np.ndarray, cohort: np.ndarray, top_n: int,
                 rows: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each embedding's highest cohort scores.

    Args:
        emb: (n, E) embeddings.
        cohort: (C, E) cohort embeddings.
        top_n: how many of the C cosines count, 2 to C.
        rows: (k,) the rows of `emb` to look at; all n when None.

    Returns:
        mean (k,) and std (k,) float64; the deviation divides by top_n, not by top_n - 1.

    Raises:
        ValueError: the shapes or top_n do not fit, or a deviation is zero (below 1e-6).
    """
    _check_cohort(emb, cohort, top_n)
    cohort_size = len(cohort)
    cohort = unit_rows(cohort, "cohort embeddings").T  # (E, C)
    emb = unit_rows(emb)
    rows = np.arange(len(emb)) if rows is None else rows
    mean, std = np.empty(len(rows)), np.empty(len(rows))
    num_rows = max(1, BLOCK_BYTES // (4 * cohort_size))
    for start in range(0, len(rows), num_rows):
        block = slice(start, start + num_rows)
        cosines = emb[rows[block]] @ cohort  # (rows, C)
        if top_n < cohort_size:
            cosines.partition(cohort_size - top_n, axis=1)
        top = cosines[:, cohort_size - top_n:].astype(np.float64)  # (rows, top_n)
        mean[block], std[block] = top.mean(axis=1), top.std(axis=1)
    flat = rows[std < MIN_STD]
    if flat.size:
        raise ValueError(f"the top {top_n} cohort scores of {flat.size} embeddings do not differ, "
                         f"at rows {name_some(map(str, flat))}; does the cohort hold duplicates?")
    return mean, std


def _check_cohort(emb: np.ndarray, cohort: np.ndarray, top_n: int) -> None:
    if cohort.ndim != 2 or emb.ndim != 2 or emb.shape[1] != cohort.shape[1]:
        raise ValueError(f"want embeddings (n, E) and a cohort (C, E), got {emb.shape}, "
                         f"{cohort.shape}")
    if top_n < 2:
        raise ValueError(f"want top_n of 2 or more, got {top_n}")
    if top_n > len(cohort):
        raise ValueError(f"top_n is {top_n} but the cohort has {len(cohort)} speakers; pass "
                         f"top_n={len(cohort)} or less, or a larger cohort")


def as_norm(scores: np.ndarray, enroll: np.ndarray, test: np.ndarray, enroll_index: np.ndarray,
            test_index: np.ndarray, cohort: np.ndarray, top_n: int = 300) -> np.ndarray:
    """Adaptive symmetric normalisation of cosine scores.

    `((s - mean_e) / std_e + (s - mean_t) / std_t) / 2`, where mean and std are those of the
    top_n cohort scores of the enrolment and of the test embedding, each with its own selection.
    Source: Matejka et al., "Analysis of score normalization in multilingual speaker recognition"
    (Interspeech 2017), adaptive S-norm 1.

    Args:
        scores: (n,) cosine scores.
        enroll: (n_e, E) embeddings, one row an utterance; the mean is subtracted alike here, in
            `test` and in `cohort`.
        test: (n_t, E) embeddings; when it is the same array, no utterance is looked at twice.
        enroll_index: (n,) row of each trial's enrolment side.
        test_index: (n,) row of each trial's test side.
        cohort: (C, E) cohort embeddings, usually speaker means of the training set.
        top_n: how many cohort scores count, 2 to C.

    Returns:
        (n,) float64, in standard deviations, no longer within [-1, 1].

    Raises:
        ValueError: the shapes or top_n do not fit, or as `cohort_stats`.
    """
    check_index(enroll, test, enroll_index, test_index)
    if scores.shape != enroll_index.shape:
        raise ValueError(f"want scores {enroll_index.shape}, got {scores.shape}")
    if test is enroll:
        both = np.concatenate([enroll_index, test_index])
        mean, std = _stats_of_trials(enroll, both, cohort, top_n)
        mean_e, mean_t = np.split(mean, 2)
        std_e, std_t = np.split(std, 2)
    else:
        mean_e, std_e = _stats_of_trials(enroll, enroll_index, cohort, top_n)
        mean_t, std_t = _stats_of_trials(test, test_index, cohort, top_n)
    return 0.5 * ((scores - mean_e) / std_e + (scores - mean_t) / std_t)


def s_norm(scores: np.ndarray, enroll: np.ndarray, test: np.ndarray, enroll_index: np.ndarray,
           test_index: np.ndarray, cohort: np.ndarray) -> np.ndarray:
    """Symmetric normalisation: `as_norm` with the whole cohort.

    Source: Kenny, "Bayesian speaker verification with heavy-tailed priors" (Odyssey 2010).

    Args:
        scores: (n,) cosine scores.
        enroll: (n_e, E) embeddings.
        test: (n_t, E) embeddings.
        enroll_index: (n,) row of each trial's enrolment side.
        test_index: (n,) row of each trial's test side.
        cohort: (C, E) cohort embeddings.

    Returns:
        (n,) float64.

    Raises:
        ValueError: as `as_norm`.
    """
    return as_norm(scores, enroll, test, enroll_index, test_index, cohort, top_n=len(cohort))


def _stats_of_trials(emb: np.ndarray, index: np.ndarray, cohort: np.ndarray,
                     top_n: int) -> tuple[np.ndarray, np.ndarray]:
    """Cohort mean and deviation for every entry of `index`, computed once per row of `emb`."""
    used, place = np.unique(index, return_inverse=True)
    mean, std = cohort_stats(emb, cohort, top_n, rows=used)
    return mean[place], std[place]
