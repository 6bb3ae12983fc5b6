"""What a layer probe learns from and compares: the split, the choices, what is refused."""

from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from wespeaker_lap.data.datadir import DataDir
from wespeaker_lap.data.trials import Trials
from wespeaker_lap.score.probe_plan import plan_probe


def make_set(name="set", speakers="abcdefg", num_utts=4, genders=None):
    """A set as it is loaded; `num_utts` of every speaker, or a number for each."""
    counts = num_utts if isinstance(num_utts, dict) else dict.fromkeys(speakers, num_utts)
    utt2spk = {f"{speaker}-{n}": speaker for speaker in speakers for n in range(counts[speaker])}
    return DataDir(Path("data") / name, {utt: f"{utt}.wav" for utt in utt2spk}, utt2spk,
                   genders or {}, dict.fromkeys(utt2spk, 36.0))


def pairs(trials):
    return {frozenset(pair) for pair in zip(trials.enroll, trials.test, strict=True)}


def test_a_set_is_split_in_two_halves_by_speaker():
    data = make_set()
    plan = plan_probe(data, seed=3)
    train, test = set(plan.train.speakers), set(plan.test.speakers)
    assert (len(train), len(test)) == (4, 3) and train | test == set("abcdefg")
    for part in (plan.train, plan.test):
        assert part.wavs.keys() == part.utt2spk.keys() == part.durations.keys()
        assert all(data.wavs[utt] == wav for utt, wav in part.wavs.items())
    assert len(plan.train.wavs) == 16
    assert plan_probe(data, seed=3).test.speakers == plan.test.speakers
    assert len({tuple(plan_probe(data, seed=seed).test.speakers) for seed in range(8)}) > 1


def test_all_target_pairs_and_as_many_others():
    plan = plan_probe(make_set(), seed=1)
    expected = {frozenset(pair) for pair in combinations(plan.test.utt2spk, 2)
                if pair[0][0] == pair[1][0]}
    assert pairs(plan.trials.select(plan.trials.labels)) == expected
    assert (plan.trials.num_target, plan.trials.num_nontarget) == (18, 18)
    assert "any two speakers, whose genders are not known" in plan.describe()["trials"]


def test_genders_are_not_mixed_where_they_are_known():
    genders = dict(zip("abcdefgh", "mmmmffff", strict=True))
    test = make_set("test", "abcdefgh", genders=genders)
    plan = plan_probe(make_set("train", "xyz"), test)
    assert all(genders[a[0]] == genders[b[0]] for a, b in pairs(plan.trials))
    assert "of the same gender" in plan.describe()["trials"]


def test_a_set_and_a_list_of_its_own():
    test = make_set("test", "uvw")
    trials = Trials(["u-0", "u-0"], ["u-1", "v-2"], np.array([True, False]))
    plan = plan_probe(make_set("train", "abc"), test, trials, max_utts=2)
    assert plan.trials is trials and sorted(plan.test.wavs) == ["u-0", "u-1", "v-2"]
    rows = plan.index_trials()
    assert (rows.enroll_index.tolist(), rows.test_index.tolist()) == ([0, 0], [1, 2])
    assert (rows.enroll_spk, rows.test_spk) == (["u", "u"], ["u", "v"])
    facts = plan.describe()
    assert facts["train"] == {"set": "train", "num_speakers": 3, "num_utts": 6, "hours": 0.06}
    assert facts["test"] == {"set": "test", "num_speakers": 2, "num_utts": 3, "hours": 0.03}
    assert (facts["trials"], facts["num_trials"], facts["num_target"]) == ("a given list", 2, 1)


def test_speakers_beside_the_trials_may_be_learnt_from():
    everybody = make_set("all", "abcdef")
    trials = Trials(["d-0", "d-0"], ["d-1", "e-2"], np.array([True, False]))
    assert plan_probe(make_set("train", "abc"), everybody, trials).train.speakers == [*"abc"]
    with pytest.raises(ValueError, match="data/all: 3 test speakers are training speakers in "
                       "data/train too: a, b, c; choose"):
        plan_probe(make_set("train", "abc"), everybody)


def test_a_limit_of_utterances_is_kept_and_drawn_with_the_seed():
    data = make_set(num_utts=9)
    plan = plan_probe(data, max_utts=3)
    for part in (plan.train, plan.test):
        assert set(Counter(part.utt2spk.values()).values()) == {3}
    assert plan_probe(data, max_utts=3).train.wavs == plan.train.wavs
    chosen = {utt[-1] for seed in range(5) for utt in plan_probe(data, max_utts=3, seed=seed)
              .train.wavs}
    assert len(chosen) > 3
    assert plan_probe(data, max_utts=50).train.wavs.keys() <= data.wavs.keys()


def test_training_speakers_with_one_utterance_are_left_out_by_name(caplog):
    counts = {"a": 2, "b": 1, "c": 3, "d": 2, "e": 1}
    plan = plan_probe(make_set("train", "abcde", counts), make_set("test", "xy"))
    assert plan.left_out == ["b", "e"] and plan.train.speakers == ["a", "c", "d"]
    assert "2 speakers have one utterance" in caplog.text and "training: b, e" in caplog.text


def test_a_test_speaker_may_have_one_utterance():
    test = make_set("test", "xyz", {"x": 3, "y": 1, "z": 1})
    plan = plan_probe(make_set("train", "abc"), test)
    assert plan.trials.num_target == 3


TRIALS = Trials(["x-0", "x-0"], ["x-1", "y-0"], np.array([True, False]))
WRONG = Trials(["x-0", "x-0"], ["x-1", "y-0"], np.array([False, True]))
ELSEWHERE = Trials(["x-0", "x-0"], ["x-1", "q-0"], np.array([True, False]))
NO_DURATIONS = DataDir(Path("data/raw"), {"a": "a.wav"}, {"a": "a"}, {}, {})


@pytest.mark.parametrize(("arguments", "message"), [
    ({"trials": TRIALS}, "--trials needs --test_data"),
    ({"max_utts": 1}, "2 utterances of a speaker or more.* but max_utts is 1"),
    ({"data": NO_DURATIONS}, "data/raw: no utt2dur; run 'wespeaker-lap audit-data data/raw'"),
    ({"test_data": NO_DURATIONS}, "data/raw: no utt2dur"),
    ({"data": make_set(speakers="abcd")}, "data/set: 2 training speakers have two utterances or "
     "more, want at least 3; add speakers"),
    ({"data": make_set(speakers="ab")}, "data/set, 1 test speakers: trials need at least 2"),
    ({"data": make_set(speakers="abc", num_utts={"a": 1, "b": 2, "c": 2}),
      "test_data": make_set("test", "xy")}, r"2 training .* more \(a with one only\)"),
    ({"test_data": make_set("test", "xyab")}, "2 test speakers .* data/set too: a, b;"),
    ({"test_data": make_set("test", "xy", 1)}, "data/test, 2 test speakers: no target pair"),
    ({"test_data": make_set("test", "xy"), "trials": ELSEWHERE},
     "data/test: 1 utterances of the trials are not in the set: q-0;"),
    ({"test_data": make_set("test", "xy"), "trials": WRONG}, "contradict their speakers"),
])
def test_what_cannot_be_measured_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        plan_probe(**{"data": make_set(), **arguments})
