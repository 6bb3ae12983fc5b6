"""ResNet34 against loops in numpy."""

import frame_net_checks as checks
import numpy as np
import pytest
import torch
from plain_conv import batch_norm, conv2d, relu
from torch import nn

from wespeaker_lap.models.resnet import ResBlock, ResNet34
from wespeaker_lap.models.time_pool import StatsPool

FIRST_OF_A_STAGE = {3, 7, 13}  # 3 + 4 + 6 + 3 blocks


def small_net() -> ResNet34:
    return ResNet34(11, channels=2)  # two bands are left


def plain_block(block: ResBlock, x: np.ndarray, stride: tuple[int, int]) -> np.ndarray:
    """`(T, F, C)` -> `(T', F', C')`."""
    y = relu(batch_norm(block.norm1, conv2d(block.conv1, x, stride)))
    y = batch_norm(block.norm2, conv2d(block.conv2, y))
    if block.past_conv is not None:
        x = batch_norm(block.past_norm, conv2d(block.past_conv, x, stride))
    return relu(x + y)


def plain_resnet(net: ResNet34, x: np.ndarray) -> np.ndarray:
    """`(T, F)` -> `(ceil(T / 8), out_dim)`: of every frame all bands of channel 0, of 1 ..."""
    x = relu(batch_norm(net.stem_norm, conv2d(net.stem, x[:, :, None])))
    for i, block in enumerate(net.blocks):
        x = plain_block(block, x, (2, 2) if i in FIRST_OF_A_STAGE else (1, 1))
    return x.transpose(0, 2, 1).reshape(len(x), -1)


def test_parameters_as_published():
    """WeSpeaker's ResNet34-TSTP-emb256 has 6.63 M."""
    net = ResNet34(80)
    pool = StatsPool(net.out_dim)
    assert pool.out_dim == 256 * 10 * 2
    total = checks.num_params(net, pool, nn.Linear(pool.out_dim, 256))
    assert total == pytest.approx(6.63e6, rel=0.001)


def test_it_equals_loops():
    checks.check_arithmetic(small_net(), plain_resnet, lengths=[17, 16, 1])


@pytest.mark.parametrize(("in_dim", "num_bands"), [(1, 1), (8, 1), (9, 2), (80, 10), (83, 11)])
def test_frequency_is_rounded_up(in_dim, num_bands):
    net = ResNet34(in_dim, channels=2).eval()
    assert net.out_dim == 16 * num_bands
    assert net(torch.zeros(1, 9, in_dim))[0].shape == (1, 2, net.out_dim)


@pytest.mark.parametrize("lengths", [[17, 16, 1], [9, 8, 7, 15, 24]])
def test_padding_changes_nothing(lengths):
    checks.check_padding(small_net(), lengths)


def test_embeddings_are_the_same_alone():
    net = small_net()
    checks.check_embeddings(net, StatsPool(net.out_dim), lengths=[40, 25, 16, 1])


def test_padding_stays_out_of_batch_statistics():
    checks.check_training_leaves_padding_out(small_net, lengths=[20, 8, 1])


def test_padding_comes_out_as_zeros():
    frames, lengths = small_net().eval()(torch.full((2, 24, 11), 3.0), torch.tensor([24, 9]))
    assert lengths.tolist() == [3, 2]
    assert frames[1, :2].any() and not frames[1, 2:].any()


def test_every_parameter_learns():
    checks.check_every_parameter_learns(small_net(), num_frames=20)


def test_bfloat16():
    checks.check_bfloat16(small_net(), num_frames=20)


@pytest.mark.parametrize("shape", [(2, 11), (2, 4, 3), (2, 0, 11), (2, 3, 5, 11)])
def test_wrong_shapes_are_an_error(shape):
    with pytest.raises(ValueError, match=r"want \(B, T, 11\)"):
        small_net()(torch.zeros(shape))
