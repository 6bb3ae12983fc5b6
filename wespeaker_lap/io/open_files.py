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
        self._files: dict[Path, Descriptor] = {}

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
        file = self.open(path)
        whole, done = memoryview(out), 0
        while done < len(whole):  # one call gives 2 GiB at most
            part = os.preadv(file.number, [whole[done:]], offset + done)
            if not part:
                break
            done += part
        return done

    def open(self, path: Path) -> "Descriptor":
        """The open file; it stays open as long as somebody holds what is returned.

        Raises:
            OSError: it cannot be opened; names it.
        """
        file = self._files.get(path)
        if file is None:
            if len(self._files) >= self.limit:
                for oldest in [*self._files][:1]:  # of a copy: other threads open files too
                    self._files.pop(oldest, None)
            file = self._files[path] = Descriptor(path)
        return file


class Descriptor:
    """An open file; closed with its last user, so that no reader loses it to another thread.

    Attributes:
        number: of the system, for `os.pread` and its like.
    """

    def __init__(self, path: Path):
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if "number" in self.__dict__:
            os.close(self.number)
