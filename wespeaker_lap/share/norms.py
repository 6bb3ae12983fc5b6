"""What score normalisations are called, where a list has been normalised in several ways, too."""

from collections.abc import Iterable, Sequence

from wespeaker_lap.score.evaluate import ResultRow

LABELS = {"none": "cosine", "snorm": "S-norm", "asnorm": "AS-norm", "qmf": "calibrated"}


def find_several(experiments: Iterable[Sequence[ResultRow]]) -> set[str]:
    """Normalisations that an experiment has of one trial list with several cohorts or sizes.

    Seeds that each have a cohort of their own are not meant: they are one system.

    Args:
        experiments: the rows of each.
    """
    several = set()
    for rows in experiments:
        ways: dict[tuple[str, str], set[tuple]] = {}
        for row in rows:
            ways.setdefault((row.trials, row.norm), set()).add((row.cohort, row.top_n))
        several |= {norm for (_, norm), found in ways.items() if len(found) > 1}
    return several


def name_way(row: ResultRow, several: set[str]) -> str:
    """Cohort and size where they tell rows apart, as "train, top 30"; else nothing."""
    return f"{row.cohort}, top {row.top_n}" if row.norm in several else ""


def name_norm(row: ResultRow, several: set[str]) -> str:
    """What the scores of a row are called: "AS-norm", or "AS-norm (train, top 30)"."""
    way = name_way(row, several)
    return f"{LABELS[row.norm]} ({way})" if way else LABELS[row.norm]
