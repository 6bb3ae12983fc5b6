"""What a store holds of a set: which entries, how they are batched, how each is computed.

Extraction writes all of it and repair a part of it, so that both must come to the same bytes.
Everything here follows from the data and the settings, not from processes or restarts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from wespeaker_lap import __version__
from wespeaker_lap.data.augmenter import Augmenter
from wespeaker_lap.data.copies import CLEAN, Copy
from wespeaker_lap.data.datadir import DataDir, data_hash
from wespeaker_lap.data.segments import Segments
from wespeaker_lap.engine.batches import BATCH_SECONDS, encode_batch, make_batches
from wespeaker_lap.frontends.ssl import FrozenSSL
from wespeaker_lap.io.audio import read_audio
from wespeaker_lap.io.codecs import entry_bytes

PRECISIONS = {None: "float32", torch.bfloat16: "bf16", torch.float16: "fp16"}  # their names


@dataclass(frozen=True)
class Pass:
    """Utterances that are computed together: one copy of each."""

    copy: Copy
    utts: list[str]

    @property
    def ids(self) -> list[str]:
        """Of their entries."""
        return [self.copy.utt_id(utt) for utt in self.utts]


@dataclass(frozen=True)
class Entries:
    """The entries of a store.

    A recording is decoded once for all of its copies, which are neighbours in the store.

    Attributes:
        frontend: the encoder, on the device that computes.
        data: the set, durations known.
        segments: that are stored of every utterance; None for whole ones.
        augmenter: of the copies of every utterance; None for the clean one alone.
        precision: of the encoder's autocast; None for float32 throughout.
    """

    frontend: FrozenSSL
    data: DataDir
    segments: Segments | None = None
    augmenter: Augmenter | None = None
    precision: torch.dtype | None = None

    @property
    def copies(self) -> tuple[Copy, ...]:
        """Of every utterance."""
        return self.augmenter.copies if self.augmenter else (CLEAN,)

    def identity(self) -> dict:
        """What the store's numbers are, and of which data."""
        parts = {} if self.segments is None else {"segments": self.segments.identity()}
        augmentation = self.augmenter.identity() if self.augmenter else CLEAN.name
        return {"layers": "all", **self.frontend.identity(),
                "frame_shift": self.frontend.frame_shift, "precision": PRECISIONS[self.precision],
                "augmentation": augmentation, **parts,
                "data_hash": data_hash(self.data), "toolkit_version": __version__}

    def ids(self, utts: Sequence[str]) -> list[str]:
        """The entries of some utterances, sorted."""
        return sorted(copy.utt_id(utt) for utt in utts for copy in self.copies)

    @cached_property
    def _max_seconds(self) -> float:
        # What is longer than the frontend's window goes through alone, see `encode_batch`.
        return min(BATCH_SECONDS, self.frontend.max_seconds)

    def plan_groups(self, utts: Sequence[str]) -> list[list[str]]:
        """Utterances that are decoded together, in the order of a shard's entries."""
        return make_batches({utt: self.data.durations[utt] for utt in utts}, self._max_seconds)

    def plan_passes(self, group: Sequence[str]) -> list[Pass]:
        """What is computed of a group, one pass behind the other; slower copies may need two."""
        return [Pass(copy, batch) for copy in self.copies for batch in make_batches(
            {utt: self.data.durations[utt] / copy.factor for utt in group}, self._max_seconds)]

    def plan_all_passes(self, utts: Sequence[str]) -> list[Pass]:
        """The passes of a shard, in the order of its entries."""
        return [part for group in self.plan_groups(utts) for part in self.plan_passes(group)]

    def load(self, group: Sequence[str]) -> list[tuple[Pass, list[np.ndarray]]]:
        """Decode a group's recordings once and make their copies; safe under threads.

        Returns:
            Each pass with its waves, (S,) float32.

        Raises:
            AudioError, ValueError: a recording, or one that copies are made from, is broken.
        """
        waves = {utt: self._read(utt) for utt in group}
        return [(part, [self._make(part.copy, utt, waves[utt]) for utt in part.utts])
                for part in self.plan_passes(group)]

    def load_pass(self, part: Pass) -> list[np.ndarray]:
        """The waves of one pass of a group alone, see `load`."""
        return [self._make(part.copy, utt, self._read(utt)) for utt in part.utts]

    def _read(self, utt: str) -> np.ndarray:
        return read_audio(self.data.wavs[utt], self.frontend.sample_rate)

    def _make(self, copy: Copy, utt: str, wave: np.ndarray) -> np.ndarray:
        return self.augmenter.apply(copy, utt, wave) if self.augmenter else wave

    def encode(self, part: Pass, waves: Sequence[np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
        """Compute a pass.

        Args:
            part: the pass.
            waves: (S,) of each of its utterances.

        Yields:
            Id and features (T, L, D) of each entry, in the order of the pass.

        Raises:
            ValueError: an utterance is too short for the encoder; names it.
        """
        encoded = encode_batch(self.frontend, part.ids, waves, self.precision)
        for name, feats in zip(part.ids, encoded, strict=True):
            yield name, feats if self.segments is None else self.segments.cut(name, feats)


def estimate_bytes(frontend: FrozenSSL, data: DataDir, codec: str,
                   segments: Segments | None = None,
                   copies: Sequence[Copy] = (CLEAN,)) -> dict[str, int]:
    """Bytes of every utterance's entries, those of its copies together.

    Raises:
        ValueError: no durations.
    """
    if not data.durations:
        raise ValueError(f"{data.path}: no utt2dur; run 'wespeaker-lap audit-data {data.path}'")

    def measure(seconds: float) -> int:
        count = frontend.num_frames(round(seconds * frontend.sample_rate))
        if segments:
            count = segments.count(count)
        # What is too short for a frame is refused when it is encoded.
        return entry_bytes(codec, (max(1, count), frontend.num_layers, frontend.dim))

    factors = [copy.factor for copy in copies]
    return {utt: sum(factors.count(factor) * measure(seconds / factor) for factor in set(factors))
            for utt, seconds in data.durations.items()}
