"""Stage 4: one embedding for each whole utterance; for a calibration, of parts of them."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from wespeaker_lap import build
from wespeaker_lap.config import Config, load_config
from wespeaker_lap.engine import checkpoint
from wespeaker_lap.engine.dist import World
from wespeaker_lap.io.facts import load_facts
from wespeaker_lap.io.feats import FeatureStore
from wespeaker_lap.io.identity import check_compatible
from wespeaker_lap.io.table import name_some, replacing
from wespeaker_lap.io.vectors import write_vectors

BATCH_FRAMES = 4000  # in one forward pass, padding included: 80 s of speech at 50 frames/s


def embed_set(exp_dir: str | Path, feats: str | Path, utts: Sequence[str], name: str,
              world: World, weights: str = checkpoint.AVERAGED) -> Path | None:
    """Embed a set and write `embeddings/<name>/xvector.{ark,scp}` and `mean_vec.npy`.

    Args:
        exp_dir: of the training.
        feats: the set's feature store.
        utts: which utterances.
        name: of the set.
        world: this process among all.
        weights: stem of the file in `models/`.

    Returns:
        The scp, on the main process; None on the others.

    Raises:
        ValueError: the store is of another identity than the training's, or lacks utterances.
    """
    exp_dir, store = Path(exp_dir), FeatureStore(feats)
    net = open_net(exp_dir, store, world, weights)
    vectors = embed_store(net, store, utts, world, title=f"embed {name}")
    if not world.is_main:
        return None
    directory = exp_dir / "embeddings" / name
    with replacing(directory / "mean_vec.npy") as aside, open(aside, "wb") as file:
        np.save(file, vectors.mean(axis=0, dtype=np.float64).astype(np.float32))
    scp = write_vectors(directory, utts, vectors)
    logging.info("%s: %d embeddings of %d numbers", scp, *vectors.shape)
    return scp


def open_net(exp_dir: Path, store: FeatureStore, world: World,
             weights: str = checkpoint.AVERAGED) -> nn.Module:
    """Load the network of an experiment for the features of a store, on this process's device.

    Raises:
        ValueError: the store is of another identity than the training's.
    """
    facts = load_facts(exp_dir)
    check_compatible(store.directory, store.identity, facts["features"])
    return load_net(exp_dir, load_config(exp_dir / "config.yaml"), facts, weights).to(world.device)


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
                title: str | None = None,
                spans: Mapping[str, tuple[int, int]] | None = None) -> np.ndarray:
    """Embed utterances of a store, or parts of them, shared out over the processes.

    Args:
        net: (B, T, L, D), lengths -> (B, E); put into eval mode and back as it was.
        store: the features.
        utts: n ids.
        world: this process among all.
        title: of the progress bar; none without.
        spans: utterance -> first frame and number of frames; None for whole utterances.

    Returns:
        (n, E) float32 on every process, in the order of `utts`.

    Raises:
        ValueError: the store lacks an utterance, or an embedding is not finite; names them.
    """
    check_stored_utts(store, utts)
    spans = spans or {utt: (0, store.num_frames(utt)) for utt in utts}
    was_training = net.training
    net.eval()
    own: dict[str, np.ndarray] = {}
    mine = sorted(set(utts))[world.rank::world.size]
    with tqdm(total=len(mine), desc=title, unit="utt", disable=None if title else True,
              position=world.rank) as progress:
        for batch in length_batches({utt: spans[utt][1] for utt in mine}):
            feats = [store.read(utt, *spans[utt]) for utt in batch]
            own.update(zip(batch, _embed_batch(net, feats, world.device), strict=True))
            progress.update(len(batch))
    net.train(was_training)
    found: dict[str, np.ndarray] = {}
    for part in world.gather(own):
        found.update(part)
    vectors = np.stack([found[utt] for utt in utts])
    broken = [utt for utt, row in zip(utts, vectors, strict=True) if not np.isfinite(row).all()]
    if broken:
        raise ValueError(f"embeddings that are not finite numbers: {name_some(broken)}")
    return vectors


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


@torch.inference_mode()
def _embed_batch(net: nn.Module, feats: Sequence[np.ndarray], device: torch.device) -> np.ndarray:
    lengths = torch.tensor([len(one) for one in feats], device=device)
    padded = nn.utils.rnn.pad_sequence([torch.from_numpy(one) for one in feats],
                                       batch_first=True).to(device)  # (B, T, L, D)
    return net(padded, lengths).float().cpu().numpy()  # (B, E)
