"""How well the layers of an encoder tell speakers apart, each for itself: statistics to EER.

A layer's utterance is the mean and the standard deviation of its frames. These 2D numbers are
standardised, projected by linear discriminant analysis (LDA) and compared by cosine; the
standardisation and the LDA are learnt on other speakers than those of the trials. There is nothing
to tune and nothing random, so layers and encoders can be compared.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from wespeaker_lap.score.bootstrap import eer_interval
from wespeaker_lap.score.cosine import cosine_scores
from wespeaker_lap.score.metrics import eer

# Utterances that differ by less than this part of the frames' own size differ by the rounding of
# float32, and that is no signal. The means of mean-normalised features are such.
ROUNDING = 32 * float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class LayerRow:
    """What one layer does.

    Args:
        layer: its number; None for the mean of all layers' scores.
        eer: in percent.
        eer_ci: 95 % interval of the EER by speaker bootstrap, in percent.
        num_dims: how many of the 2D statistics are not constant; None for the mean of scores.
    """

    layer: int | None
    eer: float
    eer_ci: tuple[float, float]
    num_dims: int | None


@dataclass(frozen=True, eq=False)
class ProbeTrials:
    """The n trials of a probe, in the rows of the test set's statistics.

    Args:
        enroll_index, test_index: (n,) rows.
        labels: (n,) bool, true for target trials.
        enroll_spk, test_spk: n speaker ids, for the bootstrap.
    """

    enroll_index: np.ndarray
    test_index: np.ndarray
    labels: np.ndarray
    enroll_spk: Sequence[str]
    test_spk: Sequence[str]

    def check(self) -> None:
        """Refuse what would fail only after the encoder has done its work.

        Raises:
            ValueError: no trial of one kind, or labels that contradict the speakers.
        """
        scores = np.zeros(len(self.labels))
        eer_interval(scores, self.labels, self.enroll_spk, self.test_spk, num_resamples=1)


def measure_layers(layers: Iterable[tuple[np.ndarray, np.ndarray]], speakers: Sequence[str],
                   trials: ProbeTrials, shrinkage: float = 0.1, seed: int = 0) -> list[LayerRow]:
    """Measure every layer, and the mean of their scores where there are two or more.

    Args:
        layers: for each layer, the training utterances' statistics (n, F) and the test
            utterances' (m, F).
        speakers: n speaker ids of the training utterances.
        trials: what is compared.
        shrinkage: of the LDA, see `score_layer`.
        seed: of the bootstrap, whose draws are the same for all rows.

    Returns:
        One row a layer, then that of the mean.

    Raises:
        ValueError: as `score_layer`; names the layer.
    """
    rows: list[LayerRow] = []
    total = np.zeros(len(trials.labels))
    for layer, (train, test) in enumerate(layers):
        try:
            scores, num_dims = score_layer(train, speakers, test, trials.enroll_index,
                                           trials.test_index, shrinkage)
        except ValueError as error:
            raise ValueError(f"layer {layer}: {error}") from error
        rows.append(_measure(layer, scores, trials, num_dims, seed))
        total += scores
    if len(rows) > 1:
        rows.append(_measure(None, total / len(rows), trials, None, seed))
    return rows


def _measure(layer: int | None, scores: np.ndarray, trials: ProbeTrials, num_dims: int | None,
             seed: int) -> LayerRow:
    low, high = eer_interval(scores, trials.labels, trials.enroll_spk, trials.test_spk, seed=seed)
    return LayerRow(layer, 100 * eer(scores, trials.labels), (100 * low, 100 * high), num_dims)


def score_layer(train: np.ndarray, speakers: Sequence[str], test: np.ndarray,
                enroll_index: np.ndarray, test_index: np.ndarray,
                shrinkage: float = 0.1) -> tuple[np.ndarray, int]:
    """Cosine scores of trials after standardisation and LDA.

    The LDA keeps `min(N - 1, F)` directions. Its within-speaker covariance is shrunk towards a
    multiple of the identity: `(1 - s) S + s trace(S) / F I`.

    Args:
        train: (n, F) statistics of the training utterances: F/2 means, then F/2 deviations.
        speakers: n speaker ids.
        test: (m, F) those of the test utterances.
        enroll_index: (k,) row in `test` of each trial's enrolment side.
        test_index: (k,) row in `test` of each trial's test side.
        shrinkage: s, from 0 to 1.

    Returns:
        (k,) scores, and how many of the F dimensions are not constant: the others say nothing and
        are left out. When all are constant, every score is 0, and the EER 50 %.

    Raises:
        ValueError: the within-speaker covariance has no inverse (too little shrinkage), or a
            projection that is zero or not finite.
    """
    mean = train.mean(axis=0, dtype=np.float64)  # (F,)
    std = train.std(axis=0, dtype=np.float64)
    frame_size = np.tile(np.hypot(*np.split(mean, 2)), 2)  # of frames: sqrt(mean^2 + std^2)
    kept = std > ROUNDING * frame_size
    num_dims = int(kept.sum())
    if not num_dims:
        return np.zeros(len(enroll_index)), 0

    def standardise(stats: np.ndarray) -> np.ndarray:
        return (stats[:, kept] - mean[kept]) / std[kept]

    lda = _fit_lda(standardise(train), speakers, shrinkage)
    emb = lda.transform(standardise(test))  # (m, E)
    return cosine_scores(emb, emb, enroll_index, test_index), num_dims


def _fit_lda(train: np.ndarray, speakers: Sequence[str],
             shrinkage: float) -> LinearDiscriminantAnalysis:
    lda = LinearDiscriminantAnalysis(solver="eigen", shrinkage=shrinkage)
    try:
        return lda.fit(train, speakers)
    except np.linalg.LinAlgError as error:
        raise ValueError(f"the covariance within {len(set(speakers))} speakers of {len(train)} "
                         f"utterances has no inverse in {train.shape[1]} dimensions; pass a "
                         f"larger shrinkage than {shrinkage:g}, or more utterances") from error
