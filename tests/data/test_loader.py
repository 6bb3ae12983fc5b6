"""Batches by threads: what is in them, in which order, and what ends them."""

import threading
import time

import numpy as np
import pytest
import torch

from wespeaker_lap.data.loader import MAX_AHEAD, BatchLoader, choose_num_threads

KEYS = [[(0, 5), (0, 1), (0, 3)], [(1, 2), (1, 0), (1, 4)], [(2, 7), (2, 6), (2, 5)]]


class Numbers:
    """Example (epoch, index): full of 10 * epoch + index, speaker -index, index frames long."""

    shape, dtype, frame_bytes = (4, 2, 3), torch.float32, 100

    def __init__(self, broken=()):
        self.broken, self.threads, self.asked = broken, set(), []
        self.lock = threading.Lock()

    def fill(self, key, out):
        with self.lock:
            self.threads.add(threading.get_ident())
            self.asked.append(key)
        time.sleep(0.002)  # so that another thread gets its turn
        if key in self.broken:
            raise ValueError(f"{key} is broken")
        out[...] = 10 * key[0] + key[1]
        return f"utt{key[1]}", -key[1], key[1]


@pytest.mark.parametrize("num_threads", [0, 1, 2, 5])
def test_batches_hold_their_examples_in_order(num_threads):
    source = Numbers()
    loader = BatchLoader(source, KEYS, num_threads)
    for _ in range(2):  # every iteration begins anew
        batches = list(loader)
        assert len(batches) == 3
        for keys, batch in zip(KEYS, batches, strict=True):
            assert batch.feats.shape == (3, 4, 2, 3) and batch.feats.dtype == torch.float32
            for (epoch, index), row in zip(keys, batch.feats, strict=True):
                assert row.unique().tolist() == [10 * epoch + index]
            assert batch.utts == [f"utt{index}" for _, index in keys]
            assert batch.speakers.dtype == torch.long
            assert batch.speakers.tolist() == [-index for _, index in keys]
            assert batch.num_bytes == 100 * sum(index for _, index in keys)
    assert (threading.get_ident() in source.threads) == (num_threads == 0)
    assert len(source.threads) <= 2 * max(1, num_threads)


def test_no_two_batches_share_memory():
    batches = list(BatchLoader(Numbers(), KEYS, 2))
    assert len({batch.feats.data_ptr() for batch in batches}) == 3


@pytest.mark.parametrize("num_threads", [0, 2])
def test_an_error_comes_with_its_batch(num_threads):
    batches = iter(BatchLoader(Numbers(broken=[(1, 0)]), KEYS, num_threads))
    assert next(batches).utts == ["utt5", "utt1", "utt3"]
    with pytest.raises(ValueError, match=r"^\(1, 0\) is broken$"):
        next(batches)


def test_it_works_ahead_and_not_too_far():
    source, endless = Numbers(), ([(number, 1)] for number in range(10**9))
    batches = iter(BatchLoader(source, endless, 1))
    next(batches)
    time.sleep(0.1)
    assert 1 < len(source.asked) <= MAX_AHEAD + 1
    batches.close()


def test_an_end_in_the_middle_leaves_no_thread():
    before = threading.active_count()
    for _ in BatchLoader(Numbers(), KEYS * 5, 3):
        assert threading.active_count() > before
        break
    assert threading.active_count() == before


def test_threads_fill_at_the_same_time():
    """Two threads that wait for each other inside `fill` both get on."""
    barrier = threading.Barrier(2, timeout=10)

    class Meeting(Numbers):
        def fill(self, key, out):
            barrier.wait()
            return super().fill(key, out)

    batch, = BatchLoader(Meeting(), [[(0, 1), (0, 2)]], 2)
    assert batch.utts == ["utt1", "utt2"]


def test_torch_computes_with_one_thread_in_each_and_as_before_elsewhere():
    before, seen = torch.get_num_threads(), {}

    class Watching(Numbers):
        def fill(self, key, out):
            seen[threading.get_ident()] = torch.get_num_threads()
            return super().fill(key, out)

    try:
        torch.set_num_threads(3)
        list(BatchLoader(Watching(), KEYS, 2))
        assert set(seen.values()) == {1} and torch.get_num_threads() == 3
        later = []
        thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert later == [3]
    finally:
        torch.set_num_threads(before)


def test_threads_from_the_machine(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)), raising=False)
    assert [choose_num_threads(count) for count in (1, 2, 4, 8, 16, 32)] == [8, 7, 3, 1, 1, 1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_page_locked_memory():
    batch, *_ = BatchLoader(Numbers(), KEYS, 1, pin=True)
    assert batch.feats.is_pinned() and np.isfinite(batch.feats.numpy()).all()
