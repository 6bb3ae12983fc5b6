"""Recordings to embeddings, in batches that change nothing but the time they take."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn

from wespeaker_lap.frontends.fbank import FbankLayer
from wespeaker_lap.frontends.selection import Selection
from wespeaker_lap.frontends.ssl import FrozenSSL
from wespeaker_lap.io.feats import as_stored


@torch.inference_mode()
def embed_samples(frontend: FrozenSSL | FbankLayer | Selection, net: nn.Module, codec: str,
                  waves: Sequence[np.ndarray], batch_size: int = 8) -> np.ndarray:
    """Embed waveforms.

    Args:
        frontend: waveforms to features.
        net: (B, T, L, D), lengths -> (B, E), on the frontend's device, in eval mode.
        codec: of the features it was trained on; features are rounded alike.
        waves: n waveforms (S,) float32, each of one frame at least.
        batch_size: recordings in a forward pass at most; a long one goes through alone.

    Returns:
        (n, E) float32, in the order of `waves`; an embedding is the same alone and in a batch.

    Raises:
        ValueError: `batch_size` below 1.
    """
    if batch_size < 1:
        raise ValueError(f"want a batch_size of 1 or more, got {batch_size}")
    device = next(net.parameters()).device
    rows: dict[int, np.ndarray] = {}
    limit = round(min(frontend.max_seconds, 30.0) * frontend.sample_rate)
    for batch in _group(waves, batch_size, limit):
        feats = _compute(frontend, [torch.from_numpy(waves[row]) for row in batch], device)
        stored = [torch.from_numpy(as_stored(codec, one.float().cpu().numpy())) for one in feats]
        lengths = torch.tensor([len(one) for one in stored], device=device)
        padded = nn.utils.rnn.pad_sequence(stored, batch_first=True).to(device)  # (B, T, L, D)
        rows.update(zip(batch, net(padded, lengths).float().cpu().numpy(), strict=True))
    return np.stack([rows[row] for row in range(len(waves))])


def _group(waves: Sequence[np.ndarray], batch_size: int, limit: int) -> Iterator[list[int]]:
    """Rows of similar length, those over the limit alone."""
    batch: list[int] = []
    for row in sorted(range(len(waves)), key=lambda row: len(waves[row])):
        if batch and (len(batch) == batch_size or len(waves[row]) > limit):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _compute(frontend: FrozenSSL | FbankLayer | Selection, waves: list[torch.Tensor],
             device: torch.device) -> list[torch.Tensor]:
    """Features (T, L, D) of each waveform."""
    if len(waves) == 1:
        return [frontend.encode(waves[0].to(device))]
    padded = nn.utils.rnn.pad_sequence(waves, batch_first=True).to(device)  # (B, S)
    feats, frames = frontend(padded, [len(wave) for wave in waves])  # (B, T, L, D)
    return [one[:num] for one, num in zip(feats, frames.tolist(), strict=True)]
