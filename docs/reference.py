"""For mkdocs: the parts of the pages that are made from the code whenever the site is built.

A comment such as `<!-- made from the code: verbs -->` is where one of them goes.
"""

import json
import re
import shlex
from pathlib import Path
from typing import get_args

import typer

from wespeaker_lap import config
from wespeaker_lap.cli import app
from wespeaker_lap.config import losses, model

ROOT = Path(__file__).resolve().parents[1]
WIDTH = 100  # columns of what is printed
MARK = re.compile(r"<!-- made from the code: ([a-z ]+) -->")
CHOICES = {
    "frontend": config.Frontend, "model.layer_pool": model.LayerPool,
    "model.frame_net": model.FrameNet, "model.time_pool": model.TimePool,
    "loss": losses.Loss, "distill": losses.Distill}


def list_verbs() -> str:
    """What `wespeaker-lap VERB --help` prints, of every verb."""
    group = typer.main.get_command(app)
    parts = []
    for name, verb in sorted(group.commands.items()):
        context = verb.make_context(name, [], resilient_parsing=True, terminal_width=WIDTH,
                                    max_content_width=WIDTH)
        text = verb.get_help(context).replace(f"Usage: {name}", f"wespeaker-lap {name}").strip()
        parts.append(f"### {name}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def list_recipe_options() -> str:
    """The options of every `run.sh`, as the list of stages declares them, with its remarks.

    Those of scripts that it sources are among them.
    """
    stages = (ROOT / "egs" / "sv.sh").read_text(encoding="utf-8")
    sourced = re.findall(r'^\. "\$TOOLS/(\w+\.sh)"', stages, re.MULTILINE)
    scripts = [stages, *((ROOT / "tools" / name).read_text(encoding="utf-8") for name in sourced)]
    rows = ["| Options and defaults | |", "|---|---|"]
    for line in (line for script in scripts for line in script.splitlines()
                 if re.match(r"([a-z_]+|PREPARE_OPTIONS)=", line)):
        declared, _, remark = line.partition(" # ")
        names = [word.partition("=") for word in shlex.split(declared)]
        options = [f"`--{name} {value}`".replace(" `", "`") for name, _, value in names
                   if name.islower()]
        if len(options) < len(names):  # a remark is of several names, in their order
            remark = remark.rpartition("; ")[2]
        rows.append(f"| {', '.join(options)} | {_escape(remark)} |")
    return "\n".join(rows) + "\n"


def _escape(text: str) -> str:
    return re.sub(r"([|*])", r"\\\1", text).replace("<", "&lt;")


def list_settings() -> str:
    """Every key of a configuration with its default."""
    return f"```yaml\n{config.dump_config(config.Config())}```\n"


def list_choices() -> str:
    """What can be chosen by name, with the options of each."""
    parts = []
    for key, kind in CHOICES.items():
        rows = [f"| {_name(one)} | {one.__doc__.splitlines()[0]} | {_options(one)} |"
                for one in _sections(kind)]
        parts.append("\n".join([f"### {key}", "", "| `name` | | Options and defaults |",
                                "|---|---|---|", *rows, ""]))
    return "\n".join(parts)


def _sections(kind: object) -> list[type]:
    """The classes that a union joins."""
    if isinstance(kind, type):
        return [kind]
    return [section for part in get_args(kind) for section in _sections(part)
            if isinstance(part, type) or get_args(part)]


def _name(section: type) -> str:
    field = section.model_fields["name"]
    choices = get_args(field.annotation)
    return f"`{choices[0]}`" if choices else f"an encoder, such as `{field.default}`"


def _options(section: type) -> str:
    return ", ".join(f"`{key}`" + ("" if field.is_required() else f" {_value(field.default)}")
                     for key, field in section.model_fields.items() if key != "name")


def _value(default: object) -> str:
    """A default as YAML writes it; a section's own defaults stand among those of all keys."""
    if isinstance(default, config.Section):
        return "(below)"
    return "null" if default is None else json.dumps(default)


MAKERS = {"verbs": list_verbs, "recipe options": list_recipe_options,
          "settings": list_settings, "choices": list_choices}


def on_page_markdown(markdown: str, **_: object) -> str:
    """Put the parts where their marks are."""
    return MARK.sub(lambda found: MAKERS[found[1]](), markdown)
