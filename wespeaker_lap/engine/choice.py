"""Which epochs of a training were the best, by what it noted in metrics.jsonl."""

import math
from collections.abc import Mapping
from pathlib import Path

from wespeaker_lap.io.metrics import FILE, read_records


def read_eers(exp_dir: str | Path) -> dict[int, float]:
    """The validation EER of every epoch that was validated.

    Args:
        exp_dir: of the training.

    Returns:
        Epoch, counted from 1 -> percent, which need not be finite; nothing without a metrics.jsonl.

    Raises:
        ValueError: an EER or epoch that is no number; names the line.
    """
    eers = {}
    for number, record in read_records(exp_dir).items():
        if not {"epoch", "valid_eer"} <= record.keys():
            continue
        try:
            eers[int(record["epoch"])] = float(record["valid_eer"])
        except (TypeError, ValueError) as error:
            raise ValueError(f"{exp_dir}/{FILE}:{number}: an epoch or valid_eer that is no number "
                             f"({error}); remove the line") from error
    return eers


def rank_epochs(eers: Mapping[int, float]) -> list[int]:
    """Sort epochs from the lowest EER upwards, the later of equal ones first.

    Those whose EER is not finite are left out.

    >>> rank_epochs({1: 4.0, 2: 3.0, 3: 4.0, 4: float("nan")})
    [2, 3, 1]
    """
    known = [epoch for epoch, eer in eers.items() if math.isfinite(eer)]
    return sorted(known, key=lambda epoch: (eers[epoch], -epoch))
