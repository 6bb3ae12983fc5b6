"""What a teacher hears of its student's examples: whole utterances, or the very crops."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor, nn

from wespeaker_lap.config import load_config
from wespeaker_lap.data.loader import choose_num_threads
from wespeaker_lap.data.segments import read_segments
from wespeaker_lap.engine import checkpoint
from wespeaker_lap.engine.embed import check_stored_utts, load_net
from wespeaker_lap.engine.forward import pad_batch
from wespeaker_lap.io.facts import find_features, load_facts
from wespeaker_lap.io.feats import FeatureStore
from wespeaker_lap.io.identity import check_compatible
from wespeaker_lap.io.vectors import read_vectors
from wespeaker_lap.io.weights import check_weights

Span = tuple[float, float]  # first second of a crop in its utterance, and how many it has


class WholeUtterances(nn.Module):
    """The embeddings that stage 4 has made; nothing is computed or read while a student trains.

    Args:
        exp_dir: of the teacher.
        entries: every entry that the student may be given -> the utterance that is heard for it.
        train_set: name of the set.

    Attributes:
        embed_dim: E.

    Raises:
        FileNotFoundError: the set is not embedded.
        ValueError: utterances are missing, or were embedded with other weights than the averaged.
    """

    def __init__(self, exp_dir: Path, entries: Mapping[str, str], train_set: str):
        super().__init__()
        scp = exp_dir / "embeddings" / train_set / "xvector.scp"
        if not scp.is_file():
            raise FileNotFoundError(f"{scp}: no such file; the teacher must have embedded the set "
                                    f"that the student learns from: run its stages 3 and 4 with "
                                    f"--train_set {train_set}")
        check_weights(exp_dir, [train_set], checkpoint.weights_path(exp_dir, checkpoint.AVERAGED))
        utts, vectors = read_vectors(scp, sorted(set(entries.values())))
        places = {utt: place for place, utt in enumerate(utts)}
        self.places = {entry: places[utt] for entry, utt in entries.items()}
        self.register_buffer("vectors", torch.from_numpy(vectors), persistent=False)  # (n, E)
        self.embed_dim = vectors.shape[1]

    def forward(self, entries: Sequence[str], spans: Sequence[Span] | None = None) -> Tensor:
        """(B, E) of B entries, whatever their crops are."""
        return self.vectors[[self.places[entry] for entry in entries]]


class StudentCrops(nn.Module):
    """The teacher's network on the frames of the student's crops, from its own stored features.

    A clean utterance is heard where the student has a noisy copy. What the student has tiled
    because it is short is heard once.

    Args:
        exp_dir: of the teacher.
        entries: as of `WholeUtterances`.
        feats: feature store of the set, of the teacher's encoder.

    Attributes:
        embed_dim: E.

    Raises:
        FileNotFoundError: no store, or no trained system.
        ValueError: a store of another encoder or without some utterances, or one of segments, whose
            places in their utterances are not known.
    """

    def __init__(self, exp_dir: Path, entries: Mapping[str, str], feats: Path):
        super().__init__()
        facts, config = load_facts(exp_dir), load_config(exp_dir / "config.yaml")
        self.entries, self.store = entries, FeatureStore(feats)
        identity = self.store.identity
        check_compatible(self.store.directory, identity, find_features(facts))
        if read_segments(identity) is not None:
            raise ValueError(f"{feats}: holds segments of utterances, in which a student's crop is "
                             f"not found; store whole ones, or leave out distill.feats")
        check_stored_utts(self.store, sorted(set(entries.values())))
        self.rate = identity["sample_rate"] / identity["frame_shift"]  # frames a second
        self.net = load_net(exp_dir, config, facts, checkpoint.AVERAGED).requires_grad_(False)
        self.embed_dim = config.model.embed_dim
        self.pool = ThreadPoolExecutor(choose_num_threads(), "teacher")

    def find_frames(self, entry: str, span: Span) -> tuple[str, int, int]:
        """The utterance of an entry, the first frame of a crop, and how many there are."""
        utt = self.entries[entry]
        total = self.store.num_frames(utt)
        count = min(total, max(1, round(span[1] * self.rate)))
        return utt, min(round(span[0] * self.rate), total - count), count

    @torch.no_grad()
    def forward(self, entries: Sequence[str], spans: Sequence[Span]) -> Tensor:
        """(B, E) of the crops of B entries."""
        wanted = [self.find_frames(*one) for one in zip(entries, spans, strict=True)]
        crops = list(self.pool.map(lambda one: self.store.read(*one), wanted))
        device = next(self.net.parameters()).device
        return self.net(*pad_batch(crops, device)).float()
