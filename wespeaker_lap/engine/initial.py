"""Begin a training with the weights of another one: fine-tuning with a large margin, or jointly."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from wespeaker_lap.config import load_config
from wespeaker_lap.engine import checkpoint
from wespeaker_lap.io.facts import find_features, load_facts, name_encoder
from wespeaker_lap.io.identity import DATA_FIELDS, ROUNDING_FIELDS, compare_identity
from wespeaker_lap.io.table import name_some, read_lines

# How features are stored may change: a network that has learnt from rounded ones takes others.
FREE_FIELDS = (*DATA_FIELDS, *ROUNDING_FIELDS, "codec")
PACKED = "model.safetensors"  # weights of a packed model, beside its model.json and speakers.txt


@dataclass(frozen=True)
class Initial:
    """Where the weights are.

    Attributes:
        path: of a safetensors file of a training.
        speakers: of its classifier, in class order; empty where they are not known.
        features: identity of what it learnt from; empty where it is not known.
        exp_dir: of the training; None where it is not known.
    """

    path: Path
    speakers: list[str]
    features: dict
    exp_dir: Path | None = None


def find_initial(given: str | Path) -> Initial:
    """Find what a user names.

    Args:
        given: the folder of a training, whose averaged or else last weights are taken; that of a
            packed model; or one safetensors file, in the `models/` of a training or anywhere else.

    Raises:
        FileNotFoundError: there are no weights.
    """
    path = Path(given)
    folder = path if path.is_dir() else path.resolve().parent.parent
    if path.is_dir():
        path = folder / "models" / f"{checkpoint.AVERAGED}.safetensors"
        if not path.is_file():
            path = (checkpoint.epoch_paths(folder) or [path])[-1]
        if (folder / PACKED).is_file():
            path = folder / PACKED
    if not path.is_file():
        raise FileNotFoundError(f"--init {given}: no weights at {path}; give the folder of a "
                                f"training that has finished an epoch, or a safetensors file")
    if not (folder / "model.json").is_file():
        return Initial(path, [], {})
    return Initial(path, read_lines(folder / "speakers.txt"), find_features(load_facts(folder)),
                   folder)


def describe_initial(initial: Initial) -> dict:
    """What model.json says of the training whose weights another one began with.

    Returns:
        The name of its `system`, and, where they are known, of its `encoder` and its `margin`.
    """
    if initial.exp_dir is None:
        return {"system": initial.path.stem}
    loss = load_config(initial.exp_dir / "config.yaml").loss
    return {"system": initial.exp_dir.resolve().name, "margin": getattr(loss, "margin", 0.0),
            "encoder": name_encoder(load_facts(initial.exp_dir))}


def load_initial(initial: Initial, net: nn.Module, head: nn.Module, speakers: Sequence[str],
                 features: dict) -> str:
    """Load network and classifier; the network must be the same, speakers are known by name.

    Args:
        initial: where the weights are.
        net: of the training that begins.
        head: its classifier; speakers that are new to it keep their random weights.
        speakers: its classes.
        features: identity of what it learns from.

    Returns:
        A line that says which speakers were known.

    Raises:
        ValueError: the features or the network are others, or the classifier is of another kind.
    """
    differing = compare_identity(initial.features, features, FREE_FIELDS)
    if initial.features and differing:
        raise ValueError(f"--init {initial.path}: trained on other features: "
                         f"{'; '.join(differing)}. After joint fine-tuning, set frontend.name to "
                         f"the folder encoder/ beside its model.json")
    checkpoint.load_net(initial.path, net)
    tensors = checkpoint.load_tensors(initial.path, "head")
    if not tensors:
        return f"from {initial.path}: no classifier in it; all {len(speakers)} speakers are new"
    if not initial.speakers:
        raise ValueError(f"--init {initial.path}: no model.json and speakers.txt in the folder "
                         f"above it, so that its classifier's speakers are not known")
    return _load_head(initial, head, tensors, speakers)


@torch.no_grad()
def _load_head(initial: Initial, head: nn.Module, tensors: dict[str, torch.Tensor],
               speakers: Sequence[str]) -> str:
    """Copy the rows of the speakers that both have; every tensor of a head has a row a speaker."""
    own, names = head.state_dict(), {name: row for row, name in enumerate(initial.speakers)}
    kinds = [{key: tuple(value.shape[1:]) for key, value in part.items()}
             for part in (own, tensors)]
    sizes = {len(value) for value in tensors.values()}
    if kinds[0] != kinds[1] or sizes != {len(names)}:
        raise ValueError(f"--init {initial.path}: its classifier is another: of {sorted(sizes)} "
                         f"speakers with {kinds[1]}, while speakers.txt has {len(names)} and this "
                         f"training wants {kinds[0]}; keep loss.name, loss.num_subcenters and "
                         f"model.embed_dim")
    kept = [name for name in speakers if name in names]
    rows = [row for row, name in enumerate(speakers) if name in names]
    for key, value in own.items():
        value[rows] = tensors[key][[names[name] for name in kept]].to(value)
    head.load_state_dict(own)
    new = [name for name in speakers if name not in names]
    return (f"from {initial.path}: {len(kept)} speakers kept, {len(names) - len(kept)} left out, "
            f"{len(new)} new{': ' * bool(new)}{name_some(new)}")
