"""feats.scp and utt2num_frames of a store in memory: some 80 bytes an utterance, in arrays.

Plain dictionaries of a million utterances take five times as much, and a forked worker that only
looks something up in one gets a copy of its own: each look-up counts a reference, and so writes.
"""

import array
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from wespeaker_lap.io.table import name_some
from wespeaker_lap.io.vectors import split_entry


class ScpIndex:
    """Where every utterance's entry is; rows are in the order of feats.scp.

    Args:
        directory: the store's folder.

    Attributes:
        arks: the files, each once.
        ark_numbers: (n,) which of them each entry is in.
        offsets: (n,) its first byte there.
        num_frames: (n,) its frames.

    Raises:
        FileNotFoundError: a table is missing.
        ValueError: a broken line; an utterance that stands twice; an ark that is in neither
            place; tables that do not agree.
    """

    def __init__(self, directory: str | Path):
        self.directory = Path(directory)
        self.arks: list[Path] = []
        self._read_scp(self.directory / "feats.scp")
        self._sort()
        self.num_frames = self._read_counts(self.directory / "utt2num_frames")

    def __len__(self) -> int:
        return len(self.offsets)

    def __iter__(self) -> Iterator[str]:
        return map(self.utt, range(len(self)))

    def utt(self, row: int) -> str:
        """The utterance of a row."""
        return self._ids[self._starts[row]:self._starts[row + 1]].decode()

    def find(self, utt: str) -> int:
        """The row of an utterance; -1 where there is none."""
        wanted = hash(utt)
        at = bisect_left(self._hashes, wanted)
        while at < len(self._hashes) and self._hashes[at] == wanted:
            row = self._order[at]
            if self.utt(row) == utt:  # two ids may have one hash
                return row
            at += 1
        return -1

    def _read_scp(self, path: Path) -> None:
        numbers: dict[str, int] = {}  # of the arks as written
        ids = bytearray()
        self._starts, self._hashes = array.array("q", [0]), array.array("q")
        self.offsets, self.ark_numbers = array.array("q"), array.array("i")
        for utt, entry in _stream_table(path):
            written, _, offset = entry.rpartition(":")
            if written not in numbers or not offset.isdecimal() or len(offset) > 18:
                ark, _ = split_entry(path, utt, entry)
                numbers[written] = len(self.arks)
                self.arks.append(ark)
            ids += utt.encode()
            self._starts.append(len(ids))
            self._hashes.append(hash(utt))
            self.offsets.append(int(offset))
            self.ark_numbers.append(numbers[written])
        self._ids = bytes(ids)

    def _sort(self) -> None:
        """Order the hashes, so that one is found by bisection; equal ids become neighbours."""
        hashes = np.frombuffer(self._hashes, np.int64)
        order = np.argsort(hashes, kind="stable")
        ordered = hashes[order]
        equal = order[1:][ordered[1:] == ordered[:-1]]
        self._hashes = array.array("q", ordered.tobytes())
        self._order = array.array("I", order.astype(np.uint32).tobytes())
        twice = [utt for row in sorted(equal.tolist()) if self.find(utt := self.utt(row)) != row]
        if twice:
            raise ValueError(f"{self.directory / 'feats.scp'}: twice in this table: "
                             f"{name_some(twice)}; verify the store")

    def _read_counts(self, path: Path) -> array.array:
        counts = array.array("q", [-1]) * len(self)
        place = -1
        for place, (utt, text) in enumerate(_stream_table(path)):
            row = place if place < len(self) and self.utt(place) == utt else self.find(utt)
            count = int(text) if text.isdecimal() and len(text) < 19 else 0
            if row < 0 or counts[row] >= 0 or count < 1:
                place = -1
                break
            counts[row] = count
        if place + 1 != len(self):
            raise ValueError(f"{self.directory}: feats.scp and utt2num_frames name different "
                             f"utterances, or a number of frames is none; remove both and run "
                             f"stage 2 again")
        return counts


def _stream_table(path: Path) -> Iterator[tuple[str, str]]:
    """The lines `key value…` of a table, one by one: `read_table` for what is too large for it."""
    try:
        with open(path, encoding="utf-8", newline="\n") as lines:
            for number, line in enumerate(lines, 1):
                fields = line.split(maxsplit=1)
                if len(fields) == 2:
                    yield fields[0], fields[1].rstrip()
                elif fields:
                    raise ValueError(f"{path}:{number}: expected 'key value', got {line!r}")
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file; run stage 2 again") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not readable as UTF-8 text ({error})") from error
