"""What training leaves on disk: the state to go on from, and the weights of each epoch.

`models/last.pt` has everything a restart needs (torch's format, read with `weights_only=True`);
`models/epoch_003.safetensors` and `models/avg_model.safetensors` have weights and nothing else.
"""

import io
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from wespeaker_lap.io.table import replacing

AVERAGED = "avg_model"


def save_state(path: Path, state: dict) -> None:
    """Write a training state in one piece.

    Args:
        path: the file, replaced as a whole.
        state: tensors and plain values only.
    """
    data = io.BytesIO()  # written by Python, whose errors tell a full disk from other failures
    torch.save(state, data)
    with replacing(path) as aside:
        aside.write_bytes(data.getbuffer())


def load_state(path: Path) -> dict:
    """Read a training state.

    Raises:
        ValueError: the file is broken.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a broken file
        raise ValueError(f"{path}: not readable ({type(error).__name__}); remove it to train from "
                         f"the start, or put a good copy there") from error


def save_weights(path: Path, net: nn.Module, head: nn.Module,
                 encoder: nn.Module | None = None) -> None:
    """Write the weights of network, classifier and, where it is tuned, encoder as safetensors."""
    parts = {"net": net, "head": head} | ({"encoder": encoder} if encoder is not None else {})
    tensors = {f"{name}.{key}": value.detach().cpu().contiguous()
               for name, part in parts.items() for key, value in part.state_dict().items()}
    with replacing(path) as aside:
        aside.write_bytes(safetensors.torch.save(tensors))


def load_tensors(path: Path, part: str | None = None) -> dict[str, torch.Tensor]:
    """Read a safetensors file.

    Args:
        path: the file.
        part: what a module was called when it was saved: its tensors alone, by their names in the
            module; None for all.

    Raises:
        FileNotFoundError, ValueError: it is missing or broken.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; has the training finished an epoch?")
    try:
        tensors = safetensors.torch.load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: not a whole safetensors file ({error})") from error
    if part is None:
        return tensors
    return {key.removeprefix(f"{part}."): value for key, value in tensors.items()
            if key.startswith(f"{part}.")}


def load_net(path: Path, net: nn.Module, part: str = "net") -> None:
    """Load the weights of one module from a file that `save_weights` wrote.

    Args:
        path: the file.
        net: what the weights are of.
        part: what it was called when they were saved.

    Raises:
        ValueError: lists missing, unexpected and differently shaped tensors.
    """
    tensors = load_tensors(path, part)
    own = net.state_dict()
    problems = [f"missing {key}" for key in own.keys() - tensors.keys()]
    problems += [f"unexpected {key}" for key in tensors.keys() - own.keys()]
    problems += [f"{key} is {tuple(tensors[key].shape)}, the model wants {tuple(own[key].shape)}"
                 for key in own.keys() & tensors.keys() if own[key].shape != tensors[key].shape]
    if problems:
        raise ValueError(f"{path}: not the weights of this model: {'; '.join(sorted(problems))}")
    net.load_state_dict(tensors)


def epoch_path(exp_dir: Path, epoch: int) -> Path:
    """The weights after an epoch, counted from 1."""
    return exp_dir / "models" / f"epoch_{epoch:03d}.safetensors"


def epoch_paths(exp_dir: Path) -> list[Path]:
    """The weights of all epochs on disk, the oldest first."""
    found = (exp_dir / "models").glob("epoch_*.safetensors")
    return sorted(found, key=lambda path: (len(path.name), path.name))  # 1000 after 999


def drop_later_epochs(exp_dir: Path, epoch: int) -> None:
    """Remove weights of epochs after `epoch`, which are of a training that is not gone on with."""
    last = epoch_path(exp_dir, epoch).name
    for path in epoch_paths(exp_dir):
        if (len(path.name), path.name) > (len(last), last):
            path.unlink()


def average_epochs(exp_dir: str | Path, num_avg: int) -> list[Path]:
    """Average the weights of the last epochs into `models/avg_model.safetensors`.

    Args:
        exp_dir: of the training.
        num_avg: how many; all there are when there are fewer.

    Returns:
        The files that were averaged.

    Raises:
        FileNotFoundError: there is none.
        ValueError: they are of different models.
    """
    models = Path(exp_dir) / "models"
    paths = epoch_paths(Path(exp_dir))[-num_avg:]
    if not paths:
        raise FileNotFoundError(f"{models}: no epoch_*.safetensors to average; run stage 3")
    total = load_tensors(paths[-1])
    for path in paths[:-1]:
        tensors = load_tensors(path)
        if {k: v.shape for k, v in tensors.items()} != {k: v.shape for k, v in total.items()}:
            raise ValueError(f"{path}: of another model than {paths[-1]}")
        for key in total:
            if total[key].is_floating_point():
                total[key] += tensors[key]
    mean = {key: value / len(paths) if value.is_floating_point() else value
            for key, value in total.items()}
    with replacing(models / f"{AVERAGED}.safetensors") as aside:
        aside.write_bytes(safetensors.torch.save(mean))
    return paths
