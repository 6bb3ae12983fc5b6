"""Stage 2: the hidden states of every encoder layer, for every utterance, into a feature store."""

import logging
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from wespeaker_lap import __version__
from wespeaker_lap.data.datadir import DataDir, data_hash
from wespeaker_lap.data.segments import Segments, read_segments
from wespeaker_lap.engine.dist import World
from wespeaker_lap.frontends.ssl import FrozenSSL
from wespeaker_lap.io.audio import read_audio
from wespeaker_lap.io.codecs import entry_bytes
from wespeaker_lap.io.feats import FeatureWriter, index_store, shard_done, start_store

MIN_SHARD_BYTES, MAX_SHARD_BYTES = 32 << 20, 4 << 30
BATCH_SECONDS = 30.0  # audio in one forward pass, padding included


def extract_feats(frontend: FrozenSSL, data: DataDir, directory: str | Path, codec: str,
                  world: World, segments: Segments | None = None) -> None:
    """Extract a set, sharded over the processes; goes on where an earlier run stopped.

    Which utterance goes into which shard depends on the data alone, so a restart with another
    number of processes finishes the same store, and finished shards are never written again.

    Args:
        frontend: the encoder, on the world's device.
        data: an audited data directory (durations known).
        directory: of the store.
        codec: see `io.codecs.CODECS`.
        world: this process among all.
        segments: that are stored of every utterance of a training set; None for whole ones.

    Raises:
        ValueError: no durations, another identity in the folder, an utterance that fails (named).
        OSError: the features would not fit on the disk.
    """
    directory, identity = Path(directory), make_identity(frontend, data, segments)
    sizes = estimate_bytes(frontend, data, codec, segments)
    shards = plan_shards(sizes)
    missing = _find_missing(directory, identity, codec, len(shards), world)
    check_disk(directory, sum(sizes[utt] for n in missing for utt in shards[n]))
    own = missing[world.rank::world.size]
    hours = sum(data.durations[utt] for n in own for utt in shards[n]) / 3600
    logging.info("%d of %d shards to do, %.2f h for this process, %.2f GB in all", len(missing),
                 len(shards), hours, sum(sizes.values()) / 1e9)
    with _progress_bar(data, hours, world) as progress:
        for number in own:
            with FeatureWriter(directory, identity, codec, number) as writer:
                _fill_shard(writer, frontend, data, shards[number], progress)
    world.barrier()
    if world.is_main:
        index_store(directory, len(shards))


def _find_missing(directory: Path, identity: dict, codec: str, num_shards: int,
                  world: World) -> list[int]:
    """Start or check the store; returns the shards to be written, the same on every process."""
    # Where there is a store, all processes look whether it is this one and refuse together.
    if world.is_main or (directory / "feats.json").is_file():
        start_store(directory, identity, codec)
    missing = [n for n in range(num_shards) if not shard_done(directory, n)]
    # One process's list for all: another may look late, when a first shard is already done.
    return world.gather(missing)[0]


def _progress_bar(data: DataDir, hours: float, world: World) -> tqdm:
    return tqdm(total=round(hours, 3), unit="h", desc=f"features {data.path.name}", disable=None,
                position=world.rank,
                bar_format="{l_bar}{bar}| {n:.2f}/{total:.2f} h [{elapsed}<{remaining}]")


def make_identity(frontend: FrozenSSL, data: DataDir, segments: Segments | None = None) -> dict:
    """What the store's numbers are, and of which data."""
    parts = {} if segments is None else {"segments": segments.identity()}
    return {"layers": "all", **frontend.identity(), "frame_shift": frontend.frame_shift,
            "augmentation": "clean", **parts,
            "data_hash": data_hash(data), "toolkit_version": __version__}


