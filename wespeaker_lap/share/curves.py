"""The course of a training, from its metrics.jsonl."""

from pathlib import Path

import numpy as np

from wespeaker_lap.io.metrics import FILE, read_records

MAX_POINTS = 300  # of a curve; beyond that a point is the mean of several steps
STEP_VALUES = ("loss", "acc", "lr")
EPOCH_VALUES = ("valid_eer",)


def read_curves(exp_dir: str | Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Read how loss, accuracy, learning rate and validation EER went.

    Args:
        exp_dir: of the training.

    Returns:
        `loss`, `acc`, `lr` and `valid_eer` (percent), those that were noted -> steps (n,) and
        values (n,). Nothing where there is no metrics.jsonl: a packed model has none.

    Raises:
        ValueError: a value that is no number; names the file.
    """
    records = [record for record in read_records(exp_dir).values() if "step" in record]
    curves = {}
    for names, of_epoch in ((STEP_VALUES, False), (EPOCH_VALUES, True)):
        for name in names:
            points = [(record["step"], record[name]) for record in records
                      if name in record and ("epoch" in record) == of_epoch]
            try:
                if points:
                    curves[name] = _thin(np.array(points, dtype=float))
            except (TypeError, ValueError) as error:
                raise ValueError(f"{exp_dir}/{FILE}: a {name} or step that is no number "
                                 f"({error}); remove the line") from error
    return curves


def _thin(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, 2) points to at most `MAX_POINTS`, each the mean of neighbours."""
    parts = np.array_split(points, min(len(points), MAX_POINTS))
    steps, values = np.array([part.mean(axis=0) for part in parts]).T
    return steps, values
