"""The layer-feature store: hidden states of every utterance in Kaldi ark/scp shards.

A store is a folder; within a shard and among the shards, its files appear in this order::

    feats.json               the identity: what the numbers are, and of which data
    feats.00000.ark …        one entry an utterance, time-major (see `io.codecs`)
    feats.00000.idx …        where the entries are, and checksums (see `io.shard_index`)
    feats.00000.num_frames … the part of utt2num_frames
    feats.00000.scp …        the part of feats.scp; there only when the rest of the shard is whole
    utt2num_frames           frames of every entry
    feats.scp                all entries; there only when every shard is

`kaldiio.load_scp` reads feats.scp. A store without the .idx files (of an earlier version, or made
with Kaldi's tools) is read as well, but unchecked. Reading never unpickles and never runs a
program.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from wespeaker_lap.io.codecs import (
    HEADER_BYTES,
    check_header,
    crop_spans,
    decode,
    encode,
    entry_bytes,
    place_parts,
)
from wespeaker_lap.io.entry_reader import Entry, EntryReader
from wespeaker_lap.io.feats_writer import FeatureWriter, index_store, shard_done, start_store
from wespeaker_lap.io.identity import read_identity
from wespeaker_lap.io.scp_index import ScpIndex
from wespeaker_lap.io.shard_index import count_blocks, how_to_mend

__all__ = ["FeatureStore", "FeatureWriter", "as_stored", "index_store", "shard_done",
           "start_store"]


class FeatureStore:
    """Read a store: whole utterances, or crops at the cost of the crop's bytes.

    Every byte is checked against its checksum when it is first read in a process; forked workers
    share what was checked. Safe under threads, forked and spawned workers; a spawned one loads the
    tables anew. An ark is looked for beside feats.scp first, so a store may be moved.

    Args:
        directory: the folder.

    Attributes:
        identity: what feats.json says.
        codec, num_layers, dim: of them, what the entries are.
        frame_bytes: bytes of a frame on disk.

    Raises:
        FileNotFoundError, ValueError: it is no whole store; says what is missing.
    """

    def __init__(self, directory: str | Path):
        self.directory = Path(directory)
        self.identity = read_identity(directory)
        self.num_layers, self.dim = self.identity["num_layers"], self.identity["dim"]
        self.codec = self.identity["codec"]
        if not (self.directory / "feats.scp").is_file():
            raise FileNotFoundError(f"{self.directory}/feats.scp: no such file: the extraction was "
                                    f"not finished; run stage 2 again, it goes on where it stopped")
        one, two = (sum(size for _, size in crop_spans(self.codec, self._shape(2), 0, count))
                    for count in (1, 2))
        self.frame_bytes = two - one
        self._index = ScpIndex(directory)
        self._first_blocks, num_blocks = self._number_blocks()
        self._reader = EntryReader(num_blocks)

    def _number_blocks(self) -> tuple[np.ndarray, int]:
        """Number of each entry's first block among all blocks, and of all of them."""
        lengths, which = np.unique(self._index.num_frames, return_inverse=True)
        blocks = [count_blocks(entry_bytes(self.codec, self._shape(n))) for n in lengths.tolist()]
        ends = np.cumsum(np.array(blocks, np.int64)[which])
        return ends - np.array(blocks)[which], int(ends[-1]) if len(ends) else 0

    def _shape(self, num_frames: int) -> tuple[int, int, int]:
        return num_frames, self.num_layers, self.dim

    def __len__(self) -> int:
        return len(self._index)

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __contains__(self, utt: str) -> bool:
        return self._index.find(utt) >= 0

    def __getitem__(self, utt: str) -> np.ndarray:
        return self.read(utt)

    def __reduce__(self) -> tuple:
        return FeatureStore, (self.directory,)  # a million utterances load faster than they pickle

    def num_frames(self, utt: str) -> int:
        """Frames of an utterance.

        Raises:
            KeyError: the store does not hold it.
        """
        return self._index.num_frames[self._find(utt)]

    def _find(self, utt: str) -> int:
        row = self._index.find(utt)
        if row < 0:
            raise KeyError(f"{self.directory}: no features for {utt!r}")
        return row

    def read(self, utt: str, start: int = 0, num_frames: int | None = None,
             out: np.ndarray | None = None) -> np.ndarray:
        """Read frames `start` to `start + num_frames`.

        Only their bytes are read, and at the first time those of the 64 KiB blocks that they
        begin and end in, so that they can be checked.

        Args:
            utt: the utterance.
            start: first frame.
            num_frames: how many; None for all that follow.
            out: (num_frames, L, D) float32, contiguous, to write to; None for a new array.

        Returns:
            (num_frames, L, D) float32; `out` where it is given.

        Raises:
            KeyError: the store does not hold it.
            ValueError: the crop reaches beyond the utterance, `out` is of another shape or type,
                or the ark is not what was written: cut short, changed, or of another shape.
        """
        total = self.num_frames(utt)
        count = total - start if num_frames is None else num_frames
        parts, out = place_parts(self.codec, self._shape(max(count, 0)), out)
        self.read_stored(utt, start, count, parts)
        return decode(self.codec, self._shape(count), parts, out)

    def read_stored(self, utt: str, start: int, count: int, parts: Sequence[np.ndarray]) -> None:
        """Read frames `start` to `start + count` as they are stored.

        Args:
            utt: the utterance.
            start, count: frames.
            parts: for each of `crop_spans`, as many uint8 in a row; filled.

        Raises:
            KeyError, ValueError: see `read`.
        """
        entry, shape, spans = self._locate(utt, start, count)
        for (first, _), part in zip(spans, parts, strict=True):
            self._read_span(entry, shape, first, part)

    def locate(self, utt: str, start: int, count: int) -> list[tuple[Path, int, int]]:
        """Where frames `start` to `start + count` are stored: ark, first byte there, bytes.

        Raises:
            KeyError, ValueError: see `read`.
        """
        entry, _, spans = self._locate(utt, start, count)
        return [(entry.ark, entry.offset + first, size) for first, size in spans]

    def _locate(self, utt: str, start: int, count: int,
                ) -> tuple[Entry, tuple[int, int, int], list[tuple[int, int]]]:
        """The entry, its shape, and the spans of some of its frames."""
        row = self._find(utt)
        total = self._index.num_frames[row]
        if start < 0 or count < 1 or start + count > total:
            raise ValueError(f"{self.directory}: {utt} has {total} frames, no {count} from {start}")
        shape = self._shape(total)
        entry = Entry(utt, self._index.arks[self._index.ark_numbers[row]],
                      self._index.offsets[row], entry_bytes(self.codec, shape),
                      int(self._first_blocks[row]))
        return entry, shape, crop_spans(self.codec, shape, start, count)

    def _read_span(self, entry: Entry, shape: tuple[int, int, int], first: int,
                   part: np.ndarray) -> None:
        if self._reader.was_checked(entry, first, len(part)):
            self._reader.read(entry, first, part)
            return
        head = np.empty(min(HEADER_BYTES, entry.size), np.uint8)
        self._reader.read(entry, 0, head)
        try:
            check_header(self.codec, bytes(head), shape)
        except ValueError as error:
            raise ValueError(f"{entry.ark}: {entry.utt} at byte {entry.offset}: {error}; "
                             f"{how_to_mend(self.directory)}") from error
        self._reader.read_checked(entry, first, part)


def as_stored(codec: str, feats: np.ndarray) -> np.ndarray:
    """What a store gives back for some features: rounded as the codec does.

    Args:
        codec: see `io.codecs.CODECS`.
        feats: (T, L, D) float.

    Returns:
        (T, L, D) float32.

    Raises:
        ValueError: values that the codec does not hold as finite numbers.
    """
    entry, shape = memoryview(encode(codec, feats)), feats.shape
    spans = crop_spans(codec, shape, 0, len(feats))
    return decode(codec, shape, [entry[first:first + count] for first, count in spans])
