"""The batches of a training: which crops, in which order, made by which threads."""

from collections.abc import Mapping, Sequence

from wespeaker_lap import build
from wespeaker_lap.config import Config
from wespeaker_lap.data.accumulated import CutBatches
from wespeaker_lap.data.balanced import BalancedBatchSampler
from wespeaker_lap.data.copies import (
    Copy,
    check_copies,
    check_ids,
    list_speakers,
    read_copies,
    weigh_copies,
)
from wespeaker_lap.data.datadir import DataDir
from wespeaker_lap.data.dequantize import check_codec
from wespeaker_lap.data.loader import BatchLoader, choose_num_threads
from wespeaker_lap.data.sampler import ShuffledBatches
from wespeaker_lap.data.source import FeatureSource
from wespeaker_lap.engine.dist import World
from wespeaker_lap.frontends.selection import check_stored
from wespeaker_lap.io.feats import FeatureStore


def choose_examples(config: Config, data: DataDir, store: FeatureStore) -> FeatureSource:
    """The examples of a training.

    Args:
        config: which layers, frames and copies are wanted, and the train section.
        data: the training set.
        store: its features.

    Raises:
        ValueError: the store is not what the configuration says, or lacks utterances.
    """
    chosen, identity = config.features, store.identity
    check_stored(store.directory, identity, chosen.layers, chosen.layer_stride, chosen.frame_stride)
    check_copies(store.directory, identity, chosen.copies)
    copies = weigh_copies(read_copies(identity), config.train.copy_weights)
    check_ids(data.utt2spk, copies)
    return make_source(config, store, data.utt2spk, list_speakers(data.utt2spk, copies), copies)


def make_source(config: Config, store: FeatureStore, utt2spk: Mapping[str, str],
                speakers: Sequence[str], copies: Mapping[Copy, float] | None = None,
                ) -> FeatureSource:
    """What draws the crops; see `FeatureSource` for the arguments.

    Raises:
        ValueError: features and configuration do not fit.
    """
    as_stored = config.train.dequantize == "device"
    if as_stored:
        check_codec(store.codec)
    for name in ("sample_rate", "frame_shift"):
        if name not in store.identity:
            raise ValueError(f"{store.directory}/feats.json: no {name}, so that seconds cannot be "
                             f"counted in frames; run stage 2 again")
    rate = store.identity["sample_rate"] / store.identity["frame_shift"]  # frames a second
    crop_frames = max(1, round(config.train.crop_seconds * rate))
    return FeatureSource(store, utt2spk, speakers, crop_frames, config.seed, copies, as_stored)


def make_loader(config: Config, source: FeatureSource, world: World,
                ) -> tuple[ShuffledBatches | BalancedBatchSampler, BatchLoader]:
    """What orders the crops, and what makes batches of them.

    Args:
        config: its seed and its train section.
        source: the crops.
        world: this process among all.
    """
    place, num_parts = (world.rank, world.size), config.train.accumulate
    if num_parts == 1:
        sampler = batches = build.build_sampler(config.train, source.labels, config.seed, *place,
                                                source.voice_shares)
    else:
        sampler = build.build_sampler(config.train, source.labels, config.seed, 0, 1,
                                      source.voice_shares)
        batches = CutBatches(sampler, num_parts, *place)
    num_threads = config.train.num_workers
    if num_threads is None:
        num_threads = choose_num_threads(world.local_size)
    return sampler, BatchLoader(source, batches, num_threads, pin=world.device.type == "cuda")
