"""Frames that are speech, frames that are padding.

A batch of utterances of different lengths is padded to the longest, and whatever pools or
normalises over frames must leave the padding out. The modules do it with three steps: which
frames count (`frame_mask`), those frames alone (`pack_frames`), and back (`unpack_frames`).
"""

import torch
from torch import Tensor


def frame_mask(lengths: Tensor | None, x: Tensor) -> Tensor | None:
    """Say which frames of a padded batch are real.

    Args:
        lengths: `(B,)` integers, frames of each utterance, or None when no frame is padding.
            Kept on the CPU it costs no wait for the accelerator.
        x: `(B, T, ...)`, the padded batch.

    Returns:
        `(B, T)` bool on the device of `x`, or None when every frame is real, so that callers
        can take the path without copies.

    Raises:
        ValueError: the lengths are not B integers from 1 to T.

    >>> frame_mask(torch.tensor([1, 3]), torch.zeros(2, 3, 8)).tolist()
    [[True, False, False], [True, True, True]]
    >>> frame_mask(torch.tensor([3, 3]), torch.zeros(2, 3, 8)) is None
    True
    """
    if lengths is None:
        return None
    batch_size, num_frames = x.shape[:2]
    if lengths.shape != (batch_size,) or lengths.is_floating_point():
        raise ValueError(
            f"want lengths as ({batch_size},) integers, "
            f"got {tuple(lengths.shape)} of {lengths.dtype}"
        )
    shortest, longest = (int(n) for n in lengths.aminmax())
    if shortest < 1 or longest > num_frames:
        raise ValueError(
            f"want lengths from 1 to {num_frames} frames, got {shortest} to {longest}"
        )
    if shortest == num_frames:
        return None
    frames = torch.arange(num_frames, device=x.device)
    return frames < lengths.to(x.device)[:, None]


def pack_frames(x: Tensor, mask: Tensor | None) -> Tensor:
    """Take the real frames out of a padded batch.

    Args:
        x: `(B, T, ...)`.
        mask: `(B, T)` bool from `frame_mask`, or None.

    Returns:
        `(M, ...)`: the M real frames of all utterances, one after another; without a mask a
        view of `x`.
    """
    return x.flatten(0, 1) if mask is None else x[mask]


def unpack_frames(frames: Tensor, mask: Tensor | None, batch_shape: torch.Size) -> Tensor:
    """Put packed frames back where `pack_frames` found them.

    Args:
        frames: `(M, ...)`.
        mask: the mask they were packed with.
        batch_shape: `(B, T)`.

    Returns:
        `(B, T, ...)`, zeros in the padding.
    """
    if mask is None:
        return frames.unflatten(0, batch_shape)
    padded = frames.new_zeros(*batch_shape, *frames.shape[1:])
    padded[mask] = frames
    return padded
