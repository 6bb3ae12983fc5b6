"""The house rules that a program can check: sizes, style, paths, docstring examples."""

import ast
import doctest
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
PACKAGE = REPO / "wespeaker_lap"
MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 40
LONGER_FUNCTIONS = {"engine/train.py": {"_train_epochs": 60}}  # the training loop
MAX_RECIPE_LINES = 120
SKIPPED_FOLDERS = {".git", ".venv", "corpora", "data", "feats", "exp"}
MACHINE_PATH = re.compile(r"(?<![\w.$}/~-])/(?:home|root|work|tmp|mnt|scratch|Users)/\w")


def list_files() -> list[Path]:
    """The files git knows or would take; of an unpacked archive, all but what a run writes."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        paths = [REPO / name for name in listed.stdout.split("\0") if name]
    else:
        paths = [
            Path(folder, name)
            for folder, folders, names in os.walk(REPO)
            for name in names
            if not SKIPPED_FOLDERS & set(Path(folder).relative_to(REPO).parts)
        ]
    return sorted(path for path in paths if path.is_file() or path.is_symlink())


def list_modules() -> list[str]:
    """The dotted names of the package's modules."""
    parts = [path.relative_to(REPO).with_suffix("").parts for path in PACKAGE.rglob("*.py")]
    return sorted(".".join(p[:-1] if p[-1] == "__init__" else p) for p in parts)


def find_long_functions(path: Path, limits: dict[str, int]) -> list[str]:
    """The functions of a file that are longer than allowed, docstring and decorators included."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            length = node.end_lineno - first + 1
            if length > limits.get(node.name, MAX_FUNCTION_LINES):
                found.append(f"{path}:{first}: {node.name} has {length} lines")
    return found


def test_ruff_is_clean() -> None:
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format=concise", "."]
    result = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_one_idea_a_file() -> None:
    lengths = {
        str(path.relative_to(REPO)): len(path.read_text(encoding="utf-8").splitlines())
        for path in PACKAGE.rglob("*.py")
    }
    assert {name: n for name, n in lengths.items() if n > MAX_FILE_LINES} == {}


def test_functions_are_short() -> None:
    found = []
    for path in PACKAGE.rglob("*.py"):
        limits = LONGER_FUNCTIONS.get(path.relative_to(PACKAGE).as_posix(), {})
        found += find_long_functions(path, limits)
    assert found == []


def test_a_long_function_is_found(tmp_path: Path) -> None:
    body = "".join(f"    x = {i}\n" for i in range(MAX_FUNCTION_LINES - 1))
    path = tmp_path / "long.py"
    path.write_text(f"def fits():\n{body}\n\n@cache\ndef too_long():\n{body}", encoding="utf-8")
    assert find_long_functions(path, {}) == [f"{path}:43: too_long has 41 lines"]
    assert find_long_functions(path, {"too_long": 41}) == []


def test_the_list_of_stages_is_short() -> None:
    script = REPO / "egs" / "sv.sh"
    assert len(script.read_text(encoding="utf-8").splitlines()) < MAX_RECIPE_LINES


def test_no_symlinks() -> None:
    assert [str(path) for path in list_files() if path.is_symlink()] == []


def test_no_path_of_one_machine() -> None:
    found = []
    for path in list_files():
        if path.relative_to(REPO).parts[0] not in {"egs", "tools", "wespeaker_lap"}:
            continue
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue  # weights and sounds
        found += [f"{path}:{n}" for n, line in enumerate(lines, 1) if MACHINE_PATH.search(line)]
    assert found == []


@pytest.mark.parametrize(
    ("line", "is_path"),
    [
        ("cd /home/ann/corpus", True),
        ('data="/scratch/vox"', True),
        ("--corpus_dir=/mnt/disk1/vox", True),
        ("#!/usr/bin/env bash", False),
        ("cat x >/dev/null", False),
        ("https://example.org/work/page", False),
        ('"$root/work/x"', False),
        ("../home/x", False),
    ],
)
def test_a_machine_path_is_found(line: str, is_path: bool) -> None:
    assert bool(MACHINE_PATH.search(line)) == is_path


@pytest.mark.parametrize("name", list_modules())
def test_docstring_examples_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # an example may write files
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    result = doctest.testmod(importlib.import_module(name), optionflags=flags)
    assert result.failed == 0


def run_python(code: str) -> str:
    """The output of a fresh interpreter."""
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout


def test_importing_the_package_imports_no_torch() -> None:
    heavy = "{'torch', 'torchaudio', 'numpy', 'transformers'}"
    code = f"import sys, wespeaker_lap; print(sorted({heavy} & set(sys.modules)))"
    assert run_python(code).strip() == "[]"


def test_the_package_offers_load_model_and_no_more() -> None:
    import wespeaker_lap
    from wespeaker_lap.share.speaker import load_model

    assert wespeaker_lap.load_model is load_model
    assert dir(wespeaker_lap) == ["__version__", "load_model"]
    with pytest.raises(AttributeError, match="no attribute 'load_modle'"):
        _ = wespeaker_lap.load_modle


def test_the_version_is_written_once() -> None:
    import wespeaker_lap

    setup = subprocess.run(
        [sys.executable, "setup.py", "--version"],
        cwd=REPO, capture_output=True, text=True, check=True,
    )
    assert setup.stdout.strip().splitlines()[-1] == wespeaker_lap.__version__
