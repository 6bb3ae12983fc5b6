"""Which utterances make which batch: the same for every number of processes, and resumable."""

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler


class ShuffledBatches(Sampler):
    """Batches of one epoch in random order, each cut into equal parts for the ranks.

    The global batch `step` of epoch `epoch` is a function of (seed, epoch, step) alone. Rank r of
    W takes its r-th part of B/W, so W processes see what one process would see. Utterances that
    do not fill a last batch wait for another epoch; a set smaller than one batch is repeated
    until it fills one.

    Where the set is several equal parts, one after the other, each may have a share: so many of
    its utterances are in an epoch, others in every epoch, drawn evenly.

    Args:
        num_utts: size of the set.
        batch_size: B, over all ranks.
        seed: of the training.
        rank, world_size: this process among how many.
        shares: of the parts, above 0 and at most 1; the whole set where all are 1.

    Raises:
        ValueError: an empty set, or a batch that the ranks cannot share equally.

    >>> sampler = ShuffledBatches(9, 1, seed=1, shares=[1, 1 / 3, 1 / 3])  # a ratio of 3:1:1
    >>> sampler.steps_per_epoch, sorted(index // 3 for (_, index), in sampler)
    (5, [0, 0, 0, 1, 2])
    """

    def __init__(self, num_utts: int, batch_size: int, seed: int, rank: int = 0,
                 world_size: int = 1, shares: Sequence[float] = (1.0,)):
        if num_utts < 1:
            raise ValueError("the training set is empty")
        if batch_size < 1 or batch_size % world_size:
            raise ValueError(f"train.batch_size {batch_size} is over all processes and must be a "
                             f"multiple of their number, {world_size}")
        self.num_utts, self.batch_size, self.seed = num_utts, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.part_size = num_utts // len(shares)
        # Of each part; one that has a share is never left out.
        self.counts = [max(1, round(share * self.part_size)) for share in shares]
        self.num_drawn = num_utts if set(shares) == {1} else sum(self.counts)
        self.epoch, self.first_step = 0, 0

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""
        return max(1, self.num_drawn // self.batch_size)

    def start_at(self, epoch: int, first_step: int = 0) -> None:
        """Choose the epoch to be iterated next, and how many of its batches to pass over."""
        self.epoch, self.first_step = epoch, first_step

    def __len__(self) -> int:
        return self.steps_per_epoch - self.first_step

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = np.resize(self._draw(rng), max(self.num_drawn, self.batch_size))
        part = self.batch_size // self.world_size
        for step in range(self.first_step, self.steps_per_epoch):
            first = step * self.batch_size + self.rank * part
            yield [(self.epoch, int(index)) for index in order[first:first + part]]

    def _draw(self, rng: np.random.Generator) -> np.ndarray:
        """The utterances of an epoch in its order, (num_drawn,)."""
        if self.num_drawn == self.num_utts:
            return rng.permutation(self.num_utts)
        drawn = [place * self.part_size + rng.permutation(self.part_size)[:count]
                 for place, count in enumerate(self.counts)]
        return rng.permutation(np.concatenate(drawn))
