"""Makes the augmentation copies of a set from recordings of noises, rooms and other speakers."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from wespeaker_lap.data.augment import add_babble, add_noise, change_speed, reverberate
from wespeaker_lap.data.copies import Copy
from wespeaker_lap.io.audio import AudioError, read_audio, read_crop
from wespeaker_lap.io.table import name_some

NOISE_CATEGORIES = ("noise", "music", "speech")  # MUSAN's; its speech is no noise, but babble
OPTIONS = {"noise": "--noise_scp", "reverb": "--rir_scp", "babble": "--babble_scp"}
CACHE_BYTES = 128 << 20  # of decoded recordings a process


class Augmenter:
    """Makes copies of utterances; each is a function of (seed, copy, utterance) and the tables.

    The ratios and the number of voices are those of Kaldi's egs/voxceleb/v2 (noise 0 to 15 dB,
    music 5 to 15, babble 13 to 20), drawn evenly, and of voxceleb_trainer (Chung et al. 2020; 3 to
    8 voices, Kaldi 3 to 7).

    Args:
        copies: those to make.
        seed: of the copies.
        noises: id -> audio file, for `noise`.
        rirs: id -> impulse response, for `reverb`.
        voices: utterance -> audio file, for `babble`; as a rule the training set's.
        utt2spk: utterance -> speaker, of the voices and of the utterances that `babble` is made of,
            so that nobody is in the babble behind themselves.
        categories: noise -> `noise`, `music` or `speech`; `noise` where none is given. Speech is
            left out.
        noise_db, music_db, babble_db: lowest and highest signal-to-noise ratio, in dB.
        num_voices: fewest and most in babble.
        sample_rate: of the utterances, in Hz; the tables' recordings are resampled to it.

    Raises:
        ValueError: a copy without its table, a range whose ends are the wrong way round, an unknown
            category, too few voices, voices without a speaker.
    """

    def __init__(self, copies: Sequence[Copy], seed: int, noises: Mapping[str, str] | None = None,
                 rirs: Mapping[str, str] | None = None, voices: Mapping[str, str] | None = None,
                 utt2spk: Mapping[str, str] | None = None,
                 categories: Mapping[str, str] | None = None,
                 noise_db: tuple[float, float] = (0.0, 15.0),
                 music_db: tuple[float, float] = (5.0, 15.0),
                 babble_db: tuple[float, float] = (13.0, 20.0),
                 num_voices: tuple[int, int] = (3, 8), sample_rate: int = 16000):
        self.copies, self.seed, self.sample_rate = tuple(copies), seed, sample_rate
        self.ranges = {"noise_db": noise_db, "music_db": music_db, "babble_db": babble_db,
                       "num_voices": num_voices}
        _check_ranges(self.ranges)
        self.categories = categories or {}
        self.utt2spk = utt2spk or {}
        kinds = {copy.kind for copy in copies}
        # Only what the copies need: the rest must not be part of the identity.
        self.tables = {kind: dict(table or {}) for kind, table in (
            ("noise", self._without_speech(noises or {})), ("reverb", rirs), ("babble", voices))
            if kind in kinds}
        for kind, table in self.tables.items():
            if not table:
                raise ValueError(f"the copy {kind!r} needs recordings and there are none; give "
                                 f"{OPTIONS[kind]} or leave the copy out")
        self.ids = {kind: sorted(table) for kind, table in self.tables.items()}
        if "babble" in kinds:
            self._sort_voices()
        self.recordings = RecordingCache(sample_rate)

    def apply(self, copy: Copy, utt: str, wave: np.ndarray) -> np.ndarray:
        """Make one copy of one utterance, the same in any process and any order.

        Args:
            copy: one of the copies.
            utt: the id of the original.
            wave: (S,) float32, the original.

        Returns:
            (S',) float32, S' = S but for `speed`; may exceed 1. Noise and babble leave a silent
            wave as it is.

        Raises:
            ValueError: not one of the copies, no samples, a table's recording that cannot be used;
                names the utterance.
        """
        if copy not in self.copies:
            raise ValueError(f"{utt}: the copy {copy.name!r} is not among "
                             f"{', '.join(one.name for one in self.copies)}")
        digest = hashlib.sha256(f"{self.seed} {copy.name} {utt}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:16], "little"))
        return self._name_errors(copy, utt, wave, rng, self._read)

    def augment(self, copy: Copy, utt: str, wave: np.ndarray,
                rng: np.random.Generator) -> np.ndarray:
        """Make a copy of a crop with what `rng` draws, for training from waveforms.

        Of noises and voices only as much as the crop is long is read, so that a crop costs the same
        whatever the recordings' lengths.

        Args:
            copy, utt: as for `apply`.
            wave: (S,) float32.
            rng: draws recordings, stretches and ratios.

        Returns:
            (S,) float32, as of `apply`.

        Raises:
            ValueError: as for `apply`.
        """
        def read(kind: str, name: str) -> np.ndarray:
            if kind == "reverb":
                return self._read(kind, name)
            return read_crop(self.tables[kind][name], len(wave), rng.random(), self.sample_rate)

        return self._name_errors(copy, utt, wave, rng, read)

    def _name_errors(self, copy: Copy, utt: str, *arguments: Any) -> np.ndarray:
        try:
            return self._make(copy, utt, *arguments)
        except ValueError as error:
            raise ValueError(f"{utt}: copy {copy.name!r}: {error}") from error

    def _make(self, copy: Copy, utt: str, wave: np.ndarray, rng: np.random.Generator,
              read: Callable[[str, str], np.ndarray]) -> np.ndarray:
        match copy.kind:
            case "clean":
                return wave
            case "speed":
                return change_speed(wave, copy.factor)
            case "reverb":
                return reverberate(wave, read("reverb", self._draw("reverb", rng)))
            case "noise":
                name = self._draw("noise", rng)
                category = self.categories.get(name, "noise")
                snr_db = rng.uniform(*self.ranges[f"{category}_db"])
                return add_noise(wave, read("noise", name), snr_db, rng)
            case "babble":
                voices = [read("babble", name) for name in self._draw_voices(utt, rng)]
                return add_babble(wave, voices, rng.uniform(*self.ranges["babble_db"]), rng)

    def _draw(self, kind: str, rng: np.random.Generator) -> str:
        return self.ids[kind][int(rng.integers(len(self.ids[kind])))]

    def _draw_voices(self, utt: str, rng: np.random.Generator) -> list[str]:
        """Recordings of others: of all that are sorted by speaker but the speaker's own stretch."""
        if utt not in self.utt2spk:
            raise ValueError("utt2spk does not name its speaker, who must not be in the babble")
        first, count = self.stretches.get(self.utt2spk[utt], (0, 0))
        num_others = len(self.ids["babble"]) - count
        low, high = self.ranges["num_voices"]
        num_voices = min(int(rng.integers(low, high + 1)), num_others)
        drawn = rng.choice(num_others, num_voices, replace=False).tolist()
        return [self.ids["babble"][n + count if n >= first else n] for n in drawn]

    def _read(self, kind: str, name: str) -> np.ndarray:
        return self.recordings.read(self.tables[kind][name])

    def _sort_voices(self) -> None:
        voices = self.ids["babble"]
        without = [utt for utt in voices if utt not in self.utt2spk]
        if without:
            raise ValueError(f"babble: utt2spk has no speaker for {name_some(without)}")
        voices.sort(key=lambda utt: self.utt2spk[utt])  # and by id, as they were before
        self.stretches: dict[str, tuple[int, int]] = {}  # speaker -> first place, how many
        for place, utt in enumerate(voices):
            first, count = self.stretches.get(self.utt2spk[utt], (place, 0))
            self.stretches[self.utt2spk[utt]] = (first, count + 1)
        fewest = len(voices) - max(count for _, count in self.stretches.values())
        if fewest < self.ranges["num_voices"][0]:
            raise ValueError(f"babble: a speaker has only {fewest} recordings of others, want "
                             f"{self.ranges['num_voices'][0]} or more; give {OPTIONS['babble']} "
                             f"with more speakers")

    def _without_speech(self, noises: Mapping[str, str]) -> dict[str, str]:
        unknown = [name for name in noises if self.categories.get(name, "noise")
                   not in NOISE_CATEGORIES]
        if unknown:
            raise ValueError(f"noises: the category of {name_some(unknown)} is none of "
                             f"{', '.join(NOISE_CATEGORIES)}")
        return {name: path for name, path in noises.items()
                if self.categories.get(name) != "speech"}

    def identity(self) -> dict:
        """What the copies follow from, for the identity of a feature store; plain JSON values.

        Recordings count by their ids, sizes and what else the copies take from the tables; not by
        their paths, so that they may be moved.

        Raises:
            AudioError: a table's recording is not there.
        """
        identity: dict = {"copies": [copy.name for copy in self.copies]}
        if self.tables:  # else nothing is drawn
            identity["seed"] = self.seed
        for kind, table in self.tables.items():
            facts = {"noise": self.categories, "babble": self.utt2spk}.get(kind, {})
            identity[f"{kind}_hash"] = _hash_table(table, facts)
        names = {"noise": ("noise_db", "music_db"), "babble": ("babble_db", "num_voices")}
        return identity | {name: list(self.ranges[name]) for kind in self.tables
                           for name in names.get(kind, ())}


class RecordingCache:
    """Decoded recordings, those used last, up to a number of bytes; a copy of it starts empty.

    Args:
        sample_rate: of what is given, in Hz.
        max_bytes: what is kept at most.
    """

    def __init__(self, sample_rate: int, max_bytes: int = CACHE_BYTES):
        self.sample_rate, self.max_bytes = sample_rate, max_bytes
        self.kept: OrderedDict[str, np.ndarray] = OrderedDict()
        self.lock = Lock()

    def __reduce__(self):
        return RecordingCache, (self.sample_rate, self.max_bytes)

    def read(self, path: str) -> np.ndarray:
        """Samples of a file, (N,) float32, read-only.

        Raises:
            AudioError: it cannot be read.
        """
        with self.lock:
            if path in self.kept:
                self.kept.move_to_end(path)
                return self.kept[path]
        samples = read_audio(path, self.sample_rate)
        samples.flags.writeable = False
        with self.lock:
            self.kept[path] = samples
            while sum(one.nbytes for one in self.kept.values()) > self.max_bytes:
                self.kept.popitem(last=False)
        return samples


def _check_ranges(ranges: Mapping[str, tuple[float, float]]) -> None:
    for name, (low, high) in ranges.items():
        if not (np.isfinite([low, high]).all() and low <= high):
            raise ValueError(f"{name}: want a lowest and a highest number, got {low}, {high}")
    if ranges["num_voices"][0] < 1:
        raise ValueError(f"num_voices: want 1 or more, got {ranges['num_voices'][0]}")


def _hash_table(table: Mapping[str, str], facts: Mapping[str, str]) -> str:
    digest = hashlib.sha256()
    for name in sorted(table):
        try:
            size = Path(table[name]).stat().st_size
        except OSError as error:
            raise AudioError(f"{table[name]}: no such file ({name} of the augmentation's "
                             f"recordings)") from error
        digest.update(f"{name} {size} {facts.get(name, '')}\n".encode())
    return digest.hexdigest()[:16]
