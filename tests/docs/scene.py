"""What the pages' commands find: a checkout, and noises in the place of voices, each speaker's of
its own colour, under the names that the pages use."""

import shutil
from pathlib import Path

import numpy as np
from blocks import REPO

from wespeaker_lap.data.datadir import write_data_dir
from wespeaker_lap.io.audio import write_wav
from wespeaker_lap.io.table import write_table

RATE = 16000
SETS = {"train": 8, "valid": 3, "test": 4}  # speakers
NUM_UTTS = 4
# Beside the pages' commands: files, and the speaker and the utterance that they are of.
RECORDINGS = {"a.wav": (90, 0), "b.wav": (90, 1), "ann-1.wav": (91, 0), "ann-2.wav": (91, 1),
              "who.wav": (91, 2)}


def copy_checkout(root: Path) -> None:
    """The parts of this checkout that recipes need beside the package."""
    left_out = shutil.ignore_patterns("data", "feats", "exp", "corpora", "__pycache__")
    for name in ("tools", "egs"):
        shutil.copytree(REPO / name, root / name, ignore=left_out)


def make_voice(speaker: int, take: int) -> np.ndarray:
    """2.2 s of noise in the speaker's colour."""
    colour = np.random.default_rng(speaker).standard_normal(32)
    noise = np.random.default_rng((speaker, take)).standard_normal(round(2.2 * RATE))
    return 0.02 * np.convolve(noise, colour)


def write_corpus(recipe: Path) -> None:
    """Write the recipe's data directories, and recordings to the checkout and to its recipe."""
    speaker = 0
    for name, count in SETS.items():
        wavs, utt2spk = {}, {}
        for _ in range(count):
            speaker += 1
            for take in range(NUM_UTTS):
                utt = f"u{len(wavs) + 1}" if name == "test" else f"{name}{speaker}-{take}"
                wavs[utt] = str(recipe / "data" / name / "wav" / f"{utt}.wav")
                write_wav(wavs[utt], make_voice(speaker, take), RATE)
                utt2spk[utt] = f"{name}{speaker}"
        write_data_dir(recipe / "data" / name, wavs, utt2spk)
    for folder in (recipe, recipe.parents[2]):
        for name, (voice, take) in RECORDINGS.items():
            write_wav(folder / name, make_voice(voice, take), RATE)
        write_table(folder / "wav.scp", {"one": "a.wav", "two": "b.wav"})
