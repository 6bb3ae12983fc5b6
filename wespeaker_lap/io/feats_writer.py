"""Writing the layer-feature store: shards under their final names only when whole, then the tables.

The files of a store, and the order in which they appear, are in `io.feats`.
"""

import json
import os
from pathlib import Path

import numpy as np

from wespeaker_lap.io.codecs import CODECS, encode
from wespeaker_lap.io.identity import compare_identity, read_identity
from wespeaker_lap.io.shard_index import IndexedEntry, index_path, sum_blocks, write_index
from wespeaker_lap.io.table import naming, read_table, write_table, write_text


class FeatureWriter:
    """Write one shard of a store; it gets its final name when the `with` block ends well.

    Args:
        directory: the store's folder.
        identity: what the features are (see `FrozenSSL.identity`); JSON-able.
        codec: see `io.codecs.CODECS`.
        shard: number of the shard; None writes a store of one shard and indexes it.

    Raises:
        ValueError: unknown codec, or the folder holds features of another identity.
    """

    def __init__(self, directory: str | Path, identity: dict, codec: str = "float16",
                 shard: int | None = None):
        self.directory, self.codec, self.shard = Path(directory), codec, shard
        self.identity = start_store(directory, identity, codec)
        self.ark = shard_path(directory, shard or 0)
        self._entries: dict[str, IndexedEntry] = {}

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
        try:
            entry = encode(self.codec, feats)
        except ValueError as error:
            raise ValueError(f"{utt}: {error}") from error
        self.write_entry(utt, entry, len(feats))

    def write_entry(self, utt: str, entry: bytes | memoryview, num_frames: int) -> None:
        """Append an entry that was encoded before, byte by byte.

        Args:
            utt: its id, without blanks.
            entry: all that follows `UTT ` in an ark.
            num_frames: its T.

        Raises:
            ValueError: the id was written before, or holds white space.
        """
        if utt in self._entries or utt.split() != [utt]:
            raise ValueError(f"{self.ark}: {utt!r} was written before, or holds white space")
        name = f"{utt} ".encode()
        offset = self._file.tell() + len(name)
        with naming(self.ark):
            self._file.write(name)
            self._file.write(entry)
        self._entries[utt] = IndexedEntry(utt, offset, len(entry), num_frames, sum_blocks(entry))

    def __exit__(self, error_type, error, traceback) -> None:
        scp = self.ark.with_suffix(".scp")
        try:
            with naming(self.ark):
                self._file.close()  # a full disk may only be noticed here
            if error_type is None:
                scp.unlink(missing_ok=True)  # it must never point into another ark
                os.replace(self._aside, self.ark)
        finally:
            self._aside.unlink(missing_ok=True)
        if error_type is not None:
            return
        entries = self._entries.values()
        shape = self.identity["num_layers"], self.identity["dim"]
        write_index(index_path(self.ark), shape, list(entries))
        write_table(self.ark.with_suffix(".num_frames"), {e.utt: e.num_frames for e in entries})
        # Last: the mark of a whole shard.
        write_table(scp, {e.utt: f"{self.ark}:{e.offset}" for e in entries})
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


def shard_path(directory: str | Path, shard: int) -> Path:
    """The ark of a shard; its tables and its index have the same stem."""
    return Path(directory) / f"feats.{shard:05d}.ark"


def shard_done(directory: str | Path, shard: int) -> bool:
    """Whether a shard is whole."""
    return shard_path(directory, shard).with_suffix(".scp").is_file()


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
        scp = shard_path(directory, shard).with_suffix(".scp")
        for utt, entry in read_table(scp).items():
            if utt in entries:
                raise ValueError(f"{scp}: {utt} is in another shard too; remove {directory} and "
                                 f"run stage 2 again")
            entries[utt] = entry
        num_frames.update(read_table(scp.with_suffix(".num_frames")))
    write_table(directory / "utt2num_frames", num_frames)
    write_table(directory / "feats.scp", entries)
