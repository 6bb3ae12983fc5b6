"""A sample, a batch of samples, and how one becomes the other."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Sample:
    """One training example: (T, L, D) float32 features, the speaker's class, the utterance id."""

    utt: str
    feats: np.ndarray
    speaker: int


@dataclass(frozen=True)
class Batch:
    """B examples of equal length: feats (B, T, L, D), speakers (B,), and their ids."""

    utts: list[str]
    feats: torch.Tensor
    speakers: torch.Tensor

    def pin_memory(self) -> "Batch":
        """Copy to page-locked memory (called by the loader where the device is a GPU)."""
        return Batch(self.utts, self.feats.pin_memory(), self.speakers.pin_memory())


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples of one shape.

    Args:
        samples: B samples with feats (T, L, D).

    Raises:
        ValueError: the shapes differ; names the first utterance that does not fit.
    """
    shape = samples[0].feats.shape
    for sample in samples:
        if sample.feats.shape != shape:
            raise ValueError(f"{sample.utt}: features of shape {sample.feats.shape} in a batch of "
                             f"{shape}")
    feats = torch.from_numpy(np.stack([sample.feats for sample in samples]))  # (B, T, L, D)
    speakers = torch.tensor([sample.speaker for sample in samples], dtype=torch.long)
    return Batch([sample.utt for sample in samples], feats, speakers)
