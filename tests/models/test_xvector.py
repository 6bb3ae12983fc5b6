"""The x-vector's frame layers against loops in numpy."""

import frame_net_checks as checks
import numpy as np
import pytest
import torch
from plain_conv import batch_norm, conv1d, relu
from torch import nn

from wespeaker_lap.models.time_pool import StatsPool
from wespeaker_lap.models.xvector import TdnnLayer, XVector


def small_net() -> XVector:
    return XVector(6, channels=5, out_dim=7)


def plain_xvector(net: XVector, x: np.ndarray) -> np.ndarray:
    """`(T, F)` -> `(T, out_dim)`; dilations as in table 1 of the paper."""
    for layer, dilation in zip(net.layers, (1, 2, 3, 1, 1), strict=True):
        x = batch_norm(layer.norm, relu(conv1d(layer.conv, x, dilation=dilation)))
    return x


def test_parameters_as_published():
    """WeSpeaker's XVEC-TSTP-emb512 has 4.61 M: two linear layers behind the pooling."""
    net, pool = XVector(80), StatsPool(1500)
    first, second = nn.Linear(pool.out_dim, 512), nn.Linear(512, 512)
    total = checks.num_params(net, pool, first, nn.BatchNorm1d(512), second)
    assert total == pytest.approx(4.61e6, rel=0.005)


def test_it_equals_loops():
    checks.check_arithmetic(small_net(), plain_xvector, lengths=[20, 9, 1])


def test_an_output_sees_fifteen_frames():
    net = small_net().eval().double()
    x = torch.randn(1, 31, 6, dtype=torch.float64, requires_grad=True)
    net(x)[0][0, 15].sum().backward()
    assert x.grad[0].any(dim=1).nonzero().flatten().tolist() == list(range(8, 23))


def test_padding_changes_nothing():
    checks.check_padding(small_net(), lengths=[20, 9, 1])


def test_embeddings_are_the_same_alone():
    net = small_net()
    checks.check_embeddings(net, StatsPool(net.out_dim), lengths=[40, 25, 16, 1])


def test_padding_stays_out_of_batch_statistics():
    checks.check_training_leaves_padding_out(small_net, lengths=[12, 5, 1])


def test_padding_comes_out_as_zeros():
    frames, _ = small_net()(torch.full((2, 6, 6), 3.0), torch.tensor([6, 4]))
    assert frames[1, :4].any() and not frames[1, 4:].any()


def test_every_parameter_learns():
    checks.check_every_parameter_learns(small_net(), num_frames=10)


def test_bfloat16():
    checks.check_bfloat16(small_net(), num_frames=10)


@pytest.mark.parametrize("shape", [(2, 6), (2, 4, 3), (2, 0, 6), (2, 3, 5, 6)])
def test_wrong_shapes_are_an_error(shape):
    with pytest.raises(ValueError, match=r"want \(B, T, 6\)"):
        small_net()(torch.zeros(shape))


def test_an_even_context_is_an_error():
    with pytest.raises(ValueError, match="want an odd context, got 4"):
        TdnnLayer(6, 5, context=4)
