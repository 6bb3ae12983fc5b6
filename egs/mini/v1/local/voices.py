"""Synthetic speakers: espeak-ng's voices, varied, and what they say.

A speaker is an accent, a voice variant, a vocal-tract length, a pitch, a pitch range, a rate and a
spectral envelope; an utterance adds its own sentence, small changes of pitch and rate, a channel,
noise and a level. Everything is drawn from (seed, set, speaker, utterance).
"""

import ctypes
from dataclasses import dataclass
from importlib.metadata import version
from math import prod
from pathlib import Path

import espeakng_loader
import numpy as np
import soxr

SETS = ("train", "valid", "test")
SAMPLE_RATE = 16000
ESPEAK_RATE = 22050
ACCENTS = ("en", "en-029", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-gb-x-rp",
           "en-us", "en-us-nyc")
# Without a pitch (the whispers), or the default voice under another name.
UNUSED_VARIANTS = frozenset(("caleb", "fast", "klatt", "whisper", "whisperf"))
# From speak_lib.h of espeak-ng.
SYNCHRONOUS, DONT_EXIT, CHARACTERS, UTF8 = 2, 0x8000, 1, 1
RATE, PITCH, PITCH_RANGE = 1, 3, 4

VOCABULARY = {
    "number": "two three four five six seven eight nine ten eleven twelve thirteen fourteen "
              "fifteen sixteen seventeen eighteen nineteen twenty forty ninety",
    "colour": "red green blue yellow purple orange silver brown black white pink golden",
    "thing": "horses boxes candles bridges letters mirrors apples wagons pillows ladders "
             "jackets teapots violins hammers feathers baskets clocks shovels garlands onions",
    "name": "Anna Peter Zoe Victor Judith Oliver Fatima George Mei Thomas Wanda Hugo Yasmin "
            "Ivan Chloe Samuel Bridget Omar Lucy Desmond",
    "verb": "found carried painted borrowed counted delivered repaired hid sold measured "
            "ordered polished shared returned wrapped",
    "place": "London Boston Cairo Vienna Jakarta Dublin Nairobi Lisbon Quebec Oslo Havana "
             "Geneva Bombay Sydney Warsaw Madrid",
}
WORDS = {kind: text.split() for kind, text in VOCABULARY.items()}
PATTERNS = ("{name} {verb} {number} {colour} {thing} in {place}",
            "in {place}, {name} {verb} {number} {colour} {thing}",
            "{number} {colour} {thing} from {place} are what {name} {verb}",
            "why has {name} {verb} the {number} {colour} {thing} near {place}")


@dataclass(frozen=True)
class Speaker:
    """Who speaks: the set and number, and the voice.

    Attributes:
        subset, index: place in SETS, number within the set.
        variant: one of espeak-ng's voice variants; no two sets share one.
        accent: an English voice of espeak-ng.
        pitch, pitch_range: 0 to 99, espeak-ng's scale.
        rate: words per minute.
        tract: frequency scale of the formants, 1 for espeak-ng's own.
    """

    subset: int
    index: int
    variant: str
    accent: str
    pitch: float
    pitch_range: float
    rate: float
    tract: float

    @property
    def name(self) -> str:
        """The speaker id, such as `train007`."""
        return f"{SETS[self.subset]}{self.index:03d}"


class Espeak:
    """espeak-ng, loaded once into this process (which should speak one speaker and end)."""

    def __init__(self):
        self.library = ctypes.CDLL(espeakng_loader.get_library_path())
        self.chunks: list[np.ndarray] = []
        callback_type = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short),
                                         ctypes.c_int, ctypes.c_void_p)
        # Kept on self: the library calls it as long as it lives.
        self.callback = callback_type(self._collect)
        rate = self.library.espeak_Initialize(
            SYNCHRONOUS, 0, str(espeakng_loader.get_data_path()).encode(), DONT_EXIT)
        if rate != ESPEAK_RATE:
            raise RuntimeError(f"espeak-ng does not start (espeak_Initialize: {rate}); reinstall "
                               f"espeakng-loader {version('espeakng-loader')}")
        self.library.espeak_SetSynthCallback(self.callback)

    def _collect(self, samples, num_samples: int, _events) -> int:
        if samples and num_samples > 0:
            self.chunks.append(np.ctypeslib.as_array(samples, (num_samples,)).copy())
        return 0

    def speak(self, voice: str, text: str, pitch: float, pitch_range: float, rate: float,
              seed: int) -> np.ndarray:
        """Speak a sentence; returns (S,) float64 in [-1, 1] at 22,050 Hz.

        Raises:
            RuntimeError: espeak-ng has no such voice, or says nothing.
        """
        self.chunks.clear()
        # Breath noise is drawn by the library's own generator or by the C library's, depending
        # on the voice.
        self.library.espeak_ng_SetRandSeed(ctypes.c_long(seed))
        ctypes.CDLL(None).srand(ctypes.c_uint(seed))
        if self.library.espeak_SetVoiceByName(voice.encode()):
            raise RuntimeError(f"espeak-ng has no voice {voice!r}; reinstall espeakng-loader")
        for parameter, value in ((PITCH, pitch), (PITCH_RANGE, pitch_range), (RATE, rate)):
            self.library.espeak_SetParameter(parameter, round(value), 0)
        data = text.encode() + b"\0"
        self.library.espeak_Synth(data, ctypes.c_size_t(len(data)), 0, CHARACTERS, 0, UTF8, None,
                                  None)
        self.library.espeak_Synchronize()
        if not self.chunks:
            raise RuntimeError(f"espeak-ng said nothing for {text!r} with the voice {voice!r}")
        return np.concatenate(self.chunks) / 32768.0


