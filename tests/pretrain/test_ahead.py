"""Batches made ahead: which they are, on which process; what becomes of errors and the thread."""

import threading
from contextlib import closing

import numpy as np
import pytest
import torch
from tiny_pretraining import ALONE, make_config

from wespeaker_lap.data.packed import PackedAudio
from wespeaker_lap.engine.dist import World
from wespeaker_lap.pretrain.batch import make_ahead, make_batch
from wespeaker_lap.pretrain.crops import CropSource

NUM_FRAMES, PATIENCE = 11, 20.0


@pytest.fixture
def source(pack) -> CropSource:
    audio = PackedAudio(pack)
    return CropSource(audio, np.arange(len(audio)), make_config().crops, 5)


def test_a_batch_is_the_pairs_of_its_places(source):
    batch = make_batch(source, 3, make_config(), NUM_FRAMES, ALONE)
    examples = [example for place in range(4) for example in source.pair(3, place)]
    for n, example in enumerate(examples):
        assert np.array_equal(batch.clean[n], example.clean)
        assert np.array_equal(batch.noisy[n], example.noisy)
    assert batch.utts.tolist() == [example.utt for example in examples]
    assert batch.has_pair.tolist() == [example.has_pair for example in examples]
    assert batch.mask.shape == (8, NUM_FRAMES)
    assert [x.dtype for x in vars(batch).values()] == [
        torch.float32, torch.float32, torch.bool, torch.int64, torch.bool]
    assert len({bytes(row) for row in batch.mask.numpy()}) > 4  # each crop has its own mask


def test_clean_pairs_are_seen_whole_and_brought_together(pack):
    config = make_config(crops__clean_share=0.5, contrastive__pairs="clean", train__batch_size=64)
    audio = PackedAudio(pack)
    source = CropSource(audio, np.arange(len(audio)), config.crops, 5)
    batch = make_batch(source, 3, config, NUM_FRAMES, ALONE)
    clean = torch.tensor([example.is_clean for place in range(32)
                          for example in source.pair(3, place)])
    assert 0 < clean.sum() < 64
    assert torch.equal(batch.mask.any(dim=1), ~clean)
    assert not batch.has_pair[~clean].any()


@pytest.mark.parametrize("size", [2, 4])
def test_processes_share_the_batch_out(source, size):
    whole = make_batch(source, 3, make_config(), NUM_FRAMES, ALONE)
    parts = [make_batch(source, 3, make_config(), NUM_FRAMES, World(rank, size, ALONE.device))
             for rank in range(size)]
    for name, value in vars(whole).items():
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), value), name


def test_steps_come_in_order_and_one_ahead():
    made = []
    with closing(make_ahead(lambda step: made.append(step) or step, 3, 7)) as batches:
        assert next(batches) == 3
        assert [*batches] == [4, 5, 6]
    assert made == [3, 4, 5, 6]


def test_the_next_is_made_while_one_is_in_use():
    """The second is under way before anybody asks for it, the third is not."""
    is_begun = [threading.Event() for _ in range(4)]
    makers = set()

    def make(step: int) -> int:
        makers.add(threading.get_ident())
        is_begun[step].set()
        return step

    with closing(make_ahead(make, 0, 4)) as batches:
        next(batches)
        assert is_begun[1].wait(PATIENCE)
        assert not is_begun[2].is_set()
    assert len(makers) == 1
    assert threading.get_ident() not in makers


def test_an_error_comes_up_where_its_batch_is_asked_for():
    def make(step: int) -> int:
        if step == 2:
            raise ValueError("utt7: the recording is broken")
        return step

    batches = make_ahead(make, 0, 5)
    assert [next(batches), next(batches)] == [0, 1]
    with pytest.raises(ValueError, match="utt7: the recording is broken"):
        next(batches)


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_the_thread_ends_with_the_loop(error):
    before = threading.active_count()
    try:
        with closing(make_ahead(lambda step: step, 0, 100)) as batches:
            next(batches)
            assert threading.active_count() == before + 1
            if error:
                raise error
    except KeyboardInterrupt:
        pass
    assert threading.active_count() == before
