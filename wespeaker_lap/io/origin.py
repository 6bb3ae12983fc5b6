"""origin.json: where the examples of a training lie, for whoever needs some of them again.

Not in model.json, which goes along with a model: these are paths of one machine.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from wespeaker_lap.io.table import read_lines, write_text

FILE = "origin.json"


def save_origin(exp_dir: str | Path, paths: Mapping[str, str | Path | None]) -> None:
    """Note where a training's examples lie.

    Args:
        exp_dir: of the training.
        paths: by the names of the options that they were given with; None where there was none.
    """
    whole = {name: str(Path(path).resolve()) for name, path in paths.items() if path is not None}
    write_text(Path(exp_dir) / FILE, json.dumps(whole, indent=1, sort_keys=True) + "\n")


def find_origin(exp_dir: str | Path, given: Mapping[str, str | Path | None]) -> dict[str, Path]:
    """Where a training's examples are to be found.

    Args:
        exp_dir: of the training.
        given: paths that are known better, by the same names; None where the noted one counts.

    Returns:
        The paths, by their names; those alone that there are.

    Raises:
        FileNotFoundError: a path leads nowhere; names the option.
        ValueError: origin.json is not JSON.
    """
    file = Path(exp_dir) / FILE
    try:
        paths = json.loads("\n".join(read_lines(file))) if file.is_file() else {}
        paths |= {name: path for name, path in given.items() if path is not None}
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file}: not as training writes it ({error}); remove it") from error
    found = {name: Path(path) for name, path in paths.items()}
    for name, path in found.items():
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file or folder, but {exp_dir} was trained "
                                    f"from there; say where it is now with --{name}")
    return found
