"""Embeddings from recordings: the front end is computed on the way, nothing is stored."""

from collections.abc import Iterator, Sequence

import numpy as np
from torch import nn
from tqdm import tqdm

from wespeaker_lap.data.datadir import DataDir
from wespeaker_lap.data.loader import choose_num_threads
from wespeaker_lap.engine.batches import BATCH_SECONDS, encode_batch, make_batches, read_ahead
from wespeaker_lap.engine.dist import World
from wespeaker_lap.engine.forward import Spans, embed_batch, evaluating, gather_vectors
from wespeaker_lap.frontends.fbank import FbankLayer
from wespeaker_lap.frontends.selection import Selection
from wespeaker_lap.frontends.ssl import FrozenSSL
from wespeaker_lap.io.audio import read_audio, read_info
from wespeaker_lap.io.feats import as_stored
from wespeaker_lap.io.table import name_some


def embed_waves(net: nn.Module, frontend: FrozenSSL | FbankLayer | Selection, data: DataDir,
                utts: Sequence[str], world: World, codec: str,
                title: str | None = None, spans: Spans | None = None) -> np.ndarray:
    """Embed utterances, or parts of them, from their recordings, shared out over the processes.

    Args:
        net: (B, T, L, D), lengths -> (B, E); put into eval mode and back as it was, as is the
            front end.
        frontend: on the world's device.
        data: where the recordings are.
        utts: n ids.
        world: this process among all.
        codec: features are rounded as it does, so that embeddings are those of a store.
        title: of the progress bar; none without.
        spans: the parts of the features, which are computed whole; None for whole utterances.

    Returns:
        (n, E) float32 on every process, in the order of `utts`.

    Raises:
        ValueError: an utterance that is not in the set or cannot be used, an embedding that is not
            finite; names them.
    """
    check_recorded_utts(data, utts)
    mine = sorted(set(utts))[world.rank::world.size]
    own: dict[str, np.ndarray] = {}
    with evaluating(net), evaluating(frontend), tqdm(
            total=len(mine), desc=title, unit="utt", disable=None if title else True,
            position=world.rank) as progress:
        for batch, waves in _read_batches(frontend, data, mine, world):
            feats = [as_stored(codec, one) for one in encode_batch(frontend, batch, waves)]
            if spans:
                feats = [one[spans[utt][0]:][:spans[utt][1]]
                         for utt, one in zip(batch, feats, strict=True)]
            own.update(zip(batch, embed_batch(net, feats, world.device), strict=True))
            progress.update(len(batch))
    return gather_vectors(own, utts, world)


def check_recorded_utts(data: DataDir, utts: Sequence[str]) -> None:
    """Refuse a set that lacks utterances, and name them."""
    missing = [utt for utt in utts if utt not in data.wavs]
    if missing:
        raise ValueError(f"{data.path}: no audio for {name_some(missing)}")


def measure_seconds(data: DataDir, utt: str) -> float:
    """Duration of an utterance, from its recording where stage 1 has not measured it."""
    if utt in data.durations:
        return data.durations[utt]
    info = read_info(data.wavs[utt])
    return info.num_samples / info.sample_rate


def _read_batches(frontend: FrozenSSL | FbankLayer | Selection, data: DataDir,
                  utts: Sequence[str], world: World) -> Iterator[tuple[list[str], list]]:
    """Utterances of similar length and their waves, decoded ahead."""
    seconds = {utt: measure_seconds(data, utt) for utt in utts}

    def read(batch: list[str]) -> list[np.ndarray]:
        return [read_audio(data.wavs[utt], frontend.sample_rate) for utt in batch]

    # What is longer than the front end's window goes through alone, see `encode_batch`.
    batches = make_batches(seconds, min(BATCH_SECONDS, frontend.max_seconds)) if utts else []
    return read_ahead(batches, seconds, read, choose_num_threads(world.local_size))
