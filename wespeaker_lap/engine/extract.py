"""Stage 2: the hidden states of every encoder layer, for every utterance, into a feature store."""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from wespeaker_lap.data.augmenter import Augmenter
from wespeaker_lap.data.datadir import DataDir
from wespeaker_lap.data.loader import choose_num_threads
from wespeaker_lap.data.segments import Segments
from wespeaker_lap.engine.batches import read_ahead
from wespeaker_lap.engine.dist import World, choose_precision
from wespeaker_lap.engine.entries import Entries, estimate_bytes
from wespeaker_lap.frontends.ssl import FrozenSSL
from wespeaker_lap.io.feats import FeatureWriter, index_store, shard_done, start_store
from wespeaker_lap.io.write_behind import WriteBehind

MIN_SHARD_BYTES, MAX_SHARD_BYTES = 32 << 20, 4 << 30


def extract_feats(frontend: FrozenSSL, data: DataDir, directory: str | Path, codec: str,
                  world: World, segments: Segments | None = None,
                  augmenter: Augmenter | None = None, precision: str = "float32") -> None:
    """Extract a set, sharded over the processes; goes on where an earlier run stopped.

    Which utterance with its copies goes into which shard depends on the data alone, so a restart
    with other processes finishes the same store, and finished shards are never written again.

    Args:
        frontend: the encoder, on the world's device.
        data: an audited data directory (durations known).
        directory, codec: of the store; see `io.codecs.CODECS`.
        world: this process among all.
        segments: that are stored of every utterance of a training set; None for whole ones.
        augmenter: makes the copies of a training set; None for the clean one alone.
        precision: see `dist.choose_precision`.

    Raises:
        ValueError: no durations, another identity in the folder, an utterance that fails (named).
        OSError: the features do not fit on the disk.
    """
    # What "auto" is on one process is used by all, or one store would hold two precisions.
    dtype = world.gather(choose_precision(precision, world.device))[0]
    directory, entries = Path(directory), Entries(frontend, data, segments, augmenter, dtype)
    sizes = estimate_bytes(frontend, data, codec, segments, entries.copies)
    identity, num_threads = entries.identity(), choose_num_threads(world.local_size)
    shards = plan_shards(sizes)
    missing = _find_missing(directory, identity, codec, len(shards), world)
    check_disk(directory, sum(sizes[utt] for n in missing for utt in shards[n]))
    own = missing[world.rank::world.size]
    hours = sum(data.durations[utt] for n in own for utt in shards[n]) / 3600
    logging.info("%d of %d shards to do, %.2f h for this process, %s, %.2f GB in all", len(missing),
                 len(shards), hours, identity["precision"], sum(sizes.values()) / 1e9)
    with _progress_bar(data, hours, world) as progress:
        for number in own:
            with FeatureWriter(directory, identity, codec, number) as writer:
                _fill_shard(writer, entries, shards[number], num_threads, progress)
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


def plan_shards(sizes: dict[str, int]) -> list[list[str]]:
    """Cut a set into shards: about 64, none under 32 MiB or over 4 GiB as far as that goes.

    Args:
        sizes: utterance -> bytes, with its copies.

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
                      f"less: features.codec, layers, layer_stride, frame_stride, segments, copies")


def _fill_shard(writer: FeatureWriter, entries: Entries, utts: Sequence[str], num_threads: int,
                progress: tqdm) -> None:
    durations = entries.data.durations
    groups = entries.plan_groups(utts)
    with WriteBehind(writer) as behind:
        for group, parts in read_ahead(groups, durations, entries.load, num_threads):
            for part, waves in parts:
                for name, feats in entries.encode(part, waves):
                    behind.write(name, feats)
            progress.update(sum(durations[utt] for utt in group) / 3600)
