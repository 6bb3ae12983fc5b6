"""The gradient of projected layers, kept as the few numbers it consists of.

Of the L * D projected values of a frame, the maximum over layers passes D on, and the maximum
over each head passes L * H on; the mean over each head gives one number to d values alike. A
product with the inputs that knows this does a twentieth of the dense product's arithmetic.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class HeadGradient(NamedTuple):
    """The gradient of `h (m, L, H, d)`, m frames, H heads of d, `D = H * d`."""

    layer: Tensor  # (m, D) integers: the layer that was chosen for each value
    value: Tensor  # (m, D): the gradient that arrives there
    peak: Tensor  # (m, L, H) integers: where in its d values each head is largest
    view: Tensor  # (2, m, L, H): the gradients of the heads' means and maxima

    def take(self, part: slice) -> "HeadGradient":
        """The gradient of some of the frames."""
        return HeadGradient(self.layer[part], self.value[part], self.peak[part],
                            self.view[:, part])


def to_dense(grad: HeadGradient) -> Tensor:
    """Write the gradient out.

    Args:
        grad: of m frames.

    Returns:
        `(m, L, D)`.
    """
    num_frames, num_layers, num_heads = grad.peak.shape
    head_dim = grad.layer.shape[1] // num_heads
    of_mean, of_max = grad.view.unsqueeze(-1)  # (m, L, H, 1) each
    dense = (of_mean / head_dim).repeat(1, 1, 1, head_dim)  # (m, L, H, d)
    dense.scatter_add_(3, grad.peak.long().unsqueeze(-1), of_max)
    dense = dense.view(num_frames, num_layers, -1)  # (m, L, D)
    return dense.scatter_add_(1, grad.layer.long().unsqueeze(1), grad.value.unsqueeze(1))


def sum_rows(grad: HeadGradient) -> Tensor:
    """Add the gradient up over frames and layers: `to_dense(grad).sum(dim=(0, 1))`, `(D,)`."""
    head_dim = grad.layer.shape[1] // grad.peak.shape[2]
    of_mean, of_max = grad.view
    total = grad.value.sum(dim=0) + (of_mean.sum(dim=(0, 1)) / head_dim).repeat_interleave(head_dim)
    return total.index_add_(0, _peak_columns(grad), of_max.flatten())


def multiply_rows(grad: HeadGradient, rows: Tensor) -> Tensor:
    """The gradient of a weight: `to_dense(grad).flatten(0, 1).T @ rows`.

    A bag is a weighted sum of some rows: one bag for each of the D outputs.

    Args:
        grad: of m frames.
        rows: `(m * L, D)`, what the weight was multiplied with, of the gradient's type.

    Returns:
        `(D, D)`.
    """
    num_frames, num_layers, num_heads = grad.peak.shape
    dim = grad.layer.shape[1]
    first_row = torch.arange(0, num_frames * num_layers, num_layers, device=rows.device)
    chosen = (grad.layer.long() + first_row[:, None]).t()  # (D, m), rows of each output
    product = F.embedding_bag(chosen.contiguous(), rows, mode="sum",
                              per_sample_weights=grad.value.t().contiguous())

    of_mean, of_max = grad.view.flatten(1, 2)  # (m * L, H) each
    by_head = of_mean.t() @ rows / (dim // num_heads)  # (H, D), the same for all d of a head
    product.view(num_heads, -1, dim).add_(by_head[:, None])

    column, order = _peak_columns(grad).sort()
    sizes = torch.bincount(column, minlength=dim)
    product += F.embedding_bag(order // num_heads, rows, sizes.cumsum(0) - sizes, mode="sum",
                               per_sample_weights=of_max.flatten()[order])
    return product


def _peak_columns(grad: HeadGradient) -> Tensor:
    """Which of the D outputs each head's maximum is: `(m * L * H,)`."""
    num_heads = grad.peak.shape[2]
    dim = grad.layer.shape[1]
    first = torch.arange(0, dim, dim // num_heads, device=grad.peak.device)  # (H,)
    return (grad.peak + first).flatten()
