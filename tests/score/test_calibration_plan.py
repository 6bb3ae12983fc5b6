"""Which trials a calibration is trained on, and which parts of utterances."""

from collections import Counter
from pathlib import Path

import pytest

from wespeaker_lap.data.datadir import DataDir
from wespeaker_lap.score.calibration_plan import plan_calibration


def make_data(num_speakers=6, num_utts=8, genders="mf"):
    utt2spk = {f"s{s}-{u}": f"s{s}" for s in range(num_speakers) for u in range(num_utts)}
    spk2gender = {f"s{s}": genders[s % 2] for s in range(num_speakers)} if genders else {}
    return DataDir(Path("data/train"), dict.fromkeys(utt2spk, "x.wav"), utt2spk, spk2gender, {})


def count_frames(utt):
    """60 frames for the first utterances of a speaker, 1000 for the others."""
    return 60 if utt[-1] in "01" else 1000


def test_the_trials():
    data = make_data()
    plan = plan_calibration(data, count_frames, [100, 200], 40)
    trials = plan.trials
    assert (len(trials), trials.num_target) == (40, 20)
    assert {*trials.enroll, *trials.test} == {*plan.spans}
    for a, b, is_target in zip(trials.enroll, trials.test, trials.labels, strict=True):
        assert a != b and (a[:2] == b[:2]) == is_target
        assert data.spk2gender[a[:2]] == data.spk2gender[b[:2]]
    # 3 utterances of each of 6 speakers make 6 * 3 = 18 target pairs, which are too few; 4 do.
    assert max(Counter(utt[:2] for utt in plan.spans).values()) <= 4
    assert len(plan.spans) > 18


def test_the_parts():
    plan = plan_calibration(make_data(20, 10), count_frames, [100, 200], 2000)
    assert [*plan.spans] == sorted(plan.spans)
    lengths = Counter()
    for utt, (start, length) in plan.spans.items():
        total = count_frames(utt)
        assert start >= 0 and start + length <= total
        if total == 60:
            assert (start, length) == (0, 60)  # shorter than every cut
        else:
            lengths[length] += 1
    assert lengths.keys() == {100, 200, 1000}
    total = sum(lengths.values())
    assert all(abs(count - total / 3) < 4 * (total * 2 / 9) ** 0.5 for count in lengths.values())
    starts = [start for start, length in plan.spans.values() if length == 100]
    assert min(starts) < 200 and max(starts) > 700
    assert all(length == count_frames(utt) for utt, (_, length) in plan_calibration(
        make_data(), count_frames, [], 40).spans.items())


def test_a_seed_is_a_draw():
    plans = [plan_calibration(make_data(), count_frames, [100], 40, seed) for seed in (1, 1, 2)]
    first, again, other = [(plan.spans, plan.trials.enroll, plan.trials.test) for plan in plans]
    assert first == again != other


def test_a_small_set_gives_what_it_has(caplog):
    plan = plan_calibration(make_data(4, 3), count_frames, [100], 30_000)
    assert (len(plan.trials), plan.trials.num_target) == (24, 12)  # 4 * 3 pairs
    assert "data/train: there are pairs for 24 calibration trials, not 30000" in caplog.text
    without = plan_calibration(make_data(4, 3, ""), count_frames, [100], 30_000)
    assert {a[:2] + b[:2] for a, b in zip(without.trials.enroll, without.trials.test, strict=True)
            } > {"s0s0", "s0s1"}  # any two speakers, as their genders are not known


@pytest.mark.parametrize(("data", "message"), [
    (make_data(1), "data/train, 1 speakers to train a calibration on: trials need at least 2 sp"),
    (make_data(6, 1), "6 speakers to train a calibration on: no target pair: every speaker has on"),
    (make_data(2), "2 speakers .*: only 0 non-target pairs of the same gender for 20 target pai"),
])
def test_too_little_data(data, message):
    with pytest.raises(ValueError, match=message):
        plan_calibration(data, count_frames, [100], 40)


@pytest.mark.parametrize(("crops", "num"), [([0], 40), ([100, -1], 40), ([100], 1)])
def test_numbers_out_of_range(crops, num):
    with pytest.raises(ValueError, match="want 2 or more trials and crops of 1 or more frames"):
        plan_calibration(make_data(), count_frames, crops, num)
