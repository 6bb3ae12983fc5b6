"""Bytes of ark entries, checked against the shard's index when they are first read."""

import mmap
from bisect import bisect_left
from pathlib import Path
from typing import NamedTuple

import numpy as np

from wespeaker_lap.io.open_files import OpenFiles
from wespeaker_lap.io.shard_index import (
    BLOCK_BYTES,
    ShardPlaces,
    find_bad_blocks,
    how_to_mend,
    index_path,
    read_places,
    sum_blocks,
)


class Entry(NamedTuple):
    """An entry: what follows `UTT ` in an ark."""

    utt: str
    ark: Path
    offset: int  # its first byte in the ark
    size: int  # its bytes
    first_block: int  # number of its first block among those of all entries


class EntryReader:
    """Read runs of bytes of entries, with or without a check.

    A check makes a read up to a third longer, so each block is checked once: what was checked is
    remembered, in memory that forked processes share. The caller asks `was_checked` and reads
    accordingly.

    Args:
        num_blocks: that all entries have together.
    """

    def __init__(self, num_blocks: int):
        self._files = OpenFiles()
        self._places: dict[Path, ShardPlaces | None] = {}
        # A bit a block. Of two processes that set bits of one byte at once, one may lose its
        # bit, and the block is checked again.
        self._checked = mmap.mmap(-1, num_blocks // 8 + 2)

    def was_checked(self, entry: Entry, first: int, count: int) -> bool:
        """Whether bytes `first` to `first + count` of an entry were checked before."""
        place, mask = _find_bits(entry, first, count)
        bits = int.from_bytes(self._checked[place], "little")
        return bits & mask == mask

    def read(self, entry: Entry, first: int, out: np.ndarray) -> None:
        """Read the bytes of an entry from byte `first` on as they are.

        Args:
            entry: which.
            first: the first byte.
            out: (size,) uint8, contiguous; filled.

        Raises:
            OSError: the ark cannot be read.
            ValueError: it ends before.
        """
        if self._files.read(entry.ark, out, entry.offset + first) < len(out):
            raise ValueError(f"{entry.ark}: cut short in the middle of {entry.utt}; "
                             f"{how_to_mend(entry.ark.parent)}")

    def read_checked(self, entry: Entry, first: int, out: np.ndarray) -> None:
        """Read the same with the blocks around it, and check these.

        Without an index there is nothing to check against, and these bytes alone are read.

        Raises:
            OSError: the ark cannot be read.
            ValueError: it ends before, a byte of these blocks is not what was written, or the
                index is damaged or of another ark.
        """
        places = self._load_places(entry.ark)
        if places is None:
            self.read(entry, first, out)
            return
        blocks = slice(first // BLOCK_BYTES, -(-(first + len(out)) // BLOCK_BYTES))
        begin, end = blocks.start * BLOCK_BYTES, min(blocks.stop * BLOCK_BYTES, entry.size)
        # What is asked for goes where it belongs; the rest of its first and last block, aside.
        last = first + len(out)
        before, after = np.empty(first - begin, np.uint8), np.empty(end - last, np.uint8)
        for at, piece in ((begin, before), (first, out), (last, after)):
            self.read(entry, at, piece)
        bad = find_bad_blocks(sum_blocks(before, out, after),
                              self._read_sums(entry, places, blocks))
        if bad:
            at = entry.offset + begin + bad[0] * BLOCK_BYTES
            raise ValueError(f"{entry.ark}: {entry.utt} is not what was written, in the 64 KiB "
                             f"from byte {at}; {how_to_mend(entry.ark.parent)}")
        place, mask = _find_bits(entry, first, len(out))
        bits = int.from_bytes(self._checked[place], "little") | mask
        self._checked[place] = bits.to_bytes(place.stop - place.start, "little")

    def _load_places(self, ark: Path) -> ShardPlaces | None:
        if ark not in self._places:
            path = index_path(ark)
            self._places[ark] = read_places(path) if path.is_file() else None
        return self._places[ark]

    def _read_sums(self, entry: Entry, places: ShardPlaces, blocks: slice) -> list[int]:
        number = bisect_left(places.offsets, entry.offset)
        if (number == len(places.offsets) or places.offsets[number] != entry.offset
                or places.sizes[number] != entry.size):
            raise ValueError(f"{entry.ark}: {entry.utt} at byte {entry.offset} is another entry in "
                             f"{index_path(entry.ark)}; {how_to_mend(entry.ark.parent)}")
        at = places.sums_at + 4 * (places.first_blocks[number] + blocks.start)
        sums = np.empty(4 * (blocks.stop - blocks.start), np.uint8)
        self._files.read(index_path(entry.ark), sums, at)
        return sums.view("<u4").tolist()


def _find_bits(entry: Entry, first: int, count: int) -> tuple[slice, int]:
    """Where the bits of some bytes' blocks are, and which bits they are there."""
    begin = entry.first_block + first // BLOCK_BYTES
    end = entry.first_block - (-(first + count) // BLOCK_BYTES)
    place = slice(begin // 8, end // 8 + 1)
    return place, ((1 << (end - begin)) - 1) << (begin % 8)
