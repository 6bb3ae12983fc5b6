"""Fixtures that several test files use."""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tiny import TinySystem

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


@pytest.fixture(scope="session")
def tiny_system(tmp_path_factory: pytest.TempPathFactory) -> TinySystem:
    """A small system as stages 1 to 5 leave it; what is in it must not be changed."""
    from tiny import make_system  # it takes torch, which most tests do without

    return make_system(tmp_path_factory.mktemp("system"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory of two speakers with four utterances each, not audited yet."""
    from tiny import write_voices

    return write_voices(tmp_path / "data" / "set", "ay")


@pytest.fixture
def copied(tiny_system: TinySystem, tmp_path: Path) -> Path:
    """A copy of the tiny system's experiment, somewhere else, to be changed."""
    return shutil.copytree(tiny_system.exp_dir, tmp_path / "given" / "exp")


@pytest.fixture
def lap(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture,
        caplog: pytest.LogCaptureFixture) -> Callable[..., SimpleNamespace]:
    """`lap("score", …)` is `wespeaker-lap score …` in this process: its code, out, err and log."""
    from wespeaker_lap.cli import main

    def run(*args: object) -> SimpleNamespace:
        monkeypatch.setattr(sys, "argv", ["wespeaker-lap", *map(str, args)])
        caplog.set_level(logging.INFO)
        caplog.clear()
        capsys.readouterr()
        with pytest.raises(SystemExit) as done:
            main()
        out, err = capsys.readouterr()
        return SimpleNamespace(code=done.value.code or 0, out=out, err=err, log=caplog.text)

    return run
