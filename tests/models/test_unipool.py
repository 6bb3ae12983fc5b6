"""UniPool and the D3Net in it against loops in numpy, float64."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from wespeaker_lap.models.d3net import ChannelAttention, D2Block, LayerScaling, MultiDilatedConv
from wespeaker_lap.models.speaker_net import SpeakerNet
from wespeaker_lap.models.time_pool import ASTP
from wespeaker_lap.models.unipool import UniPool

SMALL = {"num_layers": 5, "in_dim": 6, "out_dim": 6, "channels": 2, "num_heads": 3, "dropout": 0.0}


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


def numbers(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy() for name, value in module.state_dict().items()}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def batch_norm(utts: list[np.ndarray], norm: nn.BatchNorm1d) -> list[np.ndarray]:
    """Batch norm of utterances `[(n, L, C)]`, over all their frames and layers."""
    rows = np.concatenate([utt.reshape(-1, utt.shape[-1]) for utt in utts])
    p = numbers(norm)
    mean, var = p["running_mean"], p["running_var"]
    if norm.training:
        mean, var = rows.mean(axis=0), rows.var(axis=0)
    return [(utt - mean) / np.sqrt(var + norm.eps) * p["weight"] + p["bias"] for utt in utts]


def linear(utt: np.ndarray, layer: nn.Linear) -> np.ndarray:
    out = utt @ layer.weight.detach().numpy().T
    return out if layer.bias is None else out + layer.bias.detach().numpy()


def convolve(utt: np.ndarray, conv: nn.Conv2d, dilation: int) -> np.ndarray:
    """`(n, L, C)`, 3 x 3 over frames and layers, tap by tap; nothing beyond the borders."""
    num_frames, num_layers, _ = utt.shape
    weight, bias = conv.weight.detach().numpy(), conv.bias.detach().numpy()
    out = np.zeros((num_frames, num_layers, len(bias)))
    for t in range(num_frames):
        for layer in range(num_layers):
            out[t, layer] = bias
            for i in range(3):
                for j in range(3):
                    s, m = t + (i - 1) * dilation, layer + (j - 1) * dilation
                    if 0 <= s < num_frames and 0 <= m < num_layers:
                        out[t, layer] += weight[:, :, i, j] @ utt[s, m]
    return out


def reference_scaling(utt: np.ndarray, scaling: LayerScaling) -> np.ndarray:
    p = numbers(scaling)
    out = np.empty_like(utt)
    for layer in range(utt.shape[1]):
        weights = np.exp(p["mix_logits"][layer])
        weights /= weights.sum()
        for t in range(len(utt)):
            seen = sum(w * x for w, x in zip(weights, utt[t], strict=True))
            gate = sigmoid(p["gate_weight"][layer] @ seen + p["gate_bias"][layer])
            out[t, layer] = gate * utt[t, layer]
    return out


def reference_multi_dilated(skips: list[list[np.ndarray]],
                            module: MultiDilatedConv) -> list[np.ndarray]:
    """`skips[i]`: the utterances of the i-th input, whose dilation is `2^i`."""
    total = [0.0] * len(skips[0])
    for i, utts in enumerate(skips):
        for b, utt in enumerate(batch_norm(utts, module.norms[i])):
            total[b] = total[b] + convolve(np.maximum(utt, 0.0), module.convs[i], 2**i)
    return total


def reference_d2(utts: list[np.ndarray], block: D2Block) -> list[np.ndarray]:
    skips = [[linear(utt, block.squeeze) for utt in utts]]
    for conv in block.convs:
        skips.append(reference_multi_dilated(skips, conv))
    return [np.concatenate([skip[b] for skip in skips], axis=-1) for b in range(len(utts))]


def reference_attention(utts: list[np.ndarray], attention: ChannelAttention) -> list[np.ndarray]:
    logits = 0.0
    for net, view in ((attention.of_mean, np.mean), (attention.of_max, np.max)):
        squeezed = [view(utt, axis=(0, 1)) for utt in utts]
        hidden = [np.maximum(linear(u, net[0]), 0.0)[None, None] for u in squeezed]
        logits = logits + np.array([linear(h, net[3])[0, 0] for h in batch_norm(hidden, net[2])])
    return [utt * sigmoid(logit) for utt, logit in zip(utts, logits, strict=True)]


def reference_pool(frame: np.ndarray, p: dict[str, np.ndarray], num_heads: int):
    """One frame `(L, F)` -> `(F,)` and scores `(H, L)`."""
    best, scores = [], []
    for h, head in enumerate(np.split(frame, num_heads, axis=1)):
        logit = 0.0
        for view in (head.mean(axis=1), head.max(axis=1)):
            hidden = np.maximum(view @ p["squeeze_weight"][h] + p["squeeze_bias"][h], 0.0)
            logit = logit + hidden @ p["expand_weight"][h] + p["expand_bias"][h]
        scores.append(sigmoid(logit))
        best.append((scores[-1][:, None] * head).max(axis=0))
    return np.concatenate(best), np.array(scores)


def reference_unipool(pool: UniPool, utts: list[np.ndarray]):
    """Utterances `[(n, L, D)]` -> frames `[(n, F)]` and scores `[(n, H, L - 1)]`."""
    x = batch_norm([linear(utt[:, 1:], pool.in_linear) for utt in utts], pool.in_norm)
    outputs = []
    for block in pool.blocks:
        x = [reference_scaling(utt, block.scaling) for utt in x]
        residual = reference_attention(reference_d2(x, block.dense), block.attention)
        x = [utt + res for utt, res in zip(x, residual, strict=True)]
        outputs.append(x)
    x = [np.concatenate(parts, axis=-1) for parts in zip(*outputs, strict=True)]
    attention = pool.pool
    x = [linear(utt, attention.in_linear) for utt in batch_norm(x, attention.in_norm)]
    p = numbers(attention)
    pooled = [[reference_pool(frame, p, attention.num_heads) for frame in utt] for utt in x]
    frames = [linear(np.array([best for best, _ in utt]), attention.out_linear) for utt in pooled]
    normed = batch_norm([utt[:, None] for utt in frames], attention.out_norm)
    return [utt[:, 0] for utt in normed], [np.array([s for _, s in utt]) for utt in pooled]


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("lengths", [None, [10, 3, 1]])
@pytest.mark.parametrize("num_blocks", [1, 2])
def test_unipool_equals_a_loop(training, lengths, num_blocks):
    pool = randomise(UniPool(**SMALL, num_blocks=num_blocks)).train(training)
    x = random_input(3, 10, 5, 6)
    utts = [utt[:n].numpy() for utt, n in zip(x, lengths or [10] * 3, strict=True)]
    want, want_scores = reference_unipool(pool, utts)
    got, scores = pool(x, None if lengths is None else torch.tensor(lengths), return_scores=True)
    assert got.shape == (3, 10, 6) and scores.shape == (3, 10, 3, 5)
    for i, utt in enumerate(utts):
        n = len(utt)
        np.testing.assert_allclose(got[i, :n].detach(), want[i], rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(scores[i, :n, :, 1:].detach(), want_scores[i], rtol=1e-8)
        assert not got[i, n:].any() and not scores[i, n:].any() and not scores[:, :, :, 0].any()


@pytest.mark.parametrize("num_skips", [1, 2, 3])
def test_multi_dilated_conv_equals_loops(num_skips):
    """Each skip alone reaches as far as its dilation, and no further."""
    module = randomise(MultiDilatedConv(2, (1, 2, 4)[:num_skips])).eval()
    skips = [random_input(1, 11, 9, 2) + i for i in range(num_skips)]
    want = reference_multi_dilated([[skip[0].numpy()] for skip in skips], module)
    np.testing.assert_allclose(module(skips, None)[0].detach(), want[0], rtol=1e-10, atol=1e-12)
    changed = [skip.clone() for skip in skips]
    changed[-1][0, 5, 4] += 3.0
    difference = (module(changed, None) - module(skips, None))[0].abs().sum(dim=-1)  # (T, L)
    reach = 2 ** (num_skips - 1)
    touched = {(t, m) for t, m in difference.nonzero().tolist()}
    assert touched <= {(5 + i * reach, 4 + j * reach) for i in (-1, 0, 1) for j in (-1, 0, 1)}
    assert len(touched) > 1


def test_scaling_by_hand():
    """Two layers of one channel, each looking at both alike: 0.5 * (2 + 4) = 3."""
    scaling = LayerScaling(2, 1)
    nn.init.zeros_(scaling.mix_logits)
    with torch.no_grad():
        scaling.gate_weight.copy_(torch.tensor([[1.0], [-1.0]]))
        scaling.gate_bias.copy_(torch.tensor([-3.0, 4.0]))
    got = scaling(torch.tensor([[[[2.0], [4.0]]]])).flatten()
    torch.testing.assert_close(got, torch.tensor([2 * 0.5, 4 / (1 + math.exp(-1.0))]))


def test_scaling_first_looks_mostly_at_the_layer_itself():
    weights = LayerScaling(4, 3).mix_logits.softmax(dim=1)
    assert (weights.argmax(dim=1) == torch.arange(4)).all()


@pytest.mark.parametrize(("num_layers", "in_dim", "want"), [(13, 768, 2_869_476)])
def test_parameter_count_of_the_paper(num_layers, in_dim, want):
    net = SpeakerNet(UniPool(num_layers, in_dim), ASTP(512), embed_dim=192)
    count = sum(p.numel() for p in net.parameters())
    assert count == want
    assert abs(count / 2.87e6 - 1) < 0.02


def test_the_first_layer_is_never_looked_at():
    pool = randomise(UniPool(**SMALL)).eval()
    x = random_input(2, 4, 5, 6)
    changed = x.clone()
    changed[:, :, 0] = torch.nan
    torch.testing.assert_close(pool(changed), pool(x), rtol=0, atol=0)


@pytest.mark.parametrize("num_blocks", [1, 2])
def test_padding_changes_nothing(num_blocks):
    pool = randomise(UniPool(**SMALL, num_blocks=num_blocks)).eval()
    x, lengths = random_input(3, 12, 5, 6), torch.tensor([12, 7, 1])
    padded = x.clone()
    for utt, n in zip(padded, lengths, strict=True):
        utt[n:] = torch.tensor([torch.nan, torch.inf, -torch.inf, 1e300, 1.0, -5.0])
    padded.requires_grad_()
    got = pool(padded, lengths)
    got.square().sum().backward()
    for utt, n, pooled, grad in zip(x, lengths, got, padded.grad, strict=True):
        alone = utt[None, :n].clone().requires_grad_()
        want = pool(alone)
        want.square().sum().backward()
        torch.testing.assert_close(pooled[:n], want[0], rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(grad[:n], alone.grad[0], rtol=1e-9, atol=1e-11)
        assert not pooled[n:].any() and not grad[n:].any()


def test_every_parameter_learns():
    torch.manual_seed(0)
    net = SpeakerNet(UniPool(**SMALL, num_blocks=2), ASTP(6), embed_dim=4)
    x, lengths = torch.randn(8, 7, 5, 6), torch.tensor([7, 7, 6, 5, 4, 3, 2, 1])
    (net(x, lengths) * torch.randn(8, 4)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    # Not the biases: one before a batch norm or a softmax over time has a zero gradient.
    assert all(p.grad.any() for n, p in net.named_parameters() if n.endswith("weight"))


def test_gradients():
    pool = randomise(UniPool(**SMALL)).eval()
    x = random_input(2, 4, 5, 6).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: pool(x, torch.tensor([4, 2])), x)


def test_half_precision_scores_are_float32():
    pool = UniPool(**SMALL)
    x = torch.randn(4, 9, 5, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        frames, scores = pool(x, torch.tensor([9, 9, 5, 2]), return_scores=True)
        frames.float().square().sum().backward()
    assert scores.dtype == torch.float32 and frames.isfinite().all()
    assert all(p.grad.isfinite().all() for p in pool.parameters())
    want = pool.eval()(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(pool(x).float(), want, rtol=0.1, atol=0.1)


def test_dropout_is_of_scores_in_training_only():
    pool = UniPool(5, 6, out_dim=6, channels=2, num_heads=3, dropout=0.5)
    x = torch.randn(16, 9, 5, 6)
    dropped = (pool(x, return_scores=True)[1][..., 1:] == 0).double().mean()
    assert 0.4 < dropped < 0.6
    assert (pool.eval()(x, return_scores=True)[1][..., 1:] > 0).all()


@pytest.mark.parametrize("shape", [(2, 5, 6), (2, 3, 4, 6), (2, 3, 5, 7)])
def test_wrong_shapes_are_an_error(shape):
    with pytest.raises(ValueError, match=r"want \(B, T, 5, 6\)"):
        UniPool(**SMALL)(torch.zeros(shape))


@pytest.mark.parametrize("options", [{"num_layers": 1}, {"num_heads": 4}, {"num_blocks": 0},
                                     {"channels": 0}, {"out_dim": 0}, {"num_heads": 0}])
def test_impossible_options_are_an_error(options):
    with pytest.raises(ValueError, match="want"):
        UniPool(**{**SMALL, **options})


def test_all_batch_norms_can_become_synchronised():
    pool = nn.SyncBatchNorm.convert_sync_batchnorm(UniPool(**SMALL))
    norms = [m for m in pool.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert len(norms) == 11
    assert all(isinstance(m, nn.SyncBatchNorm) for m in norms)
