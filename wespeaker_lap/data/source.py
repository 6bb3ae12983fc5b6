"""From an utterance and a random generator to a training example."""

from collections.abc import Mapping, Sequence

import numpy as np

from wespeaker_lap.data.segments import read_segments
from wespeaker_lap.io.feats import FeatureStore
from wespeaker_lap.io.table import name_some


class FeatureSource:
    """Random crops of stored layer features.

    Where the store holds segments of utterances, a segment is drawn first and the crop is inside
    of it; one that is shorter than a crop is tiled.

    Examples are asked for by `(epoch, index)`: the crop is a function of (seed, epoch, utterance)
    and of nothing else, so that it is the same in any thread, on any rank, after any restart.

    Args:
        store: the features.
        utt2spk: utterance -> speaker, the training set.
        speakers: the class names, in class order.
        crop_frames: T of every crop; shorter utterances are tiled, as WeSpeaker does.
        seed: of the training.

    Raises:
        ValueError: the store lacks utterances of the set; lists them.
    """

    def __init__(self, store: FeatureStore, utt2spk: Mapping[str, str], speakers: Sequence[str],
                 crop_frames: int, seed: int):
        missing = [utt for utt in utt2spk if utt not in store]
        if missing:
            raise ValueError(f"{store.directory}: no features for {name_some(missing)}; run "
                             f"stage 2 for this set")
        classes = {speaker: number for number, speaker in enumerate(speakers)}
        self.store, self.crop_frames, self.seed = store, crop_frames, seed
        self.segments = read_segments(store.identity)
        self.utts = sorted(utt2spk)
        self.labels = [classes[utt2spk[utt]] for utt in self.utts]

    def __len__(self) -> int:
        return len(self.utts)

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
            key: (epoch, index of the utterance).
            out: (T, L, D) float32, overwritten.

        Returns:
            The utterance, its class, and how many frames of it were read.
        """
        epoch, index = key
        utt, want = self.utts[index], self.crop_frames
        start, count = self._draw_crop(epoch, index)
        self.store.read(utt, start, count, out=out[:count])
        for first in range(count, want, count):
            out[first:first + count] = out[:min(count, want - first)]
        return utt, self.labels[index], count

    def _draw_crop(self, epoch: int, index: int) -> tuple[int, int]:
        """First frame of an example in the utterance's entry, and how many there are to read."""
        num_pieces, size = 1, self.store.num_frames(self.utts[index])
        if self.segments is not None:
            num_pieces, size = self.segments.pieces(size)
        rng = np.random.default_rng([self.seed, epoch, index])
        start = size * int(rng.integers(num_pieces)) if num_pieces > 1 else 0
        if size <= self.crop_frames:
            return start, size
        return start + int(rng.integers(size - self.crop_frames + 1)), self.crop_frames
