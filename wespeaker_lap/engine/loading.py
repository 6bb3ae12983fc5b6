"""The batches of a training: which crops, in which order, made by which threads."""

from collections.abc import Mapping, Sequence

from wespeaker_lap.config import Config
from wespeaker_lap.data.dequantize import check_codec
from wespeaker_lap.data.loader import BatchLoader, choose_num_threads
from wespeaker_lap.data.sampler import ShuffledBatches
from wespeaker_lap.data.source import FeatureSource
from wespeaker_lap.engine.dist import World
from wespeaker_lap.io.feats import FeatureStore


def make_loader(config: Config, store: FeatureStore, utt2spk: Mapping[str, str],
                speakers: Sequence[str], world: World,
                ) -> tuple[FeatureSource, ShuffledBatches, BatchLoader]:
    """What draws the crops, what orders them, and what makes batches of them.

    Args:
        config: its seed and its train section.
        store: the features.
        utt2spk, speakers: see `FeatureSource`.
        world: this process among all.

    Raises:
        ValueError: features and configuration do not fit.
    """
    train = config.train
    as_stored = train.dequantize == "device"
    if as_stored:
        check_codec(store.codec)
    for name in ("sample_rate", "frame_shift"):
        if name not in store.identity:
            raise ValueError(f"{store.directory}/feats.json: no {name}, so that seconds cannot be "
                             f"counted in frames; run stage 2 again")
    rate = store.identity["sample_rate"] / store.identity["frame_shift"]  # frames a second
    source = FeatureSource(store, utt2spk, speakers, max(1, round(train.crop_seconds * rate)),
                           config.seed, as_stored)
    sampler = ShuffledBatches(len(source), train.batch_size, config.seed, world.rank, world.size)
    num_threads = train.num_workers
    if num_threads is None:
        num_threads = choose_num_threads(world.local_size)
    loader = BatchLoader(source, sampler, num_threads, pin=world.device.type == "cuda")
    return source, sampler, loader
