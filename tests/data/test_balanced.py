"""P x K batches: complete, balanced, the same for every number of processes, resumable."""

import math
from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from wespeaker_lap.data.balanced import REPEAT, BalancedBatchSampler, expected_pairs

EVEN = [7, 8, 5, 12, 9, 6, 8, 10]  # utterances of each speaker
UNEVEN = [1, 2, 3, 4, 5, 17, 1, 9]
DOMINATED = [60, 2, 3, 1]
SETS = [EVEN, UNEVEN, DOMINATED]


def make_labels(sizes):
    """Labels with gaps, the speakers' utterances scattered over the set."""
    labels = np.repeat(10 * np.arange(len(sizes)) + 3, sizes)
    return np.random.default_rng(5).permutation(labels).tolist()


def batches(sizes, epoch=0, first_step=0, num_speakers=4, num_utts=4, seed=1, **ranks):
    sampler = BalancedBatchSampler(make_labels(sizes), num_speakers, num_utts, seed, **ranks)
    sampler.start_at(epoch, first_step)
    out = list(sampler)
    assert len(sampler) == len(out) == sampler.steps_per_epoch - first_step
    return out


@pytest.mark.parametrize("sizes", SETS)
@pytest.mark.parametrize("num_speakers", [1, 2, 4])
@pytest.mark.parametrize("num_utts", [1, 2, 4])
def test_every_batch_has_p_speakers_with_k_utterances(sizes, num_speakers, num_utts):
    labels = make_labels(sizes)
    size_of = Counter(labels)
    for batch in batches(sizes, num_speakers=num_speakers, num_utts=num_utts):
        assert len(batch) == num_speakers * num_utts
        groups = [batch[i:i + num_utts] for i in range(0, len(batch), num_utts)]
        speakers = [{labels[index] for _, index in group} for group in groups]
        assert all(len(names) == 1 for names in speakers)
        assert len(set.union(*speakers)) == num_speakers
        for group, (speaker,) in zip(groups, speakers, strict=True):
            counts = Counter(index for _, index in group)
            assert len(counts) == min(num_utts, size_of[speaker])
            assert max(counts.values()) - min(counts.values()) <= 1


@pytest.mark.parametrize("sizes", SETS)
def test_an_epoch_holds_every_utterance(sizes):
    labels, size_of = make_labels(sizes), Counter(make_labels(sizes))
    out = batches(sizes, epoch=4)
    counts = Counter(index for batch in out for _, index in batch)
    assert set(counts) == set(range(len(labels)))
    for speaker, size in size_of.items():  # the speaker's own come equally often
        own = [counts[index] for index, label in enumerate(labels) if label == speaker]
        assert len(own) == size and max(own) - min(own) <= 1


def test_sets_that_fill_their_batches_repeat_nothing():
    sizes = [8, 4, 8, 12, 4, 4, 16, 8]  # 16 fours, in 4 batches of 4 speakers
    out = batches(sizes)
    assert len(out) == 4
    assert sorted(key for batch in out for key in batch) == [(0, n) for n in range(64)]


@pytest.mark.parametrize(("sizes", "num_speakers", "num_utts"), [
    (EVEN, 4, 4), (EVEN, 8, 2), (EVEN, 3, 5), (UNEVEN, 4, 4), (DOMINATED, 2, 4), (DOMINATED, 4, 1),
])
def test_the_number_of_batches_follows_from_the_labels(sizes, num_speakers, num_utts):
    rounds = [math.ceil(size / num_utts) for size in sizes]
    want = max(math.ceil(sum(rounds) / num_speakers), max(rounds))
    for seed in range(3):
        for epoch in range(3):
            assert len(batches(sizes, epoch, num_speakers=num_speakers, num_utts=num_utts,
                               seed=seed)) == want


def test_speakers_come_as_often_as_they_have_utterances():
    sizes = [4] * 20 + [40] * 20  # 1 and 10 rounds: 220, in 55 batches of 4
    labels = make_labels(sizes)
    counts = Counter()
    for batch in batches(sizes):
        counts.update({labels[index] for _, index in batch})
    assert sorted(counts.values()) == [1] * 20 + [10] * 20


