"""Batches of a step that are computed one after the other, where all at once would not fit."""

from collections.abc import Iterator

from wespeaker_lap.data.balanced import BalancedBatchSampler
from wespeaker_lap.data.sampler import ShuffledBatches


class CutBatches:
    """The batches of a sampler, each cut into equal parts that follow one another.

    What is in a step depends on the sampler alone, so 4 batches of 8 have the examples of one batch
    of 32; speakers of a balanced batch stay whole. Each part is shared out to the ranks as it
    stands, so W processes see in each what one process would see.

    Args:
        sampler: of whole steps, for all processes.
        num_parts: batches of each.
        rank, world_size: this process among how many.

    Raises:
        ValueError: its batches cannot be cut so.

    >>> sampler = ShuffledBatches(8, 4, seed=1)
    >>> whole, parts = list(sampler), list(CutBatches(sampler, 2))
    >>> whole[0] == parts[0] + parts[1], len(parts)
    (True, 4)
    """

    def __init__(self, sampler: ShuffledBatches | BalancedBatchSampler, num_parts: int,
                 rank: int = 0, world_size: int = 1):
        # Utterances that belong together.
        whole = sampler.utts_per_speaker if isinstance(sampler, BalancedBatchSampler) else 1
        if sampler.batch_size % (num_parts * world_size * whole):
            raise ValueError(f"{sampler.batch_size} examples a step (train.batch_size times "
                             f"accumulate) cannot be cut into {num_parts} batches for {world_size} "
                             f"process(es), {whole} staying together; change one of the two")
        self.sampler, self.num_parts = sampler, num_parts
        self.rank, self.world_size = rank, world_size

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        size = self.sampler.batch_size // self.num_parts // self.world_size
        for keys in self.sampler:
            for part in range(self.num_parts):
                first = (part * self.world_size + self.rank) * size
                yield keys[first:first + size]
