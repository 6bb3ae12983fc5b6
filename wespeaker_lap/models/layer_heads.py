"""The large half of layer attentive pooling: project every layer, keep only what is pooled.

The projected layers `(M, L, D)` are the largest thing in a training step, and all that is pooled
of them is D values and L * H views a frame. So they are made block by block, looked at while they
are in the cache, and dropped; nor does the backward need them (see `head_gradient`).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from wespeaker_lap.models.head_gradient import HeadGradient, multiply_rows, sum_rows, to_dense
from wespeaker_lap.models.moments import split_rows

Score = Callable[[Tensor, slice], Tensor]


def project_heads(
    frames: Tensor,
    normal: tuple[Tensor, Tensor] | None,
    linear: tuple[Tensor, Tensor] | None,
    num_heads: int,
    score: Score,
) -> tuple[Tensor, Tensor, Tensor]:
    """Project the layers, view their heads, and let the scores choose a layer for each value.

    `h = W ((x - mean) * scale) + b` per frame and layer, split into H heads of d. The scores are
    here for the choice alone, which has no gradient; they get their own through the views.

    Args:
        frames: `x (M, L, D)`.
        normal: constants mean `(D,)` and scale `(D,)`; None where `x` is normal already.
        linear: `W (D, D)` and `b (D,)`; None for no projection.
        num_heads: H.
        score: `(views (2, m, L, H), slice of the m frames among the M) -> (m, H, L)`.

    Returns:
        views `(2, M, L, H)`, the mean and maximum of each head; the values `(M, D)` of `h` at
        `argmax over layers of score * h`; those layers `(M, D)`, small integers.
    """
    device = frames.device.type
    dtype = frames.dtype if linear is None else linear[0].dtype
    in_autocast = torch.is_autocast_enabled(device)
    product_dtype = torch.get_autocast_dtype(device) if in_autocast else dtype
    with torch.autocast(device, enabled=False):
        return _ProjectHeads.apply(frames, *(normal or (None, None)), *(linear or (None, None)),
                                   num_heads, score, dtype, product_dtype)


class _ProjectHeads(torch.autograd.Function):
    """`project_heads`: `dtype` of what it returns, `product_dtype` of the matrix products."""

    @staticmethod
    def forward(ctx, frames, mean, scale, weight, bias, num_heads, score, dtype, product_dtype):
        num_frames, num_layers, dim = frames.shape
        views = frames.new_empty(2, num_frames, num_layers, num_heads, dtype=dtype)
        value = frames.new_empty(num_frames, dim, dtype=dtype)
        layer = frames.new_empty(num_frames, dim, dtype=_index_type(num_layers))
        peak = frames.new_empty(views.shape[1:], dtype=_index_type(dim // num_heads))
        for part in split_rows(frames):
            rows = _normalise(frames[part], mean, scale, dtype)  # step 1 of LAP: (m * L, D)
            if weight is not None:
                rows = _project(rows, weight, bias, product_dtype).to(dtype)
            heads = rows.view(-1, num_layers, num_heads, dim // num_heads)  # step 2
            views[0, part] = heads.mean(dim=-1)  # step 3: (m, L, H)
            views[1, part], peak[part] = heads.max(dim=-1)
            scores = score(views[:, part], part)  # steps 4 and 5: (m, H, L)
            value[part], layer[part] = _choose_layers(heads, scores)  # step 6: (m, D)
        ctx.save_for_backward(frames, mean, scale, weight, layer, peak)
        ctx.product_dtype = product_dtype
        ctx.mark_non_differentiable(layer)
        return views, value, layer

    @staticmethod
    @once_differentiable
    def backward(ctx, views_grad, value_grad, _):
        frames, mean, scale, weight, layer, peak = ctx.saved_tensors
        wants_frames, _, _, wants_weight, wants_bias = ctx.needs_input_grad[:5]
        grad = HeadGradient(layer, value_grad, peak, views_grad)
        frames_grad = weight_grad = None
        if wants_frames:
            frames_grad = _frames_gradient(grad, frames, scale, weight, ctx.product_dtype)
        if wants_weight:
            weight_grad = _weight_gradient(grad, frames, mean, scale, ctx.product_dtype)
        bias_grad = sum_rows(grad) if wants_bias else None
        return frames_grad, None, None, weight_grad, bias_grad, None, None, None, None


def _weight_gradient(grad: HeadGradient, frames: Tensor, mean: Tensor | None, scale: Tensor | None,
                     product_dtype: torch.dtype) -> Tensor:
    """`(D, D)`: on a CPU from the gradient's few entries, on a GPU as the product it is good at."""
    total = grad.value.new_zeros(frames.shape[2], frames.shape[2])
    # Larger blocks than forward: each adds a whole (D, D) matrix.
    for part in split_rows(frames, enlarge=4):
        rows = _normalise(frames[part], mean, scale, grad.value.dtype)  # (m * L, D)
        if frames.device.type == "cpu":
            total += multiply_rows(grad.take(part), rows)
        else:
            dense = to_dense(grad.take(part)).flatten(0, 1)  # (m * L, D)
            total += dense.to(product_dtype).t() @ rows.to(product_dtype)
    return total


