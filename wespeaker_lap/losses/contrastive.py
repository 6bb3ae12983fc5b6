"""Supervised contrastive loss, alone and on several layers of a network."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as differentiable
import torch.nn.functional as F
from torch import Tensor, nn

from wespeaker_lap.losses.centers import widen
from wespeaker_lap.models.masking import frame_mask, pack_frames, unpack_frames
from wespeaker_lap.models.time_pool import ASTP


def sup_con(z: Tensor, speakers: Tensor, temperature: float = 0.07) -> Tensor:
    """Supervised contrastive loss of one batch, as it stands on this process.

    With `s[i, j]` the cosine of two embeddings over the temperature and P(i) the others of i's
    speaker, anchor i has the loss
    `-mean over p in P(i) of (s[i, p] - log sum over a != i of exp(s[i, a]))`; the result is the
    mean over the anchors that have a positive. In float32 (float64 stays) even under autocast.

    Source: arXiv 2004.11362, equation 2 (the mean outside the logarithm).

    Args:
        z: `(B, E)` embeddings, of any length.
        speakers: `(B,)` integer labels.
        temperature: what the cosines are divided by.

    Returns:
        `()`.

    Raises:
        ValueError: no speaker comes twice, or a shape or the temperature is wrong.

    >>> sup_con(torch.eye(2)[[0, 0, 1]], torch.tensor([4, 4, 9]), temperature=1.0)  # log(1 + 1/e)
    tensor(0.3133)
    """
    _check_temperature(temperature)
    if z.dim() != 2:
        raise ValueError(f"want embeddings (B, E), got {tuple(z.shape)}")
    _check_speakers(speakers, len(z))
    return _contrast(z, _find_positives(speakers.to(z.device)), temperature)


class MultiScaleContrastive(nn.Module):
    """Supervised contrastive loss on the frames of several layers of a network (MFCon).

    Each scale has a head of its own, LayerNorm -> attentive statistics -> batch norm -> linear;
    the result is the mean over the scales of `sup_con`.

    Among several processes the batch is that of all together: each computes the whole loss, and
    sends the gradients of the others' embeddings back to them. So the loss is the same on every
    process, and gradients that are averaged over the processes, as DDP does, are those of one
    process with the joined batch (with synchronised batch norm also inside the heads). For that
    the heads must be inside what DDP wraps, every process must call, and with equally many
    utterances.

    A batch in which no speaker comes twice has no such loss and is an error, not a zero: it means
    that the sampler is the wrong one, and the contrastive part would be silently untrained. All
    processes look at the joined labels, so all of them raise it at the same step. `allow_empty` is
    for batches that are drawn without regard to speakers, of which a few have no pair.

    Source: arXiv 2410.05037.

    Args:
        dims: F_i, the frame dimension of each scale.
        embed_dim: E, of the heads.
        temperature: what the cosines are divided by.
        allow_empty: a batch without a pair has the loss 0, and gradients of 0, instead.

    Raises:
        ValueError: no scale, or a number is out of its range.

    >>> loss_fn = MultiScaleContrastive(dims=[256, 512])
    >>> frames = [torch.randn(4, 50, 256), torch.randn(4, 50, 512)]
    >>> loss_fn(frames, torch.tensor([7, 7, 2, 2]), lengths=torch.tensor([50, 30, 50, 1])).shape
    torch.Size([])
    """

    def __init__(self, dims: Sequence[int], embed_dim: int = 192, temperature: float = 0.07,
                 allow_empty: bool = False):
        super().__init__()
        if not dims or min(*dims, embed_dim) < 1:
            raise ValueError(f"want one or more dims, and each of them and embed_dim >= 1, got "
                             f"{list(dims)} and {embed_dim}")
        _check_temperature(temperature)
        self.temperature, self.allow_empty = temperature, allow_empty
        self.heads = nn.ModuleList(_Head(dim, embed_dim) for dim in dims)

    def forward(self, scales: Sequence[Tensor], speakers: Tensor,
                lengths: Tensor | None = None) -> Tensor:
        """Compute the loss of a batch.

        Args:
            scales: one `(B, T, F_i)` for each of `dims`, any values in the padding.
            speakers: `(B,)` integer labels, the same numbers on all processes.
            lengths: `(B,)` frames of each utterance in every scale; None when none is padding.

        Returns:
            `()`, in float32 or float64.

        Raises:
            ValueError: no speaker comes twice in the batch of all processes, unless that is
                allowed, or a shape does not fit.
        """
        if len(scales) != len(self.heads):
            raise ValueError(f"want frames of {len(self.heads)} scales, got {len(scales)}")
        _check_speakers(speakers, len(scales[0]))
        speakers = _join_labels(speakers.to(scales[0].device))
        positives = _find_positives(speakers, self.allow_empty)
        z = torch.stack([head(x, lengths) for head, x in zip(self.heads, scales, strict=True)])
        z = _join_embeddings(widen(z))  # (scales, B, E), B now of all processes
        return torch.stack([_contrast(each, positives, self.temperature) for each in z]).mean()


class _Head(nn.Module):
    """(B, T, F) -> (B, E)."""

    def __init__(self, in_dim: int, embed_dim: int):
        super().__init__()
        self.frame_norm = nn.LayerNorm(in_dim)
        self.pool = ASTP(in_dim, dropout=0.0)
        self.pool_norm = nn.BatchNorm1d(self.pool.out_dim)
        self.linear = nn.Linear(self.pool.out_dim, embed_dim)

    def forward(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        if x.dim() != 3 or x.shape[2] != self.pool.in_dim:
            raise ValueError(f"want (B, T, {self.pool.in_dim}), got {tuple(x.shape)}")
        mask = frame_mask(lengths, x)
        frames = self.frame_norm(pack_frames(x, mask))  # real ones alone: padding may be NaN
        x = unpack_frames(frames, mask, x.shape[:2])
        return self.linear(self.pool_norm(self.pool(x, lengths)))


def _contrast(z: Tensor, positives: Tensor, temperature: float) -> Tensor:
    """`(B, E)` and `(B, B)` bool -> the loss `()`."""
    with torch.autocast(z.device.type, enabled=False):
        z = F.normalize(widen(z), dim=1)
        similarities = z @ z.T / temperature  # (B, B)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    log_probs = similarities.masked_fill(itself, -torch.inf).log_softmax(dim=1)
    counts = positives.sum(dim=1)
    # Chosen, not multiplied by 0: an utterance's log probability of being itself is -inf.
    totals = torch.where(positives, log_probs, 0.0).sum(dim=1)
    return -(totals / counts.clamp(min=1)).sum() / counts.count_nonzero().clamp(min=1)


def _find_positives(speakers: Tensor, allow_empty: bool = False) -> Tensor:
    """`(B, B)` bool: another utterance of the same speaker."""
    positives = speakers[:, None] == speakers[None, :]
    positives.fill_diagonal_(False)
    if not allow_empty and not positives.any():
        raise ValueError(
            f"the contrastive loss wants a speaker with two utterances in a batch, but its "
            f"{len(speakers)} utterances are of as many speakers; take batches of P speakers with "
            "K >= 2 utterances each (train.utts_per_speaker)"
        )
    return positives


def _join_labels(speakers: Tensor) -> Tensor:
    """`(B,)` of this process -> those of all processes, by rank."""
    if _num_processes() == 1:
        return speakers
    parts = [torch.empty_like(speakers) for _ in range(_num_processes())]
    dist.all_gather(parts, speakers.contiguous())
    return torch.cat(parts)


def _join_embeddings(z: Tensor) -> Tensor:
    """`(scales, B, E)` of this process -> those of all processes, by rank, with gradients."""
    if _num_processes() == 1:
        return z
    return torch.cat(differentiable.all_gather(z), dim=1)


def _num_processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _check_speakers(speakers: Tensor, batch_size: int) -> None:
    if speakers.shape != (batch_size,) or speakers.is_floating_point():
        raise ValueError(f"want speakers as ({batch_size},) integers, "
                         f"got {tuple(speakers.shape)} of {speakers.dtype}")


def _check_temperature(temperature: float) -> None:
    if not 0.0 < temperature < float("inf"):
        raise ValueError(f"want a positive temperature, got {temperature}")
