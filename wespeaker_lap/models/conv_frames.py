"""Padded batches under convolutions over time: channels first, zeros in the padding.

A convolution pads a lone utterance with zeros. In a batch its last frames must see the same
zeros, not what earlier layers made of the padding. So the frame networks keep to one rule: what
enters a convolution with context is zero in the padding. The two steps here establish it
(`prepare_frames`) and keep it (`norm_frames`); `mean_frames` builds on it.
"""

import torch
from torch import Tensor, nn

from wespeaker_lap.models.masking import frame_mask, pack_frames, unpack_frames


def prepare_frames(
    x: Tensor, lengths: Tensor | None, in_dim: int
) -> tuple[Tensor, Tensor | None]:
    """Check what enters a frame network and blank its padding.

    Args:
        x: `(B, T, F)`, any values in the padding.
        lengths: `(B,)` frames of each utterance; None when none is padding.
        in_dim: F.

    Returns:
        `(B, T, F)` with zeros in the padding; the mask `(B, T)`, or None when all is speech.

    Raises:
        ValueError: `x` or `lengths` has another shape.
    """
    if x.dim() != 3 or x.shape[2] != in_dim or x.shape[1] == 0:
        raise ValueError(f"want (B, T, {in_dim}) with T >= 1, got {tuple(x.shape)}")
    mask = frame_mask(lengths, x)
    return (x if mask is None else x.masked_fill(~mask.unsqueeze(-1), 0.0)), mask


def norm_frames(norm: nn.Module, x: Tensor, mask: Tensor | None) -> Tensor:
    """Batch norm over the real frames.

    Args:
        norm: the batch norm of C channels, synchronised or not.
        x: `(B, C, T)` or `(B, C, T, F)`, finite values in the padding.
        mask: `(B, T)` bool, or None.

    Returns:
        As `x`, zeros in the padding; in training the padding enters no batch statistics.

    >>> norm = nn.BatchNorm1d(1)
    >>> x = torch.tensor([[[1.0, 3.0]], [[2.0, 99.0]]])
    >>> out = norm_frames(norm, x, torch.tensor([[True, True], [True, False]]))
    >>> [round(v, 2) for v in out.flatten().tolist()]
    [-1.22, 1.22, 0.0, 0.0]
    """
    if mask is None:
        return norm(x)
    if norm.training:
        # Every real frame a row, with one axis to spare: a norm minds the number of axes.
        rows = pack_frames(x.transpose(1, 2), mask).unsqueeze(-1)  # (M, C, 1) or (M, C, F, 1)
        return unpack_frames(norm(rows).squeeze(-1), mask, mask.shape).transpose(1, 2)
    is_padding = ~mask.view(len(mask), 1, -1, *[1] * (x.dim() - 3))
    return norm(x).masked_fill(is_padding, 0.0)


def mean_frames(x: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over the real frames, summed in float32 or wider.

    Args:
        x: `(B, C, T)`, zeros in the padding.
        mask: `(B, T)` bool, or None.

    Returns:
        `(B, C)`, of the type of `x`.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    if mask is None:
        return x.mean(dim=2, dtype=wide).to(x.dtype)
    return (x.sum(dim=2, dtype=wide) / mask.sum(dim=1, keepdim=True)).to(x.dtype)
