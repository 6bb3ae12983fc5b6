"""The shell side: every script is shellcheck clean, and tools/recipe.sh does what it says."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
SCRIPTS = sorted(
    path
    for pattern in ("tools/*.sh", "egs/*.sh", "egs/*/*/*.sh", "egs/*/*/local/*.sh", ".ci/run")
    for path in REPO.glob(pattern)
)
NAMES = [str(path.relative_to(REPO)) for path in SCRIPTS]


def run_bash(*args: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a bash script in a small environment of its own."""
    clean = {"PATH": os.environ["PATH"], "HOME": str(cwd), "LC_ALL": "C", **environment}
    command = ["bash", *map(str, args)]
    return subprocess.run(
        command, cwd=cwd, env=clean, capture_output=True, text=True, check=False, timeout=60
    )


# --- every script ---------------------------------------------------------------------------------


@pytest.mark.parametrize("script", SCRIPTS, ids=NAMES)
def test_scripts_are_well_formed(script: Path) -> None:
    where = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    shellcheck = shutil.which("shellcheck", path=where)
    for command in (["bash", "-n", script], [shellcheck, script]):
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=NAMES)
def test_scripts_do_not_eval(script: Path) -> None:
    code = [line.partition("#")[0] for line in script.read_text(encoding="utf-8").splitlines()]
    assert [line for line in code if re.search(r"\beval\b", line)] == []


# --- tools/recipe.sh ------------------------------------------------------------------------------

DECLARED = """\
stage=1
stop_stage=8
dry_run=false
nproc=1
num_nodes=1
rdzv_endpoint=
exp_dir="exp/a b"
PYTHON=python
parse_options "$@"
"""


@pytest.fixture
def recipe(tmp_path: Path):
    """A function: run a small recipe with this body and these arguments."""

    def run(body: str, *args: str, **environment: str) -> subprocess.CompletedProcess[str]:
        header = "#!/usr/bin/env bash\n# Says hello.\n#\n#   bash run.sh [--stage 2]\n"
        source = f". {shlex.quote(str(REPO / 'tools' / 'recipe.sh'))}\n"
        text = f"{header}set -euo pipefail\n{source}{DECLARED}{body}\n"
        (tmp_path / "run.sh").write_text(text, encoding="utf-8")
        return run_bash("run.sh", *args, cwd=tmp_path, **environment)

    return run


@pytest.mark.parametrize(
    ("args", "value"),
    [
        ([], "exp/a b"),
        (["--exp_dir", "x y"], "x y"),
        (["--exp-dir", "x"], "x"),
        (["--exp_dir=--x=1"], "--x=1"),
        (["--exp_dir="], ""),
        (["--exp_dir", "-1"], "-1"),
        (["--exp_dir", "a", "--exp-dir", "b"], "b"),
        (["--exp_dir", "$(touch pwned)`touch pwned`;*"], "$(touch pwned)`touch pwned`;*"),
    ],
)
def test_options_are_read(recipe, tmp_path: Path, args: list[str], value: str) -> None:
    result = recipe('printf "%s" "$exp_dir"', *args)
    assert (result.returncode, result.stdout) == (0, value)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--expdir", "x"], "unknown option --expdir"),
        (["--expdir", "x"], "dry_run, exp_dir, nproc, num_nodes, rdzv_endpoint, stage, stop_stage"),
        (["--http_proxy", "x"], "unknown option --http_proxy"),
        (["--PATH", "x"], "unknown option --PATH"),
        (["--stage"], "--stage needs a value"),
        (["--stage", "--nproc", "2"], "--stage needs a value"),
        (["--dry-run", "yes"], "--dry-run wants true or false, got 'yes'"),
        (["stage", "3"], "unexpected argument 'stage'"),
    ],
)
def test_wrong_options_are_errors(recipe, args: list[str], message: str) -> None:
    result = recipe("echo went on", *args, http_proxy="there")
    assert (result.returncode, result.stdout) == (1, "")
    assert message in result.stderr


def test_help_shows_the_header_and_the_options(recipe, tmp_path: Path) -> None:
    recipe("echo went on")
    for where, script in ((tmp_path, "run.sh"), (REPO, tmp_path / "run.sh")):
        result = run_bash(script, "--nproc", "4", "--help", cwd=where)
        assert result.returncode == 0
        assert result.stdout.startswith("Says hello.\n\n  bash run.sh [--stage 2]\n")
        assert "--nproc 4\n" in result.stdout
        assert "--exp_dir exp/a\\ b\n" in result.stdout
        assert "went on" not in result.stdout


def test_stages_between_the_two_are_run(recipe) -> None:
    body = 'for n in 0 1 2 3 4; do if stage "$n" "title $n"; then echo "$n"; fi; done'
    assert recipe(body, "--stage", "2", "--stop-stage", "3").stdout.split() == ["2", "3"]
    assert "stage 4: title 4" in recipe(body).stderr
    failed = recipe(body, "--stage", "two")
    assert failed.returncode == 1
    assert "--stage wants a number, got 'two'" in failed.stderr


def test_dry_run_prints_and_runs_nothing(recipe, tmp_path: Path) -> None:
    command = ["touch", "made it", "$HOME", "a'b", ""]
    result = recipe(f"run {shlex.join(command)}", "--dry_run", "true")
    assert shlex.split(result.stdout) == command
    assert [path.name for path in tmp_path.iterdir()] == ["run.sh"]


