"""Random short spans of frames, cut out of training utterances."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wespeaker_lap.models.masking import frame_mask


class SpanOut(nn.Module):
    """Cut short spans of frames out of some utterances of a training batch.

    What is left of an utterance moves together, so that it gets shorter; nothing is zeroed. An
    utterance that would lose all its frames keeps them all. In eval mode nothing happens.

    Source: arXiv 2409.07770 (span-out); the defaults are those of its code, and cut about 14 % of
    the frames of 30 % of the utterances.

    Args:
        utt_prob: probability that anything is cut out of an utterance.
        start_prob: probability of each of its frames to be the first of a span.
        span: frames in a span; spans may overlap.

    Raises:
        ValueError: a probability outside [0, 1], or spans of no frame.

    >>> _ = torch.manual_seed(0)
    >>> feats, lengths = SpanOut(utt_prob=1.0)(torch.zeros(2, 100, 7, 192))
    >>> 50 < int(lengths.max()) == feats.shape[1] < 100
    True
    """

    def __init__(self, utt_prob: float = 0.3, start_prob: float = 0.05, span: int = 3):
        super().__init__()
        if not (0.0 <= utt_prob <= 1.0 and 0.0 <= start_prob <= 1.0):
            raise ValueError(f"want probabilities from 0 to 1, got {utt_prob} and {start_prob}")
        if span < 1:
            raise ValueError(f"want spans of 1 frame or more, got {span}")
        self.utt_prob = utt_prob
        self.start_prob = start_prob
        self.span = span

    def forward(
        self, x: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Shorten some of the utterances.

        Args:
            x: `(B, T, ...)`, frames of any kind.
            lengths: `(B,)` frames of each utterance; None when none is padding.

        Returns:
            `(B, T', ...)` with T' <= T, any values in the padding, and the new lengths `(B,)` on
            the CPU; the arguments themselves where nothing was cut out.

        Raises:
            ValueError: `lengths` does not fit.
        """
        if not self.training:
            return x, lengths
        # Drawn on the CPU, where the new lengths are needed: no wait for the accelerator.
        lengths_now = torch.full(x.shape[:1], x.shape[1]) if lengths is None else lengths.cpu()
        mask = frame_mask(lengths_now, x[..., :0].cpu())
        kept = self._draw(*x.shape[:2], mask)  # (B, T)
        num_kept = kept.sum(dim=1)
        if torch.equal(num_kept, lengths_now):
            return x, lengths
        # A stable sort of "is cut out" has the kept frames first, in their order.
        order = kept.logical_not().to(torch.uint8).argsort(dim=1, stable=True)
        order = order[:, : int(num_kept.max())].to(x.device)  # (B, T')
        utts = torch.arange(len(x), device=x.device).unsqueeze(1)
        return x[utts, order], num_kept

    def _draw(self, num_utts: int, num_frames: int, mask: Tensor | None) -> Tensor:
        """The frames that stay, `(B, T)` bool, without padding."""
        real = torch.ones(num_utts, num_frames, dtype=torch.bool) if mask is None else mask
        starts = (torch.rand(num_utts, num_frames) < self.start_prob).float()
        starts *= (torch.rand(num_utts, 1) < self.utt_prob).float()
        # A frame is cut out if a span began at it or up to `span - 1` frames before.
        cut = F.max_pool1d(F.pad(starts, (self.span - 1, 0)), self.span, stride=1) > 0
        kept = real & ~cut
        return kept | (real & ~kept.any(dim=1, keepdim=True))
