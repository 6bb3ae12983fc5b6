"""ECAPA-TDNN's frame network against loops in numpy."""

import frame_net_checks as checks
import numpy as np
import pytest
import torch
from plain_conv import batch_norm, conv1d, linear, random_frames, randomise, relu, sigmoid
from torch import nn

from wespeaker_lap.models.ecapa import EcapaTdnn, SERes2Block
from wespeaker_lap.models.time_pool import ASTP
from wespeaker_lap.models.xvector import TdnnLayer


def small_net() -> EcapaTdnn:
    return EcapaTdnn(6, channels=8, out_dim=5, res2_scale=4, squeeze_dim=3)


def plain_layer(layer: TdnnLayer, x: np.ndarray, dilation: int = 1) -> np.ndarray:
    return batch_norm(layer.norm, relu(conv1d(layer.conv, x, dilation=dilation)))


def plain_block(block: SERes2Block, x: np.ndarray, dilation: int) -> np.ndarray:
    """One SE-Res2 block: `(T, C)` -> `(T, C)`."""
    reduced = plain_layer(block.reduce, x)
    width = reduced.shape[1] // 4
    x1, x2, x3, x4 = (reduced[:, i * width : (i + 1) * width] for i in range(4))
    k2, k3, k4 = block.res2.layers
    y2 = plain_layer(k2, x2, dilation)
    y3 = plain_layer(k3, x3 + y2, dilation)
    y4 = plain_layer(k4, x4 + y3, dilation)
    restored = plain_layer(block.restore, np.hstack((x1, y2, y3, y4)))
    squeezed = relu(linear(block.excite.squeeze, restored.mean(axis=0)))
    return x + restored * sigmoid(linear(block.excite.expand, squeezed))


def plain_scales(net: EcapaTdnn, x: np.ndarray) -> list[np.ndarray]:
    a = plain_layer(net.stem, x)
    b = plain_block(net.blocks[0], a, 2)
    c = plain_block(net.blocks[1], a + b, 3)
    d = plain_block(net.blocks[2], a + b + c, 4)
    return [b, c, d]


def plain_ecapa(net: EcapaTdnn, x: np.ndarray) -> np.ndarray:
    return relu(conv1d(net.aggregate, np.hstack(plain_scales(net, x))))


@pytest.mark.parametrize(("channels", "published"), [(512, 6.19e6), (1024, 14.65e6)])
def test_parameters_as_published(channels, published):
    """WeSpeaker's ECAPA_TDNN_GLOB_c*-ASTP-emb192; 6.2 M and 14.7 M in the paper."""
    net, pool = EcapaTdnn(80, channels), ASTP(1536, reduction=1 / 12)
    assert pool.squeeze.out_features == 128
    tail = nn.BatchNorm1d(pool.out_dim), nn.Linear(pool.out_dim, 192)
    assert checks.num_params(net, pool, *tail) == pytest.approx(published, rel=0.001)


def test_it_equals_loops():
    checks.check_arithmetic(small_net(), plain_ecapa, lengths=[20, 9, 1])


def test_scales_equal_loops():
    net = randomise(small_net())
    assert net.scale_dims == [8, 8, 8]
    x, lengths = checks.pad(random_frames(2, 12, 6), [12, 7]), torch.tensor([12, 7])
    y, _, scales = net(x, lengths, return_scales=True)
    torch.testing.assert_close(y, net(x, lengths)[0])
    for utt, n, *found in zip(x, lengths, *scales, strict=True):
        for got, want in zip(found, plain_scales(net, utt[:n].numpy()), strict=True):
            np.testing.assert_allclose(got[:n].detach(), want, rtol=1e-8, atol=1e-10)
            assert not got[n:].any()


def test_padding_changes_nothing():
    checks.check_padding(small_net(), lengths=[20, 9, 1])


def test_embeddings_are_the_same_alone():
    net = small_net()
    checks.check_embeddings(net, ASTP(net.out_dim), lengths=[40, 25, 16, 1])


def test_padding_stays_out_of_batch_statistics():
    checks.check_training_leaves_padding_out(small_net, lengths=[12, 5, 1])


def test_every_parameter_learns():
    checks.check_every_parameter_learns(small_net(), num_frames=10)


def test_bfloat16():
    checks.check_bfloat16(small_net(), num_frames=10)


@pytest.mark.parametrize("shape", [(2, 6), (2, 4, 3), (2, 0, 6), (2, 3, 5, 6)])
def test_wrong_shapes_are_an_error(shape):
    with pytest.raises(ValueError, match=r"want \(B, T, 6\)"):
        small_net()(torch.zeros(shape))


@pytest.mark.parametrize("scale", [0, 1, 3])
def test_groups_that_do_not_divide_the_channels_are_an_error(scale):
    with pytest.raises(ValueError, match=f"want res2_scale from 2 on to divide .*, got {scale}"):
        EcapaTdnn(6, channels=8, res2_scale=scale)
