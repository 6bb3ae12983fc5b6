"""Utterances through a frontend: in batches of similar length, decoded ahead of their use."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch

from wespeaker_lap.frontends.ssl import FrozenSSL

BATCH_SECONDS = 30.0  # audio in one forward pass, padding included
AHEAD_SECONDS = 1800.0  # audio that waits to be computed at most

Read = TypeVar("Read")


def make_batches(durations: Mapping[str, float],
                 max_seconds: float = BATCH_SECONDS) -> list[list[str]]:
    """Group utterances of similar length, so that little of a batch is padding.

    Args:
        durations: utterance -> seconds.
        max_seconds: of a batch of two or more, padding included.

    Returns:
        The utterances of each batch, by length.

    >>> make_batches({"a": 20.0, "b": 2.0, "c": 2.1})
    [['b', 'c'], ['a']]
    """
    batches: list[list[str]] = [[]]
    for utt in sorted(durations, key=lambda utt: (durations[utt], utt)):
        # Sorted, so this utterance is the longest of its batch.
        if batches[-1] and (len(batches[-1]) + 1) * durations[utt] > max_seconds:
            batches.append([])
        batches[-1].append(utt)
    return batches


def read_ahead(batches: Sequence[list[str]], durations: Mapping[str, float],
               read: Callable[[list[str]], Read],
               num_threads: int = 1) -> Iterator[tuple[list[str], Read]]:
    """Read the next batches by threads while this one is computed.

    Args:
        batches: utterances of each.
        durations: utterance -> seconds; `AHEAD_SECONDS` of them bound what is held in memory.
        read: what is done for a batch; called from any of the threads.
        num_threads: batches that are read at a time.

    Yields:
        Each batch and what `read` returned for it, in order; its error where the batch is due.
    """
    rest, queue, held = deque(batches), deque[tuple[list[str], float, Future]](), 0.0
    pool = ThreadPoolExecutor(num_threads, thread_name_prefix="reader")
    try:
        while rest or queue:
            while rest and len(queue) <= num_threads:
                seconds = sum(durations[utt] for utt in rest[0])
                if queue and held + seconds > AHEAD_SECONDS:
                    break
                batch = rest.popleft()
                queue.append((batch, seconds, pool.submit(read, batch)))
                held += seconds
            batch, seconds, future = queue.popleft()
            held -= seconds
            yield batch, future.result()
    finally:  # also when whoever asks for batches ends early
        pool.shutdown(cancel_futures=True)


@torch.inference_mode()
def encode_batch(frontend: FrozenSSL, utts: Sequence[str], waves: Sequence[np.ndarray],
                 precision: torch.dtype | None = None) -> list[np.ndarray]:
    """Encode some utterances together; each comes out as it would alone.

    Args:
        frontend: the encoder.
        utts: their ids, for messages.
        waves: (S,) float32 each; longer than the frontend's window only when alone.
        precision: of the autocast; None for float32 throughout.

    Returns:
        (T, L, D) float32 each.

    Raises:
        ValueError: an utterance is shorter than the encoder's window; names it.
    """
    for utt, wave in zip(utts, waves, strict=True):
        if len(wave) < frontend.min_samples:
            raise ValueError(f"{utt}: {len(wave)} samples are too few for the encoder, which needs "
                             f"{frontend.min_samples}; audit the data with a larger --min_seconds")
    device = next(frontend.parameters()).device
    with torch.autocast(device.type, precision, enabled=precision is not None):
        if len(waves) == 1:
            return [frontend.encode(torch.from_numpy(waves[0]).to(device)).float().cpu().numpy()]
        lengths = torch.tensor([len(wave) for wave in waves], device=device)
        padded = torch.zeros(len(waves), int(lengths.max()))
        for row, wave in zip(padded, waves, strict=True):
            row[:len(wave)] = torch.from_numpy(wave)
        feats, num_frames = frontend(padded.to(device), lengths)  # (B, T, L, D), (B,)
    feats = feats.float().cpu().numpy()
    return [one[:count] for one, count in zip(feats, num_frames.tolist(), strict=True)]
