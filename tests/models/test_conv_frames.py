"""Batch norm and means over the real frames of channels-first batches."""

import pytest
import torch
from torch import nn

from wespeaker_lap.models.conv_frames import mean_frames, norm_frames, prepare_frames

LENGTHS = torch.tensor([5, 2, 1])
MASK = torch.arange(5) < LENGTHS[:, None]  # (B, T)


def frames_of(x: torch.Tensor) -> torch.Tensor:
    """The real frames of `(B, C, T, ...)`, one after another, as `(1, C, frames, ...)`."""
    parts = [utt[:, :n] for utt, n in zip(x, LENGTHS, strict=True)]
    return torch.cat(parts, dim=1).unsqueeze(0)


def test_padding_is_blanked_and_speech_is_not():
    x = torch.full((3, 5, 2), torch.nan)
    for utt, n in zip(x, LENGTHS, strict=True):
        utt[:n] = 7.0
    blanked, mask = prepare_frames(x, LENGTHS, 2)
    assert torch.equal(mask, MASK)
    assert torch.equal(blanked, torch.where(x.isnan(), 0.0, 7.0))


@pytest.mark.parametrize("lengths", [None, torch.tensor([4, 4])])
def test_without_padding_nothing_is_copied(lengths):
    x = torch.randn(2, 4, 3)
    frames, mask = prepare_frames(x, lengths, 3)
    assert mask is None and frames.data_ptr() == x.data_ptr()


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("axes", [(), (2,)], ids=["1-d", "2-d"])
def test_norm_knows_the_real_frames_only(axes, training):
    """As the norm without padding: on all real frames in a row."""
    torch.manual_seed(0)
    make = (nn.BatchNorm2d if axes else nn.BatchNorm1d)
    norm, plain = make(4).double().train(training), make(4).double().train(training)
    x = 3 + torch.randn(3, 4, 5, *axes, dtype=torch.float64)
    got = norm_frames(norm, x, MASK)
    torch.testing.assert_close(frames_of(got), plain(frames_of(x)))
    torch.testing.assert_close(norm.running_mean, plain.running_mean)
    torch.testing.assert_close(norm.running_var, plain.running_var)
    for utt, n in zip(got, LENGTHS, strict=True):
        assert not utt[:, n:].any()


def test_mean_by_hand():
    x = torch.tensor([[[1.0, 2.0, 6.0], [0.0, 4.0, 8.0]], [[5.0, 0.0, 0.0], [7.0, 0.0, 0.0]]])
    mask = torch.tensor([[True] * 3, [True, False, False]])
    assert mean_frames(x, mask).tolist() == [[3.0, 4.0], [5.0, 7.0]]
    assert mean_frames(x[:1], None).tolist() == [[3.0, 4.0]]


@pytest.mark.parametrize("mask", [None, torch.ones(1, 3000, dtype=torch.bool)])
def test_a_long_mean_of_half_precision_frames(mask):
    """The sum is beyond float16, which ends at 65504."""
    mean = mean_frames(torch.full((1, 1, 3000), 100.0, dtype=torch.float16), mask)
    assert mean.dtype == torch.float16 and mean.item() == 100.0
