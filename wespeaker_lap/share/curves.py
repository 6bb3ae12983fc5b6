"""The course of a training, from its metrics.jsonl."""

import json
from pathlib import Path

import numpy as np

from wespeaker_lap.io.table import read_lines

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
    path = Path(exp_dir) / "metrics.jsonl"
    records = [_parse(line) for line in read_lines(path)] if path.is_file() else []
    curves = {}
    for names, of_epoch in ((STEP_VALUES, False), (EPOCH_VALUES, True)):
        for name in names:
            points = [(record["step"], record[name]) for record in records
                      if name in record and ("epoch" in record) == of_epoch]
            try:
                if points:
                    curves[name] = _thin(np.array(points, dtype=float))
            except (TypeError, ValueError) as error:
                raise ValueError(f"{path}: a {name} or step that is no number ({error}); remove "
                                 f"the line") from error
    return curves


def _parse(line: str) -> dict:
    """A record; an empty one for a line that a kill has cut off."""
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) and "step" in record else {}


def _thin(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, 2) points to at most `MAX_POINTS`, each the mean of neighbours."""
    parts = np.array_split(points, min(len(points), MAX_POINTS))
    steps, values = np.array([part.mean(axis=0) for part in parts]).T
    return steps, values
