"""Stage 4: one embedding for each whole utterance; for a calibration, of parts of them."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn
from tqdm import tqdm

from wespeaker_lap import build
from wespeaker_lap.config import Config, load_config
from wespeaker_lap.data.datadir import DataDir
from wespeaker_lap.engine import checkpoint
from wespeaker_lap.engine.dist import World
from wespeaker_lap.engine.embed_waves import check_recorded_utts, embed_waves, measure_seconds
from wespeaker_lap.engine.forward import Spans, embed_batch, evaluating, gather_vectors
from wespeaker_lap.engine.frontend import load_frontend
from wespeaker_lap.frontends.fbank import FbankLayer
from wespeaker_lap.frontends.selection import Selection
from wespeaker_lap.frontends.ssl import FrozenSSL
from wespeaker_lap.io.facts import find_features, load_facts
from wespeaker_lap.io.feats import FeatureStore
from wespeaker_lap.io.identity import check_compatible
from wespeaker_lap.io.table import name_some, replacing
from wespeaker_lap.io.vectors import write_vectors
from wespeaker_lap.io.weights import forget_weights, note_weights

BATCH_FRAMES = 4000  # in one forward pass, padding included: 80 s of speech at 50 frames/s


def embed_set(exp_dir: str | Path, examples: str | Path | DataDir, utts: Sequence[str], name: str,
              world: World, weights: str = checkpoint.AVERAGED) -> Path | None:
    """Embed a set and write `embeddings/<name>/xvector.{ark,scp}` and `mean_vec.npy`.

    Beside them `weights.json` says what they were computed with.

    Args:
        exp_dir: of the training.
        examples: the set's feature store; or the set, whose features are computed on the way.
        utts: which utterances.
        name: of the set.
        world: this process among all.
        weights: stem of the file in `models/`.

    Returns:
        The scp, on the main process; None on the others.

    Raises:
        ValueError: the features are of another identity than the training's, or utterances are
            missing.
    """
    exp_dir = Path(exp_dir)
    source = open_examples(exp_dir, examples, world, weights)
    vectors = source.embed(utts, title=f"embed {name}")
    if not world.is_main:
        return None
    directory = exp_dir / "embeddings" / name
    forget_weights(directory)
    with replacing(directory / "mean_vec.npy") as aside, open(aside, "wb") as file:
        np.save(file, vectors.mean(axis=0, dtype=np.float64).astype(np.float32))
    scp = write_vectors(directory, utts, vectors)
    note_weights(directory, checkpoint.weights_path(exp_dir, weights))
    logging.info("%s: %d embeddings of %d numbers", scp, *vectors.shape)
    return scp


@dataclass(frozen=True, eq=False)
class StoredExamples:
    """Utterances whose features are stored, and the network that embeds them."""

    store: FeatureStore
    net: nn.Module
    world: World

    def check(self, utts: Sequence[str]) -> None:
        """Refuse utterances that are not there, and name them."""
        check_stored_utts(self.store, utts)

    def num_frames(self, utt: str) -> int:
        """T of an utterance."""
        return self.store.num_frames(utt)

    def embed(self, utts: Sequence[str], title: str | None = None,
              spans: Spans | None = None) -> np.ndarray:
        """See `embed_store`."""
        return embed_store(self.net, self.store, utts, self.world, title, spans)


@dataclass(frozen=True, eq=False)
class RecordedExamples:
    """Utterances whose features are computed on the way, and the network that embeds them."""

    data: DataDir
    frontend: FrozenSSL | FbankLayer | Selection
    codec: str
    net: nn.Module
    world: World

    def check(self, utts: Sequence[str]) -> None:
        """Refuse utterances that are not there, and name them."""
        check_recorded_utts(self.data, utts)

    def num_frames(self, utt: str) -> int:
        """T of an utterance, from the duration that stage 1 measured where it has."""
        seconds = measure_seconds(self.data, utt)
        return self.frontend.num_frames(round(seconds * self.frontend.sample_rate))

    def embed(self, utts: Sequence[str], title: str | None = None,
              spans: Spans | None = None) -> np.ndarray:
        """See `embed_waves`."""
        return embed_waves(self.net, self.frontend, self.data, utts, self.world, self.codec, title,
                           spans)


def open_examples(exp_dir: Path, examples: str | Path | DataDir, world: World,
                  weights: str = checkpoint.AVERAGED) -> StoredExamples | RecordedExamples:
    """Load the network of an experiment for the examples of a set, on this process's device.

    Args:
        exp_dir: of the training.
        examples: the set's feature store; or the set, whose features are computed on the way.
        world: this process among all.
        weights: stem of the file in `models/`.

    Raises:
        ValueError: the features are of another identity than the training's.
    """
    facts, config = load_facts(exp_dir), load_config(exp_dir / "config.yaml")
    if isinstance(examples, DataDir):
        frontend = load_frontend(exp_dir, config, facts, weights).to(world.device)
        net = load_net(exp_dir, config, facts, weights).to(world.device)
        return RecordedExamples(examples, frontend, facts["features"]["codec"], net, world)
    store = FeatureStore(examples)
    check_compatible(store.directory, store.identity, find_features(facts))
    net = load_net(exp_dir, config, facts, weights).to(world.device)
    return StoredExamples(store, net, world)


def load_net(exp_dir: Path, config: Config, facts: dict, weights: str) -> nn.Module:
    """Build the network of an experiment and load weights into it, in eval mode."""
    features = facts["features"]
    net = build.build_net(config.model, features["num_layers"], features["dim"])
    checkpoint.load_net(exp_dir / "models" / f"{weights}.safetensors", net)
    return net.eval()


def check_stored_utts(store: FeatureStore, utts: Sequence[str]) -> None:
    """Refuse a store that lacks utterances, and name them."""
    missing = [utt for utt in utts if utt not in store]
    if missing:
        raise ValueError(f"{store.directory}: no features for {name_some(missing)}; run stage 2 "
                         f"for this set")


def embed_store(net: nn.Module, store: FeatureStore, utts: Sequence[str], world: World,
                title: str | None = None, spans: Spans | None = None) -> np.ndarray:
    """Embed utterances of a store, or parts of them, shared out over the processes.

    Args:
        net: (B, T, L, D), lengths -> (B, E); put into eval mode and back as it was.
        store: the features.
        utts: n ids.
        world: this process among all.
        title: of the progress bar; none without.
        spans: the parts; None for whole utterances.

    Returns:
        (n, E) float32 on every process, in the order of `utts`.

    Raises:
        ValueError: the store lacks an utterance, or an embedding is not finite; names them.
    """
    check_stored_utts(store, utts)
    spans = spans or {utt: (0, store.num_frames(utt)) for utt in utts}
    own: dict[str, np.ndarray] = {}
    mine = sorted(set(utts))[world.rank::world.size]
    with evaluating(net), tqdm(total=len(mine), desc=title, unit="utt",
                               disable=None if title else True, position=world.rank) as progress:
        for batch in length_batches({utt: spans[utt][1] for utt in mine}):
            rows = embed_batch(net, [store.read(utt, *spans[utt]) for utt in batch], world.device)
            own.update(zip(batch, rows, strict=True))
            progress.update(len(batch))
    return gather_vectors(own, utts, world)


def length_batches(num_frames: dict[str, int]) -> Iterator[list[str]]:
    """Group utterances of similar length up to `BATCH_FRAMES` padded frames."""
    batch: list[str] = []
    for utt in sorted(num_frames, key=lambda utt: (num_frames[utt], utt)):
        if batch and (len(batch) + 1) * num_frames[utt] > BATCH_FRAMES:
            yield batch
            batch = []
        batch.append(utt)
    if batch:
        yield batch
