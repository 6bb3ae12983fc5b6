"""Training examples: two crops of an utterance, and a corrupted copy of each.

Everything about an example follows from (seed, step, its place in the batch), so it is the same on
any process, in any number of them, after any restart.
"""

from dataclasses import dataclass

import numpy as np
from scipy import fft

from wespeaker_lap.data.augment import add_noise, find_direct, find_gain
from wespeaker_lap.data.packed import PackedAudio
from wespeaker_lap.pretrain.config import Crops

EQ_POINTS = 8  # of the random equaliser's curve, equally spaced in frequency
DRAW_SECONDS = 8.0  # up to this length a longer recording is drawn more often


@dataclass(frozen=True)
class Example:
    """One crop: `clean` (S,) float32 for the targets, `noisy` (S,) float32 for the encoder.

    `utt` is the number of its recording; `has_pair` says whether that was long enough for two crops
    of different speech, `is_clean` whether both were left as they are.
    """

    clean: np.ndarray
    noisy: np.ndarray
    utt: int
    has_pair: bool
    is_clean: bool


class CropSource:
    """Pairs of crops of random recordings.

    Args:
        audio: the recordings.
        utts: the numbers of those to draw from.
        config: lengths and probabilities.
        seed: of the training.
        noises, rirs: recordings to add, impulse responses to convolve with. Without noises,
            Gaussian noise of a random spectral slope; without responses, no reverberation.
    """

    def __init__(self, audio: PackedAudio, utts: np.ndarray, config: Crops, seed: int,
                 noises: PackedAudio | None = None, rirs: PackedAudio | None = None):
        self.audio, self.utts, self.config, self.seed = audio, utts, config, seed
        self.noises, self.rirs = noises, rirs
        self.size = round(config.seconds * audio.sample_rate)  # S
        weights = np.minimum(audio.lengths[utts], DRAW_SECONDS * audio.sample_rate)
        self.cumulative = np.cumsum(weights / weights.sum())

    def pair(self, step: int, place: int) -> tuple[Example, Example]:
        """Two crops of one recording, for a place in the batch of a step.

        They do not overlap where the recording has room for that, else as little as it allows; a
        recording shorter than a crop is repeated until it fills one.
        """
        rng = np.random.default_rng([self.seed, step, place])
        utt = self._draw(rng)
        spare = int(self.audio.lengths[utt]) - self.size
        gap = min(max(spare, 0), self.size)  # between the starts, at least
        early, late = np.sort(rng.integers(max(spare, 0) - gap + 1, size=2)).tolist()
        crops = [self._cut(utt, start) for start in (early, late + gap)]
        is_clean = bool(rng.random() < self.config.clean_share)
        noisy = [crop if is_clean else self._corrupt(crop, rng) for crop in crops]
        first, second = (Example(crop, seen, utt, spare >= self.size, is_clean)
                         for crop, seen in zip(crops, noisy, strict=True))
        return first, second

    def _draw(self, rng: np.random.Generator) -> int:
        place = int(np.searchsorted(self.cumulative, rng.random(), side="right"))
        return int(self.utts[min(place, len(self.utts) - 1)])

    def _cut(self, utt: int, start: int) -> np.ndarray:
        length = int(self.audio.lengths[utt])
        if length <= self.size:
            return np.resize(self.audio.read(utt), self.size)
        return self.audio.read(utt, start, self.size)

    def _corrupt(self, clean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Reverberation and equaliser, then another utterance, then noise, each with its odds."""
        config, x = self.config, clean
        has_reverb = self.rirs is not None and rng.random() < config.reverb_prob
        has_eq = rng.random() < config.eq_prob
        if has_reverb or has_eq:
            x = self._filter(x, has_reverb, has_eq, rng)
        if rng.random() < config.mix_prob:  # WavLM, Chen et al. 2022, algorithm 1
            other = self._cut(self._draw(rng), 0)
            size = int(rng.integers(1, self.size // 2 + 1))
            x = x.copy()
            at, source = rng.integers(0, self.size - size + 1, size=2)
            gain = find_gain(x, other, rng.uniform(*config.mix_db))
            x[at:at + size] += gain * other[source:source + size]
        if rng.random() < config.noise_prob:
            noise = self._noise(rng)
            x = add_noise(x, noise, rng.uniform(*config.noise_db), rng)
        return x.astype(np.float32)

    def _filter(self, x: np.ndarray, has_reverb: bool, has_eq: bool,
                rng: np.random.Generator) -> np.ndarray:
        size = fft.next_fast_len(2 * self.size, real=True) if has_reverb else self.size
        spectrum = fft.rfft(x, size)
        if has_reverb:
            response = self.rirs.read(int(rng.integers(len(self.rirs))))
            response = response[find_direct(response):][:self.size]  # from the direct sound on
            power = np.linalg.norm(response)
            spectrum *= fft.rfft(response / power, size) if power else 1.0
        if has_eq:
            points = np.linspace(0, len(spectrum) - 1, EQ_POINTS)
            curve = np.interp(np.arange(len(spectrum)), points,
                              rng.normal(0.0, self.config.eq_db, EQ_POINTS))
            spectrum *= (10 ** (curve / 20)).astype(np.float32)
        return fft.irfft(spectrum, size)[:self.size]

    def _noise(self, rng: np.random.Generator) -> np.ndarray:
        if self.noises is None:
            spectrum = rng.standard_normal((self.size // 2 + 1, 2), dtype=np.float32)
            slope = np.arange(1, len(spectrum) + 1) ** -rng.uniform(0.0, 1.0)
            return fft.irfft((spectrum[:, 0] + 1j * spectrum[:, 1]) * slope, self.size)
        noise = int(rng.integers(len(self.noises)))
        length = int(self.noises.lengths[noise])
        if length <= self.size:
            return np.resize(self.noises.read(noise), self.size)
        return self.noises.read(noise, int(rng.integers(length - self.size + 1)), self.size)
