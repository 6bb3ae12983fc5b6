"""The mask of real frames, and packing and unpacking with it."""

import pytest
import torch

from wespeaker_lap.models.masking import frame_mask, pack_frames, unpack_frames


def test_mask_marks_the_frames_before_each_length():
    mask = frame_mask(torch.tensor([2, 1, 3]), torch.zeros(3, 3, 5))
    assert mask.tolist() == [[True, True, False], [True, False, False], [True, True, True]]


@pytest.mark.parametrize("lengths", [None, torch.tensor([4, 4])])
def test_no_mask_where_nothing_is_padding(lengths):
    assert frame_mask(lengths, torch.zeros(2, 4, 5)) is None


def test_packing_without_padding_copies_nothing():
    x = torch.randn(2, 4, 5)
    packed = pack_frames(x, None)
    assert packed.shape == (8, 5)
    assert packed.data_ptr() == x.data_ptr()
    assert torch.equal(unpack_frames(packed, None, x.shape[:2]), x)


def test_packing_keeps_the_order_and_unpacking_fills_with_zeros():
    x = torch.arange(6.0).view(2, 3, 1)
    mask = frame_mask(torch.tensor([1, 3]), x)
    packed = pack_frames(x, mask)
    assert packed.flatten().tolist() == [0, 3, 4, 5]
    assert unpack_frames(packed, mask, x.shape[:2]).flatten().tolist() == [0, 0, 0, 3, 4, 5]


@pytest.mark.parametrize(
    "lengths",
    [[0, 3], [1, 4], [-1, 2], [1, 2, 3], [[1, 2]], [1.0, 2.0]],
    ids=["zero", "too long", "negative", "one too many", "two axes", "floats"],
)
def test_bad_lengths_are_an_error(lengths):
    with pytest.raises(ValueError, match="want lengths"):
        frame_mask(torch.tensor(lengths), torch.zeros(2, 3, 5))
