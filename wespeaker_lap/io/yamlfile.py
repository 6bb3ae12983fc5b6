"""YAML as the configuration is written in: safe, and strict about keys."""

from pathlib import Path
from typing import Any

import yaml

from wespeaker_lap.io.table import read_lines


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a file of 'key: value' lines; an empty one is an empty dict.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is not YAML, with the line, or something else than keys and values.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such configuration file")
    tree = parse_yaml("\n".join(read_lines(path)), str(path))
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ValueError(f"{path}: expected 'key: value' lines, got {type(tree).__name__}")
    return tree


def parse_yaml(text: str, source: str) -> Any:
    """Read a value from a text.

    Args:
        text: YAML.
        source: where it stands, for messages.

    Raises:
        ValueError: it is not YAML, or has a key twice.

    >>> parse_yaml("{epochs: 3}", "the example")
    {'epochs': 3}
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"{source}: not YAML: {error}") from None


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key written twice, of which plain YAML keeps the last silently."""

    def construct_mapping(self, node, deep=False):
        seen: list[Any] = []
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=deep)
            if key in seen:
                raise yaml.YAMLError(f"{key} stands twice,{key_node.start_mark}")
            seen.append(key)
        return super().construct_mapping(node, deep)
