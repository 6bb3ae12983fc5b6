"""Text tables of a Kaldi data directory: one `key value…` line an entry, UTF-8, sorted by key.

Every error names the file and the line. Files appear under their final name only when whole.
"""

import errno
import gzip
import os
import zlib
from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path


def read_lines(path: str | Path) -> list[str]:
    """Read the lines of a UTF-8 text file, plain or gzipped (`.gz`), without their newlines.

    Args:
        path: the file.

    Returns:
        The lines, empty ones included; a trailing newline adds none. A byte order mark at the
        beginning is not part of the first one.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not UTF-8, or not gzip although it is called `.gz`.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError) as error:
        raise FileNotFoundError(f"{path}: no such file; check the path or run the stage that "
                                f"writes it") from error
    try:
        if path.suffix == ".gz":
            data = gzip.decompress(data)
        text = data.decode("utf-8-sig")  # editors on Windows begin files with a mark
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not readable as UTF-8 text ({error})") from error
    return text.replace("\r\n", "\n").removesuffix("\n").split("\n") if text else []


def read_table(path: str | Path) -> dict[str, str]:
    """Read a `key value…` table such as wav.scp or utt2spk.

    Args:
        path: the file; blank lines are passed over.

    Returns:
        key -> everything after the first run of blanks, in the order of the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a key without a value, or a key that stands twice; names the line.
    """
    table: dict[str, str] = {}
    for number, line in enumerate(read_lines(path), 1):
        fields = line.split(maxsplit=1)
        if not fields:
            continue
        if len(fields) != 2:
            raise ValueError(f"{path}:{number}: expected 'key value', got {line!r}")
        key, value = fields
        if key in table:
            raise ValueError(f"{path}:{number}: {key!r} stands twice; remove one of the lines")
        table[key] = value.rstrip()
    return table


def write_table(path: str | Path, table: Mapping[str, object]) -> None:
    """Write a `key value` table, sorted by key in the C locale (the order Kaldi expects).

    Args:
        path: the file, replaced as a whole.
        table: key -> value; a key must be without blanks.

    Raises:
        ValueError: a key is empty or holds white space, or a value would not be read back.
    """
    for key, value in table.items():
        if key.split() != [key]:
            raise ValueError(f"{path}: the id {key!r} is empty or holds white space; rename it")
        if not str(value).strip() or "\n" in str(value):
            raise ValueError(f"{path}: the value {value!r} of {key!r} is blank or holds a new line")
    # Sorting by code point equals sorting the UTF-8 bytes, which is what LC_ALL=C sort does.
    write_text(path, "".join(f"{key} {table[key]}\n" for key in sorted(table)))


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file in one piece: aside first, then renamed into place."""
    with replacing(path) as aside:
        Path(aside).write_text(text, encoding="utf-8")


@contextmanager
def replacing(path: str | Path):
    """Give a path to write to, and rename it to `path` when the block ends without an error.

    Args:
        path: the final name; its folder is made.

    Yields:
        The name to write to, in the same folder. It is removed when the block fails, so that
        neither a half-written nor a leftover file stays behind (a killed process leaves one that
        the next run overwrites).

    Raises:
        OSError: the file cannot be written; names it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.tmp")
    try:
        with naming(path):
            yield aside
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


@contextmanager
def naming(path: str | Path):
    """Name the file in those errors of the system that do not, such as that of a full disk.

    Args:
        path: what the block writes to.

    Raises:
        OSError: as the block did, with the path and, where the disk is full, what to do.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = "; make room and run the same command again" if full else ""
        raise OSError(f"{path}: {error.strerror}{advice}") from error


def invert(utt2spk: Mapping[str, str]) -> dict[str, list[str]]:
    """Turn utterance -> speaker into speaker -> sorted utterances.

    >>> invert({"b1": "b", "a2": "a", "a1": "a"})
    {'a': ['a1', 'a2'], 'b': ['b1']}
    """
    spk2utt: dict[str, list[str]] = {}
    for utt in sorted(utt2spk):
        spk2utt.setdefault(utt2spk[utt], []).append(utt)
    return dict(sorted(spk2utt.items()))


def name_some(names: Iterable[str], limit: int = 10) -> str:
    """Join names for a message, and say how many were left out.

    >>> name_some(["a", "b", "c"], limit=2)
    'a, b and 1 more'
    """
    names = list(names)
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
