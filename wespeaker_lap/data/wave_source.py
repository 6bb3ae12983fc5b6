"""From a recording and a random generator to a training example: a crop, augmented on the fly."""

import math
from collections.abc import Mapping

import numpy as np
import torch

from wespeaker_lap.data.augment import change_speed
from wespeaker_lap.data.augmenter import Augmenter
from wespeaker_lap.data.copies import CLEAN, Copy, check_ids, list_speakers
from wespeaker_lap.data.datadir import DataDir
from wespeaker_lap.io.audio import find_crop, read_crop

SPARE = 2  # samples read beyond those that a crop at another speed is made of, for its rounding


class WaveSource:
    """Random crops of recordings, in the place of `FeatureSource`.

    Only the crop is read of a recording whose format can seek. Crops at another speed are examples
    of their own, after all others, of speakers of their own. A recording that is shorter than a
    crop is tiled, as WeSpeaker does, before it is augmented.

    Examples are asked for by `(epoch, index)`: crop and augmentation are functions of (seed, epoch,
    index) and of nothing else, so that they are the same in any thread, on any rank, after any
    restart.

    Args:
        data: the training set.
        crop_samples: S of every crop.
        seed: of the training.
        sample_rate: of the crops, in Hz; other recordings are resampled.
        shares: copy -> probability, without those at another speed; 1 in all. None: `clean` alone.
        speeds: copies at another speed.
        augmenter: makes the copies; None for `clean` alone.
        speed_share: part of the utterances at each other speed that is in an epoch.

    Attributes:
        shape, dtype: of every example.
        speakers: the class names, in class order.
        labels: class of each example.
        voice_shares: as of `FeatureSource`.
        frame_bytes: of a sample on disk, counted as 16 bits.

    Raises:
        ValueError: copies whose ids are taken.
    """

    dtype, frame_bytes = torch.float32, 2
    as_stored = False

    def __init__(self, data: DataDir, crop_samples: int, seed: int, sample_rate: int = 16000,
                 shares: Mapping[Copy, float] | None = None, speeds: tuple[Copy, ...] = (),
                 augmenter: Augmenter | None = None, speed_share: float = 1.0):
        self.wavs, self.crop_samples, self.seed = data.wavs, crop_samples, seed
        self.sample_rate, self.augmenter = sample_rate, augmenter
        self.shape = (crop_samples,)
        shares = shares or {CLEAN: 1.0}
        self.copies, self.shares = list(shares), np.array([*shares.values()])
        self.voices = [CLEAN, *speeds]
        self.voice_shares = [1.0, *(speed_share for _ in speeds)]
        check_ids(data.utt2spk, speeds)
        self.utts, self.speakers = sorted(data.utt2spk), list_speakers(data.utt2spk, self.voices)
        classes = {speaker: number for number, speaker in enumerate(self.speakers)}
        self.labels = [classes[voice.speaker(data.utt2spk[utt])] for voice in self.voices
                       for utt in self.utts]

    def __len__(self) -> int:
        return len(self.labels)

    def list_entries(self) -> dict[str, str]:
        """Every id that `fill` may return -> the same: augmentation does not change it."""
        return {name: name for voice in self.voices for name in map(voice.utt_id, self.utts)}

    def fill(self, key: tuple[int, int], out: np.ndarray) -> tuple[str, int, int]:
        """Read and augment one example into its place in a batch.

        Args:
            key: (epoch, index of the example).
            out: of `shape` and `dtype`, overwritten.

        Returns:
            The utterance id (of the copy, where the speed is another), its class, and how many
            samples were read.

        Raises:
            ValueError: a recording of the set or of the augmentation that cannot be used.
        """
        voice, utt, rng = self._begin(key)
        wave, num_read = self._read(utt, voice.factor, rng)
        copy = self.copies[int(rng.choice(len(self.copies), p=self.shares))]
        out[:] = wave if copy == CLEAN else self.augmenter.augment(copy, utt, wave, rng)
        return voice.utt_id(utt), self.labels[key[1]], num_read

    def find_span(self, key: tuple[int, int]) -> tuple[float, float]:
        """The first second of an example's crop in its recording, and how many seconds it has."""
        voice, utt, rng = self._begin(key)
        return find_crop(self.wavs[utt], self._size(voice.factor), rng.random(), self.sample_rate)

    def _begin(self, key: tuple[int, int]) -> tuple[Copy, str, np.random.Generator]:
        """Voice and utterance of an example; and what all else of it is drawn from, the crop first.
        """
        epoch, index = key
        number, place = divmod(index, len(self.utts))
        rng = np.random.default_rng([self.seed, epoch, index])
        return self.voices[number], self.utts[place], rng

    def _size(self, factor: float) -> int:
        """Samples to read for a crop at a speed."""
        return self.crop_samples if factor == 1 else math.ceil(self.crop_samples * factor) + SPARE

    def _read(self, utt: str, factor: float, rng: np.random.Generator) -> tuple[np.ndarray, int]:
        """A crop (S,) of an utterance at a speed, and how many samples were read for it."""
        wave = read_crop(self.wavs[utt], self._size(factor), rng.random(), self.sample_rate)
        num_read = len(wave)
        if factor != 1:
            wave = change_speed(wave, factor)[:self.crop_samples]
        return np.resize(wave, self.crop_samples), num_read
