"""Batches made by threads, ahead of their use.

Threads, not processes: reading and decoding a crop is done by the operating system and torch, both
without Python's lock, so threads keep all cores busy, write straight into the batch's memory, and
need neither pickling nor shared memory nor a word about fork or spawn.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch

from wespeaker_lap.data.batch import Batch
from wespeaker_lap.data.batch_memory import BatchMemory

MAX_THREADS = 8  # a process; more of them only wait for each other
MAX_AHEAD_BYTES = 2 << 30  # of batches made ahead
MAX_AHEAD = 4  # batches

Key = tuple[int, int]  # (epoch, index)
# The keys of a batch, its memory, and its parts or their futures.
_Pending = tuple[Sequence[Key], torch.Tensor, list]


class Source(Protocol):
    """What batches are made of, see `source.FeatureSource`."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    frame_bytes: int

    def fill(self, key: Key, out: np.ndarray) -> tuple[str, int, int]:
        """Write an example into its place; returns utterance, class, frames read."""


def choose_num_threads(num_processes: int = 1) -> int:
    """Reading threads of a process: the cores it has to itself but one, at least one, at most 8.

    Args:
        num_processes: training processes on this machine.

    >>> 1 <= choose_num_threads() <= 8
    True
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(MAX_THREADS, (cores or 1) // num_processes - 1))


class BatchLoader:
    """Iterate over batches; every iteration asks `batches` anew.

    Args:
        source: of the examples.
        batches: lists of keys, see `sampler.ShuffledBatches`.
        num_threads: that fill a batch together; 0 makes each batch when it is asked for.
        pin: whether batches are to lie in page-locked memory, from which a GPU copies while it
            computes.

    An error in the making of a batch comes up where that batch is asked for.
    """

    def __init__(self, source: Source, batches: Iterable[Sequence[Key]], num_threads: int,
                 pin: bool = False):
        self.source, self.batches, self.num_threads = source, batches, num_threads
        self._memory = BatchMemory(pin)

    def __iter__(self) -> Iterator[Batch]:
        if not self.num_threads:
            yield from (self._join(self._start(keys, None)) for keys in self.batches)
            return
        # torch would start as many threads again inside of each of these.
        pool = ThreadPoolExecutor(self.num_threads, "loader", torch.set_num_threads, (1,))
        pending: deque[_Pending] = deque()
        try:
            for keys in self.batches:
                pending.append(self._start(keys, pool))
                if len(pending) > self._num_ahead(len(keys)):
                    yield self._join(pending.popleft())
            while pending:
                yield self._join(pending.popleft())
        finally:  # also when the loop that asks for batches ends early
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(torch.get_num_threads())  # of threads to come: as of this one

    def _num_ahead(self, batch_size: int) -> int:
        size = self.source.dtype.itemsize * batch_size * int(np.prod(self.source.shape))
        return max(1, min(MAX_AHEAD, MAX_AHEAD_BYTES // size))

    def _start(self, keys: Sequence[Key], pool: ThreadPoolExecutor | None) -> _Pending:
        feats = self._memory.lend((len(keys), *self.source.shape), self.source.dtype)
        rows = feats.numpy()

        def fill(numbers: range) -> list[tuple[str, int, int]]:
            return [self.source.fill(keys[number], rows[number]) for number in numbers]

        if pool is None:
            return keys, feats, [fill(range(len(keys)))]
        # Each thread takes every n-th example: long and short utterances are spread evenly.
        return keys, feats, [pool.submit(fill, range(first, len(keys), self.num_threads))
                             for first in range(min(self.num_threads, len(keys)))]

    def _join(self, pending: _Pending) -> Batch:
        keys, feats, parts = pending
        done = [part.result() if isinstance(part, Future) else part for part in parts]
        filled = [done[number % len(done)][number // len(done)] for number in range(len(feats))]
        utts, speakers, num_frames = zip(*filled, strict=True)
        return Batch(list(utts), feats, torch.tensor(speakers),
                     sum(num_frames) * self.source.frame_bytes, list(keys))