def make_sentence(number: int) -> str:
    """Make sentence `number`: another one for every number below 90 million.

    >>> make_sentence(0)
    'Anna found two red horses in London.'
    """
    sizes = [len(words) for words in WORDS.values()]
    total = prod(sizes) * len(PATTERNS)
    # Steps of the golden ratio spread neighbouring numbers over all words; a step that shares no
    # factor with the total brings no sentence twice.
    step = round(total * 0.6180339887)
    while np.gcd(step, total) != 1:
        step += 1
    rest, pattern = divmod(number * step % total, len(PATTERNS))
    chosen = {}
    for kind, words in WORDS.items():
        rest, word = divmod(rest, len(words))
        chosen[kind] = words[word]
    return PATTERNS[pattern].format(**chosen) + "."


def make_speakers(seed: int, sizes: dict[str, int]) -> list[Speaker]:
    """Draw the speakers of all sets.

    Args:
        seed: of the draw.
        sizes: set -> number of speakers.

    Returns:
        The speakers. A variant belongs to one set only; it comes back within the set when the
        set has more speakers than variants.
    """
    folder = Path(espeakng_loader.get_data_path()) / "voices" / "!v"
    variants = sorted(path.name for path in folder.iterdir() if path.name not in UNUSED_VARIANTS)
    variants = [variants[i] for i in np.random.default_rng(seed).permutation(len(variants))]
    bounds = np.cumsum([0] + [sizes[name] for name in SETS]) * len(variants) // sum(sizes.values())
    speakers = []
    for subset, name in enumerate(SETS):
        own = variants[bounds[subset]:bounds[subset + 1]]
        for index in range(sizes[name]):
            rng = np.random.default_rng([seed, subset, index])
            speakers.append(Speaker(
                subset, index, own[index % len(own)], ACCENTS[rng.integers(len(ACCENTS))],
                pitch=rng.uniform(25, 75), pitch_range=rng.uniform(25, 75),
                rate=rng.uniform(140, 180), tract=float(np.exp(rng.uniform(-0.12, 0.12)))))
    return speakers


def draw_response(frequencies: np.ndarray, rng: np.random.Generator, tilt_db: float,
                  bump_db: float) -> np.ndarray:
    """Draw a smooth frequency response: a tilt in dB per octave and three broad bumps.

    Args:
        frequencies: (n,) in Hz.
        rng: source of the draw.
        tilt_db, bump_db: standard deviations of the tilt and of each bump's height.

    Returns:
        (n,) gains.
    """
    octaves = np.log2(np.maximum(frequencies, 60.0) / 1000.0)
    gain_db = rng.normal(0, tilt_db) * octaves
    for centre in rng.uniform(-2.5, 2.5, 3):
        gain_db += rng.normal(0, bump_db) * np.exp(-0.5 * ((octaves - centre) / 0.5) ** 2)
    return 10 ** (gain_db / 20)


def make_utterance(espeak: Espeak, speaker: Speaker, number: int, seed: int) -> np.ndarray:
    """Speak one utterance; returns (S,) float64 at 16 kHz within [-1, 1]."""
    sentence = make_sentence((speaker.subset * 1000 + speaker.index) * 1000 + number)
    rng = np.random.default_rng([seed, speaker.subset, speaker.index, number + 1])
    speech = espeak.speak(
        f"{speaker.accent}+{speaker.variant}", sentence,
        pitch=np.clip(speaker.pitch + rng.normal(0, 5), 0, 99),
        pitch_range=np.clip(speaker.pitch_range + rng.normal(0, 5), 0, 99),
        rate=speaker.rate / speaker.tract * np.exp(rng.normal(0, 0.06)),
        seed=int(rng.integers(1, 2 ** 31)))
    # Another claimed rate moves the formants, as another vocal-tract length does.
    speech = soxr.resample(speech, ESPEAK_RATE * speaker.tract, SAMPLE_RATE)
    size = -(-len(speech) // 4800) * 4800  # of small prime factors, which the FFT likes
    frequencies = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    own = np.random.default_rng([seed, speaker.subset, speaker.index, 0, 1])
    voice = draw_response(frequencies, own, tilt_db=1.0, bump_db=3.5)
    channel = draw_response(frequencies, rng, tilt_db=1.2, bump_db=3.0)
    filtered = np.fft.irfft(np.fft.rfft(speech, size) * voice * channel)[:len(speech)]
    colour = np.maximum(frequencies, 60.0) ** -rng.uniform(0.0, 1.0)
    noise = np.fft.irfft(np.fft.rfft(rng.standard_normal(size)) * colour)[:len(speech)]
    snr_db, level_db = rng.uniform(5, 25), rng.uniform(-32, -18)
    mix = filtered / filtered.std() + noise / noise.std() * 10 ** (-snr_db / 20)
    return mix * min(10 ** (level_db / 20), 0.99 / np.abs(mix).max())
