"""Masks over time and frequency: how wide, how many, where."""

import numpy as np
import pytest
import torch

from wespeaker_lap.models.spec_augment import SpecAugment


def find_spans(row: np.ndarray) -> list[tuple[int, int]]:
    """First place and width of every run of True."""
    edges = np.flatnonzero(np.diff(np.r_[0, row.astype(int), 0]))
    return [(int(a), int(b - a)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def mask_batch(augment: SpecAugment, shape: tuple, lengths=None) -> np.ndarray:
    """Which numbers were set to zero; all others must have stayed."""
    torch.manual_seed(0)
    x = torch.rand(shape) + 1
    out, same = augment(x, lengths)
    assert same is lengths
    masked = out == 0
    assert torch.equal(out[~masked], x[~masked])
    return masked.numpy()


def test_one_stretch_of_time_of_every_width():
    """Widths 0 to 4 alike often; a stretch has all bands and layers."""
    masked = mask_batch(SpecAugment(1, 4, 0, 0), (4000, 20, 2, 6))
    assert (masked == masked[:, :, :1, :1]).all()
    spans = [find_spans(row) for row in masked[:, :, 0, 0]]
    assert max(map(len, spans)) == 1
    widths = np.bincount([one[0][1] if one else 0 for one in spans])
    assert len(widths) == 5
    np.testing.assert_allclose(widths / 4000, 0.2, atol=5 * np.sqrt(0.16 / 4000))
    # A stretch of 4 begins at any of 17 frames.
    starts = np.bincount([one[0][0] for one in spans if one and one[0][1] == 4], minlength=17)
    assert len(starts) == 17 and starts.min() > 0


def test_bands_are_the_same_in_all_frames_and_layers():
    masked = mask_batch(SpecAugment(0, 0, 2, 3), (300, 5, 3, 30))
    assert (masked == masked[:, :1, :1]).all()
    spans = [find_spans(row) for row in masked[:, 0, 0]]
    assert {len(one) for one in spans} == {0, 1, 2}
    assert max(width for one in spans for _, width in one) <= 6  # two side by side
    assert {width for one in spans if len(one) == 2 for _, width in one} == {1, 2, 3}


def test_time_masks_lie_within_the_utterance():
    """Where padding counted, half of those of the short utterances would be beyond their end."""
    lengths = torch.tensor([40, 10, 3] * 100)
    masked = mask_batch(SpecAugment(1, 8, 0, 0), (300, 40, 1, 2), lengths)
    for row, length in zip(masked[:, :, 0, 0], lengths.tolist(), strict=True):
        assert not row[length:].any()
    short = masked[2::3, :, 0, 0].sum(axis=1)
    assert set(short) == {0, 1, 2, 3}


def test_every_utterance_has_masks_of_its_own():
    masked = mask_batch(SpecAugment(), (50, 100, 1, 80))
    assert len({row.tobytes() for row in masked}) > 45


def test_nothing_happens_in_eval_mode_or_without_masks():
    x, lengths = torch.rand(3, 50, 1, 8), torch.tensor([50, 20, 40])
    out, same = SpecAugment().eval()(x, lengths)
    assert out is x and same is lengths
    assert torch.equal(SpecAugment(0, 10, 0, 8)(x)[0], x)


def test_gradients_stop_at_the_masks():
    x = torch.rand(4, 30, 1, 10).requires_grad_()
    out, _ = SpecAugment(2, 10, 2, 4)(x)
    out.sum().backward()
    assert torch.equal(x.grad, (out != 0).float())


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"want numbers from 0 on, got .*'time_frames': -1"):
        SpecAugment(time_frames=-1)
    with pytest.raises(ValueError, match=r"want \(B, T, L, D\), got \(3, 5, 2\)"):
        SpecAugment()(torch.zeros(3, 5, 2))
    with pytest.raises(ValueError, match="want lengths"):
        SpecAugment()(torch.zeros(3, 5, 2, 2), torch.tensor([5, 6, 1]))
