"""What the softmax losses share: a speaker's centres, cosines with them, checked labels."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def make_centers(embed_dim: int, num_speakers: int, num_subcenters: int) -> nn.Parameter:
    """Draw `(N, K, E)` Xavier-uniform centres.

    Raises:
        ValueError: a size below 1.
    """
    if min(embed_dim, num_speakers, num_subcenters) < 1:
        raise ValueError("want embed_dim, num_speakers, num_subcenters >= 1, got "
                         f"{embed_dim}, {num_speakers} and {num_subcenters}")
    centers = torch.empty(num_speakers, num_subcenters, embed_dim)
    nn.init.xavier_uniform_(centers.flatten(0, 1))
    return nn.Parameter(centers)


def nearest_cosines(emb: Tensor, centers: Tensor) -> Tensor:
    """Compare embeddings with the nearest centre of every speaker.

    Args:
        emb: `(B, E)`.
        centers: `(N, K, E)`.

    Returns:
        `(B, N)` cosines, the largest over K, float32 or float64 even under autocast.

    Raises:
        ValueError: `emb` has another shape.
    """
    check_embeddings(emb, centers)
    num_speakers, num_subcenters, _ = centers.shape
    # The number below 1 is the cosine of 0.03 radians in float16 and of 0.09 in bfloat16.
    with torch.autocast(emb.device.type, enabled=False):
        directions = F.normalize(widen(centers).flatten(0, 1), dim=1)  # (N * K, E)
        cosines = F.linear(F.normalize(widen(emb), dim=1), directions)  # (B, N * K)
    return cosines.view(-1, num_speakers, num_subcenters).amax(dim=2)


def target_index(speakers: Tensor, logits: Tensor) -> Tensor:
    """Check labels and shape them for gather and scatter.

    Args:
        speakers: `(B,)` integers from 0 to N - 1.
        logits: `(B, N)`, that the labels are about.

    Returns:
        `(B, 1)` int64 on the device of the logits.

    Raises:
        ValueError: another shape or type, or a label that is no speaker.
    """
    batch_size, num_speakers = logits.shape
    if speakers.shape != (batch_size,) or speakers.is_floating_point():
        raise ValueError(
            f"want speakers as ({batch_size},) integers, "
            f"got {tuple(speakers.shape)} of {speakers.dtype}"
        )
    low, high = (int(n) for n in speakers.aminmax())
    if low < 0 or high >= num_speakers:
        raise ValueError(
            f"want speaker labels from 0 to {num_speakers - 1}, got {low} to {high}: "
            "were the labels made from another speaker list?"
        )
    return speakers.long().to(logits.device).unsqueeze(1)


def check_embeddings(emb: Tensor, centers: Tensor) -> None:
    """Want `(B, E)` embeddings for `(N, K, E)` centres."""
    embed_dim = centers.shape[2]
    if emb.dim() != 2 or emb.shape[1] != embed_dim or len(emb) == 0:
        raise ValueError(f"want (B, {embed_dim}) with B >= 1, got {tuple(emb.shape)}")


def widen(x: Tensor) -> Tensor:
    """Make narrower floats float32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
