"""Pooling over the layers of a pre-trained encoder: (B, T, L, D) -> (B, T, F)."""

import torch
from torch import Tensor, nn

from wespeaker_lap.models.layer_heads import project_heads
from wespeaker_lap.models.masking import frame_mask, pack_frames, unpack_frames
from wespeaker_lap.models.moments import norm_statistics


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


class SingleLayer(nn.Module):
    """One of the layers as it is; nothing is learnt.

    Args:
        num_layers: L.
        in_dim: D.
        layer: which one, 0 to L - 1; negative counts from the last one.

    Raises:
        ValueError: there is no such layer.

    >>> SingleLayer(num_layers=3, in_dim=2, layer=-1)(torch.ones(4, 50, 3, 2)).shape
    torch.Size([4, 50, 2])
    """

    def __init__(self, num_layers: int, in_dim: int, layer: int = -1):
        super().__init__()
        if not -num_layers <= layer < num_layers:
            raise ValueError(f"want a layer from {-num_layers} to {num_layers - 1}, got {layer}")
        self.num_layers = num_layers
        self.in_dim = in_dim
        self.out_dim = in_dim
        self.layer = layer

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """`(B, T, L, D)` -> `(B, T, D)`; see `WeightedSum.forward`."""
        _check_layers(x, self.num_layers, self.in_dim)
        return x[:, :, self.layer]


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
        combine: "max", as in step 6, or "mean" over the layers in its place.

    Raises:
        ValueError: no layers, heads that do not divide D, another `combine`.

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
        combine: str = "max",
    ):
        super().__init__()
        if combine not in ("max", "mean"):
            raise ValueError(f"want combine 'max' or 'mean', got {combine!r}")
        if num_layers < 1:
            raise ValueError(f"want num_layers >= 1, got {num_layers}")
        if num_heads < 1 or in_dim < 1 or in_dim % num_heads:
            raise ValueError(f"want num_heads to divide in_dim {in_dim}, got {num_heads}")
        self.num_layers = num_layers
        self.in_dim = in_dim
        self.out_dim = out_dim
        self.num_heads = num_heads
        self.combine = combine
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
        frames = pack_frames(x, mask)  # (M, L, D)
        # What makes training fast, loops over blocks and a gradient by hand, no graph can hold.
        is_plain = self.combine == "mean" or torch.compiler.is_compiling()
        pool = self._pool_plainly if is_plain else self._pool_best
        values, scores = pool(frames)  # (M, D), (M, H, L)
        pooled = self.out_norm(self.out_linear(values))  # (M, F)
        pooled = unpack_frames(pooled, mask, x.shape[:2])
        if not return_scores:
            return pooled
        return pooled, unpack_frames(scores, mask, x.shape[:2])

    def choose_layers(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Score the layers as `forward` does, and tell where the values come from.

        Args:
            x: `(B, T, L, D)`, without padding.

        Returns:
            The scores `(B, T, H, L)`, and for each of the D values the number of the layer that
            wins the maximum of step 6, `(B, T, D)`; None where `combine` is "mean".

        Raises:
            ValueError: `x` has another shape.
        """
        _check_layers(x, self.num_layers, self.in_dim)
        frames, layers = x.flatten(0, 1), None
        if self.combine == "max":
            _, scores, layers = self._find_best(frames)
            layers = layers.flatten(1).unflatten(0, x.shape[:2])
        else:
            _, scores = self._pool_plainly(frames)
        return scores.unflatten(0, x.shape[:2]), layers

    def _pool_best(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Steps 1 to 6: `(M, L, D)` -> `(M, D)` and the scores `(M, H, L)`."""
        values, scores, layers = self._find_best(frames)
        with torch.autocast(frames.device.type, enabled=False):
            return values * scores.gather(2, layers).flatten(1), scores

    def _find_best(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What step 6 takes, unscored `(M, D)`; the scores `(M, H, L)`; the layers `(M, H, d)`.

        Every layer is projected and scored inside `project_heads`, outside autograd, to learn
        which wins. Here the scores are made again from the views, with their gradient.
        """
        kept = self._draw_kept(frames)
        frames, normal, linear = self._fold_norm(frames)
        views, values, layers = project_heads(
            frames, normal, linear, self.num_heads,
            lambda views, part: self._score_layers(views, kept[part]))
        with torch.autocast(frames.device.type, enabled=False):
            scores = self._score_layers(views, kept)
        return values, scores, layers.view(len(frames), self.num_heads, -1).long()

    def _pool_plainly(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """As `_pool_best`, in plain steps that keep every projected layer.

        The mean over layers gives each of them a gradient; an exported graph has no other steps.
        """
        kept = self._draw_kept(frames)
        heads = self.in_linear(self._normalise(frames)).unflatten(2, (self.num_heads, -1))
        with torch.autocast(frames.device.type, enabled=False):
            heads = heads.to(self.squeeze_weight.dtype)  # (M, L, H, d)
            views = torch.stack([heads.mean(dim=-1), heads.amax(dim=-1)])  # (2, M, L, H)
            scores = self._score_layers(views, kept)
            if self.combine == "max":
                values = (scores.transpose(1, 2).unsqueeze(-1) * heads).amax(dim=1)  # (M, H, d)
            else:
                values = torch.einsum("mhl,mlhd->mhd", scores, heads) / self.num_layers
            return values.flatten(1), scores

    def _draw_kept(self, frames: Tensor) -> Tensor:
        """Dropout of the scores, `(M, H, L)`: 0 or 1 / (1 - p)."""
        # Scores are few and decide much: in full precision under autocast too.
        with torch.autocast(frames.device.type, enabled=False):
            shape = (frames.shape[0], self.num_heads, self.num_layers)
            kept = self.squeeze_weight.new_ones(shape)
            return self.dropout(kept)

    def _fold_norm(self, frames: Tensor) -> tuple[
            Tensor, tuple[Tensor, Tensor] | None, tuple[Tensor, Tensor] | None]:
        """Step 1 in parts: the frames, their constants (mean, scale), the linear (W, b).

        `W (gain * x + shift) + b = (W gain) x + (W shift + b)`: the norm's own parameters go
        into the linear, and a frozen encoder's features have constant statistics, so nothing
        normalised need be stored. With one head there is no linear, and features that are
        trained have a gradient through their statistics too: then the norm is a step of its own.
        """
        if self.num_heads == 1:
            return self._normalise(frames), None, None
        weight, bias = self.in_linear.weight, self.in_linear.bias
        if frames.requires_grad and self.in_norm.training:
            return self._normalise(frames), None, (weight, bias)
        mean, var = norm_statistics(self.in_norm, frames.flatten(0, 1))
        gain, shift = self.in_norm.weight, self.in_norm.bias
        folded = weight * gain, bias + (weight * shift).sum(dim=1)
        return frames, (mean, torch.rsqrt(var + self.in_norm.eps)), folded

    def _normalise(self, frames: Tensor) -> Tensor:
        return self.in_norm(frames.flatten(0, 1)).view_as(frames)

    def _score_layers(self, views: Tensor, kept: Tensor) -> Tensor:
        """Steps 4 and 5: `(2, M, L, H)` and the dropout's `(M, H, L)` -> `(M, H, L)`."""
        hidden = torch.einsum("vmlh,hlk->vmhk", views, self.squeeze_weight) + self.squeeze_bias
        # The second linear is shared, so f(mean) + f(max) needs it once, with twice the bias.
        hidden = hidden.relu().sum(dim=0)  # (M, H, L // 2)
        logits = torch.einsum("mhk,hkl->mhl", hidden, self.expand_weight) + 2 * self.expand_bias
        return logits.sigmoid() * kept


def _check_layers(x: Tensor, num_layers: int, in_dim: int) -> None:
    if x.dim() != 4 or x.shape[2:] != (num_layers, in_dim):
        raise ValueError(f"want (B, T, {num_layers}, {in_dim}), got {tuple(x.shape)}")
