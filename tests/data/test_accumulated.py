"""Steps cut into batches: the same examples, whoever computes them."""

from itertools import chain

import pytest

from wespeaker_lap.data.accumulated import CutBatches
from wespeaker_lap.data.balanced import BalancedBatchSampler
from wespeaker_lap.data.sampler import ShuffledBatches

LABELS = [n % 7 for n in range(50)]


def make(is_balanced: bool):
    if is_balanced:
        return BalancedBatchSampler(LABELS, 4, 3, seed=2)
    return ShuffledBatches(50, 12, seed=2)


@pytest.mark.parametrize("is_balanced", [False, True])
@pytest.mark.parametrize("num_parts", [1, 2])
@pytest.mark.parametrize("world_size", [1, 2])
def test_parts_and_ranks_together_are_the_step(is_balanced, num_parts, world_size):
    sampler = make(is_balanced)
    sampler.start_at(3, 1)
    steps = list(sampler)
    ranks = [list(CutBatches(sampler, num_parts, rank, world_size)) for rank in range(world_size)]
    alone = list(CutBatches(sampler, num_parts))
    assert len(alone) == num_parts * len(steps)
    for number, together in enumerate(zip(*ranks, strict=True)):
        assert list(chain(*together)) == alone[number]
        if is_balanced:  # three of each speaker, on every rank
            for keys in together:
                labels = [LABELS[index] for _, index in keys]
                assert all(labels.count(label) == 3 for label in labels)
    for number, step in enumerate(steps):
        assert list(chain(*alone[number * num_parts:(number + 1) * num_parts])) == step


@pytest.mark.parametrize(("is_balanced", "num_parts", "world_size"), [
    (False, 5, 1), (False, 2, 4), (True, 8, 1), (True, 4, 2)])
def test_what_cannot_be_cut_is_refused(is_balanced, num_parts, world_size):
    with pytest.raises(ValueError, match=rf"12 examples a step .* into {num_parts} batches for "
                                         rf"{world_size} process"):
        CutBatches(make(is_balanced), num_parts, 0, world_size)
