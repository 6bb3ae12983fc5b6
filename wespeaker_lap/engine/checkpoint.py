"""What training leaves on disk: the state to go on from, and the weights of each epoch.

`models/last.pt` has everything a restart needs (torch's format, read with `weights_only=True`);
`models/epoch_003.safetensors`, `models/ema_model.safetensors` (a moving average of the weights) and
`models/avg_model.safetensors` have weights and nothing else.
"""

import io
import logging
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from wespeaker_lap.engine.choice import rank_epochs, read_eers
from wespeaker_lap.io.table import replacing

AVERAGED, MOVING = "avg_model", "ema_model"
SELECTIONS = ("last", "best", "ema")


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
    tensors = {f"{name}.{key}": value.detach().cpu()
               for name, part in parts.items() for key, value in part.state_dict().items()}
    save_tensors(path, tensors)


def save_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write a safetensors file in one piece."""
    with replacing(path) as aside:
        # A ResNet's weights may lie with their channels last, which the format does not know.
        aside.write_bytes(safetensors.torch.save({name: tensor.contiguous()
                                                  for name, tensor in tensors.items()}))


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


def weights_path(exp_dir: Path, stem: str) -> Path:
    """A file in `models/`."""
    return exp_dir / "models" / f"{stem}.safetensors"


def epoch_path(exp_dir: Path, epoch: int) -> Path:
    """The weights after an epoch, counted from 1."""
    return weights_path(exp_dir, f"epoch_{epoch:03d}")


def epoch_of(path: Path) -> int:
    """The epoch of such weights."""
    return int(path.stem.removeprefix("epoch_"))


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


def drop_old_epochs(exp_dir: Path, num_kept: int, select: str) -> None:
    """Remove weights that will not be averaged.

    Args:
        exp_dir: of the training.
        num_kept: epochs that stay: the last ones; where `select` is "best" those of the lowest
            validation EER, and the newest.
        select: as for `average_epochs`.
    """
    paths = epoch_paths(exp_dir)
    kept = paths[-num_kept:]
    if select == "best":
        best = rank_epochs(read_eers(exp_dir))[:num_kept]
        kept = [*(epoch_path(exp_dir, epoch) for epoch in best), *paths[-1:]]
    for path in paths:
        if path not in kept:
            path.unlink()


def average_epochs(exp_dir: str | Path, num_avg: int, select: str = "last") -> list[Path]:
    """Average weights into `models/avg_model.safetensors`; counts are the newest.

    Args:
        exp_dir: of the training.
        num_avg: how many epochs; all there are when there are fewer.
        select: which: the "last", the "best" by validation EER, or those of "ema", the moving
            average that training has made, which is taken as it is.

    Returns:
        The files that were averaged, the oldest first.

    Raises:
        FileNotFoundError: there is none.
        ValueError: they are of different models, or there was no validation to choose by.
    """
    paths = choose_weights(Path(exp_dir), num_avg, select)
    total = load_tensors(paths[-1])
    for path in paths[:-1]:
        tensors = load_tensors(path)
        if {k: v.shape for k, v in tensors.items()} != {k: v.shape for k, v in total.items()}:
            raise ValueError(f"{path}: of another model than {paths[-1]}")
        for key in total:
            if total[key].is_floating_point():
                total[key] += tensors[key]
    save_tensors(weights_path(Path(exp_dir), AVERAGED), {
        key: value / len(paths) if value.is_floating_point() else value
        for key, value in total.items()})
    return paths


def choose_weights(exp_dir: Path, num_avg: int, select: str) -> list[Path]:
    """The files that `average_epochs` averages; see there."""
    if select not in SELECTIONS:
        raise ValueError(f"want an average of {', '.join(SELECTIONS)}, got {select!r}")
    if select == "ema":
        path = weights_path(exp_dir, MOVING)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; set train.ema_decay before the "
                                    f"training, or average its last or best epochs")
        return [path]
    paths = epoch_paths(exp_dir)
    if not paths:
        raise FileNotFoundError(f"{exp_dir}/models: no epoch_*.safetensors to average; run stage 3")
    if select == "best":
        return _choose_best(exp_dir, paths, num_avg)
    if len(paths) < num_avg:
        logging.warning("%s/models: averaging all %d epochs on disk, for want of %d; "
                        "train.keep_epochs says how many stay", exp_dir, len(paths), num_avg)
    return paths[-num_avg:]


def _choose_best(exp_dir: Path, paths: list[Path], num_avg: int) -> list[Path]:
    """The best epochs on disk, by number; says which would have been better."""
    eers = read_eers(exp_dir)
    ranked = rank_epochs(eers)
    found = [epoch for epoch in ranked if epoch_path(exp_dir, epoch) in paths][:num_avg]
    if not found:
        raise ValueError(f"{exp_dir}/metrics.jsonl: no validation EER of an epoch whose weights "
                         f"are in models/, so that none is the best; average the last ones "
                         f"(--select last, score.average), or train with --valid_trials")
    unknown = [epoch for epoch, eer in eers.items() if epoch not in ranked]
    if unknown:
        logging.warning("%s: left out epochs whose validation EER is not a number: %s", exp_dir,
                        " ".join(map(str, unknown)))
    gone = sorted(set(ranked[:len(found)]) - set(found))
    if gone:
        logging.warning("%s: epochs %s were better, but their weights are gone; with score.average "
                        "best, training keeps them", exp_dir, " ".join(map(str, gone)))
    return [epoch_path(exp_dir, epoch) for epoch in sorted(found)]
