"""Utterances through a network in eval mode, shared out over the processes and put together."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from wespeaker_lap.engine.dist import World
from wespeaker_lap.io.table import name_some

Spans = Mapping[str, tuple[int, int]]  # utterance -> first frame and number of frames


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into eval mode, and back as it was."""
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)


def gather_vectors(own: dict[str, np.ndarray], utts: Sequence[str], world: World) -> np.ndarray:
    """Bring together what each process has embedded.

    Args:
        own: utterance -> (E,) of this process.
        utts: n ids, which all processes together have.
        world: this process among all.

    Returns:
        (n, E) float32 on every process, in the order of `utts`.

    Raises:
        ValueError: an embedding is not finite; names them.
    """
    found: dict[str, np.ndarray] = {}
    for part in world.gather(own):
        found.update(part)
    vectors = np.stack([found[utt] for utt in utts])
    broken = [utt for utt, row in zip(utts, vectors, strict=True) if not np.isfinite(row).all()]
    if broken:
        raise ValueError(f"embeddings that are not finite numbers: {name_some(broken)}")
    return vectors


def pad_batch(arrays: Sequence[np.ndarray],
              device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Put utterances side by side: (T, L, D) float32 each -> (B, T, L, D), and lengths (B,)."""
    feats = [torch.from_numpy(one) for one in arrays]
    lengths = torch.tensor([len(one) for one in feats], device=device)
    return nn.utils.rnn.pad_sequence(feats, batch_first=True).to(device), lengths


@torch.inference_mode()
def embed_batch(net: nn.Module, arrays: Sequence[np.ndarray], device: torch.device) -> np.ndarray:
    """Embed some utterances together: (T, L, D) float32 each -> (B, E)."""
    return net(*pad_batch(arrays, device)).float().cpu().numpy()  # (B, E)
