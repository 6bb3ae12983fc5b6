"""Self-attention that knows how far apart two frames are, not where they stand."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RelativeAttention(nn.Module):
    """Multi-head self-attention with relative positions.

    The score of key j for query i is `((q_i + u) · k_j + (q_i + v) · W r_(i-j)) / sqrt(d)`, with
    r the sinusoids of a distance, u and v learnt for each head, and d the size of a head.

    Source: Transformer-XL, arXiv 1901.02860, section 3.3; Conformer, arXiv 2005.08100.

    Args:
        dim: of the frames.
        num_heads: H, a divisor of `dim`.
        dropout: of the attention weights in training.

    Raises:
        ValueError: heads that do not divide `dim`.

    >>> attention = RelativeAttention(8, num_heads=2)
    >>> attention(torch.randn(3, 5, 8), encode_distances(5, 8)).shape
    torch.Size([3, 5, 8])
    """

    def __init__(self, dim: int, num_heads: int, dropout: float = 0.0):
        super().__init__()
        if num_heads < 1 or dim < 1 or dim % num_heads:
            raise ValueError(f"want num_heads to divide dim {dim}, got {num_heads}")
        self.num_heads = num_heads
        self.dropout = dropout
        self.project_frames = nn.Linear(dim, 3 * dim)  # queries, keys and values
        self.project_distances = nn.Linear(dim, dim, bias=False)
        self.content_bias = nn.Parameter(torch.empty(num_heads, dim // num_heads))  # u
        self.distance_bias = nn.Parameter(torch.empty(num_heads, dim // num_heads))  # v
        nn.init.xavier_uniform_(self.content_bias)
        nn.init.xavier_uniform_(self.distance_bias)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, distances: Tensor, mask: Tensor | None = None) -> Tensor:
        """Let every frame look at all frames of its utterance.

        Args:
            x: `(B, T, dim)`, any finite values in the padding.
            distances: `(2T - 1, dim)` from `encode_distances`.
            mask: `(B, T)` bool from `frame_mask`, or None.

        Returns:
            `(B, T, dim)`, finite values in the padding.
        """
        frames = self.project_frames(x).unflatten(2, (3, self.num_heads, -1))
        query, key, value = frames.permute(2, 0, 3, 1, 4)  # (B, H, T, d) each
        distances = self.project_distances(distances).unflatten(1, (self.num_heads, -1))
        by_distance = (query + self.distance_bias.unsqueeze(1)) @ distances.permute(1, 2, 0)
        bias = align_distances(by_distance) / query.shape[-1] ** 0.5  # (B, H, T, T)
        if mask is not None:
            bias = bias.masked_fill(~mask[:, None, None], -torch.inf)
        query = query + self.content_bias.unsqueeze(1)
        heads = F.scaled_dot_product_attention(
            query.to(key.dtype), key, value, attn_mask=bias.to(key.dtype),
            dropout_p=self.dropout if self.training else 0.0)
        return self.out(heads.transpose(1, 2).flatten(2))


def encode_distances(num_frames: int, dim: int, device: torch.device | None = None,
                     dtype: torch.dtype = torch.float32) -> Tensor:
    """Sinusoids of all distances between two of T frames.

    Source: Vaswani et al. 2017, arXiv 1706.03762, section 3.5, at the distance instead of the
    place.

    Args:
        num_frames: T.
        dim: even.
        device, dtype: of the result; computed in float32 at least, for bf16 has no odd distances
            beyond 256.

    Returns:
        `(2T - 1, dim)`: from distance T - 1 (the key comes first) down to 1 - T; sines at even,
        cosines at odd places, frequencies `10000 ** (-2i / dim)`.
    """
    wide = torch.promote_types(dtype, torch.float32)
    distance = torch.arange(num_frames - 1, -num_frames, -1, device=device, dtype=wide)
    place = torch.arange(0, dim, 2, device=device, dtype=wide)
    angle = distance.unsqueeze(1) * 10000.0 ** (-place / dim)  # (2T - 1, dim / 2)
    return torch.stack((angle.sin(), angle.cos()), dim=2).flatten(1).to(dtype)


def align_distances(by_distance: Tensor) -> Tensor:
    """From a column for each distance to a column for each key.

    Row i has the distance i - j of key j in column `T - 1 - i + j`: in memory each row's piece
    begins one value earlier than the one before, so a row length of one less lines them up.

    Args:
        by_distance: `(..., T, 2T - 1)`, distances from T - 1 down to 1 - T.

    Returns:
        `(..., T, T)`.

    >>> align_distances(torch.tensor([[1, 0, -1], [1, 0, -1]])).tolist()
    [[0, -1], [1, 0]]
    """
    num_frames = by_distance.shape[-2]
    width = torch.sym_max(1, 2 * num_frames - 2)  # as `max`, and fit for an exported graph
    row = by_distance.flatten(-2)[..., num_frames - 1 : num_frames - 1 + num_frames * width]
    return row.unflatten(-1, (num_frames, width)).narrow(-1, 0, num_frames)
