"""From an utterance and a random generator to a training sample."""

from collections.abc import Mapping, Sequence

import numpy as np
from torch.utils.data import Dataset

from wespeaker_lap.data.batch import Sample
from wespeaker_lap.io.feats import FeatureStore
from wespeaker_lap.io.table import name_some


class FeatureSource(Dataset):
    """Random crops of stored layer features.

    Items are asked for by `(epoch, index)`: the crop is a function of (seed, epoch, utterance)
    and of nothing else, so that it is the same in any worker, on any rank, after any restart.

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
        self.utts = sorted(utt2spk)
        self.labels = [classes[utt2spk[utt]] for utt in self.utts]

    def __len__(self) -> int:
        return len(self.utts)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        utt = self.utts[index]
        rng = np.random.default_rng([self.seed, epoch, index])
        return Sample(utt, self._crop(utt, rng), self.labels[index])

    def _crop(self, utt: str, rng: np.random.Generator) -> np.ndarray:
        total, want = self.store.num_frames(utt), self.crop_frames
        if total > want:
            start = int(rng.integers(total - want + 1))
            return self.store.read(utt, start, want)
        feats = self.store.read(utt)  # (total, L, D)
        return feats[np.arange(want) % total]
