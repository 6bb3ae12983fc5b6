"""Stretches of time and bands of frequency that are masked in training utterances."""

import torch
from torch import Tensor, nn

from wespeaker_lap.models.masking import frame_mask


class SpecAugment(nn.Module):
    """Set random stretches of frames, and random bands, of each training utterance to zero.

    Zero is the mean where each utterance's mean was taken out, as `Fbank` does. All layers of a
    frame have the same bands masked. In eval mode nothing happens.

    Source: Park et al., SpecAugment, arXiv 1904.08779, without time warping; widths are drawn
    evenly from 0 to the largest. The defaults are WeSpeaker's.

    Args:
        time_masks: stretches in each utterance; they may overlap.
        time_frames: largest width of one.
        freq_masks: bands in each utterance.
        freq_bands: largest width of one, in filters.

    Raises:
        ValueError: a negative number.

    >>> feats, lengths = SpecAugment()(torch.ones(2, 100, 1, 80))
    >>> tuple(feats.shape), lengths is None
    ((2, 100, 1, 80), True)
    """

    def __init__(self, time_masks: int = 1, time_frames: int = 10, freq_masks: int = 1,
                 freq_bands: int = 8):
        super().__init__()
        options = {"time_masks": time_masks, "time_frames": time_frames, "freq_masks": freq_masks,
                   "freq_bands": freq_bands}
        if min(options.values()) < 0:
            raise ValueError(f"want numbers from 0 on, got {options}")
        self.time_masks, self.time_frames = time_masks, time_frames
        self.freq_masks, self.freq_bands = freq_masks, freq_bands

    def forward(
        self, x: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Mask a batch.

        Args:
            x: `(B, T, L, D)`.
            lengths: `(B,)` frames of each utterance; None when none is padding.

        Returns:
            `(B, T, L, D)` and the same lengths.

        Raises:
            ValueError: `x` or `lengths` does not fit.
        """
        if x.ndim != 4:
            raise ValueError(f"want (B, T, L, D), got {tuple(x.shape)}")
        if not self.training:
            return x, lengths
        frame_mask(lengths, x[..., :0].cpu())  # for its checks
        batch_size, num_frames, _, dim = x.shape
        # Drawn on the CPU, so that every device masks the same.
        sizes = torch.full((batch_size,), num_frames) if lengths is None else lengths.cpu()
        frames = _draw_spans(sizes, num_frames, self.time_masks, self.time_frames)  # (B, T)
        bands = _draw_spans(torch.full((batch_size,), dim), dim, self.freq_masks,
                            self.freq_bands)  # (B, D)
        frames, bands = frames.to(x.device), bands.to(x.device)
        return x.masked_fill(frames[:, :, None, None] | bands[:, None, None, :], 0.0), lengths


def _draw_spans(sizes: Tensor, length: int, num_spans: int, max_width: int) -> Tensor:
    """Spans within the first `sizes` places of each row, as `(B, length)` bool."""
    widths = (torch.rand(len(sizes), num_spans) * (max_width + 1)).long()  # (B, n)
    widths = widths.minimum(sizes[:, None])
    starts = (torch.rand(len(sizes), num_spans) * (sizes[:, None] - widths + 1)).long()
    places = torch.arange(length)
    inside = (places >= starts[..., None]) & (places < (starts + widths)[..., None])
    return inside.any(dim=1)
