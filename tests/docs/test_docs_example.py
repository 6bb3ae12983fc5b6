"""The example of a layer pooling of one's own: as the page says, in a copy of the checkout."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from blocks import REPO, Block, list_blocks

PAGE = "models_and_losses.md"
MARK = "tests/docs/test_docs_example.py"
SMALL = ("train.epochs=1 train.batch_size=16 train.num_workers=0 train.crop_seconds=1.0 "
         "score.top_n=5")


def apply(block: Block, root: Path) -> None:
    """Write a new file, or make a change at the one place where it fits."""
    path = root / block.value
    if block.kind == "file":
        assert not path.exists()
        path.write_text(block.text, encoding="utf-8")
        return
    lines = block.text.splitlines(keepends=True)
    before = "".join(line[1:] for line in lines if line[0] in " -")
    after = "".join(line[1:] for line in lines if line[0] in " +")
    text = path.read_text(encoding="utf-8")
    assert text.count(before) == 1, f"{block.name}: not once in {block.value}: {before}"
    path.write_text(text.replace(before, after), encoding="utf-8")


@pytest.fixture(scope="module")
def copy(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained checkout, with the package and the tests, after the page's changes."""
    root = shutil.copytree(trained, tmp_path_factory.mktemp("example") / "checkout")
    for name in ("wespeaker_lap", "tests"):
        shutil.copytree(REPO / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPO / "pyproject.toml", root)
    blocks = [block for kind in ("file", "change") for block in list_blocks(kind)]
    assert len(blocks) == 6 and {block.page.name for block in blocks} == {PAGE}
    for block in blocks:
        apply(block, root)
    return root


def run(commands: str, root: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "WESPEAKER_LAP_PYTHON": sys.executable, "PYTHONPATH": str(root),
                   "OMP_NUM_THREADS": "1"}
    done = subprocess.run(["bash", "-euxc", commands], cwd=root, env=environment,
                          capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_the_example(copy: Path) -> None:
    tests, training = (block.text.strip() for block in list_blocks("run", MARK))
    assert " passed" in run(tests, copy).stdout
    training = training.replace('--overrides "', f'--overrides "{SMALL} ')
    run(f"{training} --stop_stage 3 --device cpu", copy)
    exp_dir = copy / "egs" / "mini" / "v1" / "exp" / "dim_weighted_sum"
    assert (exp_dir / "models" / "epoch_001.safetensors").is_file()
    assert "name: dim_weighted_sum" in (exp_dir / "config.yaml").read_text()


def test_the_example_is_in_the_house_style(copy: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "--no-cache", "wespeaker_lap",
                           "tests/models/test_dim_weighted_sum.py"], cwd=copy,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
