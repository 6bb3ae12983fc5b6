"""Pieces of files, read by place: each file is opened once in a process, and stays open."""

import os
from pathlib import Path

import numpy as np

LIMIT = 512  # of the 1024 descriptors that most systems give a process


class OpenFiles:
    """Read pieces of many files.

    Reads have no common position, so that threads and forked processes may share the object.

    Args:
        limit: files kept open; beyond it the one opened first is closed when nobody reads it.
    """

    def __init__(self, limit: int = LIMIT):
        self.limit = limit
        self._files: dict[Path, _Descriptor] = {}

    def read(self, path: Path, out: np.ndarray, offset: int) -> int:
        """Fill an array with the bytes from byte `offset` on.

        Args:
            path: the file.
            out: (size,) uint8, contiguous.
            offset: the first byte.

        Returns:
            How many bytes there were; fewer than `size` only where the file ends.

        Raises:
            OSError: the file cannot be opened or read; names it.
        """
        file = self._open(path)
        whole, done = memoryview(out), 0
        while done < len(whole):  # one call gives 2 GiB at most
            part = os.preadv(file.number, [whole[done:]], offset + done)
            if not part:
                break
            done += part
        return done

    def _open(self, path: Path) -> "_Descriptor":
        file = self._files.get(path)
        if file is None:
            if len(self._files) >= self.limit:
                for oldest in [*self._files][:1]:  # of a copy: other threads open files too
                    self._files.pop(oldest, None)
            file = self._files[path] = _Descriptor(path)
        return file


class _Descriptor:
    """An open file; closed with its last user, so that no reader loses it to another thread."""

    def __init__(self, path: Path):
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if "number" in self.__dict__:
            os.close(self.number)
