"""Pooling over time: (B, T, F) and lengths -> (B, 2F), a mean and a standard deviation."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wespeaker_lap.models.masking import frame_mask, pack_frames, unpack_frames

# The gradient of a square root at 0 is infinite; a constant channel or a single frame gets there.
VARIANCE_FLOOR = 1e-4


class StatsPool(nn.Module):
    """Mean and standard deviation over time.

    Source: X-vectors, Snyder et al. 2018 (statistics pooling). The variance is the biased one
    (divided by the number of frames, so that one frame is enough), at least 1e-4.

    Args:
        in_dim: F.

    >>> StatsPool(1)(torch.tensor([[[1.0], [3.0], [99.0]]]), torch.tensor([2])).tolist()
    [[2.0, 1.0]]
    """

    def __init__(self, in_dim: int):
        super().__init__()
        self.in_dim = in_dim
        self.out_dim = 2 * in_dim

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Pool the frames of every utterance.

        Args:
            x: `(B, T, F)`, any values in the padding.
            lengths: `(B,)` frames of each utterance; None when none is padding.

        Returns:
            `(B, 2F)`: means, then standard deviations.

        Raises:
            ValueError: `x` or `lengths` has another shape.
        """
        _check_frames(x, self.in_dim)
        mask = frame_mask(lengths, x)
        return _statistics(_blank_padding(x, mask), _uniform_weights(x, mask))


class ASTP(nn.Module):
    """Attentive statistics: each channel weighs the frames by itself, knowing the utterance.

    Source: ECAPA-TDNN, arXiv 2005.07143, section 3.1, as used in arXiv 2512.22148 (no tanh):
    `a = softmax over T of Linear(BatchNorm(ReLU(Linear([x; mean; std]))))`, output
    `[sum a x; sqrt(max(sum a (x - mean)^2, 1e-4))]`. The plain mean and standard deviation
    inside are those of `StatsPool`.

    Args:
        in_dim: F.
        reduction: hidden size as a part of F.
        dropout: probability of leaving a whole frame out of the softmax in training. An
            utterance that would lose all its frames keeps them all.

    Raises:
        ValueError: no hidden value is left, or the dropout is not in [0, 1).

    >>> pool = ASTP(512)
    >>> pool(torch.randn(4, 100, 512), lengths=torch.tensor([100, 80, 50, 1])).shape
    torch.Size([4, 1024])
    """

    def __init__(self, in_dim: int, reduction: float = 0.5, dropout: float = 0.1):
        super().__init__()
        hidden_dim = int(in_dim * reduction)
        if hidden_dim < 1:
            raise ValueError(f"want in_dim * reduction >= 1, got {in_dim} * {reduction}")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"want dropout in [0, 1), got {dropout}")
        self.in_dim = in_dim
        self.out_dim = 2 * in_dim
        self.dropout = dropout
        self.squeeze = nn.Linear(3 * in_dim, hidden_dim)
        self.norm = nn.BatchNorm1d(hidden_dim)
        self.expand = nn.Linear(hidden_dim, in_dim)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Pool the frames of every utterance.

        Args:
            x: `(B, T, F)`, any values in the padding.
            lengths: `(B,)` frames of each utterance; None when none is padding. Padding enters
                neither the statistics, nor the softmax, nor the batch norm.

        Returns:
            `(B, 2F)`: weighted means, then weighted standard deviations.

        Raises:
            ValueError: `x` or `lengths` has another shape.
        """
        _check_frames(x, self.in_dim)
        mask = frame_mask(lengths, x)
        x = _blank_padding(x, mask)
        context = _statistics(x, _uniform_weights(x, mask)).to(x.dtype)  # (B, 2F)
        logits = self._attend(x, context, mask)  # (B, T, F)
        kept = self._drop_frames(x, mask)
        if kept is not None:
            logits = logits.masked_fill(~kept.unsqueeze(-1), -torch.inf)
        return _statistics(x, logits.softmax(dim=1))

    def _attend(self, x: Tensor, context: Tensor, mask: Tensor | None) -> Tensor:
        """Logits `(B, T, F)` from frames `(B, T, F)` and their utterances `(B, 2F)`."""
        # Linear([x; mean; std]) in two parts: (B, T, 3F) is never built, and the part that
        # all frames of an utterance share is computed once.
        frame_weight, context_weight = self.squeeze.weight.split([x.shape[2], context.shape[1]], 1)
        shared = F.linear(context, context_weight, self.squeeze.bias)  # (B, hidden)
        hidden = (F.linear(x, frame_weight) + shared.unsqueeze(1)).relu()  # (B, T, hidden)
        hidden = unpack_frames(self.norm(pack_frames(hidden, mask)), mask, x.shape[:2])
        return self.expand(hidden)

    def _drop_frames(self, x: Tensor, mask: Tensor | None) -> Tensor | None:
        """Frames that enter the softmax, `(B, T)` bool; None for all of them."""
        if not self.training or self.dropout == 0.0:
            return mask
        kept = torch.rand(x.shape[:2], device=x.device) >= self.dropout
        if mask is None:
            return kept | ~kept.any(dim=1, keepdim=True)
        kept = kept & mask
        return kept | (mask & ~kept.any(dim=1, keepdim=True))


def _check_frames(x: Tensor, in_dim: int) -> None:
    if x.dim() != 3 or x.shape[2] != in_dim or x.shape[1] == 0:
        raise ValueError(f"want (B, T, {in_dim}) with T >= 1, got {tuple(x.shape)}")


def _blank_padding(x: Tensor, mask: Tensor | None) -> Tensor:
    """Zeros in the padding, because 0 * NaN would still be NaN in a weighted sum."""
    return x if mask is None else x.masked_fill(~mask.unsqueeze(-1), 0.0)


def _uniform_weights(x: Tensor, mask: Tensor | None) -> Tensor:
    """The weights of a plain mean, `(B, T, 1)`: 1 / frames in speech, 0 in padding."""
    if mask is None:
        return x.new_full((1, 1, 1), 1.0 / x.shape[1], dtype=_wide(x.dtype))
    ones = mask.to(_wide(x.dtype)).unsqueeze(-1)  # bool / int would be float32, whatever x is
    return ones / ones.sum(dim=1, keepdim=True)


def _statistics(x: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean and standard deviation over time, in float32 or wider.

    `x` is `(B, T, F)`, `weights` broadcasts to it and sums to 1 over T. Returns `(B, 2F)`.
    """
    x = x.to(_wide(x.dtype))
    mean = (weights * x).sum(dim=1)
    # Centred first: E[x^2] - E[x]^2 loses every digit where the mean is large.
    variance = (weights * (x - mean.unsqueeze(1)).square()).sum(dim=1)
    return torch.cat((mean, variance.clamp(min=VARIANCE_FLOOR).sqrt()), dim=1)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
