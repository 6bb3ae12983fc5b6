"""The gradient in few numbers against loops that write it out."""

import numpy as np
import pytest
import torch

from wespeaker_lap.models.head_gradient import HeadGradient, multiply_rows, sum_rows, to_dense


def make_gradient(num_frames: int, num_layers: int, num_heads: int, head_dim: int) -> HeadGradient:
    dim = num_heads * head_dim
    torch.manual_seed(0)
    return HeadGradient(
        layer=torch.randint(0, num_layers, (num_frames, dim), dtype=torch.uint8),
        value=torch.randn(num_frames, dim, dtype=torch.float64),
        peak=torch.randint(0, head_dim, (num_frames, num_layers, num_heads), dtype=torch.uint8),
        view=torch.randn(2, num_frames, num_layers, num_heads, dtype=torch.float64),
    )


def write_out(grad: HeadGradient) -> np.ndarray:
    """Entry by entry: `(m, L, D)`."""
    num_frames, num_layers, num_heads = grad.peak.shape
    head_dim = grad.layer.shape[1] // num_heads
    dense = np.zeros((num_frames, num_layers, num_heads * head_dim))
    for m in range(num_frames):
        for column, layer in enumerate(grad.layer[m].tolist()):
            dense[m, layer, column] += float(grad.value[m, column])
        for layer in range(num_layers):
            for head in range(num_heads):
                of_mean, of_max = grad.view[:, m, layer, head].tolist()
                first = head * head_dim
                dense[m, layer, first : first + head_dim] += of_mean / head_dim
                dense[m, layer, first + int(grad.peak[m, layer, head])] += of_max
    return dense


@pytest.mark.parametrize("sizes", [(4, 5, 3, 4), (1, 1, 2, 3), (3, 2, 6, 1), (2, 40, 1, 200)])
def test_products_are_those_of_the_dense_gradient(sizes):
    grad = make_gradient(*sizes)
    dense = write_out(grad)
    rows = torch.randn(sizes[0] * sizes[1], dense.shape[2], dtype=torch.float64)
    want = dense.reshape(len(rows), -1).T @ rows.numpy()
    np.testing.assert_allclose(to_dense(grad), dense, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(multiply_rows(grad, rows), want, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(sum_rows(grad), dense.sum(axis=(0, 1)), rtol=1e-11, atol=1e-12)


def test_take_takes_frames():
    grad = make_gradient(6, 3, 2, 2)
    np.testing.assert_array_equal(to_dense(grad.take(slice(2, 5))), to_dense(grad)[2:5])
