"""The layer-feature store: hidden states of every utterance in Kaldi ark/scp shards.

A store is a folder::

    feats.00000.ark …   one entry an utterance, time-major
    feats.00000.scp …   the entries of one shard; there only when its ark is whole
    feats.scp           all entries; there only when every shard is
    utt2num_frames      frames of every entry
    feats.json          the identity: what the numbers are, and of which data

Codecs: `float32` is a Kaldi matrix T x (L*D), `float16` is kaldiio's numpy entry (T, L, D).
`kaldiio.load_scp` reads both. Reading here never unpickles and never runs a program.
"""

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import kaldiio
import numpy as np

from wespeaker_lap.io.identity import compare_identity, read_identity
from wespeaker_lap.io.table import naming, read_table, write_table, write_text
from wespeaker_lap.io.vectors import split_entry

CODECS = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2")}
_MATRIX_HEADER = 15  # "\0BFM ", then rows and columns as "\4" + int32
_ENTRY_HEADER = 256  # a numpy entry's header is shorter than this


class FeatureWriter:
    """Write one shard of a store; it gets its final name when the `with` block ends well.

    Args:
        directory: the store's folder.
        identity: what the features are (see `FrozenSSL.identity`); JSON-able.
        codec: `float16` or `float32`.
        shard: number of the shard; None writes a store of one shard and indexes it.

    Raises:
        ValueError: unknown codec, or the folder holds features of another identity.
    """

    def __init__(self, directory: str | Path, identity: dict, codec: str = "float16",
                 shard: int | None = None):
        self.directory, self.codec, self.shard = Path(directory), codec, shard
        self.identity = start_store(directory, identity, codec)
        self.ark = self.directory / f"feats.{shard or 0:05d}.ark"
        self._entries: dict[str, str] = {}
        self._num_frames: dict[str, int] = {}

    def __enter__(self) -> "FeatureWriter":
        self._aside = self.ark.with_name(f".{self.ark.name}.tmp")
        self._file = open(self._aside, "wb")
        return self

    def write(self, utt: str, feats: np.ndarray) -> None:
        """Append the features of one utterance.

        Args:
            utt: its id, without blanks.
            feats: (T, L, D) float.

        Raises:
            ValueError: wrong shape, values that are not finite or beyond the codec's range, or
                an id that was written before.
        """
        num_layers, dim = self.identity["num_layers"], self.identity["dim"]
        if feats.ndim != 3 or feats.shape[0] == 0 or feats.shape[1:] != (num_layers, dim):
            raise ValueError(f"{utt}: want (T, {num_layers}, {dim}), got {tuple(feats.shape)}")
        if utt in self._entries or utt.split() != [utt]:
            raise ValueError(f"{self.ark}: {utt!r} was written before, or holds white space")
        with np.errstate(over="ignore"):
            stored = feats.astype(CODECS[self.codec])
        if not np.isfinite(stored).all():
            raise ValueError(f"{utt}: features that are not finite in {self.codec}; look at the "
                             f"recording, or use the codec float32")
        self._entries[utt] = f"{self.ark}:{self._file.tell() + len(utt.encode()) + 1}"
        self._num_frames[utt] = len(feats)
        with naming(self.ark):
            if self.codec == "float16":
                kaldiio.save_ark(self._file, {utt: stored}, write_function="numpy")
            else:
                kaldiio.save_ark(self._file, {utt: stored.reshape(len(feats), -1)})

    def __exit__(self, error_type, error, traceback) -> None:
        try:
            with naming(self.ark):
                self._file.close()  # a full disk may only be noticed here
            if error_type is None:
                os.replace(self._aside, self.ark)
        finally:
            self._aside.unlink(missing_ok=True)
        if error_type is not None:
            return
        write_table(self.ark.with_suffix(".num_frames"), self._num_frames)
        write_table(self.ark.with_suffix(".scp"), self._entries)  # last: the mark of a whole shard
        if self.shard is None:
            index_store(self.directory, 1)


