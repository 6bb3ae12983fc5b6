"""Go on with a pre-training exactly where it stopped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from wespeaker_lap.engine import checkpoint
from wespeaker_lap.engine.dist import World
from wespeaker_lap.io.identity import compare_identity

if TYPE_CHECKING:
    from wespeaker_lap.pretrain.train import Run

# What may change between two starts of one training without changing its result.
FREE = ("train.compile", "train.valid_steps", "train.checkpoint_steps")


def load_same_training(exp_dir: Path, facts: dict, world: World) -> dict | None:
    """Read `models/last.pt`; all processes have read it when this returns.

    Args:
        exp_dir: of the training.
        facts: what it must be a state of: `config`, and the data's hashes by name.
        world: this process among all.

    Returns:
        The state, or None where there is none.

    Raises:
        ValueError: a state of another training (lists what differs), a broken one, or not the
            same one for every process.
    """
    path = exp_dir / "models" / "last.pt"
    state = checkpoint.load_state(path) if path.is_file() else None
    if len(set(world.gather(state and state["step"]))) > 1:
        raise ValueError(f"{path}: not the same for every process; --exp_dir must be on a disk "
                         f"that all machines share")
    if state is None:
        return None
    differing = compare_identity(_flatten(state["facts"]), _flatten(facts), ignore=FREE)
    if differing:
        raise ValueError(f"{exp_dir} holds another training: {'; '.join(differing)}. Choose "
                         f"another --exp_dir, or remove this one")
    return state


def _flatten(facts: dict) -> dict:
    """`section.key` -> value of the configuration, and the hashes."""
    flat = {f"the hash of {name}": value for name, value in facts.items() if name != "config"}
    for key, value in facts["config"].items():
        if isinstance(value, dict):
            flat |= {f"{key}.{option}": chosen for option, chosen in value.items()}
        else:
            flat[key] = value
    return flat


def restore(run: Run, state: dict) -> None:
    """Bring a training to a state."""
    run.net.load_state_dict(state["net"])
    run.targets.load_state_dict(state["targets"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.step = state["step"]


def save(run: Run) -> None:
    """Write `models/last.pt`, on the main process.

    Dropout and data follow from the step, so the state is the same everywhere and one file is
    enough for any number of processes.
    """
    if run.world.is_main:
        checkpoint.save_state(run.exp_dir / "models" / "last.pt", {
            "step": run.step, "facts": run.facts, "net": run.net.state_dict(),
            "targets": run.targets.state_dict(), "optimizer": run.optimizer.state_dict()})
