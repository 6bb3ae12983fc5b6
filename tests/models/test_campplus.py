"""CAM++'s frame network against loops in numpy."""

import frame_net_checks as checks
import numpy as np
import pytest
import torch
from plain_conv import batch_norm, conv1d, conv2d, relu, sigmoid
from test_resnet import plain_block
from torch import nn

from wespeaker_lap.models.campplus import CamPlusPlus, ConvHead, MaskedConv, mean_segments
from wespeaker_lap.models.time_pool import StatsPool

SEGMENT = 4


def small_net() -> CamPlusPlus:
    return CamPlusPlus(11, growth=2, bottleneck=4, init_channels=6, segment_frames=SEGMENT)


def plain_head(head: ConvHead, x: np.ndarray) -> np.ndarray:
    """`(T, F)` -> `(T, C * ceil(F / 8))`."""
    x = relu(batch_norm(head.stem_norm, conv2d(head.stem, x[:, :, None])))
    for block, step in zip(head.blocks, (2, 1, 2, 1), strict=True):
        x = plain_block(block, x, (1, step))
    x = relu(batch_norm(head.last_norm, conv2d(head.last, x, (1, 2))))
    return x.transpose(0, 2, 1).reshape(len(x), -1)


def plain_masked_conv(conv: MaskedConv, x: np.ndarray, dilation: int) -> np.ndarray:
    """Frame by frame, each looking up the segment it is in."""
    out = conv1d(conv.local, x, dilation=dilation)
    for t in range(len(x)):
        start = t // SEGMENT * SEGMENT
        context = x.mean(axis=0) + x[start : start + SEGMENT].mean(axis=0)
        hidden = relu(conv1d(conv.squeeze, context[None]))
        out[t] *= sigmoid(conv1d(conv.expand, hidden))[0]
    return out


def plain_campplus(net: CamPlusPlus, x: np.ndarray) -> np.ndarray:
    """`(T, F)` -> `(ceil(T / 2), out_dim)`."""
    x = relu(batch_norm(net.stem_norm, conv1d(net.stem, plain_head(net.head, x), stride=2)))
    layers = iter(net.layers)
    for num_layers, dilation in ((12, 1), (24, 2), (16, 2)):
        for _ in range(num_layers):
            layer = next(layers)
            y = conv1d(layer.reduce.conv, relu(batch_norm(layer.reduce.norm, x)))
            y = relu(batch_norm(layer.norm, y))
            x = np.hstack((x, plain_masked_conv(layer.masked, y, dilation)))
        transition = next(layers)
        x = conv1d(transition.conv, relu(batch_norm(transition.norm, x)))
    return relu(batch_norm(net.out_norm, x))


def test_parameters_as_published():
    """7.18 M in the paper, with an embedding of 512 behind the pooling."""
    net = CamPlusPlus(80)
    assert net.out_dim == 512
    pool = StatsPool(net.out_dim)
    total = checks.num_params(net, pool, nn.Linear(pool.out_dim, 512))
    assert total == pytest.approx(7.18e6, rel=0.001)


def test_it_equals_loops():
    checks.check_arithmetic(small_net(), plain_campplus, lengths=[25, 17, 1])


def test_segment_means_by_hand():
    x = torch.tensor([[[1.0, 2, 6, 4, 8, 0, 0], [0.0, 0, 3, 5, 5, 0, 0]]])
    want = torch.tensor([[[3.0, 6.0], [1.0, 5.0]]])
    mask = torch.tensor([[True] * 5 + [False] * 2])
    for means in (mean_segments(x[:, :, :5], None, 3), mean_segments(x, mask, 3)):
        torch.testing.assert_close(means[:, :, :2], want)
        assert not means[:, :, 2:].any()


def test_segments_of_an_exported_graph_fit_any_length():
    conv = MaskedConv(4, 2, dilation=1, segment_frames=5).eval()
    free = torch.export.Dim.AUTO
    exported = torch.export.export(conv, (torch.randn(2, 4, 13), None),
                                   dynamic_shapes=({0: free, 2: free}, None)).module()
    for num_frames in (1, 4, 5, 6, 10, 51):
        x = torch.randn(3, 4, num_frames)
        torch.testing.assert_close(exported(x, None), conv(x, None))


@pytest.mark.parametrize("lengths", [[25, 17, 1], [8, 16, 15, 7]])
def test_padding_changes_nothing(lengths):
    checks.check_padding(small_net(), lengths)


def test_embeddings_are_the_same_alone():
    net = small_net()
    checks.check_embeddings(net, StatsPool(net.out_dim), lengths=[40, 25, 16, 1])


def test_padding_stays_out_of_batch_statistics():
    checks.check_training_leaves_padding_out(small_net, lengths=[20, 8, 1])


def test_padding_comes_out_as_zeros():
    frames, lengths = small_net().eval()(torch.full((2, 24, 11), 3.0), torch.tensor([24, 9]))
    assert lengths.tolist() == [12, 5]
    assert frames[1, :5].any() and not frames[1, 5:].any()


def test_every_parameter_learns():
    wide = CamPlusPlus(6, growth=2, bottleneck=32, init_channels=6)  # no squeeze all below 0
    checks.check_every_parameter_learns(wide, num_frames=20)


def test_bfloat16():
    checks.check_bfloat16(small_net(), num_frames=20)


@pytest.mark.parametrize("shape", [(2, 11), (2, 4, 3), (2, 0, 11), (2, 3, 5, 11)])
def test_wrong_shapes_are_an_error(shape):
    with pytest.raises(ValueError, match=r"want \(B, T, 11\)"):
        small_net()(torch.zeros(shape))


@pytest.mark.parametrize("options", [{"growth": 0}, {"bottleneck": 1}, {"segment_frames": 0}])
def test_impossible_sizes_are_an_error(options):
    with pytest.raises(ValueError, match=r"want in_dim, growth, .* >= 1 and bottleneck >= 2"):
        CamPlusPlus(6, **options)
