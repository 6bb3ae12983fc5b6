"""Softmax losses with a margin: embeddings and speaker labels -> a scalar.

Like `softmax.Softmax` they have `forward(emb, speakers, margin=None) -> loss, logits` and
`predict(emb) -> speakers`, and compute in float32 (float64 stays) even under autocast.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wespeaker_lap.losses.centers import make_centers, nearest_cosines, target_index


class AAMSoftmax(nn.Module):
    """Additive angular margin softmax with sub-centres and the inter-top-K penalty.

    With `theta[n]` the angle between an embedding and speaker n (the nearest of the speaker's
    K centres), the logits are `scale` times

    - the target: `cos(theta + m)`; where `cos(theta) <= cos(pi - m)`, so that theta + m has
      passed pi and the cosine would rise again, `cos(theta) - m sin(pi - m)` instead;
    - the `top_k` other speakers with the largest cosines: `cos(theta - m')`,
      `m' = top_k_penalty * (current margin / margin)`;
    - everyone else: `cos(theta)`.

    Sources: ArcFace, arXiv 1801.07698, equation 3; Sub-center ArcFace, ECCV 2020; inter-top-K
    penalty, arXiv 2110.05042, section 3.

    Args:
        embed_dim: E.
        num_speakers: N.
        scale: factor of all logits.
        margin: m in radians, the full margin that a schedule leads to; from 0 to below pi.
        num_subcenters: K, centres a speaker.
        top_k: how many other speakers are penalised. With fewer others than that, all of them
            are: a recipe written for thousands of speakers still runs on five.
        top_k_penalty: m' in radians at the full margin. With `margin=0` there is no penalty.

    Raises:
        ValueError: a number is out of its range.

    >>> loss_fn = AAMSoftmax(embed_dim=192, num_speakers=10, num_subcenters=3, top_k=5,
    ...                      top_k_penalty=0.06)
    >>> loss, logits = loss_fn(torch.randn(4, 192), torch.tensor([0, 3, 3, 9]), margin=0.1)
    >>> loss.shape, logits.shape
    (torch.Size([]), torch.Size([4, 10]))
    """

    def __init__(
        self,
        embed_dim: int,
        num_speakers: int,
        scale: float = 30.0,
        margin: float = 0.2,
        num_subcenters: int = 1,
        top_k: int = 0,
        top_k_penalty: float = 0.0,
    ):
        super().__init__()
        if top_k < 0:
            raise ValueError(f"want top_k >= 0, got {top_k}")
        _check_scale(scale)
        _check_angle("margin", margin)
        _check_angle("top_k_penalty", top_k_penalty)
        self.scale = scale
        self.margin = margin
        self.top_k = min(top_k, num_speakers - 1)
        self.top_k_penalty = top_k_penalty
        self.centers = make_centers(embed_dim, num_speakers, num_subcenters)

    def forward(
        self, emb: Tensor, speakers: Tensor, margin: float | None = None
    ) -> tuple[Tensor, Tensor]:
        """Compute the loss of a batch.

        Args:
            emb: `(B, E)` embeddings, of any length.
            speakers: `(B,)` integer labels from 0 to N - 1.
            margin: the current margin in radians; None for the full one.

        Returns:
            The mean cross entropy `()`, and the scaled logits `(B, N)` with the margin on the
            target, by which a student is compared with its teacher: the penalty is in the loss
            alone, for a teacher's logits have none. For the accuracy take `predict`.

        Raises:
            ValueError: a shape does not fit, a label is no speaker, or the margin is no angle
                from 0 to below pi.
        """
        margin = self.margin if margin is None else margin
        _check_angle("margin", margin)
        cosines = self.cosines(emb)  # (B, N)
        target = target_index(speakers, cosines)  # (B, 1)
        angular = _add_margin(cosines.gather(1, target), margin)
        penalised = logits = self.scale * cosines.scatter(1, target, angular)
        penalty = self.top_k_penalty * margin / self.margin if self.margin > 0.0 else 0.0
        if penalty > 0.0 and self.top_k > 0:
            others = cosines.detach().scatter(1, target, -torch.inf)
            rivals = others.topk(self.top_k, dim=1).indices  # (B, top_k)
            angular = _rotate(cosines.gather(1, rivals), -penalty)
            penalised = logits.scatter(1, rivals, self.scale * angular)
        return F.cross_entropy(penalised, target.squeeze(1)), logits

    def cosines(self, emb: Tensor) -> Tensor:
        """Compare embeddings with every speaker, without margin, penalty or scale.

        Args:
            emb: `(B, E)`.

        Returns:
            `(B, N)` cosines with the nearest centre of each speaker, float32 or float64.

        Raises:
            ValueError: `emb` has another shape.
        """
        return nearest_cosines(emb, self.centers)

    def predict(self, emb: Tensor) -> Tensor:
        """Name the nearest speaker of each embedding `(B, E)`: `(B,)` labels, without margin."""
        return self.cosines(emb).argmax(dim=1)


class AMSoftmax(nn.Module):
    """Additive margin softmax: `scale * (cos(theta) - m)` for the target, `scale * cos(theta)`
    for everyone else, theta the angle to the nearest of a speaker's K centres.

    Sources: AM-Softmax, arXiv 1801.05599, equation 6 (CosFace, arXiv 1801.09414); sub-centres as
    in `AAMSoftmax`.

    Args:
        embed_dim: E.
        num_speakers: N.
        scale: factor of all logits.
        margin: m, a difference of cosines, the full margin that a schedule leads to; from 0 to
            below 2.
        num_subcenters: K, centres a speaker.

    Raises:
        ValueError: a number is out of its range.

    >>> loss_fn = AMSoftmax(embed_dim=192, num_speakers=10)
    >>> loss, logits = loss_fn(torch.randn(4, 192), torch.tensor([0, 3, 3, 9]), margin=0.1)
    >>> loss.shape, logits.shape
    (torch.Size([]), torch.Size([4, 10]))
    """

    def __init__(
        self,
        embed_dim: int,
        num_speakers: int,
        scale: float = 30.0,
        margin: float = 0.2,
        num_subcenters: int = 1,
    ):
        super().__init__()
        _check_scale(scale)
        _check_cosine_margin(margin)
        self.scale = scale
        self.margin = margin
        self.centers = make_centers(embed_dim, num_speakers, num_subcenters)

    def forward(
        self, emb: Tensor, speakers: Tensor, margin: float | None = None
    ) -> tuple[Tensor, Tensor]:
        """Compute the loss of a batch.

        Args:
            emb: `(B, E)` embeddings, of any length.
            speakers: `(B,)` integer labels from 0 to N - 1.
            margin: the current margin, a difference of cosines; None for the full one.

        Returns:
            The mean cross entropy `()`, and the scaled logits `(B, N)` with the margin.

        Raises:
            ValueError: a shape does not fit, a label is no speaker, or the margin is out of its
                range.
        """
        margin = self.margin if margin is None else margin
        _check_cosine_margin(margin)
        cosines = self.cosines(emb)  # (B, N)
        target = target_index(speakers, cosines)  # (B, 1)
        logits = self.scale * cosines.scatter(1, target, cosines.gather(1, target) - margin)
        return F.cross_entropy(logits, target.squeeze(1)), logits

    def cosines(self, emb: Tensor) -> Tensor:
        """Compare embeddings `(B, E)` with every speaker: `(B, N)`, see `AAMSoftmax.cosines`."""
        return nearest_cosines(emb, self.centers)

    def predict(self, emb: Tensor) -> Tensor:
        """Name the nearest speaker of each embedding `(B, E)`: `(B,)` labels, without margin."""
        return self.cosines(emb).argmax(dim=1)


def _add_margin(cosine: Tensor, margin: float) -> Tensor:
    """`cos(theta + margin)`, or its straight continuation where that would rise again."""
    past_pi = cosine <= math.cos(math.pi - margin)
    continued = cosine - margin * math.sin(math.pi - margin)
    return torch.where(past_pi, continued, _rotate(cosine, margin))


def _rotate(cosine: Tensor, angle: float) -> Tensor:
    """`cos(theta + angle)` from `cos(theta)`, theta in [0, pi]."""
    # At a sine of 0 the square root has no gradient, and rounding takes cosines past 1.
    sine = (1.0 - cosine.square()).clamp(min=torch.finfo(cosine.dtype).eps).sqrt()
    return cosine * math.cos(angle) - sine * math.sin(angle)


def _check_scale(scale: float) -> None:
    if not 0.0 < scale < math.inf:
        raise ValueError(f"want a positive scale, got {scale}")


def _check_cosine_margin(margin: float) -> None:
    if not 0.0 <= margin < 2.0:  # two cosines are no further apart
        raise ValueError(f"want margin in [0, 2), a difference of cosines, got {margin}")


def _check_angle(name: str, angle: float) -> None:
    if not 0.0 <= angle < math.pi:
        raise ValueError(f"want {name} in [0, pi) radians, got {angle}")
