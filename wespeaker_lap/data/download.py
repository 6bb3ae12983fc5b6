"""Fetch a file over HTTP, going on where an earlier run stopped, and unpack archives safely."""

import gzip
import hashlib
import http.client
import os
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from tqdm import tqdm

ATTEMPTS = 5
TIMEOUT_SECONDS = 60
BLOCK_BYTES = 1 << 18


def fetch(url: str, path: str | Path) -> Path:
    """Download a file, unless it is there already.

    The bytes go to `<path>.part`, which later calls extend, and the file gets its final name
    when it is as long as the server says.

    Args:
        url: an http or https address.
        path: the file; its folder is made.

    Returns:
        `path`.

    Raises:
        OSError: the server refuses, or the connection broke `ATTEMPTS` times.
    """
    path = Path(path)
    if path.is_file():
        return path
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    reason = "the connection ends too early"
    for _ in range(ATTEMPTS):
        try:
            total = _receive(url, part)
        except urllib.error.HTTPError as error:
            raise OSError(f"{url}: the server says {error.code} {error.reason}; fetch the file "
                          f"by other means and put it at {path}") from error
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError,
                TimeoutError) as error:
            reason = str(error)
            continue
        if total is None or _size(part) == total:
            os.replace(part, path)
            return path
    raise OSError(f"{url}: {reason}; {_size(part)} bytes are kept in {part}, the same "
                  f"command goes on from there (or put the whole file at {path})")


def _receive(url: str, part: Path) -> int | None:
    """Append to `part` what it lacks; returns the length of the whole file, None if not told."""
    have = _size(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        # Nothing is left to send: either all is here, or the part is of another file.
        total = error.headers.get("Content-Range", "").rpartition("/")[2]
        if total == str(have):
            return have
        part.write_bytes(b"")
        raise ConnectionError(f"{part} was longer than the file and is started anew") from error
    with response:
        resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
        have = have if resumed else 0
        length = response.headers.get("Content-Length")
        total = None if length is None else have + int(length)
        with open(part, "ab" if resumed else "wb") as file, tqdm(
                total=total, initial=have, unit="B", unit_scale=True, desc=part.stem,
                disable=None) as bar:
            while block := response.read(BLOCK_BYTES):
                file.write(block)
                bar.update(len(block))
    return total


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def check_md5(path: str | Path, md5: str) -> None:
    """Refuse a download that is not the published file.

    Args:
        path: the file.
        md5: 32 hexadecimal digits, as the publisher gives them.

    Raises:
        ValueError: the file has another checksum.
    """
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    if digest.hexdigest() != md5:
        raise ValueError(f"{path}: md5 is {digest.hexdigest()}, published is {md5}; delete the "
                         f"file and download it again")


def unpack(archive: str | Path, inside: str, folder: str | Path) -> None:
    """Unpack one folder of a tar or zip archive; the target appears when it is whole.

    Members that would leave the folder, devices and absolute links are refused (tarfile's
    "data" filter; zipfile keeps such names inside), and checksums are verified.

    Args:
        archive: a tar file, compressed or not, or a zip file.
        inside: the folder within the archive; `.` for all of it.
        folder: where that folder's content goes; absent or empty so far.

    Raises:
        ValueError: a damaged or unsafe archive, or one without `inside`.
        FileExistsError: `folder` holds something.
    """
    archive, folder = Path(archive), Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder}: not empty; move its content away or name another folder")
    aside = folder.with_name(f".{folder.name}.unpack")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as zipped:
                zipped.extractall(aside)
        else:
            _extract_tar(archive, aside)
        if not (aside / inside).is_dir():
            raise ValueError(f"{archive}: holds no folder {inside!r}; is it the right archive?")
        os.replace(aside / inside, folder)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error,
            gzip.BadGzipFile) as error:
        raise ValueError(f"{archive}: a damaged or unsafe archive ({error}); delete it and "
                         f"download it again") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _extract_tar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as tar:
        if hasattr(tarfile, "data_filter"):
            tar.extractall(folder, filter="data")
        else:  # Python before 3.10.12 and 3.11.4
            for member in tar:
                tar.extract(_check_plain(member), folder, set_attrs=False)
        # The members end before the compressed stream does, whose last bytes are its checksum.
        while tar.fileobj.read(BLOCK_BYTES):
            pass


def _check_plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Refuse all but files and folders inside; stricter than the filter, which knows good links."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or not (member.isreg() or member.isdir()):
        raise tarfile.TarError(f"{member.name!r} is no file or folder inside of it")
    return member
