"""Settings: a YAML file plus dotted overrides to one frozen, strict object.

All complaints come at once, each with its place and what may have been meant.
"""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from wespeaker_lap.io.yamlfile import parse_yaml, read_yaml


class Section(BaseModel):
    """A part of the configuration: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False,
                              protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _yes_is_no_number(cls, written: Any) -> Any:
        """YAML reads `yes` and `on` as true, and Python counts true as 1."""
        if not isinstance(written, dict):
            return written
        wrong = [name for name, field in cls.model_fields.items()
                 if isinstance(written.get(name), bool) and field.annotation is not bool]
        if wrong:
            raise ValueError(f"true and false (yes, no, on, off) are no values of "
                             f"{', '.join(wrong)}")
        return written


Settings = TypeVar("Settings", bound=Section)


def load_settings(model: type[Settings], path: str | Path | None, overrides: Sequence[str],
                  aliases: Mapping[str, str] | None = None,
                  alias_values: Mapping[str, Mapping[str, str]] | None = None) -> Settings:
    """Read a YAML file and apply overrides.

    Args:
        model: what to make of it.
        path: the file; None for the defaults.
        overrides: `section.key=value` items, the value as YAML.
        aliases: other names of places, at the top level.
        alias_values: other names of values, by place.

    Raises:
        FileNotFoundError: no such file.
        ValueError: all complaints at once: unknown keys with what may have been meant, wrong
            types, values out of range, YAML that does not parse (with its line).
    """
    source, aliases = str(path) if path else "the configuration", aliases or {}
    names = alias_values or {}
    tree: dict[str, Any] = read_yaml(Path(path)) if path else {}
    for alias, place in aliases.items():
        if alias in tree:
            _put(tree, place, tree.pop(alias), names, f"{source}: {alias}", is_new=True)
    for item in overrides:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise ValueError(f"override {item!r}: expected section.key=value")
        first, dot, rest = key.partition(".")
        _put(tree, aliases.get(first, first) + dot + rest,
             parse_yaml(value, f"override {item!r}"), names, f"override {item!r}")
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        lines = "\n  ".join(_explain(problem, model, tree) for problem in error.errors())
        raise ValueError(f"{source}: {error.error_count()} mistake(s)\n  {lines}") from None


def _put(tree: dict[str, Any], dotted: str, value: Any, names: Mapping[str, Mapping[str, str]],
         source: str, is_new: bool = False) -> None:
    """Set tree[a][b][c] for 'a.b.c'; `is_new`: it must not be there yet."""
    *sections, key = dotted.split(".")
    for section in sections:
        if tree.get(section) is None:  # not there, or a section that was switched off
            tree[section] = {}
        tree = tree[section]
        if not isinstance(tree, dict):
            raise ValueError(f"{source}: {section} is a value, not a section")
    if is_new and key in tree:
        raise ValueError(f"{source} is another name of {dotted}, which is given too; keep one")
    tree[key] = names.get(dotted, {}).get(value, value) if isinstance(value, str) else value


def _explain(problem: Mapping[str, Any], model: type[BaseModel], tree: Any) -> str:
    """One pydantic complaint as a line: where, what, what to do."""
    place = [str(part) for part in problem["loc"]]
    where = ".".join(_find_written(problem, tree)) or "top level"
    if problem["type"] != "extra_forbidden":
        got = problem.get("input")
        shown = "" if isinstance(got, dict) else f" (got {got!r})"
        return f"{where}: {problem['msg'].removeprefix('Value error, ')}{shown}"
    known = _known_keys(model, place[:-1])
    close = difflib.get_close_matches(place[-1], known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
    return f"{where}: unknown key; {hint}"


def _find_written(problem: Mapping[str, Any], tree: Any) -> list[str]:
    """Where a complaint is in what was written: without the names that sections go by."""
    place = []
    for part in problem["loc"]:
        if isinstance(tree, dict) and isinstance(part, str) and part not in tree:
            if problem["type"] != "missing" or part != problem["loc"][-1]:
                continue  # a name, such as lap in model.layer_pool.lap.dropout
        elif isinstance(tree, dict):
            tree = tree[part]
        place.append(str(part))
    return place


def _known_keys(model: type[BaseModel], place: Sequence[str]) -> list[str]:
    """The keys of the section that a pydantic location leads to, through unions by name."""
    for part in place:
        if part not in model.model_fields:
            # A union's member is named in the location by its discriminator.
            continue
        members = _sections(model.model_fields[part].annotation)
        named = [m for m in members if "name" in m.model_fields
                 and m.model_fields["name"].default in place]
        model = (named or members or [model])[0]
    return list(model.model_fields)


def _sections(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for part in getattr(annotation, "__args__", ()) for m in _sections(part)]
