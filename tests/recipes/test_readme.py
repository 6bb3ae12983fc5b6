"""What the README files tell people to type exists: scripts, options, keys, verbs, files."""

import ast
import inspect
import re
import shlex
import subprocess
from functools import cache
from pathlib import Path

import pytest
import typer
import yaml
from calling import REPO, make_environment
from checks import find_absent_links

import wespeaker_lap
from wespeaker_lap.cli import app, underscored
from wespeaker_lap.config import load_config
from wespeaker_lap.pretrain import load_pretrain_config
from wespeaker_lap.share.speaker import SpeakerModel

PAGES = [REPO / "README.md", *sorted(REPO.glob("egs/*/*/README.md"))]
NAMES = [str(page.relative_to(REPO)) for page in PAGES]
RECIPES = sorted(path.parent for path in REPO.glob("egs/*/*/run.sh"))
every_page = pytest.mark.parametrize("page", PAGES, ids=NAMES)
# The README at the root shows options on a `run.sh` that is any recipe's.
ANY_RECIPE = REPO / "egs" / "mini" / "v1"
PRETRAINING = REPO / "egs" / "ssl_pretrain" / "v1"


def find_blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def find_commands(text: str, first: str) -> list[list[str]]:
    """The words of each command that begins like this, in lines and in `code`."""
    lines = [*text.splitlines(), *re.findall(r"`([^`\n]+)`", text)]
    # [--option DIR] shows that it may be left out.
    plain = [re.sub(r"\[(--[^\]]*)\]", r"\1", line) for line in lines]
    return [shlex.split(line, comments=True) for line in plain if line.startswith(f"{first} ")]


def find_script(page: Path, name: str) -> Path:
    folder = ANY_RECIPE if page.parent == REPO and name == "run.sh" else page.parent
    return folder / name


@cache
def read_options(script: Path) -> dict[str, str]:
    """Option -> default, as --help prints them."""
    done = subprocess.run(["bash", script, "--help"], cwd="/", env=make_environment(),
                          capture_output=True, text=True, check=True)
    found = re.findall(r"^  (--\w+) (.*)$", done.stdout, re.MULTILINE)
    return {name: "".join(shlex.split(value)) for name, value in found}


def check_command(script: Path, words: list[str]) -> None:
    """Every option is known, and what it is set to can be used."""
    known = read_options(script)
    if words == ["--help"]:
        return
    given = dict(zip(words[::2], words[1::2], strict=True))
    assert given.keys() <= known.keys(), f"{script}: {words}"
    config = given.get("--config", known["--config"])
    if "NAME" not in config:
        overrides = given.get("--overrides", "").split()
        load = load_pretrain_config if script.parent == PRETRAINING else load_config
        load(script.parent / config, overrides)


@every_page
def test_bash_commands(page: Path) -> None:
    commands = find_commands(page.read_text(encoding="utf-8"), "bash")
    assert commands
    for _, name, *words in commands:
        script = find_script(page, name)
        assert script.is_file(), f"{page}: {name}"
        if script.name == "run.sh":
            check_command(script, words)


@every_page
def test_options_named_in_the_text(page: Path) -> None:
    scripts = [page.parent / "run.sh"] if page.parent != REPO else [r / "run.sh" for r in RECIPES]
    known = set().union(*map(read_options, scripts))
    named = set(re.findall(r"`(--\w+)", page.read_text(encoding="utf-8")))
    assert named <= known


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.parent.name)
def test_commands_in_scripts_and_messages(recipe: Path) -> None:
    header = [line.removeprefix("# ").strip() for line in (recipe / "run.sh").read_text(
        encoding="utf-8").splitlines() if line.startswith("#   bash run.sh")]
    commands = find_commands("\n".join(header).replace(" …]", "]"), "bash")
    for path in recipe.glob("local/*.py"):
        strings = [node.value for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                   if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        commands += [words for text in strings for words in find_commands(text, "bash")]
    assert commands
    for _, name, *words in commands:
        assert name == "run.sh"
        named = {word for word in words if word.startswith("--")}
        assert named <= read_options(recipe / "run.sh").keys()


@every_page
def test_wespeaker_lap_commands(page: Path) -> None:
    verbs = typer.main.get_command(app).commands
    for _, verb, *words in find_commands(page.read_text(encoding="utf-8"), "wespeaker-lap"):
        if verb == "--help":
            continue
        assert verb in verbs, f"{page}: {verb}"
        verbs[verb].make_context(verb, [underscored(word) for word in words])


@every_page
def test_links_lead_to_files(page: Path) -> None:
    assert find_absent_links(page) == []


@every_page
def test_yaml_examples_load(page: Path, tmp_path: Path) -> None:
    for block in find_blocks(page, "yaml"):
        (tmp_path / "example.yaml").write_text(block, encoding="utf-8")
        settings = load_config(tmp_path / "example.yaml").model_dump()
        assert settings["seed"] == yaml.safe_load(block)["seed"]


@every_page
def test_frontends_in_the_text_are_known_settings(page: Path) -> None:
    for text in re.findall(r"`(\{name: [^`]*\})`", page.read_text(encoding="utf-8")):
        load_config(overrides=[f"frontend={text}"])


def test_python_names_exist() -> None:
    block, = find_blocks(REPO / "README.md", "python")
    tree = ast.parse(block)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.module == "wespeaker_lap"
            assert {alias.name for alias in node.names} <= set(dir(wespeaker_lap))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            method = getattr(SpeakerModel, node.func.attr)
            inspect.signature(method).bind("self", *node.args)


def test_the_recipes_are_listed() -> None:
    text = PAGES[0].read_text(encoding="utf-8")
    for recipe in RECIPES:
        assert f"({recipe.relative_to(REPO)}/README.md)" in text
        assert (recipe / "README.md").is_file()
