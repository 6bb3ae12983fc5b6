"""embeddings/<set>/weights.json: which weights a set was embedded with.

Embeddings of other weights look alike and cannot be compared; means, cohorts and classifiers are of
one network only.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from wespeaker_lap.io.table import read_lines, write_text

FILE = "weights.json"


def hash_file(path: Path) -> str:
    """SHA-256 of a file, 64 hexadecimal digits."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def forget_weights(directory: Path) -> None:
    """Before embeddings are replaced: what is killed in the middle has no weights noted."""
    (directory / FILE).unlink(missing_ok=True)


def note_weights(directory: Path, weights: Path) -> None:
    """After embeddings were written.

    Args:
        directory: of the set's embeddings.
        weights: the file they were computed with.
    """
    facts = {"weights": weights.stem, "sha256": hash_file(weights)}
    write_text(directory / FILE, json.dumps(facts, indent=1) + "\n")


def check_weights(exp_dir: Path, sets: Iterable[str | None],
                  weights: Path | None = None) -> None:
    """Refuse sets that were embedded with different weights.

    Sets of earlier versions of the toolkit, which noted no weights, pass.

    Args:
        exp_dir: of the training.
        sets: their names; None is passed over.
        weights: the file they all must be of; None for any, if it is one. Where it is missing,
            whoever loads it says so.

    Raises:
        ValueError: names a set and both weights.
    """
    wanted = None
    if weights is not None and weights.is_file():
        wanted = (str(weights), weights.stem, hash_file(weights))
    for name in dict.fromkeys(name for name in sets if name is not None):
        path = exp_dir / "embeddings" / name / FILE
        if not path.is_file():
            continue
        try:
            facts = json.loads("\n".join(read_lines(path)))
            found = (str(path.parent), facts["weights"], facts["sha256"])
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path}: not as stage 4 writes it ({error}); embed the set "
                             f"again") from error
        wanted = wanted or found
        if found[1:] != wanted[1:]:
            raise ValueError(f"{found[0]}: embedded with {_name(found)}, which cannot be compared "
                             f"with {wanted[0]}: {_name(wanted)}; embed the set again (stage 4), "
                             f"and all sets with one --checkpoint")


def _name(found: tuple[str, str, str]) -> str:
    return f"{found[1]} ({found[2][:8]})"
