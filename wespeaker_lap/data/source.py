"""From an utterance and a random generator to a training example."""

from collections.abc import Mapping, Sequence

import numpy as np

from wespeaker_lap.data.copies import CLEAN, Copy
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

    Raises:
        ValueError: the store lacks utterances of the set, or their copies; lists them.
    """

    def __init__(self, store: FeatureStore, utt2spk: Mapping[str, str], speakers: Sequence[str],
                 crop_frames: int, seed: int, copies: Mapping[Copy, float] | None = None):
        copies = copies or {CLEAN: 1.0}
        same = [copy for copy in copies if copy.kind != "speed"]
        self.voices = [same, *([copy] for copy in copies if copy.kind == "speed")]
        weights = np.array([copies[copy] for copy in same])
        self.shares = weights / weights.sum()
        missing = [copy.utt_id(utt) for copy in copies for utt in utt2spk
                   if copy.utt_id(utt) not in store]
        if missing:
            raise ValueError(f"{store.directory}: no features for {name_some(missing)}; run "
                             f"stage 2 for this set")
        self.store, self.crop_frames, self.seed = store, crop_frames, seed
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

    @property
    def shape(self) -> tuple[int, int, int]:
        """(T, L, D) of every example."""
        return self.crop_frames, self.store.num_layers, self.store.dim

    def fill(self, key: tuple[int, int], out: np.ndarray) -> tuple[str, int, int]:
        """Read one example into its place in a batch.

        Args:
            key: (epoch, index of the example).
            out: (T, L, D) float32, overwritten.

        Returns:
            The copy's utterance id, its class, and how many frames of it were read.
        """
        epoch, index = key
        rng, want = np.random.default_rng([self.seed, epoch, index]), self.crop_frames
        utt = self._draw_copy(rng, index)
        start, count = self._draw_crop(rng, utt)
        self.store.read(utt, start, count, out=out[:count])
        for first in range(count, want, count):
            out[first:first + count] = out[:min(count, want - first)]
        return utt, self.labels[index], count

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
