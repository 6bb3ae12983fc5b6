"""Speakers in three sets: disjoint, of the sizes asked for, by the seed, genders in proportion."""

from collections import Counter

import pytest

from wespeaker_lap.data.split import parse_amount, split_speakers


def crowd(num_speakers, num_utts=3):
    return {f"s{n:02d}-{k}": f"s{n:02d}" for n in range(num_speakers) for k in range(num_utts)}


@pytest.mark.parametrize(("num_speakers", "held_out", "sizes"), [
    (50, {"valid": 0.1, "test": 0.2}, {"train": 35, "valid": 5, "test": 10}),
    (50, {"valid": 3.0, "test": 7.0}, {"train": 40, "valid": 3, "test": 7}),
    (6, {"valid": 0.1, "test": 0.2}, {"train": 2, "valid": 2, "test": 2}),  # two at least
    (9, {"valid": 0.0, "test": 0.5}, {"train": 5, "test": 4}),
    (4, {"valid": 0.0, "test": 0.0}, {"train": 4}),
])
def test_sizes_and_no_speaker_twice(num_speakers, held_out, sizes):
    sets = split_speakers(crowd(num_speakers), held_out, 0)
    assert {name: len(own) for name, own in sets.items()} == sizes
    every = [speaker for own in sets.values() for speaker in own]
    assert sorted(every) == sorted(set(crowd(num_speakers).values()))


def test_the_seed_alone_decides():
    utt2spk = crowd(30)
    same = dict(reversed(utt2spk.items()))
    amounts = {"valid": 0.1, "test": 0.2}
    draws = [split_speakers(utt2spk, amounts, seed) for seed in range(5)]
    assert split_speakers(same, amounts, 0) == draws[0]
    assert len({tuple(draw["test"]) for draw in draws}) == 5
    drawn = Counter(speaker for seed in range(300)
                    for speaker in split_speakers(utt2spk, amounts, seed)["test"])
    # 6 of 30 in each of 300 draws: 60 on average, deviation sqrt(300 * 0.2 * 0.8) = 7
    assert len(drawn) == 30 and all(25 < count < 95 for count in drawn.values())


def test_genders_in_proportion():
    genders = {f"s{n:02d}": "f" if n < 10 else "m" for n in range(40)}
    for seed in range(20):
        sets = split_speakers(crowd(40), {"valid": 8.0, "test": 12.0}, seed, genders)
        for name, (low, high) in {"valid": (1, 3), "test": (2, 4)}.items():
            assert low <= sum(genders[speaker] == "f" for speaker in sets[name]) <= high


def test_speakers_with_one_utterance_are_for_training():
    utt2spk = {**crowd(6), **{f"single{n}": f"single{n}" for n in range(20)}}
    for seed in range(5):
        sets = split_speakers(utt2spk, {"valid": 2.0, "test": 3.0}, seed)
        assert not any(speaker.startswith("single") for speaker in sets["valid"] + sets["test"])


@pytest.mark.parametrize(("utt2spk", "held_out"), [
    (crowd(5), {"valid": 0.1, "test": 0.2}),
    (crowd(10), {"valid": 4.0, "test": 5.0}),
    (crowd(10, 1), {"valid": 0.1, "test": 0.2}),
])
def test_too_few_speakers(utt2spk, held_out):
    with pytest.raises(ValueError, match=r"too few to hold \d \(valid\) and \d \(test\) back"):
        split_speakers(utt2spk, held_out, 0)


@pytest.mark.parametrize(("text", "amount"), [("0", 0), ("0.25", 0.25), ("13", 13), ("2.0", 2)])
def test_amounts(text, amount):
    assert parse_amount(text, "--test") == amount


@pytest.mark.parametrize("text", ["1", "1.5", "2.5", "-1", "-0.1", "ten", "nan", "inf", ""])
def test_wrong_amounts(text):
    with pytest.raises(ValueError, match=r"--test .*want a number of speakers from 2 on, a share"):
        parse_amount(text, "--test")