def test_what_is_lacking_comes_from_everybody_in_turn():
    labels = make_labels(DOMINATED)
    counts = Counter(labels[index] for batch in batches(DOMINATED, num_speakers=3)
                     for _, index in batch)
    # 15 batches of 3 speakers, one of them always the first: 30 turns among three, 10 each.
    assert [counts[speaker] for speaker in sorted(counts)] == [60, 40, 40, 40]


def test_an_utterance_that_comes_again_has_another_crop():
    for sizes in SETS:
        keys = [key for batch in batches(sizes, epoch=6) for key in batch]
        assert len(set(keys)) == len(keys)
        assert {epoch % REPEAT for epoch, _ in keys} == {6}
        firsts = [index for epoch, index in keys if epoch == 6]
        assert sorted(firsts) == list(range(sum(sizes)))


@pytest.mark.parametrize("world_size", [2, 4])
@pytest.mark.parametrize("sizes", SETS)
def test_processes_share_the_batches_of_one(sizes, world_size):
    labels = make_labels(sizes)
    parts = [batches(sizes, epoch=2, rank=rank, world_size=world_size)
             for rank in range(world_size)]
    for whole, *own in zip(batches(sizes, epoch=2), *parts, strict=True):
        assert whole == [key for part in own for key in part]
        for part in own:  # whole speakers
            counts = Counter(labels[index] for _, index in part)
            assert list(counts.values()) == [4] * (4 // world_size)


@pytest.mark.parametrize("sizes", SETS)
def test_resuming_passes_over_what_was_done(sizes):
    whole = batches(sizes, epoch=1)
    for step in range(len(whole) + 1):
        assert batches(sizes, epoch=1, first_step=step) == whole[step:]


def test_order_follows_seed_and_epoch():
    assert batches(EVEN, 1) == batches(EVEN, 1)
    assert batches(EVEN, 1) != batches(EVEN, 2)
    assert batches(EVEN, seed=2) != batches(EVEN)


def test_speakers_meet_by_chance():
    # 12 speakers with one round each, 3 batches of 4: two meet with probability 3/11.
    met = Counter()
    for epoch in range(600):
        for batch in batches([1] * 12, epoch, num_utts=1):
            indices = sorted(index for _, index in batch)
            met.update((a, b) for n, a in enumerate(indices) for b in indices[n + 1:])
    expected, deviation = 600 * 3 / 11, math.sqrt(600 * 3 / 11 * 8 / 11)
    assert len(met) == 66
    assert max(abs(count - expected) for count in met.values()) < 5 * deviation


def test_utterances_of_a_speaker_meet_by_chance():
    partners = Counter()
    for epoch in range(600):
        for batch in batches([4], epoch, num_speakers=1, num_utts=2):
            indices = [index for _, index in batch]
            if 0 in indices:
                partners[sum(indices)] += 1
    # A third of 600 expected for each of the three, standard deviation 11.5.
    assert len(partners) == 3 and max(abs(n - 200) for n in partners.values()) < 5 * 11.6


def test_every_rank_has_every_speaker():
    labels, counts = (np.array(make_labels([4] * 8)) - 3) // 10, np.zeros(8)
    for epoch in range(200):
        (batch,) = batches([4] * 8, epoch, num_speakers=8, rank=0, world_size=2)
        counts[labels[[index for _, index in batch[::4]]]] += 1
    # Half of 200 expected, standard deviation 7.
    assert counts.min() > 100 - 5 * 7.1 and counts.max() < 100 + 5 * 7.1


@pytest.mark.parametrize(("sizes", "options", "message"), [
    ([], {}, "the training set is empty"),
    ([3, 3], {}, "want batches of 4 speakers, but the training set has 2; take fewer"),
    (EVEN, {"world_size": 3}, "4 speakers a batch .* a multiple of their number, 3"),
    (EVEN, {"num_speakers": 0}, "got 0 x 4"),
    (EVEN, {"num_utts": 0}, "got 4 x 0"),
])
def test_what_cannot_be_shared(sizes, options, message):
    with pytest.raises(ValueError, match=message):
        batches(sizes, **options)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5])
def test_expected_pairs_are_the_mean_over_all_batches(batch_size):
    labels = make_labels([1, 2, 4])
    counts = [sum(a == b for a, b in combinations(batch, 2))
              for batch in combinations(labels, batch_size)]
    assert expected_pairs(labels, batch_size) == pytest.approx(np.mean(counts), abs=1e-12)
