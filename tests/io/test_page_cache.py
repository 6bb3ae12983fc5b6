"""What is asked of the system about its memory of files, and what its answers mean."""

import os

import pytest

from wespeaker_lap.io.open_files import OpenFiles
from wespeaker_lap.io.page_cache import drop_pages, measure_cached

PAGE = os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * PAGE)
    return path


def test_whole_pages_are_dropped(file, monkeypatch):
    asked = []
    monkeypatch.setattr(os, "posix_fadvise", lambda number, *rest: asked.append(rest),
                        raising=False)
    monkeypatch.setattr(os, "POSIX_FADV_DONTNEED", 4, raising=False)
    drop_pages(OpenFiles(), [(file, PAGE + 5, 10), (file, 2 * PAGE - 1, 2), (file, 0, PAGE)])
    assert asked == [(PAGE, PAGE, 4), (PAGE, 2 * PAGE, 4), (0, PAGE, 4)]


def test_a_system_without_these_calls(file, monkeypatch):
    monkeypatch.delattr(os, "posix_fadvise", raising=False)
    monkeypatch.delattr(os, "RWF_NOWAIT", raising=False)
    drop_pages(OpenFiles(), [(file, 0, 1)])
    assert measure_cached(OpenFiles(), [(file, 0, 1)]) is None


@pytest.mark.parametrize(("answer", "share"), [
    (lambda at: 1, 1.0), (lambda at: BlockingIOError(), 0.0), (lambda at: OSError(95, "no"), None),
    (lambda at: 1 if at < 100 * PAGE else BlockingIOError(), 0.25)])
def test_shares_from_the_systems_answers(file, monkeypatch, answer, share):
    def preadv(number, buffers, at, flags):
        assert flags == 8
        result = answer(at)
        if isinstance(result, OSError):
            raise result
        return result

    monkeypatch.setattr(os, "preadv", preadv)
    monkeypatch.setattr(os, "RWF_NOWAIT", 8, raising=False)
    spans = [(file, first * PAGE, 2) for first in (0, 100, 150, 200)]
    assert measure_cached(OpenFiles(), spans) == share


def test_on_this_machine(file):
    """Whatever it answers is a share, and nothing is lost."""
    files, data = OpenFiles(), file.read_bytes()
    for _ in range(2):
        share = measure_cached(files, [(file, first * PAGE, PAGE) for first in range(200)])
        assert share is None or 0 <= share <= 1
        drop_pages(files, [(file, 0, len(data))])
    assert file.read_bytes() == data
