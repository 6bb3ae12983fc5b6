"""Embeddings as Kaldi float vectors in ark/scp, readable by Kaldi, WeSpeaker and kaldiio."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import kaldiio
import numpy as np

from wespeaker_lap.io.table import name_some, read_table, replacing, write_table

_HEADER = b"\0BFV \4"


def write_vectors(directory: str | Path, utts: Sequence[str], vectors: np.ndarray,
                  name: str = "xvector") -> Path:
    """Write `<name>.ark` and `<name>.scp`.

    Args:
        directory: the folder; made where it is missing.
        utts: n ids.
        vectors: (n, E) float.
        name: stem of both files.

    Returns:
        The path of the scp.

    Raises:
        ValueError: the counts differ, an id stands twice or holds white space, or an entry is
            not finite (names the ids).
    """
    vectors = np.asarray(vectors, dtype=np.float32)
    if vectors.ndim != 2 or len(utts) != len(vectors):
        raise ValueError(f"want one row of (n, E) for each of {len(utts)} ids, got {vectors.shape}")
    wrong = [utt for utt, count in Counter(utts).items() if count > 1 or utt.split() != [utt]]
    if wrong:
        raise ValueError(f"ids that stand twice or hold white space: {name_some(map(repr, wrong))}")
    broken = [utt for utt, row in zip(utts, vectors, strict=True) if not np.isfinite(row).all()]
    if broken:
        raise ValueError(f"embeddings that are not finite numbers: {name_some(broken)}")
    ark = Path(directory) / f"{name}.ark"
    entries = {}
    ark.with_suffix(".scp").unlink(missing_ok=True)  # it must never point into another ark
    with replacing(ark) as aside, open(aside, "wb") as file:
        for utt, row in zip(utts, vectors, strict=True):
            entries[utt] = f"{ark}:{file.tell() + len(utt.encode()) + 1}"
            kaldiio.save_ark(file, {utt: row})
    write_table(ark.with_suffix(".scp"), entries)
    return ark.with_suffix(".scp")


def read_vectors(scp_path: str | Path,
                 utts: Sequence[str] | None = None) -> tuple[list[str], np.ndarray]:
    """Read the vectors of an scp.

    Args:
        scp_path: `utt ark:offset` lines; an ark is looked for beside the scp first, then at the
            path as written, so that a folder may be moved.
        utts: the ids wanted, in this order; None for all.

    Returns:
        The ids, and (n, E) float32.

    Raises:
        ValueError: an id is missing, an entry is no float vector or is cut short, lengths differ.
    """
    entries = read_table(scp_path)
    wanted = list(entries) if utts is None else list(utts)
    missing = [utt for utt in wanted if utt not in entries]
    if missing:
        raise ValueError(f"{scp_path}: no vector for {name_some(missing)}")
    if not wanted:
        raise ValueError(f"{scp_path}: holds no vectors")
    arks: dict[Path, bytes] = {}
    rows = [_read_vector(arks, Path(scp_path), utt, entries[utt]) for utt in wanted]
    odd = [utt for utt, row in zip(wanted, rows, strict=True) if len(row) != len(rows[0])]
    if odd:
        raise ValueError(f"{scp_path}: vectors of another length than the first one's "
                         f"{len(rows[0])}: {name_some(odd)}")
    return wanted, np.stack(rows)


def _read_vector(arks: dict[Path, bytes], scp_path: Path, utt: str, entry: str) -> np.ndarray:
    path, offset = split_entry(scp_path, utt, entry)
    if path not in arks:
        arks[path] = path.read_bytes()
    data = arks[path]
    start = offset + len(_HEADER)
    if data[offset:start] != _HEADER:
        raise ValueError(f"{path}: no float vector at byte {offset} ({utt}); the file is not what "
                         f"{scp_path} was written for")
    length = int.from_bytes(data[start:start + 4], "little")
    end = start + 4 + 4 * length
    if length < 1 or len(data) < end:
        raise ValueError(f"{path}: cut short in the middle of {utt}; write it again")
    return np.frombuffer(data[start + 4:end], dtype="<f4")


def split_entry(scp_path: Path, utt: str, entry: str) -> tuple[Path, int]:
    """Split `path:offset` and find the file: beside the scp first, then at the path as written.

    Raises:
        ValueError: the entry has no offset (or is a pipe), or the file is in neither place.
    """
    written, _, offset = entry.rpartition(":")
    if not written or not offset.isdecimal() or len(offset) > 18:
        raise ValueError(f"{scp_path}: {utt}: expected 'ark:offset', got {entry!r}")
    beside = scp_path.parent / os.path.basename(written)
    for path in (beside, Path(written)):
        if path.is_file():
            return path, int(offset)
    raise ValueError(f"{scp_path}: {utt}: neither {beside} nor {written} exists")
