"""Go on with a training exactly where it stopped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from wespeaker_lap.config import Config, load_config
from wespeaker_lap.engine import checkpoint
from wespeaker_lap.engine.frontend import FOLDER, export_tuned
from wespeaker_lap.io.facts import load_facts
from wespeaker_lap.io.identity import compare_identity
from wespeaker_lap.io.table import read_lines

if TYPE_CHECKING:
    from wespeaker_lap.engine.run import Run

# What may change between two starts of one training without changing its result.
FREE = {"train.num_workers", "train.dequantize", "train.checkpoint_steps", "train.keep_epochs",
        "train.encoder.checkpointing"}


def is_begun(exp_dir: Path) -> bool:
    """Whether there is a training to go on with."""
    return (exp_dir / "models" / "last.pt").is_file()


def check_same_training(exp_dir: Path, config: Config, speakers: Sequence[str],
                        features: dict) -> None:
    """Refuse to go on with another configuration, other speakers or other features.

    Raises:
        ValueError: lists what differs.
    """
    if not is_begun(exp_dir):
        return
    saved = load_config(exp_dir / "config.yaml")  # keys that are younger have their defaults
    differing = compare_identity(_flatten(saved.model_dump()), _flatten(config.model_dump()),
                                 ignore=tuple(FREE | _under(config.model_dump(), "score")))
    facts = load_facts(exp_dir)
    differing += compare_identity(facts["features"], features)
    if read_lines(exp_dir / "speakers.txt") != list(speakers):
        differing.append("the training speakers are others")
    if differing:
        raise ValueError(f"{exp_dir} holds another training: {'; '.join(differing)}. Choose "
                         f"another --exp_dir, or remove this one")


def find_kept(exp_dir: Path) -> dict[str, dict]:
    """What model.json says of the tuned encoder and of the first weights, where it goes on."""
    facts = load_facts(exp_dir) if is_begun(exp_dir) else {}
    return {name: facts[name] for name in ("tuned", "init") if name in facts}


def _flatten(tree: dict, prefix: str = "") -> dict:
    flat = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def _under(tree: dict, section: str) -> set[str]:
    return set(_flatten({section: tree[section]}))


def save(run: Run) -> None:
    """Write `models/last.pt`, on the main process.

    Batch norm runs over all processes and dropout follows from the step, so the state is the
    same everywhere and one file is enough for any number of processes.
    """
    if not run.world.is_main:
        return
    checkpoint.save_state(run.exp_dir / "models" / "last.pt", {
        "step": run.step,
        "num_utts": run.sampler.num_utts,
        **{name: part.state_dict() for name, part in _parts(run).items()},
        "optimizer": run.optimizer.state_dict(),
        "scaler": run.scaler.state_dict(),
    })


def _parts(run: Run) -> dict[str, nn.Module]:
    """What is trained, by its name in the state."""
    parts = {"net": run.net, "head": run.objective.head, "contrastive": run.objective.contrastive,
             FOLDER: run.encoder, "ema": run.ema}
    return {name: part for name, part in parts.items() if part is not None}


def save_epoch(run: Run, epoch: int) -> None:
    """Write the weights after an epoch, remove those that are too old, save the state."""
    if not run.world.is_main:
        return
    checkpoint.save_weights(checkpoint.epoch_path(run.exp_dir, epoch), **run.weights)
    if run.ema is not None:
        moving = checkpoint.weights_path(run.exp_dir, checkpoint.MOVING)
        checkpoint.save_weights(moving, **run.ema.module)
    if run.encoder is not None:
        export_tuned(run.exp_dir, run.material.frontend)
    save(run)
    checkpoint.drop_old_epochs(run.exp_dir, run.config.train.keep_epochs, run.config.score.average)


def restore(run: Run) -> None:
    """Load `models/last.pt` where there is one.

    Raises:
        ValueError: the training set has another number of utterances, or not every process
            finds the same state.
    """
    path = run.exp_dir / "models" / "last.pt"
    if path.is_file():
        _load(run, path)
    if len(set(run.world.gather(run.step))) > 1:
        raise ValueError(f"{path}: not the same for every process; --exp_dir must be on a disk "
                         f"that all machines share")
    if run.world.is_main:
        checkpoint.drop_later_epochs(run.exp_dir, run.step // run.sampler.steps_per_epoch)


def _load(run: Run, path: Path) -> None:
    state = checkpoint.load_state(path)
    if state["num_utts"] != run.sampler.num_utts:
        raise ValueError(f"{path}: trained on {state['num_utts']} utterances, the set has "
                         f"{run.sampler.num_utts} now; choose another --exp_dir")
    for name, part in _parts(run).items():
        part.load_state_dict(state[name])
    run.optimizer.load_state_dict(state["optimizer"])
    if state["scaler"]:  # empty where it was off: saved on a device that needs no scaling
        run.scaler.load_state_dict(state["scaler"])
    run.step = state["step"]