def start_store(directory: str | Path, identity: dict, codec: str) -> dict:
    """Write a store's identity before its first shard, or check it against the one that is there.

    Returns:
        The identity with the codec.

    Raises:
        ValueError: unknown codec; the folder holds features of another identity, by field.
    """
    if codec not in CODECS:
        raise ValueError(f"unknown codec {codec!r}; choose one of {', '.join(CODECS)}")
    # Through JSON once, so that what is compared is what a later run will read.
    identity = json.loads(json.dumps({**identity, "codec": codec}))
    path = Path(directory) / "feats.json"
    if path.is_file():
        differing = compare_identity(read_identity(directory), identity)
        if differing:
            raise ValueError(f"{directory} holds features of another identity: "
                             f"{'; '.join(differing)}. Remove it, or write to another folder")
    else:
        write_text(path, json.dumps(identity, indent=1, sort_keys=True) + "\n")
    return identity


def shard_done(directory: str | Path, shard: int) -> bool:
    """Whether a shard is whole."""
    return (Path(directory) / f"feats.{shard:05d}.scp").is_file()


def index_store(directory: str | Path, num_shards: int) -> None:
    """Join the shards' tables into feats.scp and utt2num_frames.

    Raises:
        FileNotFoundError: a shard is not there yet.
        ValueError: an utterance stands in two shards.
    """
    directory = Path(directory)
    entries: dict[str, str] = {}
    num_frames: dict[str, str] = {}
    for shard in range(num_shards):
        scp = directory / f"feats.{shard:05d}.scp"
        for utt, entry in read_table(scp).items():
            if utt in entries:
                raise ValueError(f"{scp}: {utt} is in another shard too; remove {directory} and "
                                 f"run stage 2 again")
            entries[utt] = entry
        num_frames.update(read_table(scp.with_suffix(".num_frames")))
    write_table(directory / "utt2num_frames", num_frames)
    write_table(directory / "feats.scp", entries)


