"""Samples to batches."""

import numpy as np
import pytest
import torch

from wespeaker_lap.data.batch import Sample, collate


def sample(utt, shape=(4, 2, 3), speaker=0, value=0.0):
    return Sample(utt, np.full(shape, value, np.float32), speaker)


def test_samples_are_stacked_in_their_order():
    batch = collate([sample("é", speaker=2, value=1.5), sample("a", speaker=0, value=-1.0)])
    assert batch.utts == ["é", "a"]
    assert batch.feats.shape == (2, 4, 2, 3) and batch.feats.dtype == torch.float32
    assert batch.feats[0].unique().tolist() == [1.5] and batch.feats[1].unique().tolist() == [-1.0]
    assert batch.speakers.dtype == torch.long and batch.speakers.tolist() == [2, 0]


def test_a_sample_that_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"^b: features of shape \(5, 2, 3\) in a batch of "
                                         r"\(4, 2, 3\)$"):
        collate([sample("a"), sample("b", (5, 2, 3)), sample("c", (6, 2, 3))])
