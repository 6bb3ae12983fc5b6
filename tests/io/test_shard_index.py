"""The index of a shard, byte by byte as its format says, with zlib's checksums."""

import struct
import zlib

import numpy as np
import pytest

from wespeaker_lap.io.shard_index import (
    IndexedEntry,
    find_bad_blocks,
    read_index,
    read_places,
    sum_blocks,
    write_index,
)

BLOCK = 65536
BYTES = np.random.default_rng(0).bytes(2 * BLOCK + 5)
# The second entry is as long as one block, the third of three blocks.
ENTRIES = [IndexedEntry("id1/b", 6, 100, 7, [zlib.crc32(BYTES[:100])]),
           IndexedEntry("é", 109, BLOCK, 9, [zlib.crc32(BYTES[:BLOCK])]),
           IndexedEntry("语", BLOCK + 113, len(BYTES), 11,
                        [zlib.crc32(BYTES[at:at + BLOCK]) for at in (0, BLOCK, 2 * BLOCK)])]


@pytest.fixture
def path(tmp_path):
    write_index(tmp_path / "feats.00000.idx", (3, 5), ENTRIES)
    return tmp_path / "feats.00000.idx"


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 5])
def test_the_checksums_of_blocks_are_zlibs(size):
    want = [zlib.crc32(BYTES[at:min(at + BLOCK, size)]) for at in range(0, size, BLOCK)]
    assert sum_blocks(BYTES[:size]) == want
    assert sum_blocks(memoryview(np.frombuffer(BYTES, np.uint8)[:size])) == want


@pytest.mark.parametrize("cuts", [(0, 0), (1, BLOCK), (BLOCK - 1, BLOCK + 1), (5, 5),
                                  (BLOCK + 7, 2 * BLOCK), (len(BYTES), len(BYTES))])
def test_checksums_of_bytes_in_pieces(cuts):
    pieces = BYTES[:cuts[0]], BYTES[cuts[0]:cuts[1]], BYTES[cuts[1]:]
    assert sum_blocks(*pieces) == [zlib.crc32(BYTES[at:at + BLOCK])
                                   for at in range(0, len(BYTES), BLOCK)]


def test_blocks_that_differ_or_are_missing_are_found():
    sums, changed = sum_blocks(BYTES), bytearray(BYTES)
    assert find_bad_blocks(sum_blocks(BYTES), sums) == []
    changed[BLOCK] ^= 16
    assert find_bad_blocks(sum_blocks(bytes(changed)), sums) == [1]
    assert find_bad_blocks(sum_blocks(BYTES[:BLOCK]), sums) == [1, 2]
    assert find_bad_blocks(sum_blocks(BYTES[:-1]), sums) == [2]


def test_the_bytes_of_an_index(path):
    ids = "id1/b\né\n语\n".encode()
    sums = [number for entry in ENTRIES for number in entry.sums]
    body = (b"LAPIDX1\n" + struct.pack("<5Q", 3, 3, 5, BLOCK, len(ids))
            + struct.pack("<3q", 6, 109, BLOCK + 113) + struct.pack("<3q", 100, BLOCK, len(BYTES))
            + struct.pack("<3q", 7, 9, 11) + ids + struct.pack("<5I", *sums))
    assert path.read_bytes() == body + struct.pack("<I", zlib.crc32(body))


def test_what_is_read_is_what_was_written(path):
    assert read_index(path) == ((3, 5), ENTRIES)
    places = read_places(path)
    assert list(places.offsets) == [6, 109, BLOCK + 113]
    assert list(places.sizes) == [100, BLOCK, len(BYTES)]
    assert list(places.first_blocks) == [0, 1, 2]
    data = path.read_bytes()
    assert struct.unpack_from("<5I", data, places.sums_at) == tuple(
        number for entry in ENTRIES for number in entry.sums)


@pytest.mark.parametrize("read", [read_index, read_places])
def test_an_index_that_is_cut_or_changed_is_refused(path, read):
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=r"00000\.idx: damaged, or no index of this version"):
            read(path)
    body = whole[:32] + struct.pack("<Q", 4096) + whole[40:-4]
    path.write_bytes(body + struct.pack("<I", zlib.crc32(body)))
    with pytest.raises(ValueError, match=r"00000\.idx: blocks of 4096 bytes, expected 65536"):
        read(path)
