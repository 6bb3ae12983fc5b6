"""Wav files that end before their header says: an interrupted copy, download or conversion."""

import os
import struct
from pathlib import Path
from typing import BinaryIO

from wespeaker_lap.io.audio import AudioError

# Who writes to a pipe does not know the size and puts 0, 0xFFFFFFFF (ffmpeg), or 0x7FFFF000 and
# what is above or, in whole blocks, just below it (sox); a block has 65535 bytes at most.
MIN_UNKNOWN_SIZE = 0x7FFFF000 - 0xFFFF
MAX_CHUNKS = 1000  # a file with more of them before its samples is left to libsndfile


def refuse_cut_wav(path: str | Path) -> None:
    """Raise on a RIFF wav that has fewer bytes of samples than its header promises.

    libsndfile takes such a file for a shorter recording. Only headers are read here. Files of
    another kind pass, and so do those whose writer did not know the size.

    Args:
        path: a file that is there.

    Raises:
        AudioError: the recording is cut short; names both numbers of bytes.
    """
    with open(path, "rb") as file:
        promised = _find_samples(file)
        there = os.fstat(file.fileno()).st_size - file.tell()
    if there < promised < MIN_UNKNOWN_SIZE:
        raise AudioError(f"{path}: cut short (the header promises {promised} bytes of samples, "
                         f"{there} are there; copy or make the file again)")


def _find_samples(file: BinaryIO) -> int:
    """Go to the first sample of a RIFF wav; the bytes that there should be, 0 where none is."""
    head = file.read(12)
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        return 0
    for _ in range(MAX_CHUNKS):
        head = file.read(8)
        if len(head) < 8:
            return 0
        kind, size = struct.unpack("<4sI", head)
        if kind == b"data":
            return size
        file.seek(size + size % 2, os.SEEK_CUR)  # chunks begin at even bytes
    return 0
