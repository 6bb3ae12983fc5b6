"""Trial lists: both styles, the line of every error, and balanced lists made from speakers."""

import gzip
import hashlib
from itertools import combinations

import numpy as np
import pytest

from wespeaker_lap.data.trials import (
    Trials,
    format_trials,
    make_trials,
    read_trials,
    trials_hash,
    write_trials,
)

KALDI = "a/1.wav b/1.wav target\na/1.wav ç/2.wav nontarget\n"
VOXCELEB = "1 a/1.wav b/1.wav\n0 a/1.wav ç/2.wav\n"


def as_rows(trials):
    return list(zip(trials.enroll, trials.test, trials.labels.tolist(), strict=True))


@pytest.mark.parametrize("text", [KALDI, VOXCELEB, VOXCELEB.replace("\n", "\r\n"),
                                  "\ufeff" + KALDI, "\ufeff" + VOXCELEB,
                                  KALDI.rstrip("\n"), KALDI.replace(" ", "\t") + "\n\n"])
@pytest.mark.parametrize("name", ["list.txt", "list.txt.gz"])
def test_both_styles_read_alike(tmp_path, text, name):
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    trials = read_trials(path)
    assert as_rows(trials) == [("a/1.wav", "b/1.wav", True), ("a/1.wav", "ç/2.wav", False)]
    assert (len(trials), trials.num_target, trials.num_nontarget) == (2, 1, 1)
    assert trials_hash(path) == trials_hash(trials) == hashlib.sha256(KALDI.encode()).hexdigest()


def test_a_list_whose_ids_look_like_labels(tmp_path):
    path = tmp_path / "list"
    path.write_text("1 b target\n0 1 nontarget\n")
    assert as_rows(read_trials(path)) == [("1", "b", True), ("0", "1", False)]


@pytest.mark.parametrize(("text", "message"), [
    ("", "empty"),
    ("\n\n", "empty"),
    ("a b target\na b\n", r":2: expected 'enroll test target\|nontarget'.*'a b'"),
    ("a b target\n\nc d target target\na b\n", ":3: expected"),
    ("a b target\na b impostor\n", ":2: unknown label"),
    ("2 a b\n", ":1: unknown label"),
    ("a b target\n1 a b\n", ":2: the style changes.*last"),
    ("1 a b\n0 a c\na b target\n", ":3: the style changes.*first"),
    ("1 a target\n1 a b\nc d target\n", ":3: the style changes"),
])
def test_a_bad_line_is_named(tmp_path, text, message):
    path = tmp_path / "list.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as info:
        read_trials(path)
    assert str(path) in str(info.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_trials(tmp_path / "nowhere")


def test_write_and_read_back(tmp_path):
    trials = Trials(["x", "é"], ["y", "x"], np.array([False, True]))
    path = tmp_path / "new" / "list"
    write_trials(path, trials)
    assert path.read_text() == "x y nontarget\né x target\n" == format_trials(trials)
    assert as_rows(read_trials(path)) == as_rows(trials)
    with pytest.raises(ValueError, match="no trials"):
        write_trials(path, trials.select(np.array([False, False])))
    assert as_rows(trials.select(np.array([False, True]))) == [("é", "x", True)]


def test_trials_must_fit_together():
    with pytest.raises(ValueError, match="labels"):
        Trials(["a"], ["b"], np.array([1]))
    with pytest.raises(ValueError, match="1 enrolment ids but 2"):
        Trials(["a"], ["b", "c"], np.array([True]))


@pytest.mark.parametrize(("name", "num", "num_target"), [("veri_test", 37720, 18860),
                                                         ("veri_test2", 37611, 18802)])
def test_official_voxceleb_lists(shared, name, num, num_target):
    trials = read_trials(shared / "lists" / "voxceleb" / f"{name}.txt.gz")
    assert (len(trials), trials.num_target) == (num, num_target)
    same = [a.split("/")[0] == b.split("/")[0]
            for a, b in zip(trials.enroll, trials.test, strict=True)]
    np.testing.assert_array_equal(trials.labels, same)


def corpus(counts):
    return {f"{spk}-{i}": spk for spk, num in counts.items() for i in range(num)}


def test_made_trials_are_balanced_and_of_one_gender():
    utt2spk = corpus({"a": 4, "b": 3, "c": 1, "d": 2, "e": 2, "x": 2, "y": 3})
    spk2gender = {"a": "f", "b": "f", "c": "f", "d": "m", "e": "m"}
    trials = make_trials(utt2spk, spk2gender, seed=3)
    pairs = [frozenset(pair) for pair in zip(trials.enroll, trials.test, strict=True)]
    assert all(len(pair) == 2 for pair in pairs) and len(set(pairs)) == len(pairs)
    targets = {pair for pair, label in zip(pairs, trials.labels, strict=True) if label}
    expected = {frozenset(pair) for pair in combinations(utt2spk, 2)
                if utt2spk[pair[0]] == utt2spk[pair[1]]}
    assert targets == expected and trials.num_nontarget == len(expected)
    for first, second in set(pairs) - targets:
        assert utt2spk[first] != utt2spk[second]
        assert spk2gender.get(utt2spk[first]) == spk2gender.get(utt2spk[second])


def test_made_trials_are_reproducible_and_depend_on_the_seed():
    utt2spk = corpus({"a": 5, "b": 5, "c": 5})
    shuffled = dict(sorted(utt2spk.items(), reverse=True))
    assert as_rows(make_trials(utt2spk, seed=1)) == as_rows(make_trials(shuffled, seed=1))
    assert as_rows(make_trials(utt2spk, seed=1)) != as_rows(make_trials(utt2spk, seed=2))


def test_every_nontarget_pair_can_be_drawn_evenly():
    utt2spk = corpus({"a": 2, "b": 1, "c": 1})  # 1 target pair, 5 non-target pairs
    counts: dict = {}
    for seed in range(1000):
        trials = make_trials(utt2spk, seed=seed)
        pair, = [row[:2] for row in as_rows(trials) if not row[2]]
        counts[pair] = counts.get(pair, 0) + 1
    # 200 expected for each, standard deviation sqrt(1000 * 0.2 * 0.8) = 12.6: within 5 of them.
    assert len(counts) == 5 and all(137 < count < 263 for count in counts.values())


def test_max_target_takes_a_part():
    trials = make_trials(corpus({"a": 9, "b": 9}), max_target=10)
    assert (trials.num_target, trials.num_nontarget) == (10, 10)
    pairs = list(zip(trials.enroll, trials.test, strict=True))
    assert len(set(pairs)) == 20 and pairs == sorted(pairs)
    assert 1 < sum(trials.labels[:10]) < 9  # targets and non-targets mixed
    assert make_trials(corpus({"a": 3, "b": 3}), max_target=99).num_target == 6


@pytest.mark.parametrize(("counts", "genders", "message"), [
    ({}, None, "at least 2 speakers, got none"),
    ({"a": 3}, None, "at least 2 speakers, got a"),
    ({"a": 1, "b": 1}, None, "no target pair"),
    ({"a": 9, "b": 1}, None, r"only 9 non-target pairs .* for 36 target pairs; pass a smaller"),
    ({"a": 2, "b": 2}, {"a": "f", "b": "m"}, "only 0 non-target pairs of the same gender for 2"),
])
def test_trials_that_cannot_be_made(counts, genders, message):
    with pytest.raises(ValueError, match=message):
        make_trials(corpus(counts), genders)


def test_max_target_must_be_positive():
    with pytest.raises(ValueError, match="max_target >= 1, got 0"):
        make_trials(corpus({"a": 2, "b": 2}), max_target=0)
