"""What a layer pooling looks at: the score of every layer in every frame, and who wins."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from wespeaker_lap.models.layer_pool import LAP, WeightedSum
from wespeaker_lap.models.mhfa import TwoStreams
from wespeaker_lap.models.unipool import UniPool


class LayerShares(NamedTuple):
    """What one layer pooling looks at in an utterance.

    Attributes:
        scores: `(T, L)`, mean over the heads; softmax weights for a weighted sum.
        wins: `(T, L)`, part of the frame's values that is taken from the layer, with sum 1 over
            layers; None where layers are averaged, so that none wins.
    """

    scores: Tensor
    wins: Tensor | None


def layer_shares(pool: nn.Module, feats: Tensor) -> dict[str, LayerShares]:
    """Look at one utterance as a layer pooling does.

    Args:
        pool: `WeightedSum`, `LAP`, `UniPool`, or `TwoStreams` of them; in eval mode.
        feats: `(T, L, D)`.

    Returns:
        What is looked at, under "layers"; of two streams under "keys" and "values".

    Raises:
        ValueError: a pool that chooses nothing, or `feats` of another shape.

    >>> shares = layer_shares(WeightedSum(num_layers=4, in_dim=8), torch.randn(50, 4, 8))
    >>> shares["layers"].scores[0].tolist(), shares["layers"].wins
    ([0.25, 0.25, 0.25, 0.25], None)
    """
    if isinstance(pool, TwoStreams):
        return {"keys": _share(pool.keys, feats), "values": _share(pool.values, feats)}
    return {"layers": _share(pool, feats)}


def has_fixed_weights(pool: nn.Module) -> bool:
    """Whether the pooling gives the layers the same weights in every frame of every utterance."""
    return isinstance(_one_of(pool), WeightedSum)


def drops_first_layer(pool: nn.Module) -> bool:
    """Whether the pooling leaves out the first layer that it gets."""
    return isinstance(_one_of(pool), UniPool)


def _one_of(pool: nn.Module) -> nn.Module:
    """The pooling, or one of two streams, which are of one kind."""
    return pool.keys if isinstance(pool, TwoStreams) else pool


@torch.inference_mode()
def _share(pool: nn.Module, feats: Tensor) -> LayerShares:
    if isinstance(pool, WeightedSum):
        return LayerShares(pool.layer_logits.softmax(dim=0).expand(len(feats), -1), None)
    if not isinstance(pool, LAP | UniPool):
        raise ValueError(f"{type(pool).__name__} does not choose among layers")
    scores, layers = (None if found is None else found[0]
                      for found in pool.choose_layers(feats[None]))  # (T, H, L), (T, F)
    wins = None
    if layers is not None:
        wins = torch.stack([(layers == number).to(scores.dtype).mean(dim=1)
                            for number in range(feats.shape[1])], dim=1)  # (T, L)
    return LayerShares(scores.mean(dim=1), wins)
