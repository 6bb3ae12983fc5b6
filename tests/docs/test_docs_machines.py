"""The command for several machines, given twice on this one, which makes two machines of it."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from blocks import RECIPE, REPO, list_blocks

# In the place of what the page has for machines with GPUs: sizes for a test.
SMALL = ('--nproc 1 --nj 1 --device cpu --exp_dir exp/two --overrides "train.epochs=1 '
         'train.batch_size=16 train.num_workers=0 train.crop_seconds=1.0 score.top_n=5"')


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_two_machines(trained: Path, tmp_path: Path) -> None:
    block, = list_blocks("run", "two machines")
    command = block.text.replace("HOST:29500", f"localhost:{free_port()}")
    command = command.replace("--stage 2", "--stage 3").replace('--gpus "[0,1,2,3]"', SMALL)
    assert "--num_nodes 2" in command and SMALL in command
    root = shutil.copytree(trained, tmp_path / "shared")
    environment = {**os.environ, "WESPEAKER_LAP_PYTHON": sys.executable, "PYTHONPATH": str(REPO),
                   "OMP_NUM_THREADS": "1"}
    machines = [subprocess.Popen(["bash", "-euc", command], cwd=root / RECIPE, env=environment,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
                for _ in range(2)]
    told = [machine.communicate(timeout=300)[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], "\n".join(told)
    exp_dir = root / RECIPE / "exp" / "two"
    assert "2 process(es) on cpu" in (exp_dir / "train.log").read_text()
    assert (exp_dir / "models" / "epoch_001.safetensors").is_file()