def test_a_failing_command_ends_the_recipe_with_its_code(recipe) -> None:
    result = recipe('stage 3 "train"\nrun bash -c "exit 7"\necho went on')
    assert (result.returncode, result.stdout) == (7, "")
    told = r"error: stage 3 \(train\) failed with exit code 7 \(in /.*\): bash -c exit\\ 7"
    assert re.search(told, result.stderr)


def test_run_goes_on_after_success(recipe) -> None:
    assert recipe('run echo "a  b"\necho went on').stdout == "a  b\nwent on\n"


SINGLE = "python -m wespeaker_lap train --config c.yaml"
TORCHRUN = "python -m torch.distributed.run"


@pytest.mark.parametrize(
    ("args", "nproc", "command"),
    [
        ([], "1", SINGLE),
        ([], "2", f"{TORCHRUN} --standalone --nproc_per_node 2 -m wespeaker_lap train"),
        (
            ["--num_nodes", "3", "--rdzv_endpoint", "host:29500"],
            "1",
            f"{TORCHRUN} --nnodes 3 --nproc_per_node 1 --rdzv_backend c10d"
            " --rdzv_endpoint host:29500 -m wespeaker_lap train",
        ),
    ],
)
def test_launch_chooses_python_or_torchrun(
    recipe, args: list[str], nproc: str, command: str
) -> None:
    body = f"launch {nproc} train --config c.yaml"
    result = recipe(body, "--dry_run", "true", *args, OMP_NUM_THREADS="5")
    assert result.stdout.startswith(command)
    assert result.stdout.endswith(" train --config c.yaml\n")


def test_cores_are_those_of_the_machine(recipe) -> None:
    """nproc obeys OMP_NUM_THREADS, which is meant for each process."""
    assert recipe("count_cores", OMP_NUM_THREADS="97").stdout == f"{len(os.sched_getaffinity(0))}\n"


def test_launch_shares_the_cores(recipe) -> None:
    affinity = getattr(os, "sched_getaffinity", None)  # Linux: what this process may use
    cores = len(affinity(0)) if affinity else os.cpu_count()
    for nproc in (1, 2, 4 * cores):
        result = recipe(f"launch {nproc} train", "--dry_run", "true")
        assert result.stdout.startswith(
            f"env OMP_NUM_THREADS={max(1, cores // nproc)} OMP_WAIT_POLICY=passive python ")


@pytest.mark.parametrize(
    ("body", "args", "message"),
    [
        ("launch two train", [], "--nproc wants a number from 1 on, got 'two'"),
        ("launch 0 train", [], "--nproc wants a number from 1 on, got '0'"),
        ("launch 1 train", ["--num_nodes", "2"], "needs --rdzv_endpoint HOST:PORT"),
        ('select_gpus "0;1"', [], "--gpus wants numbers"),
        ('select_gpus "[0, 0]"', [], "names one twice"),
    ],
)
def test_wrong_machines_are_errors(recipe, body: str, args: list[str], message: str) -> None:
    result = recipe(f"{body}\necho went on", *args)
    assert (result.returncode, result.stdout) == (1, "")
    assert message in result.stderr


@pytest.mark.parametrize(
    ("gpus", "visible"),
    [
        ("[0,1]", "2 0,1"),
        ("[0, 1]", "2 0,1"),
        ("0 1", "2 0,1"),
        ("3", "1 3"),
        ("2,0,1", "3 2,0,1"),
        ("", "0 unset"),
        ("[]", "0 unset"),
    ],
)
def test_gpu_lists(recipe, gpus: str, visible: str) -> None:
    body = f'select_gpus "{gpus}"\necho "$num_gpus ${{CUDA_VISIBLE_DEVICES-unset}}"'
    assert recipe(body).stdout.strip() == visible


@pytest.mark.parametrize(
    ("gpus", "device", "found", "expected"),
    [
        ("[0,1]", "auto", "cuda", "2"),
        ("", "auto", "cuda", "1"),
        ("", "auto", "mps", "1"),
        ("", "auto", "cpu", "16"),  # a driver, and a torch that cannot use it
        ("", "auto", None, "16"),
        ("", "cpu", "cuda", "16"),
        ("", "cuda:1", None, "1"),
    ],
)
def test_processes_of_the_extraction(recipe, tmp_path, gpus, device, found, expected) -> None:
    """`found`: what `auto` would be; None where there is no driver, and nobody is to be asked."""
    stubs = tmp_path / "stubs"
    (stubs / "wespeaker_lap" / "engine").mkdir(parents=True)
    (stubs / "wespeaker_lap" / "engine" / "dist.py").write_text(
        f"print('asked')\nclass Device:\n    type = {found!r}\n"
        "def choose_device(name):\n    return Device\n")
    (stubs / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    (stubs / "nvidia-smi").chmod(0o755)
    path = "/nowhere" if found is None else f"{stubs}:$PATH"
    body = (f'PYTHON="{sys.executable}" device={device} nj=16 nproc=2\nselect_gpus "{gpus}"\n'
            f'PATH="{path}"\ncount_extractors')
    result = recipe(body, PYTHONPATH=str(stubs))
    assert result.stdout.strip() == expected
    assert ("asked" in result.stderr) == (device == "auto" and found is not None and not gpus)
