"""Memory of batches: nobody's is lent twice at a time, and what comes back is lent again."""

import gc

import numpy as np
import pytest
import torch

from wespeaker_lap.data.batch_memory import BatchMemory

SHAPE = (3, 4, 2)


def test_what_is_dropped_is_lent_again(monkeypatch):
    memory, places, made, empty = BatchMemory(), set(), [], np.empty
    monkeypatch.setattr(np, "empty", lambda *args: made.append(args) or empty(*args))
    for value in range(20):
        batch = memory.lend(SHAPE, torch.float32)
        assert batch.shape == SHAPE and batch.dtype == torch.float32 and batch.is_contiguous()
        places.add(batch.data_ptr())
        batch.fill_(value)
    assert len(places) == len(made) == 2  # the name holds one while the next is lent


@pytest.mark.parametrize("hold", [
    lambda batch: batch, lambda batch: batch[1:, 0], lambda batch: batch.numpy(),
    lambda batch: batch.numpy()[2], lambda batch: batch.view(torch.int32), lambda batch: [batch],
    lambda batch: (batch * torch.ones(2, requires_grad=True)).grad_fn])
def test_what_anyone_still_holds_is_not_lent(hold):
    """A view, an array, or what autograd keeps for the way back."""
    memory = BatchMemory()
    batch = memory.lend(SHAPE, torch.float32)
    place = batch.data_ptr()
    held = hold(batch)
    del batch
    gc.collect()
    assert memory.lend(SHAPE, torch.float32).data_ptr() != place
    del held
    gc.collect()
    others = [memory.lend(SHAPE, torch.float32) for _ in range(2)]
    assert place in {other.data_ptr() for other in others}


def test_batches_held_together_are_apart():
    memory = BatchMemory()
    batches = [memory.lend(SHAPE, torch.float32).fill_(n) for n in range(5)]
    assert [batch.unique().tolist() for batch in batches] == [[n] for n in range(5)]


def test_another_size_and_type():
    memory = BatchMemory()
    memory.lend(SHAPE, torch.float32)
    bytes_ = memory.lend((5, 7), torch.uint8)
    assert bytes_.shape == (5, 7) and bytes_.dtype == torch.uint8
    assert memory.lend((2, 24), torch.uint8).shape == (2, 24)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_page_locked_memory():
    assert BatchMemory(pin=True).lend(SHAPE, torch.float32).is_pinned()
