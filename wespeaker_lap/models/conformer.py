"""The Conformer block: attention over the whole utterance, convolution over a few frames."""

import torch.nn.functional as F
from torch import Tensor, nn

from wespeaker_lap.models.masking import pack_frames, unpack_frames
from wespeaker_lap.models.relative_attention import RelativeAttention


class ConformerBlock(nn.Module):
    """Half a feed-forward network, self-attention, convolution, the other half, LayerNorm.

    Each of the four is a residual on normalised input: `x + FFN(x) / 2`, `x + Attention(x)`,
    `x + Conv(x)`, `x + FFN(x) / 2`.

    Source: Conformer, arXiv 2005.08100, section 2.

    Args:
        dim: of the frames.
        num_heads: of the attention, a divisor of `dim`.
        ffn_dim: hidden size of the feed-forward networks.
        kernel_size: of the convolution, odd.
        dropout: inside the feed-forward networks and of every residual in training.

    Raises:
        ValueError: heads that do not divide `dim`, or an even kernel size.
    """

    def __init__(
        self, dim: int, num_heads: int, ffn_dim: int, kernel_size: int, dropout: float
    ):
        super().__init__()
        self.first_ffn, self.last_ffn = (
            nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, ffn_dim), nn.SiLU(),
                          nn.Dropout(dropout), nn.Linear(ffn_dim, dim))
            for _ in range(2))
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = RelativeAttention(dim, num_heads)
        self.conv_norm = nn.LayerNorm(dim)
        self.conv = GatedConv(dim, kernel_size)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, distances: Tensor, mask: Tensor | None = None) -> Tensor:
        """One block.

        Args:
            x: `(B, T, dim)`, any finite values in the padding.
            distances: `(2T - 1, dim)` from `encode_distances`.
            mask: `(B, T)` bool from `frame_mask`, or None.

        Returns:
            `(B, T, dim)`, finite values in the padding.
        """
        x = x + 0.5 * self.dropout(self.first_ffn(x))
        x = x + self.dropout(self.attention(self.attention_norm(x), distances, mask))
        x = x + self.dropout(self.conv(self.conv_norm(x), mask))
        x = x + 0.5 * self.dropout(self.last_ffn(x))
        return self.norm(x)


class GatedConv(nn.Module):
    """The Conformer's convolution: linear and GLU, depthwise, BatchNorm, SiLU, linear.

    Source: Conformer, arXiv 2005.08100, section 2.2.

    Args:
        dim: of the frames.
        kernel_size: frames of the depthwise convolution, odd.

    Raises:
        ValueError: an even kernel size.
    """

    def __init__(self, dim: int, kernel_size: int):
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"want an odd kernel_size, got {kernel_size}")
        self.expand = nn.Linear(dim, 2 * dim)
        self.depthwise = nn.Conv1d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)
        self.norm = nn.BatchNorm1d(dim)
        self.project = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """`(B, T, dim)` -> `(B, T, dim)`, zeros in the padding."""
        x = F.glu(self.expand(x), dim=2)
        if mask is not None:  # zeros, as the convolution has beyond the borders
            x = x.masked_fill(~mask.unsqueeze(-1), 0.0)
        x = self.depthwise(x.transpose(1, 2)).transpose(1, 2)
        frames = self.norm(pack_frames(x, mask))  # (M, dim)
        return unpack_frames(self.project(F.silu(frames)), mask, x.shape[:2])
