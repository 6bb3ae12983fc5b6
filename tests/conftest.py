"""Fixtures that several test files use."""

from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repo() -> Path:
    """The root of this checkout."""
    return REPO


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real speech and official lists beside the checkout, where there is one."""
    path = REPO.parent / "shared"
    if not (path / "corpora").is_dir():
        pytest.skip("needs the folder of real speech and lists (shared/) beside the checkout")
    return path
