"""Published trial lists: taken over as they are, and what happens where utterances are absent."""

import gzip
from pathlib import Path

import pytest

from wespeaker_lap.data.published import import_list, import_valid_list

LINES = ["a1 a2 target", "a1 b1 nontarget", "b1 b2 target"]
ALL = {"a1", "a2", "b1", "b2"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "list.kaldi.gz"
    path.write_bytes(gzip.compress(("\n".join(LINES) + "\n").encode()))
    return path


def read(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_a_complete_list(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "new" / "x.kaldi"
    assert import_list(source, ALL, target, published=3) == "3 trials (2 target)"
    assert read(target) == LINES
    assert "NOT the official 4" in import_list(source, ALL, target, published=4)
    assert [path.name for path in target.parent.iterdir()] == ["x.kaldi"]


def test_absent_utterances(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "x.kaldi"
    with pytest.raises(ValueError, match=r"1 utterances are absent: b2; .*--incomplete_lists"):
        import_list(source, ALL - {"b2"}, target)
    assert not target.exists()
    assert import_list(source, ALL - {"b2"}, target, "keep").endswith("absent: b2")
    assert read(target) == LINES
    assert import_list(source, ALL - {"b2"}, target, "skip").endswith("absent: b2; left out")
    assert not target.exists()  # an older one would be taken for complete


def test_training_watches_what_is_there(source: Path, tmp_path: Path) -> None:
    target, watched = tmp_path / "x.kaldi", tmp_path / "valid.kaldi"
    import_valid_list(source, ALL, target)
    assert read(target) == read(watched) == LINES
    import_valid_list(source, ALL - {"a2"}, target, "keep")
    assert read(target) == LINES and read(watched) == LINES[1:]
    watched.unlink()
    import_valid_list(source, ALL - {"a2"}, target, "skip")
    assert not target.exists() and not watched.exists()
