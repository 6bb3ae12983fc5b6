"""Names of augmentation copies, the ids and speakers that follow from them."""

import re

import pytest

from wespeaker_lap.data.copies import Copy, check_copies, list_speakers, parse_copies, weigh_copies


@pytest.mark.parametrize(("name", "kind", "factor", "utt", "speaker"), [
    ("clean", "clean", 1.0, "a/1", "a"),
    ("noise", "noise", 1.0, "noise-a/1", "a"),
    ("reverb", "reverb", 1.0, "reverb-a/1", "a"),
    ("babble", "babble", 1.0, "babble-a/1", "a"),
    ("speed0.9", "speed", 0.9, "sp0.9-a/1", "sp0.9-a"),
    ("speed1.1", "speed", 1.1, "sp1.1-a/1", "sp1.1-a"),
    ("speed2", "speed", 2.0, "sp2-a/1", "sp2-a"),
    ("speed0.5", "speed", 0.5, "sp0.5-a/1", "sp0.5-a")])
def test_names_ids_and_speakers(name, kind, factor, utt, speaker):
    copy, = parse_copies([name])
    assert (copy.name, copy.kind, copy.factor) == (name, kind, factor)
    assert (copy.utt_id("a/1"), copy.speaker("a")) == (utt, speaker)
    assert copy == Copy(kind, factor)


def test_copies_stay_in_order():
    names = ("noise", "clean", "speed1.1", "speed0.9")
    assert tuple(copy.name for copy in parse_copies(names)) == names


@pytest.mark.parametrize(("names", "message"), [
    ([], "at least one copy; known: clean, noise, reverb, babble"),
    (["Noise"], "unknown copy 'Noise'; known: clean, noise, reverb, babble"),
    (["music"], "unknown copy 'music'"),
    (["speed"], "unknown copy 'speed'"),
    (["speed-0.9"], "unknown copy"),
    (["speed1e0"], "unknown copy"),
    (["speednan"], "unknown copy"),
    (["speed0.9 "], "unknown copy"),
    (["speed١"], "unknown copy"),
    (["speed0.49"], "speed factors from 0.5 to 2 and not 1, got 0.49"),
    (["speed2.1"], "speed factors from 0.5 to 2 and not 1, got 2.1"),
    (["speed1.0"], "speed factors from 0.5 to 2 and not 1, got 1"),
    (["noise", "clean", "noise"], "'noise' stands twice"),
    (["speed0.9", "speed0.90"], "'speed0.9' stands twice; remove 'speed0.90'")])
def test_wrong_names_are_refused(names, message):
    with pytest.raises(ValueError, match=message):
        parse_copies(names)


def test_wrong_copies_cannot_be_made():
    with pytest.raises(ValueError, match="unknown kind of copy 'music'"):
        Copy("music")
    with pytest.raises(ValueError, match="speed factors"):
        Copy("speed", float("nan"))


ALL = parse_copies(["clean", "noise", "reverb", "speed0.9"])


@pytest.mark.parametrize(("weights", "expected"), [
    ({}, {"clean": 1, "noise": 1, "reverb": 1, "speed0.9": 1}),
    ({"noise": 0.5, "clean": 0}, {"noise": 0.5, "reverb": 1, "speed0.9": 1}),
    ({"speed0.9": 0, "reverb": 0}, {"clean": 1, "noise": 1})])
def test_weights_choose_the_copies_to_train_on(weights, expected):
    found = weigh_copies(ALL, weights)
    assert {copy.name: weight for copy, weight in found.items()} == expected


@pytest.mark.parametrize(("weights", "message"), [
    ({"babble": 1}, "babble: not among the copies, which are clean, noise, reverb, speed0.9"),
    ({"speed0.9": 1.5}, "speed0.9: want the share of its utterances that are in an epoch, at most "
     "1, got 1.5"),
    ({"clean": 0, "noise": 0, "reverb": 0}, "nothing is left of the original voices")])
def test_wrong_weights_are_refused(weights, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        weigh_copies(ALL, weights)


def test_speakers_multiply_with_the_speeds_alone():
    utt2spk = {"u2": "b", "u1": "a", "u3": "b"}
    assert list_speakers(utt2spk, ALL[:3]) == ["a", "b"]
    copies = (*ALL, Copy("speed", 1.1))
    assert list_speakers(utt2spk, copies) == ["a", "b", "sp0.9-a", "sp0.9-b", "sp1.1-a", "sp1.1-b"]


def test_a_store_of_other_copies_is_refused():
    stored = {"augmentation": {"copies": ["clean", "noise"]}}
    check_copies("feats", stored, ["noise", "clean"])
    check_copies("feats", {}, ["clean"])
    with pytest.raises(ValueError, match=r"^feats: its copies are clean, noise, the configuration "
                                         r"wants clean "):
        check_copies("feats", stored, ["clean"])
