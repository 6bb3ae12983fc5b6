"""MFA-Conformer: a Conformer on filter banks, the outputs of all its blocks side by side."""

import torch
from torch import Tensor, nn

from wespeaker_lap.models.conformer import ConformerBlock
from wespeaker_lap.models.masking import frame_mask
from wespeaker_lap.models.relative_attention import encode_distances

# A window of the subsampling; shorter utterances have no frame left.
MIN_FRAMES = 3


class MFAConformer(nn.Module):
    """Multi-scale feature aggregation Conformer.

    1. half the frames: a 3 x 3 convolution over frames and bands with stride 2 and ReLU, a linear
       to d, times sqrt(d), dropout;
    2. Conformer blocks with relative positions;
    3. LayerNorm of all blocks' outputs side by side.

    Source: arXiv 2203.15249, section 2, and its code (sizes, the convolution without padding, the
    factor sqrt(d)). With attentive statistics of hidden size 128, which is
    `ASTP(1536, reduction=1 / 12)`, and embeddings of 192 values it has 19.8 M parameters.

    Args:
        in_dim: F, bands of the filter bank, at least 3.
        num_blocks: Conformer blocks.
        block_dim: d, even.
        num_heads: of the attention, a divisor of d.
        ffn_dim: hidden size of the feed-forward networks.
        kernel_size: frames of the blocks' convolutions, odd.
        dropout: in training, also of the position encodings.

    Raises:
        ValueError: sizes that do not fit.

    >>> net = MFAConformer(80, num_blocks=2, block_dim=16, ffn_dim=32)
    >>> frames, lengths = net(torch.randn(2, 50, 80), torch.tensor([50, 31]))
    >>> frames.shape, lengths.tolist()
    (torch.Size([2, 24, 32]), [24, 15])
    """

    def __init__(
        self,
        in_dim: int,
        num_blocks: int = 6,
        block_dim: int = 256,
        num_heads: int = 4,
        ffn_dim: int = 2048,
        kernel_size: int = 15,
        dropout: float = 0.1,
    ):
        super().__init__()
        if in_dim < 3:
            raise ValueError(f"want in_dim >= 3, a window of the subsampling, got {in_dim}")
        if num_blocks < 1 or ffn_dim < 1:
            raise ValueError(f"want num_blocks and ffn_dim >= 1, got {num_blocks} and {ffn_dim}")
        if block_dim < 2 or block_dim % 2:
            raise ValueError(f"want an even block_dim, got {block_dim}")
        self.in_dim = in_dim
        self.out_dim = num_blocks * block_dim
        self.scale_dims = [block_dim] * num_blocks
        self.subsample = nn.Conv2d(1, block_dim, kernel_size=MIN_FRAMES, stride=2)
        self.in_linear = nn.Linear(block_dim * ((in_dim - 1) // 2), block_dim)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            ConformerBlock(block_dim, num_heads, ffn_dim, kernel_size, dropout)
            for _ in range(num_blocks))
        self.norm = nn.LayerNorm(self.out_dim)

    def forward(
        self, x: Tensor, lengths: Tensor | None = None, return_scales: bool = False
    ) -> tuple[Tensor, Tensor | None] | tuple[Tensor, Tensor | None, list[Tensor]]:
        """Turn filter banks into frames for pooling.

        Args:
            x: `(B, T, F)`, any values in the padding.
            lengths: `(B,)` frames of each utterance; None when none is padding. To the
                convolutions padding is what lies beyond the utterance: zeros.
            return_scales: also return the outputs of the blocks.

        Returns:
            `(B, T', out_dim)` with `T' = (T - 1) // 2`, zeros in the padding; the new lengths
            `(B,)`, or None; with `return_scales` also `[(B, T', d)]`, one for each block, zeros in
            the padding.

        Raises:
            ValueError: `x` or `lengths` has another shape, or an utterance fewer than 3 frames.
        """
        x, lengths = self._halve_frames(x, lengths)  # (B, T', d)
        mask = frame_mask(lengths, x)
        distances = self.dropout(encode_distances(*x.shape[1:], device=x.device, dtype=x.dtype))
        scales = []
        for block in self.blocks:
            x = _blank(block(x, distances, mask), mask)
            scales.append(x)
        frames = _blank(self.norm(torch.cat(scales, dim=2)), mask)  # (B, T', out_dim)
        return (frames, lengths, scales) if return_scales else (frames, lengths)

    def _halve_frames(self, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if x.dim() != 3 or x.shape[2] != self.in_dim:
            raise ValueError(f"want (B, T, {self.in_dim}), got {tuple(x.shape)}")
        shortest = x.shape[1]
        x = _blank(x, frame_mask(lengths, x))
        if lengths is not None:
            shortest = int(lengths.min())
            lengths = (lengths - 1) // 2
        if shortest < MIN_FRAMES:
            raise ValueError(f"want utterances of {MIN_FRAMES} frames or more, got {shortest}")
        # Without padding: a window of real frames gives a real frame, whatever comes after.
        x = self.subsample(x.unsqueeze(1)).relu()  # (B, d, T', F')
        x = self.in_linear(x.transpose(1, 2).flatten(2))  # (B, T', d)
        return self.dropout(x * x.shape[2] ** 0.5), lengths


def _blank(x: Tensor, mask: Tensor | None) -> Tensor:
    """Zeros in the padding of `(B, T, F)`."""
    return x if mask is None else x.masked_fill(~mask.unsqueeze(-1), 0.0)
