"""What a training learns from: stored features, or waveforms and a front end to compute them."""

from dataclasses import dataclass
from pathlib import Path

from wespeaker_lap import build
from wespeaker_lap.config import Config
from wespeaker_lap.data.copies import CLEAN
from wespeaker_lap.data.copy_sources import CopySources, load_augmenter
from wespeaker_lap.data.datadir import DataDir, data_hash
from wespeaker_lap.data.source import FeatureSource
from wespeaker_lap.data.wave_source import WaveSource
from wespeaker_lap.engine.loading import choose_examples
from wespeaker_lap.frontends.fbank import FbankLayer
from wespeaker_lap.frontends.selection import Selection
from wespeaker_lap.frontends.ssl import FrozenSSL
from wespeaker_lap.io.feats import FeatureStore


@dataclass(frozen=True)
class Material:
    """The examples of a training and what they are.

    Attributes:
        source: of the examples.
        identity: of the features that the network gets, with `num_layers` and `dim`.
        frontend: that computes them from waves; None where they are stored.
    """

    source: FeatureSource | WaveSource
    identity: dict
    frontend: FrozenSSL | FbankLayer | Selection | None = None


def gather_material(config: Config, data: DataDir, feats: str | Path | None,
                    tables: CopySources) -> Material:
    """Find what the configuration wants to be trained on.

    Args:
        config: its data section says which of the two.
        data: the training set.
        feats: its feature store; None for waves.
        tables: recordings that waves are augmented with.

    Raises:
        ValueError: a store where waves are wanted or none where features are; features, recordings
            or tables that do not fit the configuration.
    """
    if config.data.source == "features":
        if feats is None:
            raise ValueError("data.source is features: give their store (--feats), which stage 2 "
                             "writes, or set data.source to wave")
        store = FeatureStore(feats)
        return Material(choose_examples(config, data, store), store.identity)
    if feats is not None:
        raise ValueError(f"{feats}: stored features are not used where data.source is wave; leave "
                         f"out --feats, or set data.source to features")
    return _gather_waves(config, data, tables)


def _gather_waves(config: Config, data: DataDir, tables: CopySources) -> Material:
    frontend = build.build_frontend(config.frontend, config.features)
    size = round(config.train.crop_seconds * frontend.sample_rate)
    if size < frontend.min_samples:
        raise ValueError(f"train.crop_seconds {config.train.crop_seconds:g} is {size} samples; "
                         f"{frontend.name} needs {frontend.min_samples} or more")
    shares = build.build_shares(config.data)
    augmenter = load_augmenter(tuple(shares), config.seed, data, tables, frontend.sample_rate)
    source = WaveSource(data, size, config.seed, frontend.sample_rate, shares,
                        build.build_speeds(config.data), augmenter, config.data.speed_share)
    # The codec is the one that sets would be stored in: embeddings are the same from there.
    identity = {"layers": "all", **frontend.identity(), "frame_shift": frontend.frame_shift,
                "codec": config.features.codec, "data_hash": data_hash(data),
                "augmentation": augmenter.identity() if augmenter else CLEAN.name}
    return Material(source, identity, frontend)
