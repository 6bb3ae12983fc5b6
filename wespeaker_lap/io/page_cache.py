"""What the system keeps of files in memory: asked and dropped as far as it lets anybody do so."""

import os
from collections.abc import Sequence
from pathlib import Path

from wespeaker_lap.io.open_files import OpenFiles

Span = tuple[Path, int, int]  # file, first byte, bytes
_PROBES = 32  # spans asked about; to ask may make the system read a little ahead


def drop_pages(files: OpenFiles, spans: Sequence[Span]) -> None:
    """Ask the system to forget some pieces of files. It need not, and nobody's data are lost.

    Args:
        files: of the process.
        spans: the pieces.
    """
    if not hasattr(os, "posix_fadvise"):
        return
    page = os.sysconf("SC_PAGE_SIZE")
    for path, first, size in spans:
        begin = first // page * page  # pages that are only named in part would stay
        end = -(-(first + size) // page) * page
        file = files.open(path)
        os.posix_fadvise(file.number, begin, end - begin, os.POSIX_FADV_DONTNEED)


def measure_cached(files: OpenFiles, spans: Sequence[Span]) -> float | None:
    """The share of some pieces of files that is in memory, from a sample; None: not to be told.

    Args:
        files: of the process.
        spans: the pieces.
    """
    if not hasattr(os, "RWF_NOWAIT") or not spans:
        return None
    asked, found = spans[::max(1, len(spans) // _PROBES)], 0
    for path, first, size in asked:
        file = files.open(path)
        try:
            found += os.preadv(file.number, [bytearray(1)], first + size // 2, os.RWF_NOWAIT)
        except BlockingIOError:  # not there without waiting
            continue
        except OSError:  # a file system that cannot tell
            return None
    return found / len(asked)
