"""Speeds at a ratio such as 1:3:1: a part of their utterances is in an epoch."""

import re
from collections import Counter

import numpy as np
import pytest

from wespeaker_lap.data.copies import Copy, weigh_copies
from wespeaker_lap.data.sampler import ShuffledBatches
from wespeaker_lap.data.source import FeatureSource
from wespeaker_lap.engine import train
from wespeaker_lap.io.feats import FeatureStore, FeatureWriter

SIZE, THIRD = 12, 1 / 3


def draw(epoch: int, shares=(1.0, THIRD, THIRD), batch_size=4, **ranks) -> list[int]:
    sampler = ShuffledBatches(3 * SIZE, batch_size, 1, shares=shares, **ranks)
    sampler.start_at(epoch)
    batches = list(sampler)
    assert len(batches) == sampler.steps_per_epoch
    return [index for batch in batches for _, index in batch]


def test_an_epoch_has_all_originals_and_a_third_of_each_speed():
    for epoch in range(20):
        indices = draw(epoch)
        assert len(set(indices)) == len(indices) == SIZE * 5 // 3
        assert Counter(index // SIZE for index in indices) == {0: 12, 1: 4, 2: 4}
        assert draw(epoch) == indices


def test_every_utterance_of_a_speed_has_its_turn():
    """600 epochs: 200 times each, standard deviation 11.5; and at every place of the epoch."""
    epochs = [draw(epoch) for epoch in range(600)]
    counts = Counter(index for epoch in epochs for index in epoch)
    assert all(counts[index] == 600 for index in range(SIZE))
    assert all(abs(counts[index] - 200) < 5 * 11.5 for index in range(SIZE, 3 * SIZE))
    firsts = np.mean([epoch[0] >= SIZE for epoch in epochs])
    assert abs(firsts - 0.4) < 0.1  # 8 of 20, standard deviation 0.02


def test_ranks_share_the_batches_of_one():
    halves = [draw(3, rank=rank, world_size=2) for rank in (0, 1)]
    assert sorted(halves[0] + halves[1]) == sorted(draw(3))


def test_whole_shares_draw_what_was_drawn_before_there_were_any():
    rng = np.random.default_rng([1, 5])
    assert draw(5, shares=(1.0, 1.0, 1.0)) == rng.permutation(3 * SIZE).tolist()


def test_a_share_leaves_no_speed_out():
    assert Counter(i // SIZE for i in draw(0, (1.0, 0.01, 1.0), 1)) == {0: 12, 1: 1, 2: 12}


def test_weights_of_a_store_are_these_shares(tmp_path):
    speeds = [Copy("clean"), Copy("noise"), Copy("speed", 0.9), Copy("speed", 1.1)]
    with FeatureWriter(tmp_path, {"num_layers": 1, "dim": 2}, "float32") as writer:
        for copy in speeds:
            writer.write(copy.utt_id("u"), np.ones((4, 1, 2), np.float32))
    weights = weigh_copies(speeds, {"noise": 3.0, "speed0.9": 0.25})
    source = FeatureSource(FeatureStore(tmp_path), {"u": "a"}, ["a", "sp0.9-a", "sp1.1-a"], 2, 0,
                           weights)
    assert source.voice_shares == [1.0, 0.25, 1.0]
    assert source.shares.tolist() == [0.25, 0.75]


def test_a_training_has_them(wave_corpus, tmp_path, monkeypatch):
    """24 utterances: 24 + 8 + 8 an epoch, 5 batches of 8."""
    seen, update = [], train._update

    def watched(run, batch, *rest):
        seen.extend(batch.utts)
        return update(run, batch, *rest)

    monkeypatch.setattr(train, "_update", watched)
    wave_corpus.train(tmp_path / "exp", "data.speeds=[0.9, 1.0, 1.1]", "data.speed_share=0.3333",
                      "train.epochs=1")
    speeds = Counter(re.match(r"(sp[01]\.[19])?", utt)[0] for utt in seen)
    assert speeds == {"": 24, "sp0.9": 8, "sp1.1": 8}
    assert len((tmp_path / "exp" / "speakers.txt").read_text().split()) == 18


def test_batches_of_whole_speakers_do_without(wave_corpus, tmp_path):
    with pytest.raises(ValueError, match="give them weight 1"):
        wave_corpus.train(tmp_path / "exp", "data.speeds=[0.9, 1.0]", "data.speed_share=0.5",
                          "train.utts_per_speaker=2")
