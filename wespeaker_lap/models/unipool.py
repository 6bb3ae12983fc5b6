"""Universal pooling: a D3Net over layers and frames before the layers are pooled."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wespeaker_lap.models.d3net import DILATIONS, D3Block
from wespeaker_lap.models.masking import frame_mask, pack_frames, unpack_frames


class UniPool(nn.Module):
    """Universal pooling of an encoder's layers: convolutions over layers and frames first.

    Source: arXiv 2409.07770 (later called L-TDNN). Of the stored layers the first, the projected
    convolutions, is dropped; `L' = L - 1`:

    1. `x = BatchNorm(Linear(x))` per frame and layer, D to `4 C`;
    2. blocks in a row, each on the output of the one before: every layer and frame is scaled by
       a gate, then come densely connected multi-dilated 3 x 3 convolutions over frames and
       layers and channel attention, as a residual (`d3net`);
    3. the outputs of all blocks side by side;
    4. layer attentive pooling with a projection to F, both of its linears without bias.

    The paper's 2.87 M parameters for 12 x 768 and one block, with attentive statistics and a
    linear to 192, are those of this reading: growth C = 128; a bias in each convolution;
    a squeeze of the channel attention to C, in two networks; scaling with one linear a layer; a
    pooling of F = 4 C: 2,869,476.

    Args:
        num_layers: L, with the first.
        in_dim: D.
        out_dim: F.
        channels: C, the growth of the dense blocks.
        num_blocks: how many.
        num_heads: H of the layer pooling, a divisor of F.
        dropout: probability of dropping a layer's score in training.

    Raises:
        ValueError: fewer than two layers, a size below 1, or heads that do not divide F.

    >>> pool = UniPool(num_layers=4, in_dim=24, out_dim=16, channels=4)
    >>> pool(torch.randn(2, 5, 4, 24), lengths=torch.tensor([5, 3])).shape
    torch.Size([2, 5, 16])
    """

    def __init__(
        self,
        num_layers: int,
        in_dim: int,
        out_dim: int = 512,
        channels: int = 128,
        num_blocks: int = 1,
        num_heads: int = 4,
        dropout: float = 0.1,
    ):
        super().__init__()
        if num_layers < 2:
            raise ValueError(
                f"want num_layers >= 2, because the first is dropped, got {num_layers}")
        if min(in_dim, channels, num_blocks) < 1:
            raise ValueError("want in_dim, channels and num_blocks >= 1, "
                             f"got {in_dim}, {channels} and {num_blocks}")
        self.num_layers = num_layers
        self.in_dim = in_dim
        self.out_dim = out_dim
        block_dim = (len(DILATIONS) + 1) * channels
        self.in_linear = nn.Linear(in_dim, block_dim)
        self.in_norm = nn.BatchNorm1d(block_dim)
        self.blocks = nn.ModuleList(
            D3Block(num_layers - 1, channels) for _ in range(num_blocks))
        self.pool = LayerAttention(
            num_layers - 1, num_blocks * block_dim, out_dim, num_heads, dropout)

    def forward(
        self, x: Tensor, lengths: Tensor | None = None, return_scores: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Pool the layers of every frame.

        Args:
            x: `(B, T, L, D)`, any values in the padding.
            lengths: `(B,)` frames of each utterance; None when none is padding. To the
                convolutions padding is what lies beyond the utterance: zeros.
            return_scores: also return the scores of the layer pooling.

        Returns:
            `(B, T, F)`, zeros in the padding; with `return_scores` also the scores
            `(B, T, H, L)`, from 0 to 1 (after dropout in training), zeros in the padding and for
            the first layer, which is never looked at.

        Raises:
            ValueError: `x` or `lengths` has another shape.
        """
        self._check_layers(x)
        mask = frame_mask(lengths, x)
        pooled, scores = self.pool(self._mix_layers(x, mask))
        pooled = unpack_frames(pooled, mask, x.shape[:2])  # (B, T, F)
        if not return_scores:
            return pooled
        return pooled, unpack_frames(F.pad(scores, (1, 0)), mask, x.shape[:2])

    def choose_layers(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Score the layers as `forward` does, and tell where the values come from.

        Args:
            x: `(B, T, L, D)`, without padding.

        Returns:
            The scores `(B, T, H, L)`, zeros for the first layer; and for each of the F values of
            the layer pooling the number of the layer that wins its maximum, `(B, T, F)`. By then
            the convolutions have mixed neighbouring layers.

        Raises:
            ValueError: `x` has another shape.
        """
        self._check_layers(x)
        scores, layers = self.pool.choose_layers(self._mix_layers(x, None))
        scores, layers = F.pad(scores, (1, 0)), layers + 1
        return scores.unflatten(0, x.shape[:2]), layers.unflatten(0, x.shape[:2])

    def _mix_layers(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Steps 1 to 3: `(B, T, L, D)` -> packed frames `(M, L', outputs of all blocks)`."""
        frames = self.in_linear(pack_frames(x[:, :, 1:], mask))  # (M, L', 4C)
        frames = self.in_norm(frames.flatten(0, 1)).view(frames.shape)
        x = unpack_frames(frames, mask, x.shape[:2])  # (B, T, L', 4C)
        outputs = []
        for block in self.blocks:
            x = block(x, mask)  # (B, T, L', 4C)
            outputs.append(x)
        return pack_frames(torch.cat(outputs, dim=-1), mask)

    def _check_layers(self, x: Tensor) -> None:
        if x.dim() != 4 or x.shape[2:] != (self.num_layers, self.in_dim):
            raise ValueError(
                f"want (B, T, {self.num_layers}, {self.in_dim}), got {tuple(x.shape)}")


class LayerAttention(nn.Module):
    """The layer pooling of UniPool: that of `LAP`, but narrowing first, and without biases.

    Source: arXiv 2409.07770; the steps are those in `LAP`.

    Args:
        num_layers: L.
        in_dim: D.
        out_dim: F, into which D is projected before it is split into heads.
        num_heads: H, a divisor of F.
        dropout: probability of dropping a score in training.

    Raises:
        ValueError: heads that do not divide F.
    """

    def __init__(
        self, num_layers: int, in_dim: int, out_dim: int, num_heads: int, dropout: float
    ):
        super().__init__()
        if num_heads < 1 or out_dim < 1 or out_dim % num_heads:
            raise ValueError(f"want num_heads to divide out_dim {out_dim}, got {num_heads}")
        self.num_heads = num_heads
        self.in_norm = nn.BatchNorm1d(in_dim)
        self.in_linear = nn.Linear(in_dim, out_dim, bias=False)
        squeezed = max(1, num_layers // 2)
        self.squeeze_weight = nn.Parameter(torch.empty(num_heads, num_layers, squeezed))
        self.squeeze_bias = nn.Parameter(torch.zeros(num_heads, squeezed))
        self.expand_weight = nn.Parameter(torch.empty(num_heads, squeezed, num_layers))
        self.expand_bias = nn.Parameter(torch.zeros(num_heads, num_layers))
        for weight in (*self.squeeze_weight, *self.expand_weight):
            nn.init.xavier_uniform_(weight)  # each head is a network of its own
        self.dropout = nn.Dropout(dropout)
        self.out_linear = nn.Linear(out_dim, out_dim, bias=False)
        self.out_norm = nn.BatchNorm1d(out_dim)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Pool packed frames: `(M, L, D)` -> `(M, F)` and the scores `(M, H, L)`."""
        products, scores = self._score_heads(frames)
        return self.out_norm(self.out_linear(products.amax(dim=1).flatten(1))), scores

    def choose_layers(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """The scores `(M, H, L)`, and the layers that win the maxima, `(M, F)`."""
        products, scores = self._score_heads(frames)
        return scores, products.argmax(dim=1).flatten(1)

    def _score_heads(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """The heads of every layer, scored: `(M, L, H, d)`; and the scores `(M, H, L)`."""
        rows = self.in_linear(self.in_norm(frames.flatten(0, 1)))
        heads = rows.view(*frames.shape[:2], self.num_heads, -1)  # (M, L, H, d)
        # Scores are few and decide much: in full precision under autocast too.
        with torch.autocast(frames.device.type, enabled=False):
            views = torch.stack((heads.mean(dim=-1), heads.amax(dim=-1)))  # (2, M, L, H)
            scores = self._score_layers(views.to(self.squeeze_weight.dtype))  # (M, H, L)
            gates = scores.transpose(1, 2).unsqueeze(-1)  # (M, L, H, 1)
            return gates.to(heads.dtype) * heads, scores

    def _score_layers(self, views: Tensor) -> Tensor:
        """Squeeze and expand both views, heads apart: `(2, M, L, H)` -> `(M, H, L)`."""
        hidden = torch.einsum("vmlh,hlk->vmhk", views, self.squeeze_weight) + self.squeeze_bias
        hidden = hidden.relu().sum(dim=0)  # the second linear is shared: once, with twice its bias
        logits = torch.einsum("mhk,hkl->mhl", hidden, self.expand_weight) + 2 * self.expand_bias
        return self.dropout(logits.sigmoid())
