"""From an utterance and a random generator to a training example."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from wespeaker_lap.data.copies import CLEAN, Copy
from wespeaker_lap.data.dequantize import CODECS, Dequantize, cut_row, part_bytes, row_bytes
from wespeaker_lap.data.segments import read_segments
from wespeaker_lap.io.feats import FeatureStore
from wespeaker_lap.io.table import name_some


class FeatureSource:
    """Random crops of stored layer features.

    Where the store holds segments of utterances, a segment is drawn first and the crop is inside
    of it; one that is shorter than a crop is tiled. Where it holds copies, one of the utterance's
    is drawn before all, by weight; copies at another speed are examples of their own, after all
    others, of speakers of their own.

    Examples are asked for by `(epoch, index)`: copy and crop are functions of (seed, epoch, index)
    and of nothing else, so that they are the same in any thread, on any rank, after any restart.

    Args:
        store: the features.
        utt2spk: utterance -> speaker, the training set.
        speakers: the class names, in class order; with those of `data.copies.list_speakers`.
        crop_frames: T of every crop; shorter utterances are tiled, as WeSpeaker does.
        seed: of the training.
        copies: copy -> weight above 0, of `data.copies.weigh_copies`; None for the clean one.
            That of another speed is the share of its utterances in an epoch.
        as_stored: whether examples are rows of bytes for `Dequantize`, instead of floats.

    Attributes:
        crop_shape: (T, L, D) of every crop.
        shape, dtype: of every example.
        voice_shares: which part of its examples is in an epoch, of the original voices and of
            those at each other speed; they have as many each and follow one another.

    Raises:
        ValueError: the store lacks utterances of the set, or their copies; lists them.
    """

    def __init__(self, store: FeatureStore, utt2spk: Mapping[str, str], speakers: Sequence[str],
                 crop_frames: int, seed: int, copies: Mapping[Copy, float] | None = None,
                 as_stored: bool = False):
        copies = copies or {CLEAN: 1.0}
        same = [copy for copy in copies if copy.kind != "speed"]
        self.voices = [same, *([copy] for copy in copies if copy.kind == "speed")]
        self.voice_shares = [1.0, *(copies[copy] for copy in copies if copy.kind == "speed")]
        weights = np.array([copies[copy] for copy in same])
        self.shares = weights / weights.sum()
        missing = [copy.utt_id(utt) for copy in copies for utt in utt2spk
                   if copy.utt_id(utt) not in store]
        if missing:
            raise ValueError(f"{store.directory}: no features for {name_some(missing)}; run "
                             f"stage 2 for this set")
        self.store, self.crop_frames, self.seed = store, crop_frames, seed
        self.as_stored = as_stored
        self.crop_shape = crop_frames, store.num_layers, store.dim
        self.shape, self.dtype = self.crop_shape, torch.float32
        self._dequantize = (Dequantize(store.codec, self.crop_shape)
                            if store.codec in CODECS else None)
        if as_stored:
            self.shape, self.dtype = (row_bytes(store.codec, self.crop_shape),), torch.uint8
        self.segments = read_segments(store.identity)
        self.speakers, self.utts = list(speakers), sorted(utt2spk)
        classes = {speaker: number for number, speaker in enumerate(speakers)}
        self.labels = [classes[choices[0].speaker(utt2spk[utt])] for choices in self.voices
                       for utt in self.utts]

    def __len__(self) -> int:
        return len(self.labels)

    def list_entries(self) -> dict[str, str]:
        """Every entry that may be drawn -> the entry of the same voice without augmentation."""
        return {copy.utt_id(utt): choices[0].utt_id(utt) if copy.kind == "speed" else utt
                for choices in self.voices for copy in choices for utt in self.utts}

    @property
    def frame_bytes(self) -> int:
        """Bytes of a frame on disk."""
        return self.store.frame_bytes

    def fill(self, key: tuple[int, int], out: np.ndarray) -> tuple[str, int, int]:
        """Read one example into its place in a batch.

        Args:
            key: (epoch, index of the example).
            out: of `shape` and `dtype`, overwritten.

        Returns:
            The copy's utterance id, its class, and how many frames of it were read.
        """
        utt, start, count = self.locate(key)
        if self.as_stored:
            self._fill_stored(utt, start, count, out)
        elif self._dequantize is None:
            self.store.read(utt, start, count, out=out[:count])
            _tile(out, count)
        else:
            sizes = self._part_bytes(count)
            parts = cut_row(np.empty(sum(sizes), np.uint8), sizes)
            self.store.read_stored(utt, start, count, parts)
            self._dequantize.fill([torch.from_numpy(part)[None] for part in parts],
                                  torch.from_numpy(out[None, :count]))
            _tile(out, count)
        return utt, self.labels[key[1]], count

    def _fill_stored(self, utt: str, start: int, count: int, row: np.ndarray) -> None:
        sizes = self._part_bytes(count)
        parts = cut_row(row, self._part_bytes(self.crop_frames))
        self.store.read_stored(utt, start, count, [
            part[:size] for part, size in zip(parts, sizes, strict=True)])
        for part, size in zip(parts, sizes, strict=True):
            _tile(part, size)

    def _part_bytes(self, count: int) -> list[int]:
        return part_bytes(self.store.codec, (count, *self.crop_shape[1:]))

    def locate(self, key: tuple[int, int]) -> tuple[str, int, int]:
        """The entry of an example, the first frame of its crop, and how many are read."""
        epoch, index = key
        rng = np.random.default_rng([self.seed, epoch, index])
        utt = self._draw_copy(rng, index)
        return utt, *self._draw_crop(rng, utt)

    def find_span(self, key: tuple[int, int]) -> tuple[float, float]:
        """The first second of an example's crop in its utterance, and how many seconds it has."""
        _, start, count = self.locate(key)
        rate = self.store.identity["sample_rate"] / self.store.identity["frame_shift"]
        return start / rate, count / rate

    def _draw_copy(self, rng: np.random.Generator, index: int) -> str:
        voice, place = divmod(index, len(self.utts))
        choices = self.voices[voice]
        number = int(rng.choice(len(choices), p=self.shares)) if len(choices) > 1 else 0
        return choices[number].utt_id(self.utts[place])

    def _draw_crop(self, rng: np.random.Generator, utt: str) -> tuple[int, int]:
        """First frame of an example in the copy's entry, and how many there are to read."""
        num_pieces, size = 1, self.store.num_frames(utt)
        if self.segments is not None:
            num_pieces, size = self.segments.pieces(size)
        start = size * int(rng.integers(num_pieces)) if num_pieces > 1 else 0
        if size <= self.crop_frames:
            return start, size
        return start + int(rng.integers(size - self.crop_frames + 1)), self.crop_frames


def _tile(out: np.ndarray, count: int) -> None:
    """Repeat the first `count` rows until all are filled."""
    for first in range(count, len(out), count):
        out[first:first + count] = out[:min(count, len(out) - first)]