def estimate_bytes(frontend: FrozenSSL, data: DataDir, codec: str,
                   segments: Segments | None = None) -> dict[str, int]:
    """Bytes of every utterance's entry.

    Raises:
        ValueError: no durations.
    """
    if not data.durations:
        raise ValueError(f"{data.path}: no utt2dur; run 'wespeaker-lap audit-data {data.path}'")
    num_frames = {utt: frontend.num_frames(round(seconds * frontend.sample_rate))
                  for utt, seconds in data.durations.items()}
    if segments:
        num_frames = {utt: segments.count(count) for utt, count in num_frames.items()}
    # What is too short for a frame is refused when it is encoded.
    return {utt: entry_bytes(codec, (max(1, count), frontend.num_layers, frontend.dim))
            for utt, count in num_frames.items()}


def plan_shards(sizes: dict[str, int]) -> list[list[str]]:
    """Cut a set into shards: about 64, none under 32 MiB or over 4 GiB as far as that goes.

    Args:
        sizes: utterance -> bytes.

    Returns:
        The utterances of each shard, in the order of their ids.
    """
    limit = min(max(sum(sizes.values()) // 64, MIN_SHARD_BYTES), MAX_SHARD_BYTES)
    shards: list[list[str]] = [[]]
    filled = 0
    for utt in sorted(sizes):
        if filled >= limit:
            shards.append([])
            filled = 0
        shards[-1].append(utt)
        filled += sizes[utt]
    return shards


def check_disk(directory: Path, num_bytes: int) -> None:
    """Refuse before the start what cannot fit.

    Raises:
        OSError: needed and free space, and what makes features smaller.
    """
    free = shutil.disk_usage(directory).free
    if num_bytes > free:
        raise OSError(f"{directory}: the features need {num_bytes / 1e9:.1f} GB and the disk has "
                      f"{free / 1e9:.1f} GB free; make room, give another --feats_dir, or store "
                      f"less: features.codec, layers, layer_stride, frame_stride, segments")


def _fill_shard(writer: FeatureWriter, frontend: FrozenSSL, data: DataDir,
                utts: Sequence[str], progress: tqdm) -> None:
    batches, segments = plan_batches(frontend, data, utts), read_segments(writer.identity)
    for batch, waves in read_ahead(batches, data, frontend.sample_rate):
        for utt, feats in zip(batch, encode_batch(frontend, batch, waves), strict=True):
            writer.write(utt, feats if segments is None else segments.cut(utt, feats))
        progress.update(sum(data.durations[utt] for utt in batch) / 3600)


def plan_batches(frontend: FrozenSSL, data: DataDir, utts: Sequence[str]) -> list[list[str]]:
    """The batches of a shard, in the order of its entries; a function of the data alone."""
    # What is longer than the frontend's window goes through alone, see `encode_batch`.
    return make_batches({utt: data.durations[utt] for utt in utts},
                        min(BATCH_SECONDS, frontend.max_seconds))


def make_batches(durations: dict[str, float],
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


def read_ahead(batches: list[list[str]], data: DataDir,
                sample_rate: int) -> Iterator[tuple[list[str], list[np.ndarray]]]:
    """Decode the next batch while this one is computed."""
    def read(batch: list[str]) -> list[np.ndarray]:
        return [read_audio(data.wavs[utt], sample_rate) for utt in batch]

    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(read, batches[0])
        for number, batch in enumerate(batches):
            waves = ahead.result()
            if number + 1 < len(batches):
                ahead = pool.submit(read, batches[number + 1])
            yield batch, waves


@torch.inference_mode()
def encode_batch(frontend: FrozenSSL, utts: Sequence[str],
                 waves: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Encode some utterances together; each comes out as it would alone.

    Args:
        frontend: the encoder.
        utts: their ids, for messages.
        waves: (S,) float32 each; longer than the frontend's window only when alone.

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
    if len(waves) == 1:
        return [frontend.encode(torch.from_numpy(waves[0]).to(device)).float().cpu().numpy()]
    lengths = torch.tensor([len(wave) for wave in waves], device=device)
    padded = torch.zeros(len(waves), int(lengths.max()), device=device)
    for row, wave in zip(padded, waves, strict=True):
        row[:len(wave)] = torch.from_numpy(wave)
    feats, num_frames = frontend(padded, lengths)  # (B, T, L, D), (B,)
    feats = feats.float().cpu().numpy()
    return [one[:count] for one, count in zip(feats, num_frames.tolist(), strict=True)]
