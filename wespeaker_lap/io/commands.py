"""commands.txt: the command lines that made what is in a folder, so that it can be made again."""

import os
import shlex
import sys
from pathlib import Path

from wespeaker_lap.io.table import read_lines, write_text

FILE = "commands.txt"


def note_command(directory: str | Path) -> None:
    """Add this process's command line to a folder's list, unless it stands there already.

    Of several processes under torchrun only the first one notes it.

    Args:
        directory: of the experiment.
    """
    if os.environ.get("RANK", "0") != "0":
        return
    command = shlex.join(["wespeaker-lap", *sys.argv[1:]])
    known = read_commands(directory)
    if command not in known:
        write_text(Path(directory) / FILE, "".join(f"{line}\n" for line in [*known, command]))


def read_commands(directory: str | Path) -> list[str]:
    """The command lines noted in a folder, in the order of their first use; none without a list.

    Args:
        directory: of the experiment.
    """
    path = Path(directory) / FILE
    return read_lines(path) if path.is_file() else []
