"""Imports run one way, and what only moves files and numbers never imports torch.

cli -> share -> pretrain -> engine -> score -> build
    -> data | frontends | losses -> models | config -> io
"""

import ast
from pathlib import Path

import pytest

PACKAGE = "wespeaker_lap"
# An area may import itself and what stands to the right; the areas of one group know nothing of
# each other.
ORDER = [
    {"cli"},
    {"share"},
    {"pretrain"},
    {"engine"},
    {"score"},
    {"build"},
    {"data", "frontends", "models", "losses", "config"},
    {"io"},
]
# These import nothing of ours but themselves and the parts that they are made of.
SELF_CONTAINED = {"models": {"models"}, "losses": {"losses", "models"}}
NO_TORCH = ("io", "score", "data.datadir", "data.trials", "data.audit")
TORCH = {"torch", "torchaudio"}


def allowed_areas(area: str) -> set[str]:
    """The areas that a module of `area` may import; "" is the package's own __init__."""
    if area == "":
        return {"share"}  # load_model, inside __getattr__
    if area == "__main__":
        return {"cli"}
    if area in SELF_CONTAINED:
        return SELF_CONTAINED[area]
    rank = next(i for i, group in enumerate(ORDER) if area in group)
    return {area}.union(*ORDER[rank + 1 :])


def read_modules(package: Path) -> dict[str, Path]:
    """Module name below the package ("io.table", "io", "" for the package itself) -> its file."""
    modules = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


def read_imports(path: Path, package: Path) -> list[tuple[int, str]]:
    """Every import in a file, wherever it stands: (line, absolute dotted name)."""
    folder = [PACKAGE, *path.parent.relative_to(package).parts]
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = folder[: len(folder) + 1 - node.level] if node.level else []
            base = base + (node.module.split(".") if node.module else [])
            found += [(node.lineno, ".".join([*base, alias.name])) for alias in node.names]
    return found


def find_back_arrows(package: Path) -> list[str]:
    """One complaint for each import of ours that the table above does not allow."""
    complaints = []
    for module, path in read_modules(package).items():
        area = module.split(".")[0]
        where = path.relative_to(package.parent)
        if area not in {"", "__main__"}.union(*ORDER):
            complaints.append(f"{where}: {area} has no place in the order of imports")
            continue
        for line, name in read_imports(path, package):
            top, _, rest = name.partition(".")
            target = rest.split(".")[0]
            target = "share" if target == "load_model" else target  # where it lives
            if top != PACKAGE or target in allowed_areas(area):
                continue
            if target == "__version__" and area not in SELF_CONTAINED:
                continue
            complaints.append(f"{where}:{line}: {area or PACKAGE} must not import {name}")
    return complaints


def find_torch(package: Path) -> list[str]:
    """One complaint for each module that must do without torch and reaches it, however far."""
    modules = read_modules(package)
    complaints = []
    for start in modules:
        if not any(start == name or start.startswith(f"{name}.") for name in NO_TORCH):
            continue
        chains, seen = [[start]], {start}
        while chains:
            chain = chains.pop()
            names = [name for _, name in read_imports(modules[chain[-1]], package)]
            if TORCH & {name.split(".")[0] for name in names}:
                complaints.append(f"{' -> '.join(chain)} -> torch")
            for module in find_ours(names, modules) - seen:
                seen.add(module)
                chains.append([*chain, module])
    return complaints


def find_ours(names: list[str], modules: dict[str, Path]) -> set[str]:
    """The modules of ours that importing `names` loads, their packages' __init__ included."""
    ours = set()
    for name in names:
        parts = name.split(".")
        if parts[0] == PACKAGE:
            ours |= {".".join(parts[1:end]) for end in range(2, len(parts) + 1)}
    return ours & set(modules)


def test_no_arrow_runs_back(repo: Path) -> None:
    assert find_back_arrows(repo / PACKAGE) == []


def test_files_and_scores_do_without_torch(repo: Path) -> None:
    assert find_torch(repo / PACKAGE) == []


def plant(folder: Path, files: dict[str, str]) -> Path:
    """Write a small package that keeps the rules, then `files` on top of it."""
    clean = {
        "__init__.py": "def __getattr__(name):\n    from wespeaker_lap.share import speaker\n",
        "__main__.py": "from wespeaker_lap.cli import main\n",
        "cli.py": "from wespeaker_lap import __version__\nfrom wespeaker_lap.io import table\n",
        "share/speaker.py": "import torch\nfrom ..models.speaker_net import SpeakerNet\n",
        "models/speaker_net.py": "import torch\nfrom . import time_pool\n",
        "models/time_pool.py": "import torch\n",
        "data/batch.py": "import torch\n",
        "data/trials.py": "from wespeaker_lap.io.table import read_table\n",
        "score/cosine.py": "import numpy\nfrom ..data.trials import read_trials\n",
        "io/table.py": "import os\n",
    }
    package = folder / PACKAGE
    for name, text in {**clean, **files}.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return package


def test_a_clean_package_passes(tmp_path: Path) -> None:
    package = plant(tmp_path, {})
    assert find_back_arrows(package) == []
    assert find_torch(package) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("io/feats.py", "def f():\n    from wespeaker_lap.engine import train\n"),
        ("io/feats.py", "import wespeaker_lap.data.datadir\n"),
        ("data/source.py", "from ..share.speaker import load_model\n"),
        ("data/source.py", "from .. import cli\n"),
        ("data/source.py", "from wespeaker_lap.config import Config\n"),
        ("data/source.py", "from wespeaker_lap import load_model\n"),
        ("score/cosine.py", "if True:\n    from wespeaker_lap import engine\n"),
        ("models/lap.py", "from wespeaker_lap.io.table import read_table\n"),
        ("models/lap.py", "from wespeaker_lap import __version__\n"),
        ("losses/margin.py", "from wespeaker_lap.io.table import read_table\n"),
        ("models/lap.py", "from wespeaker_lap.losses import margin\n"),
        ("build.py", "from wespeaker_lap.engine.train import fit\n"),
        ("helpers.py", "import os\n"),
    ],
)
def test_a_planted_back_arrow_is_found(tmp_path: Path, name: str, text: str) -> None:
    complaints = find_back_arrows(plant(tmp_path, {name: text}))
    assert len(complaints) == 1
    assert f"{PACKAGE}/{name}" in complaints[0]


@pytest.mark.parametrize(
    ("files", "chain"),
    [
        ({"io/audio.py": "def f():\n    import torch\n"}, "io.audio -> torch"),
        ({"score/eer.py": "from torchaudio import load\n"}, "score.eer -> torch"),
        ({"data/trials.py": "from .batch import collate\n"}, "data.trials -> data.batch -> torch"),
        (
            {"data/__init__.py": "from .batch import x\n", "score/a.py": "from ..data import b\n"},
            "score.a -> data -> data.batch -> torch",
        ),
    ],
)
def test_planted_torch_is_found(tmp_path: Path, files: dict[str, str], chain: str) -> None:
    assert chain in find_torch(plant(tmp_path, files))
