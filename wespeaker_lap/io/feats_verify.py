"""Verifying a feature store: every byte of every ark, and whether index and tables agree."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from wespeaker_lap.io.codecs import HEADER_BYTES, check_header, entry_bytes
from wespeaker_lap.io.feats_writer import shard_path
from wespeaker_lap.io.identity import read_identity
from wespeaker_lap.io.scp_index import ScpIndex
from wespeaker_lap.io.shard_index import (
    BLOCK_BYTES,
    IndexedEntry,
    find_bad_blocks,
    index_path,
    read_index,
    sum_blocks,
)
from wespeaker_lap.io.table import name_some

_SHARD_FILE = re.compile(r"feats\.(\d{5,})\.(ark|idx|num_frames|scp)")
_LEFTOVER = re.compile(r"\.(feats|utt2num_frames).*\.tmp")
_READ_BLOCKS = 64  # read at a time: 4 MiB


@dataclass(frozen=True)
class Finding:
    """Something that is not as it was written.

    Attributes:
        path: the file.
        what: what is wrong with it.
        shard: number of the shard that must be written again; None for the store's own tables.
        utt: the utterance, where it is one alone.
    """

    path: Path
    what: str
    shard: int | None = None
    utt: str | None = None

    def __str__(self) -> str:
        return f"{self.path}: {f'{self.utt}: ' if self.utt else ''}{self.what}"


def verify_store(directory: str | Path) -> list[Finding]:
    """Read all of a store and list what is wrong with it.

    Finds arks that are missing or cut short; changed bytes of an entry, its header or its name;
    entries that stand twice; an index, feats.scp and utt2num_frames that do not agree; and what an
    interrupted run left behind. Not found is what no reader looks at: another kind of blank in
    a table, another name of the folder that a store was written in. Takes the memory of the tables
    and of one shard's index.

    Args:
        directory: the store's folder.

    Returns:
        What was found, by shard; nothing for a store that is whole.

    Raises:
        FileNotFoundError, ValueError: there is no readable feats.json.
    """
    directory = Path(directory)
    identity = read_identity(directory)
    codec, shape = identity["codec"], (identity["num_layers"], identity["dim"])
    found: list[Finding] = []
    joined = _load_joined(directory, found)
    seen = bytearray(len(joined) if joined else 0)  # entries that stand in an ark, by row
    for number, ark in _list_arks(directory, joined):
        entries, has_sums = _list_entries(number, ark, shape, joined, found)
        if ark.is_file() and entries is not None:
            found += _verify_ark(number, ark, codec, shape, entries, has_sums)
        if has_sums:
            found += _verify_shard_tables(number, ark, entries)
        if joined and entries is not None:
            found += _compare_joined(number, ark, entries, joined, seen)
    if joined and not all(seen):
        lost = [joined.utt(row) for row, times in enumerate(seen) if not times]
        found.append(Finding(directory / "feats.scp", f"in no ark: {name_some(lost)}"))
    leftovers = sorted(path for path in directory.iterdir() if _LEFTOVER.fullmatch(path.name))
    return found + [Finding(path, "left behind by an interrupted run") for path in leftovers]


def _load_joined(directory: Path, found: list[Finding]) -> ScpIndex | None:
    try:
        joined = ScpIndex(directory)
    except (FileNotFoundError, ValueError) as error:
        found.append(Finding(directory / "feats.scp", f"not readable ({error})"))
        return None
    if len(set(joined.arks)) < len(joined.arks):
        found.append(Finding(directory / "feats.scp", "an ark's path is written in two ways"))
    return joined


def _list_arks(directory: Path, joined: ScpIndex | None) -> list[tuple[int | None, Path]]:
    """The arks of which there is any file, and those that feats.scp names, with shard numbers."""
    names = map(_SHARD_FILE.fullmatch, sorted(path.name for path in directory.iterdir()))
    numbers = sorted({int(name[1]) for name in names if name})
    shards = {shard_path(directory, number): number for number in numbers}
    others = sorted(set(joined.arks) - shards.keys()) if joined else []
    return [(number, ark) for ark, number in shards.items()] + [(None, ark) for ark in others]


def _list_entries(number: int | None, ark: Path, shape: tuple[int, int], joined: ScpIndex | None,
                  found: list[Finding]) -> tuple[list[IndexedEntry] | None, bool]:
    """The entries an ark should hold, and whether they have checksums; None: nobody knows."""
    if not ark.is_file():
        found.append(Finding(ark, "missing", number))
    try:
        index_shape, entries = read_index(index_path(ark))
        if index_shape == shape:
            return entries, True
        found.append(Finding(index_path(ark), f"entries of (L, D) {index_shape}, feats.json says "
                                              f"{shape}", number))
    except FileNotFoundError:
        found.append(Finding(index_path(ark), "missing: the numbers of this shard cannot be "
                                              "checked; an earlier version wrote none", number))
    except ValueError:
        found.append(Finding(index_path(ark), "damaged", number))
    if joined is None:
        return None, False
    numbers = [n for n, path in enumerate(joined.arks) if path == ark]
    rows = np.flatnonzero(np.isin(joined.ark_numbers, numbers)).tolist()
    rows.sort(key=lambda row: joined.offsets[row])
    return [IndexedEntry(joined.utt(row), joined.offsets[row], 0, joined.num_frames[row], [])
            for row in rows], False


def _verify_ark(number: int | None, ark: Path, codec: str, shape: tuple[int, int],
                entries: list[IndexedEntry], has_sums: bool) -> Iterator[Finding]:
    """Names, headers and blocks of an ark from its first byte to its last."""
    size, end = ark.stat().st_size, 0
    with open(ark, "rb") as file:
        for place, entry in enumerate(entries):
            want = entry_bytes(codec, (entry.num_frames, *shape))
            entry = entry if has_sums else entry._replace(size=want)
            name = f"{entry.utt} ".encode()
            if has_sums and (entry.offset - len(name) != end or entry.size != want):
                yield Finding(ark, "not where the entry before ends, or of another length", number,
                              entry.utt)
            elif entry.end > size:
                yield Finding(ark, f"cut short here; {len(entries) - place} entries are lost",
                              number, entry.utt)
                return
            else:
                wrong = find_damage(file, codec, shape, entry, has_sums)
                if wrong:
                    yield Finding(ark, wrong, number, entry.utt)
            end = entry.end
    if has_sums and size > end:
        yield Finding(ark, f"{size - end} bytes behind the last entry", number)


def find_damage(file: BinaryIO, codec: str, shape: tuple[int, int], entry: IndexedEntry,
                has_sums: bool = True) -> str:
    """Compare an entry and the name before it with what its index says.

    Args:
        file: the ark.
        codec: of the entry.
        shape: (L, D).
        entry: what the index says.
        has_sums: whether it has checksums; the name and the header are checked anyhow.

    Returns:
        What is wrong; empty where nothing is.
    """
    name = f"{entry.utt} ".encode()
    file.seek(entry.offset - len(name))
    if file.read(len(name)) != name:
        return "another name stands before the entry"
    try:
        check_header(codec, file.read(min(HEADER_BYTES, entry.size)),
                     (entry.num_frames, *shape))
    except ValueError as error:
        return f"wrong header ({error})"
    file.seek(entry.offset)
    for first in range(0, len(entry.sums) if has_sums else 0, _READ_BLOCKS):
        sums = entry.sums[first:first + _READ_BLOCKS]
        left = entry.size - first * BLOCK_BYTES
        data = file.read(min(left, _READ_BLOCKS * BLOCK_BYTES))
        bad = find_bad_blocks(sum_blocks(data), sums)
        if bad:
            at = entry.offset + (first + bad[0]) * BLOCK_BYTES
            return f"changed in the 64 KiB from byte {at}"
    return ""


def _verify_shard_tables(number: int | None, ark: Path,
                         entries: list[IndexedEntry]) -> Iterator[Finding]:
    """The tables of a shard, letter by letter but for the folder that it was written in."""
    for suffix in (".scp", ".num_frames"):
        path = ark.with_suffix(suffix)
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            yield Finding(path, "missing", number)
            continue
        except UnicodeDecodeError:
            text = ""
        folder = text.partition("\n")[0].partition(" ")[2].rpartition("/")[0]
        written = f"{folder}/{ark.name}" if folder else ark.name
        want = {entry.utt: f"{written}:{entry.offset}" if suffix == ".scp" else entry.num_frames
                for entry in entries}
        if text != "".join(f"{utt} {want[utt]}\n" for utt in sorted(want)):
            yield Finding(path, "does not agree with the index", number)


def _compare_joined(number: int | None, ark: Path, entries: list[IndexedEntry], joined: ScpIndex,
                    seen: bytearray) -> Iterator[Finding]:
    """feats.scp and utt2num_frames against the entries of an ark."""
    differing = []
    for entry in entries:
        row = joined.find(entry.utt)
        if row >= 0 and seen[row]:
            yield Finding(ark, "in another place of the store too", number, entry.utt)
        elif row < 0 or (joined.arks[joined.ark_numbers[row]], joined.offsets[row],
                         joined.num_frames[row]) != (ark, entry.offset, entry.num_frames):
            differing.append(entry.utt)
        if row >= 0:
            seen[row] = 1
    if differing:
        yield Finding(joined.directory / "feats.scp",
                      f"it or utt2num_frames disagrees with {index_path(ark).name} on "
                      f"{name_some(differing)}")
