"""The index of a shard: where its entries are, and a checksum of every 64 KiB of them.

`feats.00000.idx` stands beside `feats.00000.ark`; readers of Kaldi's formats do without it. All
numbers are little-endian::

    8 bytes            "LAPIDX1" and a new line
    5 x uint64         entries n, layers L, dim D, bytes of a block, bytes of the ids
    n x int64          first byte of each entry in the ark, that after "UTT "; ascending
    n x int64          bytes of each entry
    n x int64          frames T of each entry, whose shape is (T, L, D)
    ids                UTF-8, in the same order, a new line after each
    uint32 …           CRC-32 (zlib's) of every block of the first entry, then of the second …
    uint32             CRC-32 of all of the above

An entry is cut into blocks from its own first byte, its header included; the last one is shorter.
A CRC-32 notices every change that lies within 32 bits, and misses one of 4e9 others.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from isal.isal_zlib import crc32

from wespeaker_lap.io.table import replacing

BLOCK_BYTES = 1 << 16
_MAGIC = b"LAPIDX1\n"
_HEAD_BYTES = len(_MAGIC) + 5 * 8
_SUM_BYTES = 4


class IndexedEntry(NamedTuple):
    """What an index says of an entry."""

    utt: str
    offset: int  # its first byte in the ark
    size: int  # its bytes
    num_frames: int
    sums: list[int]  # of its blocks

    @property
    def end(self) -> int:
        """The first byte behind it."""
        return self.offset + self.size


class ShardPlaces(NamedTuple):
    """What a reader keeps of an index: where the entries are, and where their checksums are."""

    offsets: memoryview  # first byte of each entry in the ark; ascending
    sizes: memoryview  # bytes of each
    first_blocks: memoryview  # number of each entry's first block
    sums_at: int  # first byte of the checksums in the index


def count_blocks(size: int | np.ndarray) -> int | np.ndarray:
    """How many blocks an entry of `size` bytes has."""
    return -(-size // BLOCK_BYTES)


def sum_blocks(*pieces: bytes | memoryview) -> list[int]:
    """CRC-32 of every block of some bytes, which may lie in several pieces of memory.

    >>> sum_blocks(b"spe", b"ech") == sum_blocks(b"speech")
    True
    """
    sums, room = [], 0  # in the last block
    for piece in map(memoryview, pieces):
        while piece:
            if not room:
                sums.append(0)
                room = BLOCK_BYTES
            part, piece = piece[:room], piece[room:]
            sums[-1] = crc32(part, sums[-1])
            room -= len(part)
    return sums


def find_bad_blocks(found: list[int], sums: list[int]) -> list[int]:
    """The numbers of those blocks that differ from their checksums, or that are not there.

    Args:
        found: of the blocks as they are.
        sums: as they should be.
    """
    if found == sums:
        return []
    return [n for n, want in enumerate(sums) if n >= len(found) or found[n] != want]


def index_path(ark: Path) -> Path:
    """Where the index of an ark is."""
    return ark.with_suffix(".idx")


def how_to_mend(directory: Path) -> str:
    """What to do with a store of which a file is damaged."""
    return f"mend it with 'wespeaker-lap verify-feats {directory} --repair --data DATA'"


def write_index(path: Path, shape: tuple[int, int], entries: Sequence[IndexedEntry]) -> None:
    """Write an index in one piece.

    Args:
        path: the file.
        shape: (L, D) of every entry.
        entries: in the order of the ark.

    Raises:
        OSError: it cannot be written, for instance to a full disk; names it.
    """
    ids = "".join(f"{entry.utt}\n" for entry in entries).encode()
    places = [[getattr(entry, name) for entry in entries]
              for name in ("offset", "size", "num_frames")]
    sums = [number for entry in entries for number in entry.sums]
    data = b"".join([
        _MAGIC, np.array([len(entries), *shape, BLOCK_BYTES, len(ids)], "<u8").tobytes(),
        np.array(places, "<i8").tobytes(), ids, np.array(sums, "<u4").tobytes()])
    with replacing(path) as aside:
        aside.write_bytes(data + crc32(data).to_bytes(_SUM_BYTES, "little"))


def read_index(path: Path) -> tuple[tuple[int, int], list[IndexedEntry]]:
    """Read a whole index: (L, D), and the entries in the order of the ark.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, or of another version.
    """
    shape, places, ids, sums = _split(path)
    ends = np.cumsum(count_blocks(places[1])).tolist()
    rows = zip(ids.decode().split("\n")[:-1], *places.tolist(), [0, *ends[:-1]], ends, strict=True)
    return shape, [IndexedEntry(utt, offset, size, num_frames, sums[begin:end].tolist())
                   for utt, offset, size, num_frames, begin, end in rows]


def read_places(path: Path) -> ShardPlaces:
    """Read an index but for its ids, and leave the checksums where they are.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, or of another version.
    """
    _, (offsets, sizes, _), ids, _ = _split(path)
    first_blocks = np.cumsum(count_blocks(sizes)) - count_blocks(sizes)
    return ShardPlaces(memoryview(offsets), memoryview(sizes), memoryview(first_blocks),
                       _HEAD_BYTES + 3 * 8 * len(sizes) + len(ids))


def _split(path: Path) -> tuple[tuple[int, int], np.ndarray, bytes, np.ndarray]:
    """(L, D); offsets, sizes and frames as (3, n) int64; the ids as they stand; the checksums."""
    data = path.read_bytes()
    body, end = memoryview(data)[:-_SUM_BYTES], data[-_SUM_BYTES:]
    if (not data.startswith(_MAGIC) or len(body) < _HEAD_BYTES
            or crc32(body) != int.from_bytes(end, "little")):
        raise ValueError(f"{path}: damaged, or no index of this version; "
                         f"{how_to_mend(path.parent)}")
    head = np.frombuffer(body[len(_MAGIC):_HEAD_BYTES], "<u8").tolist()
    count, num_layers, dim, block_bytes, id_bytes = head
    if block_bytes != BLOCK_BYTES:
        raise ValueError(f"{path}: blocks of {block_bytes} bytes, expected {BLOCK_BYTES}; "
                         f"{how_to_mend(path.parent)}")
    ids_at = _HEAD_BYTES + 3 * 8 * count
    places = np.frombuffer(body[_HEAD_BYTES:ids_at], "<i8").reshape(3, count).copy()
    ids = bytes(body[ids_at:ids_at + id_bytes])
    return (num_layers, dim), places, ids, np.frombuffer(body[ids_at + id_bytes:], "<u4")
