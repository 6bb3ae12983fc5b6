"""Multi-head factorised attentive pooling: one stream of frames says when, another says what."""

import torch
from torch import Tensor, nn

from wespeaker_lap.models.masking import frame_mask


class TwoStreams(nn.Module):
    """Two layer poolings of the same layers, one for the keys and one for the values.

    Source: Peng et al. 2022 (SLT), arXiv 2210.01273, with `WeightedSum`; arXiv 2512.22148, its
    baseline with `LAP`.

    Args:
        keys: layer pooling `(x (B, T, L, D), lengths) -> (B, T, F)`, with `out_dim` F.
        values: another, with parameters of its own and the same F.

    Raises:
        ValueError: both are one object, or they have different sizes.

    >>> from wespeaker_lap.models.layer_pool import WeightedSum
    >>> pool = TwoStreams(WeightedSum(7, 192), WeightedSum(7, 192))
    >>> [tuple(frames.shape) for frames in pool(torch.zeros(2, 50, 7, 192))]
    [(2, 50, 192), (2, 50, 192)]
    """

    def __init__(self, keys: nn.Module, values: nn.Module):
        super().__init__()
        if keys is values:
            raise ValueError("want two layer poolings, one for keys and one for values, got one")
        if keys.out_dim != values.out_dim:
            raise ValueError("want keys and values of one size, "
                             f"got {keys.out_dim} and {values.out_dim}")
        self.out_dim = keys.out_dim
        self.keys = keys
        self.values = values

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Pool the layers of every frame, twice.

        Args:
            x: `(B, T, L, D)`.
            lengths: `(B,)` frames of each utterance; None when none is padding.

        Returns:
            Keys and values, `(B, T, F)` each.

        Raises:
            ValueError: `x` or `lengths` does not fit the layer poolings.
        """
        return self.keys(x, lengths), self.values(x, lengths)


class MHFA(nn.Module):
    """Multi-head factorised attention over time: each head has weights for all values at once.

    With keys k and values v of a frame: `k' = Linear(k)`, `v' = Linear(v)`,
    `a = softmax over T of Linear(k')`, one weight a head; output: `sum over T of a_h v'`, the
    heads side by side. The linear to the embedding that follows in the paper is the one of
    `SpeakerNet`.

    Source: Peng et al. 2022 (SLT), arXiv 2210.01273, section 3.

    Args:
        in_dim: F of the keys and of the values.
        num_heads: H.
        compression: C, the size of the compressed keys and values.

    Raises:
        ValueError: a size below 1.

    >>> pool = MHFA(192)
    >>> pool.out_dim, pool((torch.randn(2, 50, 192), torch.randn(2, 50, 192))).shape
    (8192, torch.Size([2, 8192]))
    """

    def __init__(self, in_dim: int, num_heads: int = 64, compression: int = 128):
        super().__init__()
        if min(in_dim, num_heads, compression) < 1:
            raise ValueError("want in_dim, num_heads and compression >= 1, "
                             f"got {in_dim}, {num_heads} and {compression}")
        self.in_dim = in_dim
        self.out_dim = num_heads * compression
        self.compress_keys = nn.Linear(in_dim, compression)
        self.compress_values = nn.Linear(in_dim, compression)
        self.attend = nn.Linear(compression, num_heads)

    def forward(
        self, frames: tuple[Tensor, Tensor] | Tensor, lengths: Tensor | None = None
    ) -> Tensor:
        """Pool the frames of every utterance.

        Args:
            frames: keys and values, `(B, T, F)` each, any values in the padding; a single
                `(B, T, F)` is both.
            lengths: `(B,)` frames of each utterance; None when none is padding.

        Returns:
            `(B, H * C)`, the heads one after another.

        Raises:
            ValueError: `frames` or `lengths` has another shape.
        """
        keys, values = (frames, frames) if isinstance(frames, Tensor) else frames
        self._check_streams(keys, values)
        mask = frame_mask(lengths, keys)
        if mask is not None:
            padding = ~mask.unsqueeze(-1)  # zeros there, because 0 * NaN would still be NaN
            keys, values = keys.masked_fill(padding, 0.0), values.masked_fill(padding, 0.0)
        logits = self.attend(self.compress_keys(keys))  # (B, T, H)
        if mask is not None:
            logits = logits.masked_fill(padding, -torch.inf)
        values = self.compress_values(values)  # (B, T, C)
        # Means over hundreds of frames: in full precision under autocast too.
        wide = torch.promote_types(values.dtype, torch.float32)
        with torch.autocast(values.device.type, enabled=False):
            weights = logits.to(wide).softmax(dim=1)
            heads = weights.transpose(1, 2) @ values.to(wide)  # (B, H, C)
        return heads.flatten(1)

    def _check_streams(self, keys: Tensor, values: Tensor) -> None:
        if keys.dim() != 3 or keys.shape[2] != self.in_dim or keys.shape[1] == 0:
            raise ValueError(
                f"want keys (B, T, {self.in_dim}) with T >= 1, got {tuple(keys.shape)}")
        if values.shape != keys.shape:
            raise ValueError(
                f"want values of the keys' shape {tuple(keys.shape)}, got {tuple(values.shape)}")
