"""tools/env.sh and tools/test.sh, with interpreters that only pretend to install."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]

FAKE_PYTHON = """\
#!/usr/bin/env bash
# Stands for python3 and for the environment's python: notes what it is asked, installs nothing.
case "$1 $2" in
    "-c "*version_info*) exit "${FAKE_OLD:-0}" ;;
    "-c "*ensurepip*) exit "${FAKE_NO_VENV:-0}" ;;
    "-c "*) exec REAL "$@" ;;
esac
printf '%s\\n' "$*" >>"$FAKE_LOG"
case "$1 $2" in
    "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-m pip")
        sleep "${FAKE_PIP_SECONDS:-0}"
        if [ -n "${FAKE_KILL:-}" ]; then kill -KILL "$PPID"; fi
        exit "${FAKE_PIP_CODE:-0}"
        ;;
    "-m pytest") exit 5 ;;
esac
"""


class Checkout:
    """A checkout of nothing but the set-up, and a PATH whose interpreters are all fake."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "a checkout"
        self.venv = self.root / ".venv"
        self.log = folder / "log"
        for name in ("setup.py", "requirements.txt", "requirements-test.txt", "tools/env.sh",
                     "tools/test.sh", ".ci/run"):
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPO / name, self.root / name)
        fakes = folder / "bin"
        fakes.mkdir()
        for minor in ("", ".10", ".11", ".12", ".13"):
            fake = fakes / f"python3{minor}"
            fake.write_text(FAKE_PYTHON.replace("REAL", shlex.quote(sys.executable)))
            fake.chmod(0o755)
        path = f"{fakes}{os.pathsep}{os.environ['PATH']}"
        self.environment = {"PATH": path, "FAKE_LOG": str(self.log), "HOME": str(folder)}

    def use(self, **environment: str) -> subprocess.CompletedProcess[str]:
        """Source env.sh in a script, as a recipe does."""
        script = self.root.parent / "recipe.sh"
        source = f". {shlex.quote(str(self.root / 'tools' / 'env.sh'))}"
        script.write_text(f'set -euo pipefail\n{source}\necho "$PYTHON ${{PATH%%:*}}"\n')
        return self.call(script, **environment)

    def call(self, script: Path, *args: str, **extra: str) -> subprocess.CompletedProcess[str]:
        """Run a script in an environment of nothing but the fakes and `extra`."""
        return subprocess.run(
            ["bash", str(script), *args], cwd=self.root.parent, env={**self.environment, **extra},
            capture_output=True, text=True, check=False, timeout=60,
        )

    def calls(self) -> list[str]:
        """What the interpreters were asked since the last time."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.write_text("")
        return [line.split()[1] for line in lines]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_env_is_made_once(checkout: Checkout) -> None:
    first = checkout.use()
    assert first.returncode == 0, first.stderr
    assert first.stdout == f"{checkout.venv}/bin/python {checkout.venv}/bin\n"
    assert f"env.sh: making {checkout.venv} with" in first.stderr
    assert f"env.sh: ready: {checkout.venv}" in first.stderr
    assert checkout.calls() == ["venv", "pip", "pip"]

    second = checkout.use()
    assert (second.returncode, second.stdout, second.stderr) == (0, first.stdout, "")
    assert checkout.calls() == []


def test_env_installs_what_has_changed(checkout: Checkout) -> None:
    checkout.use()
    with (checkout.root / "requirements.txt").open("a") as file:
        file.write("another==1.0\n")
    checkout.calls()
    result = checkout.use()
    assert f"env.sh: updating {checkout.venv}" in result.stderr
    assert checkout.calls() == ["pip", "pip"]
    assert checkout.use().stderr == ""


def test_the_tests_environment_serves_the_recipes(checkout: Checkout) -> None:
    result = checkout.call(checkout.root / "tools" / "test.sh", "tests/io", "-k", "a or b")
    assert result.returncode == 5  # pytest's
    log = checkout.log.read_text().splitlines()
    assert "-r requirements.txt -r requirements-test.txt" in log[1]
    assert log[-1] == "-m pytest --numprocesses 2 --dist loadfile tests/io -k a or b"
    assert checkout.use().stderr == ""
    checkout.calls()
    assert checkout.call(checkout.root / ".ci" / "run").returncode == 5
    assert checkout.calls() == ["pytest"]


def test_a_failed_installation_is_an_error(checkout: Checkout) -> None:
    result = checkout.use(FAKE_PIP_CODE="3")
    assert (result.returncode, result.stdout) == (1, "")
    assert "error: pip failed" in result.stderr
    assert not (checkout.venv / "stamp").exists()


@pytest.mark.parametrize("complete_before", [False, True])
def test_an_interrupted_installation_is_made_anew(
    checkout: Checkout, complete_before: bool
) -> None:
    if complete_before:
        checkout.use()
        (checkout.root / "setup.py").write_text("changed = True\n")
    killed = checkout.call(checkout.root / "tools" / "env.sh", FAKE_KILL="true")
    assert killed.returncode == -signal.SIGKILL
    (checkout.venv / "half").touch()
    checkout.calls()
    assert checkout.use().returncode == 0
    assert checkout.calls() == ["venv", "pip", "pip"]
    assert not (checkout.venv / "half").exists()
    assert checkout.use().stderr == ""


def test_two_calls_at_once_make_one_environment(checkout: Checkout) -> None:
    environment = {**checkout.environment, "FAKE_PIP_SECONDS": "0.3"}
    command = ["bash", str(checkout.root / "tools" / "env.sh")]
    pair = [
        subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=60)[1] for process in pair]
    assert [process.returncode for process in pair] == [0, 0], said
    assert checkout.calls() == ["venv", "pip", "pip"]


def test_a_moved_checkout_gets_a_new_environment(checkout: Checkout) -> None:
    checkout.use()
    moved = checkout.root.with_name("moved")
    checkout.root.rename(moved)
    checkout.root, checkout.venv = moved, moved / ".venv"
    checkout.calls()
    assert checkout.use().stdout.startswith(f"{moved}/.venv/bin/python ")
    assert checkout.calls() == ["venv", "pip", "pip"]


def test_an_environment_of_the_user_is_left_alone(checkout: Checkout) -> None:
    (checkout.venv / "bin").mkdir(parents=True)
    (checkout.venv / "bin" / "mine").touch()
    result = checkout.use()
    assert (result.returncode, result.stdout) == (1, "")
    assert "was not made by tools/env.sh" in result.stderr
    assert (checkout.venv / "bin" / "mine").exists()


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"FAKE_OLD": "1"}, "does not run or is not Python 3.10 to 3.14"),
        ({"FAKE_NO_VENV": "1"}, "has no venv module"),
    ],
)
def test_an_unfit_python_is_an_error(
    checkout: Checkout, environment: dict[str, str], message: str
) -> None:
    result = checkout.use(**environment)
    assert (result.returncode, result.stdout) == (1, "")
    assert message in result.stderr
    assert "WESPEAKER_LAP_PYTHON" in result.stderr
    assert not checkout.venv.exists()


def test_a_given_python_is_used_as_it_is(checkout: Checkout) -> None:
    given = {"WESPEAKER_LAP_PYTHON": sys.executable, "PYTHONPATH": str(REPO)}
    result = checkout.use(**given)
    assert result.stderr == ""
    assert result.stdout == f"{sys.executable} {Path(sys.executable).parent}\n"
    assert not checkout.venv.exists()


def test_a_given_python_without_the_package_is_an_error(checkout: Checkout) -> None:
    empty = checkout.root.parent / "python"
    empty.write_text(f'#!/usr/bin/env bash\nexec {shlex.quote(sys.executable)} -I -S "$@"\n')
    empty.chmod(0o755)
    result = checkout.use(WESPEAKER_LAP_PYTHON=str(empty))
    assert (result.returncode, result.stdout) == (1, "")
    assert "lacks: wespeaker_lap torch torchaudio" in result.stderr
    missing = checkout.use(WESPEAKER_LAP_PYTHON="no/such/python")
    assert missing.returncode == 1
    assert "no/such/python does not run" in missing.stderr
