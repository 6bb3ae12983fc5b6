"""Linear calibration and fusion: numbers of a trial to its log-likelihood ratio.

The numbers may be a score and quality measures of both sides, or the scores of several systems.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.special import logit
from sklearn.linear_model import LogisticRegression

from wespeaker_lap.io.table import name_some, read_lines, write_text
from wespeaker_lap.score.metrics import check_scored

# A feature whose deviation is below this part of its size is a constant that was rounded.
MIN_RELATIVE_STD = 1e-9


@dataclass(frozen=True)
class Calibration:
    """`llr = bias + sum of weight * feature`.

    Args:
        weights: feature -> weight, in the order of the columns.
        bias: what is added.
        facts: what it was trained on, as plain JSON values.
    """

    weights: dict[str, float]
    bias: float
    facts: dict = field(default_factory=dict)

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Log-likelihood ratios of trials.

        Args:
            values: (n, F), the features in the order of `weights`.

        Returns:
            (n,) natural logarithms.

        Raises:
            ValueError: another number of features, or one that is not finite.
        """
        _check_values(values, tuple(self.weights))
        return values @ np.array(list(self.weights.values())) + self.bias


def fit_calibration(values: np.ndarray, labels: np.ndarray, names: Sequence[str],
                    c: float = 1.0, facts: Mapping | None = None) -> Calibration:
    """Train a calibration by logistic regression.

    The features are standardised, so that the penalty on the weights is the same for all. The
    log odds of the training trials are taken off, so that what remains is the ratio of likelihoods
    and not of posteriors. Source: Brummer and du Preez (2006), as in `cllr`; with quality measures,
    Mandasari et al., "Quality measure functions for calibration of speaker recognition systems in
    various duration conditions" (IEEE Trans. Audio, Speech and Language Processing, 2013).

    Args:
        values: (n, F) features of the training trials; one that never changes gets weight 0.
        labels: (n,) bool, true for target trials.
        names: F names of the features.
        c: inverse strength of the penalty; its share falls with the number of trials.
        facts: kept in the calibration.

    Returns:
        The calibration, for features that are not standardised.

    Raises:
        ValueError: shapes that do not fit, names that stand twice, a value that is not finite, or
            no target or no non-target trials.
    """
    _check_values(values, names)
    _, labels = check_scored(values[:, 0], labels)
    mean, std = values.mean(axis=0), values.std(axis=0)
    varies = std > MIN_RELATIVE_STD * (1 + np.abs(mean))
    scale = np.where(varies, std, 1.0)
    model = LogisticRegression(C=c, tol=1e-8, max_iter=10_000)
    model.fit((values - mean) / scale * varies, labels)
    weights = model.coef_[0] / scale
    bias = model.intercept_[0] - weights @ mean - logit(labels.mean())
    return Calibration(dict(zip(names, weights.tolist(), strict=True)), float(bias),
                       dict(facts or {}))


def _check_values(values: np.ndarray, names: Sequence[str]) -> None:
    if values.ndim != 2 or values.shape[1] != len(names) or not len(names):
        raise ValueError(f"want features (n, {len(names)}): {', '.join(names)}; got {values.shape}")
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise ValueError(f"features that stand twice: {name_some(twice)}; rename one of them")
    bad = [name for name, column in zip(names, values.T, strict=True)
           if not np.isfinite(column).all()]
    if bad:
        raise ValueError(f"features that are not finite numbers: {name_some(bad)}")


def save_calibration(path: str | Path, calibration: Calibration) -> None:
    """Write a calibration as JSON, in one piece."""
    text = json.dumps({"weights": calibration.weights, "bias": calibration.bias,
                       "facts": calibration.facts}, indent=1, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def load_calibration(path: str | Path) -> Calibration:
    """Read a calibration.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no JSON of a calibration.
    """
    text = "\n".join(read_lines(path))
    try:
        found = json.loads(text)
        weights = {name: float(weight) for name, weight in found["weights"].items()}
        calibration = Calibration(weights, float(found["bias"]), dict(found["facts"]))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path}: not a calibration with weights, bias and facts ({error!r}); "
                         f"train it again (stage 7)") from error
    if not np.isfinite([*weights.values(), calibration.bias]).all():
        raise ValueError(f"{path}: numbers that are not finite; train it again (stage 7)")
    return calibration