class FeatureStore:
    """Read a store: whole utterances, or crops at the cost of the crop's bytes.

    Safe under forked and spawned workers. An ark is looked for beside feats.scp first, so a
    store may be moved.

    Args:
        directory: the folder.

    Raises:
        FileNotFoundError, ValueError: it is no whole store; says what is missing.
    """

    def __init__(self, directory: str | Path):
        self.directory = Path(directory)
        self.identity = read_identity(directory)
        if not (self.directory / "feats.scp").is_file():
            raise FileNotFoundError(f"{self.directory}/feats.scp: no such file: the extraction was "
                                    f"not finished; run stage 2 again, it goes on where it stopped")
        self._entries = self._locate(read_table(self.directory / "feats.scp"))
        counts = read_table(self.directory / "utt2num_frames")
        if self._entries.keys() != counts.keys() or not all(map(str.isdecimal, counts.values())):
            raise ValueError(f"{self.directory}: feats.scp and utt2num_frames name different "
                             f"utterances, or a number of frames is none; remove both and run "
                             f"stage 2 again")
        self._num_frames = {utt: int(count) for utt, count in counts.items()}
        self.num_layers, self.dim = self.identity["num_layers"], self.identity["dim"]
        self.frame_bytes = self.num_layers * self.dim * CODECS[self.identity["codec"]].itemsize
        self._files: dict[Path, int] = {}

    def _locate(self, table: dict[str, str]) -> dict[str, tuple[Path, int]]:
        """Turn 'ark:offset' into a path and a number; each ark is looked for once."""
        arks: dict[str, Path] = {}
        entries = {}
        for utt, entry in table.items():
            written, _, offset = entry.rpartition(":")
            if written not in arks or not offset.isdigit():
                arks[written], _ = split_entry(self.directory / "feats.scp", utt, entry)
            entries[utt] = (arks[written], int(offset))
        return entries

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, utt: str) -> bool:
        return utt in self._entries

    def __getitem__(self, utt: str) -> np.ndarray:
        return self.read(utt)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_files": {}}  # a spawned worker opens its own

    def __del__(self) -> None:
        for descriptor in self.__dict__.get("_files", {}).values():
            os.close(descriptor)

    def num_frames(self, utt: str) -> int:
        """Frames of an utterance.

        Raises:
            KeyError: the store does not hold it.
        """
        if utt not in self._num_frames:
            raise KeyError(f"{self.directory}: no features for {utt!r}")
        return self._num_frames[utt]

    def read(self, utt: str, start: int = 0, num_frames: int | None = None,
             out: np.ndarray | None = None) -> np.ndarray:
        """Read frames `start` to `start + num_frames`; only their bytes are read.

        Args:
            utt: the utterance.
            start: first frame.
            num_frames: how many; None for all that follow.
            out: (num_frames, L, D) float32 to write into; a new array where None.

        Returns:
            (num_frames, L, D) float32.

        Raises:
            KeyError: the store does not hold it.
            ValueError: the crop reaches beyond the utterance, or the ark is cut short or of
                another shape than the index says.
        """
        total = self.num_frames(utt)
        count = total - start if num_frames is None else num_frames
        if start < 0 or count < 1 or start + count > total:
            raise ValueError(f"{self.directory}: {utt} has {total} frames, no {count} from {start}")
        path, offset = self._entries[utt]
        dtype = CODECS[self.identity["codec"]]
        frame_bytes = self.num_layers * self.dim * dtype.itemsize
        data = offset + self._header_bytes(path, offset, utt, total)
        crop = self._pread(path, utt, count * frame_bytes, data + start * frame_bytes)
        frames = np.frombuffer(crop, dtype=dtype).reshape(count, self.num_layers, self.dim)
        out = np.empty(frames.shape, np.float32) if out is None else out
        out[...] = frames
        return out

    def _header_bytes(self, path: Path, offset: int, utt: str, num_frames: int) -> int:
        """Check an entry's header against the index; returns its length in bytes."""
        codec = self.identity["codec"]
        shape, dtype, length = _parse_header(
            self._pread(path, utt, _ENTRY_HEADER, offset, whole=False))
        want = {"float32": (num_frames, self.num_layers * self.dim),
                "float16": (num_frames, self.num_layers, self.dim)}[codec]
        if shape != want or dtype != CODECS[codec]:
            raise ValueError(f"{path}: {utt} at byte {offset} is no {codec} entry of shape {want}; "
                             f"{_how_to_mend(path)}")
        return length

    def _pread(self, path: Path, utt: str, count: int, offset: int, whole: bool = True) -> bytes:
        if path not in self._files:
            self._files[path] = os.open(path, os.O_RDONLY)
        data = part = os.pread(self._files[path], count, offset)
        while whole and part and len(data) < count:  # one call gives 2 GiB at most
            part = os.pread(self._files[path], count - len(data), offset + len(data))
            data += part
        if whole and len(data) != count:
            raise ValueError(f"{path}: cut short in the middle of {utt}; {_how_to_mend(path)}")
        return data


def _parse_header(head: bytes) -> tuple[tuple[int, ...], np.dtype | None, int]:
    """Shape, type and header bytes of a Kaldi matrix or numpy entry; a type of None: neither."""
    try:
        if head.startswith(b"\0BFM \4") and len(head) >= _MATRIX_HEADER:
            shape = tuple(int.from_bytes(head[at:at + 4], "little") for at in (6, 11))
            return shape, CODECS["float32"], _MATRIX_HEADER
        if head.startswith(b"NPY"):
            before = 4 + head[3]  # kaldiio's own length field
            npy = io.BytesIO(head[before:])
            if np.lib.format.read_magic(npy) == (1, 0):
                shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(npy)
                return shape, None if is_fortran else dtype, before + npy.tell()
    except (ValueError, IndexError):
        pass  # cut short, or nothing of ours
    return (), None, 0


def _how_to_mend(ark: Path) -> str:
    scp = ark.with_suffix(".scp")
    return f"remove {scp} and {ark.parent / 'feats.scp'} and run stage 2 again"
