"""What a layer probe learns from and what it compares: speakers, utterances, pairs."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from wespeaker_lap.data.datadir import DataDir, split_by_speaker
from wespeaker_lap.data.trials import Trials, make_trials, trials_hash
from wespeaker_lap.io.table import invert, name_some
from wespeaker_lap.score.probe import ProbeTrials

MIN_TRAIN_SPEAKERS = 3


@dataclass(frozen=True)
class ProbePlan:
    """Whose speech is learnt from, whose is compared, and in which pairs.

    Attributes:
        train: every speaker has two utterances or more.
        test: the utterances of the trials; of other speakers.
        trials: the pairs.
        origin: how the pairs came about, for people.
        left_out: training speakers that have one utterance only.
    """

    train: DataDir
    test: DataDir
    trials: Trials
    origin: str
    left_out: list[str]

    def index_trials(self) -> ProbeTrials:
        """The trials in rows of the test utterances, which stand in the order of their ids."""
        rows = {utt: row for row, utt in enumerate(sorted(self.test.wavs))}
        sides = self.trials.enroll, self.trials.test
        indices = [np.array([rows[utt] for utt in side], dtype=np.int64) for side in sides]
        speakers = [[self.test.utt2spk[utt] for utt in side] for side in sides]
        return ProbeTrials(*indices, self.trials.labels, *speakers)

    def describe(self) -> dict:
        """Plain values for a page of results."""
        sets = {name: {"set": data.path.resolve().name, "num_speakers": len(data.speakers),
                       "num_utts": len(data.wavs),
                       "hours": round(sum(data.durations.values()) / 3600, 4)}
                for name, data in (("train", self.train), ("test", self.test))}
        return {**sets, "left_out": self.left_out, "trials": self.origin,
                "num_trials": len(self.trials), "num_target": self.trials.num_target,
                "trials_sha256": trials_hash(self.trials)}


def plan_probe(data: DataDir, test_data: DataDir | None = None, trials: Trials | None = None,
               max_utts: int | None = None, seed: int = 0) -> ProbePlan:
    """Choose speakers, utterances and pairs; refuses what would fail after the encoder's work.

    Args:
        data: an audited set to learn from. Without `test_data`, half of its speakers are tested.
        test_data: an audited set of other speakers.
        trials: of `test_data`. Without them, all target pairs and as many non-target pairs, of
            the same gender where genders are known.
        max_utts: take only so many utterances of a speaker, drawn at random; of `trials`, all are
            taken.
        seed: of every draw.

    Raises:
        ValueError: no durations, training speakers that are tested too, fewer than 3 of them with
            two utterances, trials that do not fit the set; see also `trials.make_trials`.
    """
    if trials is not None and test_data is None:
        raise ValueError("--trials needs --test_data, the set whose utterances it names; give "
                         "both, or leave the trials out to have them made")
    if max_utts is not None and max_utts < 2:
        raise ValueError(f"want 2 utterances of a speaker or more, to compare them, but max_utts "
                         f"is {max_utts}")
    train, test = _split(data, test_data, seed)
    origin = "a given list"
    if trials is None:
        test = _limit_utts(test, max_utts, seed)
        trials, origin = _make_trials(test, seed)
    test = _choose_test(test, trials)
    train, left_out = _choose_train(train, test)
    plan = ProbePlan(_limit_utts(train, max_utts, seed), test, trials, origin, left_out)
    plan.index_trials().check()
    return plan


def _split(data: DataDir, test_data: DataDir | None, seed: int) -> tuple[DataDir, DataDir]:
    """The given sets, or two halves of one by speaker; durations must be known."""
    for one in (data, test_data or data):
        if not one.durations:
            raise ValueError(f"{one.path}: no utt2dur; run 'wespeaker-lap audit-data {one.path}'")
    if test_data is not None:
        return data, test_data
    train, test = split_by_speaker(data.utt2spk, len(data.speakers) // 2, seed)
    return _select_utts(data, train), _select_utts(data, test)


def _make_trials(test: DataDir, seed: int) -> tuple[Trials, str]:
    """Pairs of a set, and how they were drawn."""
    genders = {spk: test.spk2gender[spk] for spk in test.speakers if spk in test.spk2gender}
    try:
        trials = make_trials(test.utt2spk, genders or None, seed)
    except ValueError as error:
        raise ValueError(f"{test.path}, {len(test.speakers)} test speakers: {error}") from error
    which = "of the same gender" if genders else "of any two speakers, whose genders are not known"
    return trials, f"all target pairs and as many non-target pairs {which}, drawn with seed {seed}"


def _choose_test(test: DataDir, trials: Trials) -> DataDir:
    """The utterances that trials name."""
    wanted = {*trials.enroll, *trials.test}
    missing = sorted(wanted - test.wavs.keys())
    if missing:
        raise ValueError(f"{test.path}: {len(missing)} utterances of the trials are not in the "
                         f"set: {name_some(missing)}; do the list and --test_data belong together?")
    return _select_utts(test, wanted)


def _choose_train(train: DataDir, test: DataDir) -> tuple[DataDir, list[str]]:
    """Training speakers with two utterances or more, and the names of those without."""
    shared = sorted(set(train.speakers) & set(test.speakers))
    if shared:
        raise ValueError(f"{test.path}: {len(shared)} test speakers are training speakers in "
                         f"{train.path} too: {name_some(shared)}; choose sets without a common "
                         f"speaker, or leave --test_data out to have {train.path} split")
    spk2utt = invert(train.utt2spk)
    left_out = [speaker for speaker, utts in spk2utt.items() if len(utts) < 2]
    num_kept = len(spk2utt) - len(left_out)
    if num_kept < MIN_TRAIN_SPEAKERS:
        alone = f" ({name_some(left_out)} with one only)" if left_out else ""
        raise ValueError(f"{train.path}: {num_kept} training speakers have two utterances or more"
                         f"{alone}, want at least {MIN_TRAIN_SPEAKERS}; add speakers or utterances")
    if left_out:
        logging.warning("%s: %d speakers have one utterance, which says nothing about how a voice "
                        "varies, and are left out of the training: %s", train.path, len(left_out),
                        name_some(left_out))
    kept = [utt for utts in spk2utt.values() if len(utts) > 1 for utt in utts]
    return _select_utts(train, kept), left_out


def _limit_utts(data: DataDir, max_utts: int | None, seed: int) -> DataDir:
    """A random choice of each speaker's utterances."""
    if max_utts is None:
        return data
    rng = np.random.default_rng(seed)
    chosen = [utts[i] for utts in invert(data.utt2spk).values()
              for i in rng.permutation(len(utts))[:max_utts]]
    return _select_utts(data, chosen)


def _select_utts(data: DataDir, utts: Iterable[str]) -> DataDir:
    """A data directory with some of its utterances."""
    kept = sorted(utts)
    wavs, utt2spk, durations = ({utt: table[utt] for utt in kept}
                                for table in (data.wavs, data.utt2spk, data.durations))
    return replace(data, wavs=wavs, utt2spk=utt2spk, durations=durations)
