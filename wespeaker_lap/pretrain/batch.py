"""Batches of crops, each made in a thread of its own while the one before is trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wespeaker_lap.engine.dist import World
from wespeaker_lap.pretrain.config import PretrainConfig
from wespeaker_lap.pretrain.crops import CropSource
from wespeaker_lap.pretrain.objective import draw_mask

MASK_SEED = 103  # keeps the masks' draws apart from the crops'


@dataclass(frozen=True)
class Batch:
    """One process's part of a batch: B crops, those at places 2i and 2i + 1 of one recording.

    Attributes:
        clean, noisy: (B, S) waveforms.
        mask: (B, T) bool, the frames to hide: none of clean crops.
        utts: (B,) numbers of the recordings.
        has_pair: (B,) bool, the crops that the contrast brings together with their partner.
    """

    clean: Tensor
    noisy: Tensor
    mask: Tensor
    utts: Tensor
    has_pair: Tensor

    def pin(self, device: torch.device) -> Batch:
        """In memory from which a GPU copies while it computes; as it is for other devices."""
        if device.type != "cuda":
            return self
        with torch.cuda.device(device):  # a new thread begins with the first one
            return Batch(*(x.pin_memory() for x in vars(self).values()))

    def to(self, device: torch.device) -> Batch:
        """On a device."""
        return Batch(*(x.to(device, non_blocking=True) for x in vars(self).values()))


def make_batch(source: CropSource, step: int, config: PretrainConfig, num_frames: int,
               world: World) -> Batch:
    """This process's part of the batch of a step, for `num_frames` T of the encoder."""
    pairs, masked = config.train.batch_size // 2 // world.size, config.masked
    places = range(world.rank * pairs, (world.rank + 1) * pairs)
    examples = [example for place in places for example in source.pair(step, place)]
    masks = [draw_mask(num_frames, masked.span, masked.share,
                       np.random.default_rng([source.seed, step, place, MASK_SEED + half]))
             for place in places for half in (0, 1)]
    masks = [mask & (not example.is_clean) for mask, example in zip(masks, examples, strict=True)]
    takes_all = config.contrastive.pairs == "all"
    # No arithmetic of torch in here: in this thread it would start a second set of OpenMP threads.
    return Batch(*(torch.from_numpy(np.stack(rows)) for rows in (
        [example.clean for example in examples], [example.noisy for example in examples], masks,
        [np.int64(example.utt) for example in examples],
        [np.bool_(example.has_pair and (takes_all or example.is_clean))
         for example in examples])))


def make_ahead(make: Callable[[int], Batch], first: int, last: int) -> Iterator[Batch]:
    """The batches of the steps from `first` to `last` - 1, one ahead of its use.

    An error in the making of a batch comes up where that batch is asked for. To be closed
    (`contextlib.closing`), which waits for the batch in the making.
    """
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(make, first)
        for step in range(first, last):
            batch = coming.result()
            if step + 1 < last:
                coming = thread.submit(make, step + 1)
            yield batch
