"""What a calibration is trained on: trials between training speakers, at several durations."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wespeaker_lap.data.datadir import DataDir
from wespeaker_lap.data.trials import Trials, make_trials
from wespeaker_lap.io.table import invert


@dataclass(frozen=True, eq=False)
class CalibrationPlan:
    """Trials, and which part of each of their utterances is embedded.

    Attributes:
        spans: utterance -> first frame and number of frames, sorted by utterance.
        trials: between these utterances.
    """

    spans: dict[str, tuple[int, int]]
    trials: Trials


def plan_calibration(data: DataDir, num_frames: Callable[[str], int],
                     crop_frames: Sequence[int], num_trials: int,
                     seed: int = 0) -> CalibrationPlan:
    """Draw trials of training speakers.

    Half of them are target trials, as far as there are so many pairs; the others join speakers of
    the same gender where genders are known. Of each speaker no more utterances are taken than the
    trials need. An utterance is taken whole or cut to one of several lengths, each as likely as
    another; one that is shorter than its cut is taken whole. So the two sides of a trial differ in
    their durations, and no trial joins two parts of one utterance.

    Args:
        data: of the speakers.
        num_frames: utterance -> its number of frames.
        crop_frames: lengths to cut to, besides whole utterances.
        num_trials: how many trials; fewer where the set does not have them.
        seed: of every draw.

    Raises:
        ValueError: numbers out of range, fewer than 2 speakers, or too few pairs of utterances.
    """
    if num_trials < 2 or any(length < 1 for length in crop_frames):
        raise ValueError(f"want 2 or more trials and crops of 1 or more frames, got {num_trials} "
                         f"and {list(crop_frames)}")
    rng = np.random.default_rng(seed)
    utts = _choose_utts(data.utt2spk, num_trials // 2, rng)
    genders = {spk: data.spk2gender[spk] for spk in data.speakers if spk in data.spk2gender}
    try:
        trials = make_trials({utt: data.utt2spk[utt] for utt in utts}, genders or None, seed,
                             max_target=num_trials // 2)
    except ValueError as error:
        raise ValueError(f"{data.path}, {len(data.speakers)} speakers to train a calibration on: "
                         f"{error}") from error
    if len(trials) < num_trials - 1:
        logging.warning("%s: there are pairs for %d calibration trials, not %d", data.path,
                        len(trials), num_trials)
    used = sorted({*trials.enroll, *trials.test})
    return CalibrationPlan({utt: _cut(num_frames(utt), crop_frames, rng) for utt in used}, trials)


def _choose_utts(utt2spk: Mapping[str, str], num_target: int,
                 rng: np.random.Generator) -> list[str]:
    """As few utterances of each speaker, drawn at random, as have so many target pairs."""
    spk2utt = invert(utt2spk)
    counts = np.array([len(utts) for utts in spk2utt.values()])
    most = 2
    while most < counts.max() and _count_pairs(counts.clip(max=most)) < num_target:
        most += 1
    return [utts[i] for utts in spk2utt.values() for i in rng.permutation(len(utts))[:most]]


def _count_pairs(counts: np.ndarray) -> int:
    return int((counts * (counts - 1) // 2).sum())


def _cut(total: int, crop_frames: Sequence[int], rng: np.random.Generator) -> tuple[int, int]:
    """First frame and number of frames of a random part, or of the whole."""
    length = min(total, [total, *crop_frames][rng.integers(len(crop_frames) + 1)])
    return int(rng.integers(total - length + 1)), length
