"""The commands of README.md and the pages, as they stand there: those that need no more than a
trained system and recordings are run, those that take long as a dry run."""

import shutil
from pathlib import Path

import pytest
from blocks import PAGES, RECIPE, Block, read_blocks

FOLDERS = {"checkout": Path("."), "recipe": RECIPE, "dry": RECIPE}


def runnable(page: Path) -> list[Block]:
    return [block for block in read_blocks(page) if block.kind == "run" and block.value in FOLDERS]


def make_dry(text: str, seen: set[str]) -> str:
    """The calls of a recipe with --dry_run true behind each; those on another page are done."""
    lines = [line.partition("  #")[0].strip() for line in text.splitlines()]
    new = [line for line in lines if line not in seen]
    seen.update(new)
    return "\n".join(f"{line} --dry_run true" for line in new)


@pytest.fixture(scope="module")
def seen() -> set[str]:
    return set()


@pytest.mark.parametrize("page", [page for page in PAGES if runnable(page)],
                         ids=lambda page: page.name)
def test_the_commands_of_a_page(page, trained, shell, seen, tmp_path, monkeypatch) -> None:
    root = shutil.copytree(trained, tmp_path / "a copy")
    for block in runnable(page):
        folder = root / FOLDERS[block.value]
        if block.language == "python":
            monkeypatch.chdir(folder)
            exec(compile(block.text, block.name, "exec"), {})
        elif block.value == "dry":
            shell(make_dry(block.text, seen), folder)
        else:
            shell(block.text, folder)
