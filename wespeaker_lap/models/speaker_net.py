"""The trained back end: layers of an encoder -> frames -> one vector -> a speaker embedding."""

from collections.abc import Sequence

from torch import Tensor, nn


class SpeakerNet(nn.Module):
    """(Augmentation), layer pool, (frame network), time pool, batch norm, linear, batch norm.

    Source: arXiv 2512.22148, back end of the LAP-ASTP system. Linear weights are
    Xavier-uniform and biases zero, except in `frame_net`, which brings its own. With `hidden_dim`
    a linear, ReLU and batch norm come before the last linear, as in the x-vector.

    Args:
        layer_pool: `(x (B, T, L, D), lengths) -> (B, T, F)`, with `out_dim` F.
        time_pool: `(frames (B, T, F), lengths) -> (B, P)`, with `in_dim` F and `out_dim` P.
        embed_dim: E.
        frame_net: optional network between them, `(frames (B, T, F), lengths) ->
            (frames (B, T', F'), lengths)`, with `out_dim` F'; it returns the lengths because
            it may shorten the sequences.
        hidden_dim: of a layer more between pooling and embedding; None for none.
        augments: what is done to training utterances before all else, one after the other: each
            `(feats (B, T, L, D), lengths) -> (feats, lengths)`, and nothing in eval mode.

    Raises:
        ValueError: the time pool expects other frames than it gets.

    >>> import torch
    >>> from wespeaker_lap.models.layer_pool import WeightedSum
    >>> from wespeaker_lap.models.time_pool import StatsPool
    >>> net = SpeakerNet(WeightedSum(num_layers=7, in_dim=192), StatsPool(192), embed_dim=64)
    >>> net(torch.randn(2, 50, 7, 192), lengths=torch.tensor([50, 30])).shape
    torch.Size([2, 64])
    """

    def __init__(
        self,
        layer_pool: nn.Module,
        time_pool: nn.Module,
        embed_dim: int = 192,
        frame_net: nn.Module | None = None,
        hidden_dim: int | None = None,
        augments: Sequence[nn.Module] = (),
    ):
        super().__init__()
        frame_dim = layer_pool.out_dim if frame_net is None else frame_net.out_dim
        if frame_dim != time_pool.in_dim:
            raise ValueError(
                f"the time pool wants frames of {time_pool.in_dim} values, but gets {frame_dim}"
            )
        self.embed_dim = embed_dim
        self.augments = nn.ModuleList(augments)
        self.layer_pool = layer_pool
        self.frame_net = frame_net
        self.time_pool = time_pool
        self.pool_norm = nn.BatchNorm1d(time_pool.out_dim)
        self.hidden = None if hidden_dim is None else nn.Sequential(
            nn.Linear(time_pool.out_dim, hidden_dim), nn.ReLU(), nn.BatchNorm1d(hidden_dim))
        self.linear = nn.Linear(hidden_dim or time_pool.out_dim, embed_dim)
        self.embed_norm = nn.BatchNorm1d(embed_dim)
        for part in (layer_pool, time_pool, self.hidden, self.linear):
            if part is not None:
                part.apply(_init_linear)

    def forward(self, feats: Tensor, lengths: Tensor | None = None, return_scales: bool = False,
                ) -> Tensor | tuple[Tensor, list[Tensor], Tensor | None]:
        """Embed a batch of utterances.

        Args:
            feats: `(B, T, L, D)`, the hidden states of all layers; any values in the padding.
            lengths: `(B,)` frames of each utterance; None when none is padding.
            return_scales: also return what the blocks of the frame network found, for a
                multi-scale loss; the network must know `return_scales`.

        Returns:
            `(B, E)`, not normalised to length 1. In eval mode an utterance's embedding does
            not depend on the others in its batch. With `return_scales` also the blocks' frames,
            `(B, T', F_i)` each, and their lengths.

        Raises:
            ValueError: `feats` or `lengths` does not fit the network.
        """
        for augment in self.augments:
            feats, lengths = augment(feats, lengths)
        frames, scales = self.layer_pool(feats, lengths), []  # (B, T, F)
        if return_scales:
            frames, lengths, scales = self.frame_net(frames, lengths, return_scales=True)
        elif self.frame_net is not None:
            frames, lengths = self.frame_net(frames, lengths)  # (B, T', F')
        vectors = self.pool_norm(self.time_pool(frames, lengths))  # (B, P)
        if self.hidden is not None:
            vectors = self.hidden(vectors)
        embeddings = self.embed_norm(self.linear(vectors))  # (B, E)
        return (embeddings, scales, lengths) if return_scales else embeddings


def _init_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
