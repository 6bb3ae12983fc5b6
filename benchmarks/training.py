"""`wespeaker-lap train` in a process of its own, as the benchmarks of trainings call it."""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from wespeaker_lap.io.metrics import read_records


def train(exp_dir: str | Path, settings: Iterable[str], *options: str) -> list[dict]:
    """Train, and end the program with what was said where that fails.

    Args:
        exp_dir: where everything goes.
        settings: of the configuration, `section.key=value`.
        options: others of the command.

    Returns:
        What was noted of the steps and of the epochs.
    """
    command = [sys.executable, "-m", "wespeaker_lap", "train", "--exp_dir", str(exp_dir), *options]
    for setting in settings:
        command += ["--set", setting]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{done.stderr}\n{' '.join(command)} failed")
    return list(read_records(exp_dir).values())
