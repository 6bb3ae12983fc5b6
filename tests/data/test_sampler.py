"""Batches: the same for every number of processes, each utterance once, resumable."""

import numpy as np
import pytest

from wespeaker_lap.data.sampler import ShuffledBatches


def batches(epoch=0, first_step=0, num_utts=23, batch_size=6, seed=1, **ranks):
    sampler = ShuffledBatches(num_utts, batch_size, seed, **ranks)
    sampler.start_at(epoch, first_step)
    out = list(sampler)
    assert len(sampler) == len(out)
    return out


def test_an_epoch_holds_every_utterance_at_most_once():
    out = batches(epoch=4)
    assert [len(batch) for batch in out] == [6, 6, 6]  # 5 of 23 wait for another epoch
    indices = [index for batch in out for _, index in batch]
    assert len(set(indices)) == 18 and set(indices) <= set(range(23))
    assert {epoch for batch in out for epoch, _ in batch} == {4}


def test_every_utterance_has_its_turn():
    seen = {index for epoch in range(20) for batch in batches(epoch) for _, index in batch}
    assert seen == set(range(23))


@pytest.mark.parametrize("world_size", [2, 3, 6])
def test_processes_share_the_batches_of_one(world_size):
    parts = [batches(epoch=2, rank=rank, world_size=world_size) for rank in range(world_size)]
    for whole, *own in zip(batches(epoch=2), *parts, strict=True):
        assert whole == [item for part in own for item in part]
        assert {len(part) for part in own} == {6 // world_size}


def test_resuming_passes_over_what_was_done():
    for step in range(4):
        assert batches(epoch=1, first_step=step) == batches(epoch=1)[step:]


def test_order_follows_seed_and_epoch():
    assert batches(1) == batches(1)
    assert batches(1) != batches(2)
    assert batches(1, seed=2) != batches(1)


def test_an_order_is_uniform():
    # Where utterance 0 comes in the order of 6: 100 of 600 expected, standard deviation 9.1.
    places = [[index for _, index in batches(epoch, num_utts=6)[0]].index(0)
              for epoch in range(600)]
    counts = np.bincount(places, minlength=6)
    assert counts.min() > 100 - 5 * 9.1 and counts.max() < 100 + 5 * 9.1


def test_a_small_set_is_repeated_to_fill_one_batch():
    out = batches(num_utts=4, batch_size=10)
    assert [len(batch) for batch in out] == [10]
    counts = np.bincount([index for _, index in out[0]], minlength=4)
    assert sorted(counts) == [2, 2, 3, 3]


def test_the_number_of_steps():
    assert ShuffledBatches(23, 6, 1).steps_per_epoch == 3
    assert ShuffledBatches(24, 6, 1).steps_per_epoch == 4
    assert ShuffledBatches(1, 6, 1).steps_per_epoch == 1


@pytest.mark.parametrize(("num_utts", "batch_size", "world_size", "message"), [
    (0, 6, 1, "the training set is empty"),
    (5, 0, 1, "train.batch_size 0"),
    (5, 6, 4, "train.batch_size 6 is over all processes and must be a multiple of their number, 4"),
])
def test_what_cannot_be_shared(num_utts, batch_size, world_size, message):
    with pytest.raises(ValueError, match=message):
        ShuffledBatches(num_utts, batch_size, 0, world_size=world_size)
