"""MFA-Conformer, its blocks and its attention against loops in numpy, float64."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from wespeaker_lap.models.conformer import ConformerBlock, GatedConv
from wespeaker_lap.models.layer_pool import WeightedSum
from wespeaker_lap.models.mfa_conformer import MFAConformer
from wespeaker_lap.models.relative_attention import (
    RelativeAttention,
    align_distances,
    encode_distances,
)
from wespeaker_lap.models.speaker_net import SpeakerNet
from wespeaker_lap.models.time_pool import ASTP

SMALL = {"num_blocks": 2, "block_dim": 8, "num_heads": 2, "ffn_dim": 6, "kernel_size": 5,
         "dropout": 0.0}


def randomise(module: nn.Module) -> nn.Module:
    """Give every parameter and statistic a value of its own, so that none can be forgotten."""
    generator = torch.Generator().manual_seed(0)
    module.double()
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            low, high = (0.5, 1.5) if "running_var" in name else (-1.0, 1.0)
            value.uniform_(low, high, generator=generator)
    return module


def random_input(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def array(parameter: torch.Tensor) -> np.ndarray:
    return parameter.detach().numpy()


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def linear(x: np.ndarray, layer: nn.Linear) -> np.ndarray:
    out = x @ array(layer.weight).T
    return out if layer.bias is None else out + array(layer.bias)


def layer_norm(x: np.ndarray, norm: nn.LayerNorm) -> np.ndarray:
    x = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + norm.eps)
    return x * array(norm.weight) + array(norm.bias)


def position(distance: int, dim: int) -> np.ndarray:
    out = np.empty(dim)
    for i in range(0, dim, 2):
        out[i] = math.sin(distance / 10000 ** (i / dim))
        out[i + 1] = math.cos(distance / 10000 ** (i / dim))
    return out


def reference_attention(x: np.ndarray, module: RelativeAttention) -> np.ndarray:
    """One utterance `(n, dim)`, query by query and key by key."""
    num_frames, dim = x.shape
    d = dim // module.num_heads
    query, key, value = np.split(linear(x, module.project_frames), 3, axis=1)
    heads = np.empty((num_frames, dim))
    for h in range(module.num_heads):
        part = slice(h * d, (h + 1) * d)
        u, v = array(module.content_bias)[h], array(module.distance_bias)[h]
        for i in range(num_frames):
            scores = []
            for j in range(num_frames):
                r = linear(position(i - j, dim), module.project_distances)[part]
                q = query[i, part]
                scores.append(((q + u) @ key[j, part] + (q + v) @ r) / math.sqrt(d))
            weights = np.exp(scores) / np.exp(scores).sum()
            heads[i, part] = sum(w * value[j, part] for j, w in enumerate(weights))
    return linear(heads, module.out)


def reference_conv(utts: list[np.ndarray], module: GatedConv) -> list[np.ndarray]:
    weight, bias = array(module.depthwise.weight)[:, 0], array(module.depthwise.bias)
    width = weight.shape[1]
    convolved = []
    for x in utts:
        content, gate = np.split(linear(x, module.expand), 2, axis=1)
        gated = content * sigmoid(gate)
        out = np.tile(bias, (len(x), 1))
        for t in range(len(x)):
            for k in range(width):
                s = t + k - width // 2
                if 0 <= s < len(x):
                    out[t] += weight[:, k] * gated[s]
        convolved.append(out)
    rows, norm = np.concatenate(convolved), module.norm
    mean, var = array(norm.running_mean), array(norm.running_var)
    if norm.training:
        mean, var = rows.mean(axis=0), rows.var(axis=0)
    normed = [(x - mean) / np.sqrt(var + norm.eps) * array(norm.weight) + array(norm.bias)
              for x in convolved]
    return [linear(x * sigmoid(x), module.project) for x in normed]


def reference_block(utts: list[np.ndarray], block: ConformerBlock) -> list[np.ndarray]:
    def ffn(x, net):
        hidden = linear(layer_norm(x, net[0]), net[1])
        return linear(hidden * sigmoid(hidden), net[4])

    utts = [x + ffn(x, block.first_ffn) / 2 for x in utts]
    utts = [x + reference_attention(layer_norm(x, block.attention_norm), block.attention)
            for x in utts]
    conv = reference_conv([layer_norm(x, block.conv_norm) for x in utts], block.conv)
    utts = [x + c for x, c in zip(utts, conv, strict=True)]
    return [layer_norm(x + ffn(x, block.last_ffn) / 2, block.norm) for x in utts]


def reference_subsampling(x: np.ndarray, net: MFAConformer) -> np.ndarray:
    """`(n, F)` -> `(n', d)`, window by window."""
    weight, bias = array(net.subsample.weight)[:, 0], array(net.subsample.bias)
    frames = []
    for t in range((len(x) - 1) // 2):
        bands = [np.maximum([(w * x[2 * t : 2 * t + 3, 2 * f : 2 * f + 3]).sum() for w in weight]
                            + bias, 0.0) for f in range((x.shape[1] - 1) // 2)]
        frames.append(np.array(bands).T.flatten())  # channels, then bands
    return linear(np.array(frames), net.in_linear) * math.sqrt(net.in_linear.out_features)


def reference_mfa(utts: list[np.ndarray], net: MFAConformer):
    x, scales = [reference_subsampling(utt, net) for utt in utts], []
    for block in net.blocks:
        x = reference_block(x, block)
        scales.append(x)
    frames = [np.concatenate(parts, axis=1) for parts in zip(*scales, strict=True)]
    return [layer_norm(utt, net.norm) for utt in frames], scales


@pytest.mark.parametrize("num_frames", [1, 2, 7])
def test_attention_equals_a_double_loop(num_frames):
    module = randomise(RelativeAttention(8, num_heads=2))
    x = random_input(2, num_frames, 8)
    got = module(x, encode_distances(num_frames, 8, dtype=torch.float64))
    want = [reference_attention(utt.numpy(), module) for utt in x]
    np.testing.assert_allclose(got.detach(), want, rtol=1e-10)


def test_distances_are_aligned():
    columns = torch.arange(5 - 1, -5, -1).expand(2, 5, 9)
    want = torch.arange(5).unsqueeze(1) - torch.arange(5)
    assert torch.equal(align_distances(columns), want.expand(2, 5, 5))
    assert align_distances(torch.tensor([[[7.0]]])).tolist() == [[[7.0]]]


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("lengths", [None, [14, 9, 3]])
def test_mfa_conformer_equals_loops(training, lengths):
    net = randomise(MFAConformer(10, **SMALL)).train(training)
    x = random_input(3, 14, 10)
    utts = [utt[:n].numpy() for utt, n in zip(x, lengths or [14] * 3, strict=True)]
    want, want_scales = reference_mfa(utts, net)
    got, new_lengths, scales = net(
        x, None if lengths is None else torch.tensor(lengths), return_scales=True)
    assert got.shape == (3, 6, net.out_dim) and len(scales) == 2
    assert [s.shape[2] for s in scales] == net.scale_dims
    assert new_lengths is None if lengths is None else new_lengths.tolist() == [6, 4, 1]
    for i, utt in enumerate(want):
        n = len(utt)
        np.testing.assert_allclose(got[i, :n].detach(), utt, rtol=1e-8, atol=1e-10)
        assert not got[i, n:].any()
        for scale, want_scale in zip(scales, want_scales, strict=True):
            np.testing.assert_allclose(scale[i, :n].detach(), want_scale[i], rtol=1e-8, atol=1e-10)
            assert not scale[i, n:].any()


def test_parameter_count_of_the_paper():
    """Counted piece by piece; published: 19.8 M to 20.5 M."""
    net = SpeakerNet(WeightedSum(1, 80), ASTP(1536, reduction=1 / 12), embed_dim=192,
                     frame_net=MFAConformer(80))
    count = sum(p.numel() for p in net.parameters()) - 1  # the one layer's weight
    d, ffn, wide = 256, 2048, 6 * 256
    block = 2 * (2 * d + (d + 1) * ffn + (ffn + 1) * d)  # both feed-forward networks
    block += 2 * d + 4 * (d + 1) * d + d * d + 2 * d  # attention: 4 linears, positions, u, v
    block += 2 * d + (d + 1) * 2 * d + (15 + 1) * d + 2 * d + (d + 1) * d  # convolution
    block += 2 * d  # the norm at the end
    subsampling = (9 + 1) * d + (39 * d + 1) * d
    pooling = (3 * wide + 1) * 128 + 2 * 128 + (128 + 1) * wide
    embedding = 2 * 2 * wide + (2 * wide + 1) * 192 + 2 * 192
    assert count == subsampling + 6 * block + 2 * wide + pooling + embedding
    assert 19.5e6 < count < 20.5e6


def test_padding_changes_nothing():
    net = randomise(MFAConformer(10, **SMALL)).eval()
    x, lengths = random_input(4, 17, 10), torch.tensor([17, 10, 9, 3])
    padded = x.clone()
    for utt, n in zip(padded, lengths, strict=True):
        utt[n:] = torch.tensor([torch.nan, torch.inf, -torch.inf, 1e300, *range(6)])
    padded.requires_grad_()
    got, new_lengths = net(padded, lengths)
    got.square().sum().backward()
    parameter_grads = [p.grad.clone() for p in net.parameters()]
    assert all(grad.isfinite().all() for grad in parameter_grads)
    for utt, n, frames, m, grad in zip(x, lengths, got, new_lengths, padded.grad, strict=True):
        alone = utt[None, :n].clone().requires_grad_()
        want, none = net(alone)
        assert none is None
        want.square().sum().backward()
        torch.testing.assert_close(frames[:m], want[0], rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(grad[:n], alone.grad[0], rtol=1e-8, atol=1e-10)
        assert not frames[m:].any() and not grad[n:].any()


def test_an_embedding_is_the_same_alone_and_in_a_batch():
    torch.manual_seed(0)
    net = SpeakerNet(WeightedSum(1, 20), ASTP(64), 8, frame_net=MFAConformer(20, 2, 32, 4, 64))
    for _ in range(3):  # running statistics away from 0 and 1
        net(3 * torch.randn(8, 12, 1, 20) + 1)
    net.eval()
    lengths = torch.tensor([8, 19, 3])
    feats = torch.randn(3, 19, 1, 20)
    alone = torch.cat([net(utt[None, :n]) for utt, n in zip(feats, lengths, strict=True)])
    torch.testing.assert_close(net(feats, lengths), alone, rtol=1e-5, atol=1e-5)


def test_moving_an_utterance_in_time_moves_its_frames():
    """Positions are relative: far from the borders attention alone sees the same either way."""
    module = randomise(RelativeAttention(8, num_heads=2))
    x = random_input(1, 6, 8)
    longer = torch.cat((random_input(1, 3, 8), x), dim=1)
    mask = torch.tensor([[False] * 3 + [True] * 6])
    got = module(longer, encode_distances(9, 8, dtype=torch.float64), mask)[:, 3:]
    torch.testing.assert_close(got, module(x, encode_distances(6, 8, dtype=torch.float64)))


def test_every_parameter_learns():
    net = SpeakerNet(WeightedSum(1, 10), ASTP(16), embed_dim=4, frame_net=MFAConformer(10, **SMALL))
    x, lengths = torch.randn(8, 19, 1, 10), torch.arange(19, 3, -2)
    (net(x, lengths) * torch.randn(8, 4)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    # Not the biases: one before a batch norm or a softmax over time has a zero gradient.
    assert all(p.grad.any() for n, p in net.named_parameters()
               if n.endswith("weight") or "distance" in n)


def test_distances_are_rounded_once():
    """An angle of 1000 in bf16 could be 4 radians off."""
    want = np.array([[np.sin(d), np.cos(d), np.sin(d / 100), np.cos(d / 100)]
                     for d in range(1000, -1001, -1)])
    got = encode_distances(1001, 4, dtype=torch.bfloat16)
    assert got.dtype == torch.bfloat16
    np.testing.assert_allclose(got.float(), want, atol=2**-8)


def test_gradients():
    net = randomise(MFAConformer(6, **{**SMALL, "num_blocks": 1})).eval()
    x = random_input(2, 9, 6).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: net(x, torch.tensor([9, 5]))[0], x)


def test_half_precision_is_close():
    torch.manual_seed(0)
    net = MFAConformer(20, 2, 32, 4, 64)
    x, lengths = torch.randn(4, 21, 20), torch.tensor([21, 21, 12, 3])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        frames, _ = net(x, lengths)
        frames.float().square().sum().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())
    want, _ = net.eval()(x, lengths)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got, _ = net(x, lengths)
    assert (got.float() - want).abs().mean() < 0.02


def test_dropout_is_in_training_only():
    net = MFAConformer(10, **{**SMALL, "dropout": 0.5})
    x = torch.randn(2, 9, 10)
    assert not torch.allclose(net(x)[0], net(x)[0])
    net.eval()
    assert torch.equal(net(x)[0], net(x)[0])


@pytest.mark.parametrize("shape", [(2, 10), (2, 9, 11), (2, 9, 1, 10)])
def test_wrong_shapes_are_an_error(shape):
    with pytest.raises(ValueError, match=r"want \(B, T, 10\)"):
        MFAConformer(10, **SMALL)(torch.zeros(shape))


@pytest.mark.parametrize(("num_frames", "lengths"), [(2, None), (1, [1, 1]), (9, [9, 2])])
def test_utterances_shorter_than_a_window_are_an_error(num_frames, lengths):
    net = MFAConformer(10, **SMALL)
    with pytest.raises(ValueError, match="want utterances of 3 frames or more"):
        net(torch.zeros(2, num_frames, 10), None if lengths is None else torch.tensor(lengths))


@pytest.mark.parametrize("options", [{"num_blocks": 0}, {"block_dim": 7}, {"num_heads": 3},
                                     {"kernel_size": 4}, {"in_dim": 2}, {"ffn_dim": 0}])
def test_impossible_options_are_an_error(options):
    with pytest.raises(ValueError, match="want"):
        MFAConformer(**{"in_dim": 10, **SMALL, **options})
