"""Every block of README.md and the pages says who runs it, and names only what there is."""

import os
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import typer
import yaml
from blocks import PAGES, RECIPE, REPO, SCENES, Block, list_blocks, read_blocks
from checks import find_absent_links

from wespeaker_lap.cli import app, underscored
from wespeaker_lap.config import get_value, load_config

VERBS = typer.main.get_command(app).commands
RECIPES = sorted(path.relative_to(REPO).parent for path in REPO.glob("egs/*/*/run.sh"))
STRANGERS = {"--help", "--name", "--download", "--signal", "--dependency"}  # of other programs
KEY = re.compile(r"(?:frontend|features|data|model|loss|train|score)"
                 r"(?:\.(?!json|safetensors|log)\w+)+")
# Behind these, keys that are off by default can be looked up.
SWITCHED_ON = ("train.encoder={}", "data.source=wave", "data.augment={}")
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
every_command = pytest.mark.parametrize("block", list_blocks(language="bash"),
                                        ids=lambda block: block.name)


def find_calls(text: str, program: str) -> list[list[str]]:
    """The words of each call of a program, at the beginning of a line or behind srun."""
    lines = [line.removeprefix("srun ") for line in text.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith(f"{program} ")]


def inline_code(page: Path) -> list[str]:
    """What stands in `code`, outside of blocks."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text)]


@cache
def read_options(recipe: Path) -> dict[str, str]:
    """Option -> default of a recipe, as its --help prints them."""
    environment = {**os.environ, "WESPEAKER_LAP_PYTHON": sys.executable, "PYTHONPATH": str(REPO)}
    done = subprocess.run(["bash", REPO / recipe / "run.sh", "--help"], env=environment,
                          capture_output=True, text=True, check=True)
    found = re.findall(r"^  (--\w+) (.*)$", done.stdout, re.MULTILINE)
    return {name: "".join(shlex.split(value)) for name, value in found}


@cache
def list_options() -> set[str]:
    """Those of every recipe and every verb."""
    ours = {name for recipe in RECIPES for name in read_options(recipe)}
    for verb in VERBS.values():
        ours |= {f"--{o[2:].replace('-', '_')}" for p in verb.params for o in p.opts
                 if o.startswith("--")}
    return ours


@every_page
def test_every_block_says_who_runs_it(page: Path) -> None:
    unmarked = [block.name for block in read_blocks(page) if not block.kind
                and block.language not in ("yaml", "text")]
    assert unmarked == []


def test_marks_name_what_there_is() -> None:
    marked = list_blocks("run")
    for block in marked:
        tests = [] if block.value in SCENES else block.value.split(", ")
        assert all((REPO / test).is_file() for test in tests), block.name
    assert {block.value for block in marked} >= set(SCENES)
    for block in list_blocks("needs"):
        for test in re.findall(r"tests/\S+\.py", block.value):
            assert (REPO / test).is_file(), block.name


def test_a_block_without_a_mark_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n\n```bash\nls\n```\n\n<!-- run: dry -->\n```bash\nls -l\n```\n")
    first, second = read_blocks(page)
    assert (first.line, first.kind, first.text) == (3, "", "ls\n")
    assert (second.line, second.kind, second.value, second.text) == (8, "run", "dry", "ls -l\n")


@every_command
def test_blocks_are_shell(block: Block) -> None:
    done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stderr


@every_command
def test_calls_of_recipes(block: Block) -> None:
    for _, script, *words in find_calls(block.text, "bash"):
        if not script.endswith("run.sh") or words == ["--help"]:
            continue
        recipe = RECIPE if script == "run.sh" else Path(script).parent
        if "mycorpus" in script:  # which is a copy
            recipe = Path("egs/template/v1")
        given, known = dict(zip(words[::2], words[1::2], strict=True)), read_options(recipe)
        assert given.keys() <= known.keys(), block.name
        if "dim_weighted_sum" in block.text:
            continue  # which that page adds; test_docs_example.py runs it
        load_config(REPO / recipe / given.get("--config", known["--config"]),
                    given.get("--overrides", "").split())


@every_command
def test_calls_of_verbs(block: Block) -> None:
    for _, verb, *words in find_calls(block.text, "wespeaker-lap"):
        if "--help" in (verb, *words):
            assert verb in (*VERBS, "--help")
        else:
            VERBS[verb].make_context(verb, [underscored(word) for word in words])


@every_page
def test_names_in_the_text(page: Path) -> None:
    for code in inline_code(page):
        options = {f"--{o[2:].replace('-', '_')}" for o in re.findall(r"--[a-z][\w-]*", code)}
        assert options <= list_options() | STRANGERS, code
        if code.startswith("wespeaker-lap ") and "VERB" not in code:
            verb = code.split()[1]
            assert verb in VERBS, code
            assert options <= {f"--{o[2:].replace('-', '_')}" for p in VERBS[verb].params
                               for o in p.opts}, code
        if KEY.fullmatch(code):
            get_value(load_config(overrides=SWITCHED_ON), code)
        if code.startswith("{name: "):
            load_config(overrides=[f"frontend={code}"])


@every_page
def test_links_lead_to_files(page: Path) -> None:
    assert find_absent_links(page) == []


@every_page
def test_configurations_load(page: Path, tmp_path: Path) -> None:
    for block in read_blocks(page):
        if block.language == "yaml":
            (tmp_path / "example.yaml").write_text(block.text, encoding="utf-8")
            settings = load_config(tmp_path / "example.yaml").model_dump()
            assert settings["seed"] == yaml.safe_load(block.text)["seed"]
