"""metrics.jsonl: what a training noted, a JSON object a line."""

import json
from pathlib import Path

from wespeaker_lap.io.table import read_lines

FILE = "metrics.jsonl"


def read_records(exp_dir: str | Path) -> dict[int, dict]:
    """Read what a training noted of its steps and of its epochs.

    Args:
        exp_dir: of the training.

    Returns:
        Number of the line, from 1 -> record; that of an epoch has a key `epoch`. Lines that a kill
        has cut off are left out. Nothing where there is no metrics.jsonl: a packed model has none.
    """
    path = Path(exp_dir) / FILE
    lines = read_lines(path) if path.is_file() else []
    return {number: record for number, line in enumerate(lines, 1) if (record := _parse(line))}


def _parse(line: str) -> dict:
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}
