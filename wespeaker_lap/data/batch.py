"""A batch of training examples."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Batch:
    """B examples of equal length, from one process's part of a global batch.

    Args:
        utts: their ids.
        feats: (B, T, L, D) float32, or (B, n) uint8 as they are stored (see `Dequantize`), or
            (B, S) waveforms; in page-locked memory where the device is a GPU.
        speakers: (B,) classes.
        num_bytes: read from disk for it.
        keys: what its examples were asked for by.
    """

    utts: list[str]
    feats: torch.Tensor
    speakers: torch.Tensor
    num_bytes: int
    keys: list[tuple[int, int]]
