"""Pooling over the layers of a pre-trained encoder: (B, T, L, D) -> (B, T, F).

On a CPU the time of a training step goes into moving the `(B, T, L, D)` tensor, not into
arithmetic, so the operations here were picked for how seldom they pass over it.
"""

import torch
from torch import Tensor, nn

from wespeaker_lap.models.masking import frame_mask, pack_frames, unpack_frames


class WeightedSum(nn.Module):
    """One learnt weight a layer, the same for every frame: the SUPERB baseline.

    Source: arXiv 2105.01051, section 3 (weighted sum of hidden states).

    Args:
        num_layers: L.
        in_dim: D.

    Raises:
        ValueError: a size below 1.

    >>> pool = WeightedSum(num_layers=3, in_dim=2)
    >>> pool(torch.tensor([[[[1.0, 10.0], [2.0, 20.0], [6.0, 60.0]]]])).tolist()
    [[[3.0, 30.0]]]
    """

    def __init__(self, num_layers: int, in_dim: int):
        super().__init__()
        if num_layers < 1 or in_dim < 1:
            raise ValueError(f"want num_layers and in_dim >= 1, got {num_layers} and {in_dim}")
        self.num_layers = num_layers
        self.in_dim = in_dim
        self.out_dim = in_dim
        self.layer_logits = nn.Parameter(torch.zeros(num_layers))

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Average the layers with softmax weights.

        Args:
            x: `(B, T, L, D)`.
            lengths: taken so that all layer poolings are called alike; frames do not meet
                here, so padding stays padding.

        Returns:
            `(B, T, D)`.

        Raises:
            ValueError: `x` has another shape.
        """
        _check_layers(x, self.num_layers, self.in_dim)
        weights = self.layer_logits.softmax(dim=0)  # (L,)
        # A batched product of (1, L) and (L, D): ten times as fast on a CPU as multiply-and-sum.
        frames = x.flatten(0, 1)  # (B * T, L, D)
        pooled = weights.expand(frames.shape[0], 1, -1) @ frames  # (B * T, 1, D)
        return pooled.view(*x.shape[:2], self.out_dim)


class LAP(nn.Module):
    """Layer Attentive Pooling: every frame and head scores the layers, the best ones show.

    Source: arXiv 2512.22148, section on layer attentive pooling. With M frames, H heads and
    `d = D / H`:

    1. `x = Linear(BatchNorm(x))` per frame and layer (no linear with one head);
    2. D split into H heads of d;
    3. two views of each layer and head: mean and maximum over its d values;
    4. one squeeze-and-expand network a head, `f(u) = ReLU(u W1 + b1) W2 + b2`, on both views;
    5. `s = Dropout(sigmoid(f(mean) + f(max)))`, one score a (frame, head, layer);
    6. `y = max over layers of s * x`, heads side by side again;
    7. `BatchNorm(Linear(y))`.

    Args:
        num_layers: L; with one (filter banks) the scores are gates of its heads.
        in_dim: D.
        out_dim: F.
        num_heads: H, a divisor of D.
        dropout: probability of dropping a score in training.

    Raises:
        ValueError: no layers, or heads that do not divide D.

    >>> pool = LAP(num_layers=7, in_dim=192, out_dim=512, num_heads=16)
    >>> frames, scores = pool(torch.randn(2, 5, 7, 192), return_scores=True)
    >>> frames.shape, scores.shape
    (torch.Size([2, 5, 512]), torch.Size([2, 5, 16, 7]))
    """

    def __init__(
        self,
        num_layers: int,
        in_dim: int,
        out_dim: int = 512,
        num_heads: int = 16,
        dropout: float = 0.1,
    ):
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"want num_layers >= 1, got {num_layers}")
        if num_heads < 1 or in_dim < 1 or in_dim % num_heads:
            raise ValueError(f"want num_heads to divide in_dim {in_dim}, got {num_heads}")
        self.num_layers = num_layers
        self.in_dim = in_dim
        self.out_dim = out_dim
        self.num_heads = num_heads
        self.in_norm = nn.BatchNorm1d(in_dim)
        self.in_linear = nn.Linear(in_dim, in_dim) if num_heads > 1 else nn.Identity()
        squeezed = max(1, num_layers // 2)
        self.squeeze_weight = nn.Parameter(torch.empty(num_heads, num_layers, squeezed))
        self.squeeze_bias = nn.Parameter(torch.zeros(num_heads, squeezed))
        self.expand_weight = nn.Parameter(torch.empty(num_heads, squeezed, num_layers))
        self.expand_bias = nn.Parameter(torch.zeros(num_heads, num_layers))
        for weight in (*self.squeeze_weight, *self.expand_weight):
            nn.init.xavier_uniform_(weight)  # each head is a network of its own
        self.dropout = nn.Dropout(dropout)
        self.out_linear = nn.Linear(in_dim, out_dim)
        self.out_norm = nn.BatchNorm1d(out_dim)

    def forward(
        self, x: Tensor, lengths: Tensor | None = None, return_scores: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Pool the layers of every frame.

        Args:
            x: `(B, T, L, D)`.
            lengths: `(B,)` frames of each utterance; None when none is padding. Padding frames
                are not computed and enter no batch statistics.
            return_scores: also return the layer scores.

        Returns:
            `(B, T, F)`, zeros in the padding; with `return_scores` also the scores
            `(B, T, H, L)`, from 0 to 1 (after dropout in training), zeros in the padding.

        Raises:
            ValueError: `x` or `lengths` has another shape.
        """
        _check_layers(x, self.num_layers, self.in_dim)
        mask = frame_mask(lengths, x)
        heads = self._split_heads(pack_frames(x, mask))  # (M, L, H, d)
        scores = self._score_layers(heads)  # (M, H, L)
        best = _max_over_layers(heads, scores).flatten(1)  # (M, D)
        frames = self.out_norm(self.out_linear(best))  # (M, F)
        pooled = unpack_frames(frames, mask, x.shape[:2])
        if not return_scores:
            return pooled
        return pooled, unpack_frames(scores, mask, x.shape[:2])

    def _split_heads(self, frames: Tensor) -> Tensor:
        """Steps 1 and 2: `(M, L, D)` -> `(M, L, H, d)`."""
        flat = self.in_linear(self.in_norm(frames.flatten(0, 1)))  # (M * L, D)
        return flat.view(*frames.shape[:2], self.num_heads, -1)

    def _score_layers(self, heads: Tensor) -> Tensor:
        """Steps 3 to 5: `(M, L, H, d)` -> `(M, H, L)`."""
        # max, not amax: the gradient of amax looks for ties and passes over everything again.
        views = torch.stack((heads.mean(dim=-1), heads.max(dim=-1).values))  # (2, M, L, H)
        hidden = torch.einsum("vmlh,hlk->vmhk", views, self.squeeze_weight) + self.squeeze_bias
        # The second linear is shared, so f(mean) + f(max) needs it once, with twice the bias.
        hidden = hidden.relu().sum(dim=0)  # (M, H, L // 2)
        logits = torch.einsum("mhk,hkl->mhl", hidden, self.expand_weight) + 2 * self.expand_bias
        return self.dropout(logits.sigmoid())


def _max_over_layers(heads: Tensor, scores: Tensor) -> Tensor:
    """Step 6: `(M, L, H, d)` and `(M, H, L)` -> `(M, H, d)`.

    Only the winning layers have a gradient, so the products of all layers are made outside
    autograd and the winners alone again inside: one pass backward instead of three.
    """
    with torch.no_grad():
        by_layer = scores.transpose(1, 2).unsqueeze(-1).contiguous()  # (M, L, H, 1)
        winner = (heads * by_layer).max(dim=1).indices  # (M, H, d)
    best = heads.gather(1, winner.unsqueeze(1)).squeeze(1)
    return best * scores.gather(2, winner)


def _check_layers(x: Tensor, num_layers: int, in_dim: int) -> None:
    if x.dim() != 4 or x.shape[2:] != (num_layers, in_dim):
        raise ValueError(f"want (B, T, {num_layers}, {in_dim}), got {tuple(x.shape)}")