def _frames_gradient(grad: HeadGradient, frames: Tensor, scale: Tensor | None,
                     weight: Tensor | None, product_dtype: torch.dtype) -> Tensor:
    """`(M, L, D)`, mean and scale being constants."""
    total = torch.empty_like(frames)
    for part in split_rows(frames):
        dense = to_dense(grad.take(part))  # (m, L, D)
        if weight is not None:
            dense = _project(dense.flatten(0, 1), weight.t(), None, product_dtype)
        dense = dense.view(-1, *frames.shape[1:])
        total[part] = dense if scale is None else dense * scale
    return total


def _normalise(frames: Tensor, mean: Tensor | None, scale: Tensor | None,
               dtype: torch.dtype) -> Tensor:
    """`(m, L, D)` -> `(m * L, D)`. Centred first: what follows may be rounded to 16 bits."""
    rows = frames.flatten(0, 1).to(dtype)
    return rows if mean is None else (rows - mean).mul_(scale)


def _project(rows: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """`rows @ weight.T + bias` in `dtype`."""
    rows, weight = rows.to(dtype), weight.to(dtype)
    bias = None if bias is None else bias.to(dtype)
    if (rows.device.type == "cpu" and dtype == torch.float32
            and torch.backends.mkldnn.is_available()):
        # oneDNN's product instead of MKL's, which runs at half speed on processors not Intel's.
        return F.linear(rows.to_mkldnn(), weight.contiguous(), bias).to_dense()
    return F.linear(rows, weight, bias)


def _choose_layers(heads: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """`(m, L, H, d)` and `(m, H, L)` -> the values and the layers of the largest products.

    Both `(m, D)`; the lowest layer of equal ones. `max(dim=1)` finds the layers too, at four
    times the time: it goes value by value.
    """
    num_layers = heads.shape[1]
    products = heads * scores.transpose(1, 2).unsqueeze(-1)  # (m, L, H, d)
    is_best = products == products.amax(dim=1, keepdim=True)
    codes = torch.arange(num_layers, 0, -1, device=heads.device,
                         dtype=_index_type(num_layers + 1))  # L, L - 1 ... 1
    layer = num_layers - (is_best * codes.view(-1, 1, 1)).amax(dim=1)  # (m, H, d)
    layer.clamp_(max=num_layers - 1)  # NaN equals nothing, but must not lead outside
    value = heads.gather(1, layer.long().unsqueeze(1))  # (m, 1, H, d)
    return value.flatten(1), layer.flatten(1)


def _index_type(size: int) -> torch.dtype:
    """The smallest integers that count to `size`, excluded."""
    return torch.uint8 if size <= 256 else torch.int32
