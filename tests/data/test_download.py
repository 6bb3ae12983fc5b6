"""Downloads from a server on this machine that breaks connections, and archives of every kind."""

import io
import os
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from wespeaker_lap.data.download import ATTEMPTS, check_md5, fetch, unpack

CONTENT = np.random.default_rng(0).bytes(100_000)


class Server(ThreadingHTTPServer):
    """Serves CONTENT at /file; `limit` bytes a connection, `ranges` understood or not."""

    limit: int = 10 ** 9
    ranges: bool = True
    asked: list

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        if self.path != "/file":
            self.send_error(404)
            return
        start = int(asked[6:-1]) if asked and self.server.ranges else 0
        if start and start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start:start + self.server.limit])

    def log_message(self, *_):
        """Keep the test's output clean."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as running:
        running.asked = []
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        yield running
        running.shutdown()


def test_a_file_is_fetched_once(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    assert fetch(server.url("file"), path).read_bytes() == CONTENT
    fetch(server.url("file"), path)
    assert server.asked == [None]
    assert os.listdir(path.parent) == ["file"]


def test_broken_connections_are_taken_up_where_they_broke(server: Server, tmp_path: Path) -> None:
    server.limit = 40_000
    assert fetch(server.url("file"), tmp_path / "file").read_bytes() == CONTENT
    assert server.asked == [None, "bytes=40000-", "bytes=80000-"]


def test_what_arrived_is_kept_for_the_next_run(server: Server, tmp_path: Path) -> None:
    server.limit = 100
    with pytest.raises(OSError, match=f"{100 * ATTEMPTS} bytes are kept"):
        fetch(server.url("file"), tmp_path / "file")
    assert os.listdir(tmp_path) == ["file.part"]
    server.limit = 10 ** 9
    assert fetch(server.url("file"), tmp_path / "file").read_bytes() == CONTENT
    assert server.asked[-1] == f"bytes={100 * ATTEMPTS}-"


def test_a_server_without_ranges_starts_anew(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    (tmp_path / "file.part").write_bytes(b"x" * 500)
    assert fetch(server.url("file"), tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.parametrize("part", [CONTENT, CONTENT + b"too long"])
def test_a_part_that_is_complete_or_too_long(
    server: Server, tmp_path: Path, part: bytes
) -> None:
    (tmp_path / "file.part").write_bytes(part)
    assert fetch(server.url("file"), tmp_path / "file").read_bytes() == CONTENT


def test_a_refusal_says_where_to_put_the_file(server: Server, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"404 .* put it at .*nothing"):
        fetch(server.url("nothing"), tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_no_server_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="0 bytes are kept"):
        fetch("http://127.0.0.1:1/file", tmp_path / "file")


def make_archive(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_an_archive_is_unpacked(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "a.tar.gz", {"top/x/y.txt": b"hello", "top/z": CONTENT})
    unpack(archive, "top", tmp_path / "out")
    assert (tmp_path / "out" / "x" / "y.txt").read_bytes() == b"hello"
    assert (tmp_path / "out" / "z").read_bytes() == CONTENT
    assert sorted(os.listdir(tmp_path)) == ["a.tar.gz", "out"]


def test_a_damaged_archive_leaves_nothing(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "a.tar.gz", {"top/z": CONTENT})
    whole = archive.read_bytes()
    middle = len(whole) // 2
    wrong = whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1:]
    for data in (whole[:middle], wrong, b"<html>not found</html>"):
        archive.write_bytes(data)
        with pytest.raises(ValueError, match=r"a\.tar\.gz: a damaged or unsafe archive"):
            unpack(archive, "top", tmp_path / "out")
        assert os.listdir(tmp_path) == ["a.tar.gz"]


@pytest.mark.parametrize("name", ["../evil", "top/../../evil"])
def test_a_member_outside_is_refused(tmp_path: Path, name: str) -> None:
    archive = make_archive(tmp_path / "a.tar.gz", {"top/z": b"", name: b"evil"})
    with pytest.raises(ValueError, match="unsafe"):
        unpack(archive, "top", tmp_path / "in" / "out")
    assert not list(tmp_path.rglob("evil"))


def test_wrong_content_and_full_folders_are_refused(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "a.tar.gz", {"other/z": b""})
    with pytest.raises(ValueError, match="no folder 'top'"):
        unpack(archive, "top", tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(FileExistsError, match="not empty"):
        unpack(archive, "other", tmp_path / "out")


def make_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as zipped:
        for name, data in members.items():
            zipped.writestr(name, data)
    return path


def test_a_zip_is_unpacked_in_part_or_whole(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {"top/x/y.txt": b"hello", "z": CONTENT})
    unpack(archive, "top", tmp_path / "part")
    assert (tmp_path / "part" / "x" / "y.txt").read_bytes() == b"hello"
    unpack(archive, ".", tmp_path / "whole")
    assert (tmp_path / "whole" / "top" / "x" / "y.txt").read_bytes() == b"hello"
    assert (tmp_path / "whole" / "z").read_bytes() == CONTENT
    assert sorted(os.listdir(tmp_path)) == ["a.zip", "part", "whole"]


def test_a_bad_zip_leaves_nothing(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {"top/z": CONTENT})
    whole = archive.read_bytes()
    wrong = whole[:5000] + bytes([whole[5000] ^ 255]) + whole[5001:]
    for data in (wrong, whole[:5000]):
        archive.write_bytes(data)
        with pytest.raises(ValueError, match=r"a\.zip: a damaged or unsafe archive"):
            unpack(archive, "top", tmp_path / "out")
        assert os.listdir(tmp_path) == ["a.zip"]
    archive = make_zip(tmp_path / "a.zip", {"top/z": b"", "../../evil": b"evil"})
    unpack(archive, "top", tmp_path / "in" / "out")
    assert not list(tmp_path.rglob("evil"))


def test_a_checksum(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    check_md5(tmp_path / "a", "900150983cd24fb0d6963f7d28e17f72")  # RFC 1321, appendix A.5
    with pytest.raises(ValueError, match=r"a: md5 is 9001.*, published is 0000.*; delete the file"):
        check_md5(tmp_path / "a", "0" * 32)
