"""Which utterances make which batch: the same for every number of processes, and resumable."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


class ShuffledBatches(Sampler):
    """Batches of one epoch in random order, each cut into equal parts for the ranks.

    The global batch `step` of epoch `epoch` is a function of (seed, epoch, step) alone. Rank r of
    W takes its r-th part of B/W, so W processes see what one process would see. Utterances that
    do not fill a last batch wait for another epoch; a set smaller than one batch is repeated
    until it fills one.

    Args:
        num_utts: size of the set.
        batch_size: B, over all ranks.
        seed: of the training.
        rank, world_size: this process among how many.

    Raises:
        ValueError: an empty set, or a batch that the ranks cannot share equally.
    """

    def __init__(self, num_utts: int, batch_size: int, seed: int, rank: int = 0,
                 world_size: int = 1):
        if num_utts < 1:
            raise ValueError("the training set is empty")
        if batch_size < 1 or batch_size % world_size:
            raise ValueError(f"train.batch_size {batch_size} is over all processes and must be a "
                             f"multiple of their number, {world_size}")
        self.num_utts, self.batch_size, self.seed = num_utts, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.epoch, self.first_step = 0, 0

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""
        return max(1, self.num_utts // self.batch_size)

    def start_at(self, epoch: int, first_step: int = 0) -> None:
        """Choose the epoch to be iterated next, and how many of its batches to pass over."""
        self.epoch, self.first_step = epoch, first_step

    def __len__(self) -> int:
        return self.steps_per_epoch - self.first_step

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = np.resize(rng.permutation(self.num_utts),
                          max(self.num_utts, self.batch_size))
        part = self.batch_size // self.world_size
        for step in range(self.first_step, self.steps_per_epoch):
            first = step * self.batch_size + self.rank * part
            yield [(self.epoch, int(index)) for index in order[first:first + part]]
