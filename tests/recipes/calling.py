"""Recipes as a user runs them: the very same run.sh, as a program, from another folder."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]


@dataclass
class Recipe:
    """A run.sh, where it is called from, and where its outputs go.

    Attributes:
        script: the run.sh.
        folder: the working folder; data, feats and exp are made in it.
        options: given in every call, before the call's own.
    """

    script: Path
    folder: Path
    options: tuple[str, ...] = ()

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def feats(self) -> Path:
        return self.folder / "feats"

    @property
    def exp(self) -> Path:
        return self.folder / "exp"

    def command(self, *options: object) -> list[str]:
        outputs = ("--data", self.data, "--feats_dir", self.feats, "--exp_dir", self.exp)
        return ["bash", *map(str, (self.script, *outputs, *self.options, *options))]

    def call(self, *options: object) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return subprocess.run(self.command(*options), cwd=self.folder, env=make_environment(),
                              capture_output=True, text=True, check=False, timeout=300)

    def run(self, *options: object) -> subprocess.CompletedProcess[str]:
        """Run it to its end, which must be a good one."""
        done = self.call(*options)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def fail(self, *options: object) -> str:
        """Run it to its end, which must be an error; returns what it says."""
        done = self.call(*options)
        assert done.returncode != 0, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr

    def kill_when(self, happens: Callable[[], bool], *options: object) -> None:
        """Run it, and kill it and its children outright as soon as something has happened."""
        with open(self.folder / "killed.log", "wb") as log:
            process = subprocess.Popen(self.command(*options), cwd=self.folder, stdout=log,
                                       stderr=log, env=make_environment(), start_new_session=True)
            while not happens() and process.poll() is None:
                time.sleep(0.002)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            told = (self.folder / "killed.log").read_text()
            assert process.wait() == -signal.SIGKILL, f"it ended before it was killed: {told}"


def make_environment() -> dict[str, str]:
    """This interpreter, this checkout, one thread."""
    return {**os.environ, "WESPEAKER_LAP_PYTHON": sys.executable, "PYTHONPATH": str(REPO),
            "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}


def list_files(folder: Path) -> set[str]:
    """The files below a folder, as paths relative to it."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def read_times(*folders: Path) -> dict[Path, int]:
    """When each file below some folders was last written, in ns."""
    return {path: path.stat().st_mtime_ns for folder in folders for path in folder.rglob("*")
            if path.is_file()}


def find_leftovers(folder: Path) -> list[Path]:
    """Files that were written aside and never got their name."""
    return sorted(folder.rglob("*.tmp"))
