"""What several tests check alike: how the command line refuses, what is in a folder."""

import re
from pathlib import Path
from types import SimpleNamespace


def snapshot(directory: Path) -> dict[str, bytes]:
    """Every file below a folder with its content."""
    return {str(path.relative_to(directory)): path.read_bytes()
            for path in sorted(directory.rglob("*")) if path.is_file()}


def assert_refused(done: SimpleNamespace, *parts: str) -> None:
    """One line on standard error with all the parts, and exit code 1."""
    assert done.code == 1 and done.err.startswith("error: ") and "Traceback" not in done.err
    assert done.err.count("\n") == 1, done.err
    for part in parts:
        assert part in done.err, done.err


def find_absent_links(page: Path) -> list[str]:
    """Links of a Markdown page to files that are not there."""
    links = re.findall(r"\]\(([^)#\s]+)\)", page.read_text(encoding="utf-8"))
    return [link for link in links if not re.match(r"https?://", link)
            and not (page.parent / link).exists()]
