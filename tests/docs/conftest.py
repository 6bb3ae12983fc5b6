"""What the pages' commands are run in: quick programs, and a checkout with a trained system."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import warm_python
from blocks import RECIPE, REPO

Shell = Callable[..., subprocess.CompletedProcess]


@pytest.fixture(scope="session")
def shell() -> Iterator[Shell]:
    """`shell(commands, folder)` runs bash commands, which must go well."""
    with tempfile.TemporaryDirectory() as name, warm_python.start(Path(name)) as programs:
        environment = {**os.environ, "WESPEAKER_LAP_PYTHON": str(programs / "python"),
                       "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(REPO),
                       "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}

        def run(commands: str, folder: Path) -> subprocess.CompletedProcess[str]:
            done = subprocess.run(["bash", "-euxc", commands], cwd=folder, env=environment,
                                  capture_output=True, text=True, check=False, timeout=300)
            assert done.returncode == 0, done.stdout + done.stderr
            return done

        yield run


@pytest.fixture(scope="session")
def trained(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in whose recipe two small systems were trained; not to be changed."""
    from scene import copy_checkout, write_corpus  # with numpy, which other tests do without

    root = tmp_path_factory.mktemp("a checkout")
    copy_checkout(root)
    recipe = root / RECIPE
    write_corpus(recipe)
    small = ("train.epochs=2 train.batch_size=16 train.num_workers=0 train.crop_seconds=1.0 "
             "score.top_n=5 score.num_avg=1")
    shell(f"""
        for SET in train valid test; do wespeaker-lap audit-data data/$SET; done
        for SET in valid test; do
            wespeaker-lap make-trials data/$SET --out data/$SET/trials/$SET.kaldi; done
        set -- --stop_stage 6 --test_sets "test valid" --nj 1 --overrides "{small}"
        bash run.sh --stage 2 "$@"
        bash run.sh --stage 3 "$@" --config conf/weighted_sum.yaml""", recipe)
    for name in ("lap", "weighted_sum"):
        for seed in (1, 2):
            shutil.copytree(recipe / "exp" / name, recipe / "exp" / f"{name}-seed{seed}",
                            ignore=shutil.ignore_patterns("*valid.*"))  # that are for fusing
    shutil.copytree(recipe / "exp" / "lap", root / "MODEL")
    return root
