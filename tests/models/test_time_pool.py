"""StatsPool and ASTP against loops in numpy, float64."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from wespeaker_lap.models.time_pool import ASTP, StatsPool


def random_input(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def random_astp(in_dim: int, **options) -> ASTP:
    pool = ASTP(in_dim, **options).double()
    generator = torch.Generator().manual_seed(0)
    for name, value in pool.state_dict().items():
        if value.is_floating_point():
            low, high = (0.5, 1.5) if "running_var" in name else (-1.0, 1.0)
            value.uniform_(low, high, generator=generator)
    return pool


def reference_statistics(values, weights) -> tuple[float, float]:
    mean = sum(w * v for w, v in zip(weights, values, strict=True))
    variance = sum(w * (v - mean) ** 2 for w, v in zip(weights, values, strict=True))
    return mean, math.sqrt(max(variance, 1e-4))


def reference_stats(utt: np.ndarray) -> np.ndarray:
    """One utterance `(n, F)` -> `(2F,)`."""
    stats = [reference_statistics(channel, [1 / len(utt)] * len(utt)) for channel in utt.T]
    return np.array([m for m, _ in stats] + [s for _, s in stats])


def reference_astp(pool: ASTP, utts: list[np.ndarray]) -> np.ndarray:
    """Unpadded utterances `[(n, F)]` -> `(B, 2F)`, without frame dropout."""
    w1, b1, w2, b2 = (p.detach().numpy() for p in (
        pool.squeeze.weight, pool.squeeze.bias, pool.expand.weight, pool.expand.bias))
    hidden = [
        np.array([np.maximum(w1 @ np.concatenate((frame, reference_stats(utt))) + b1, 0.0)
                  for frame in utt])
        for utt in utts
    ]
    if pool.training:
        every_frame = np.concatenate(hidden)
        mean, var = every_frame.mean(axis=0), every_frame.var(axis=0)
    else:
        mean, var = pool.norm.running_mean.numpy(), pool.norm.running_var.numpy()
    gamma, beta = pool.norm.weight.detach().numpy(), pool.norm.bias.detach().numpy()
    out = []
    for utt, h in zip(utts, hidden, strict=True):
        logits = ((h - mean) / np.sqrt(var + pool.norm.eps) * gamma + beta) @ w2.T + b2
        weights = np.exp(logits) / np.exp(logits).sum(axis=0)
        stats = [reference_statistics(utt[:, c], weights[:, c]) for c in range(utt.shape[1])]
        out.append([m for m, _ in stats] + [s for _, s in stats])
    return np.array(out)


def test_stats_pool_by_hand():
    x = torch.tensor([[[1.0, 5.0], [3.0, 5.0]], [[2.0, -1.0], [777.0, 777.0]]])
    got = StatsPool(2)(x, torch.tensor([2, 1]))
    want = [[2.0, 5.0, 1.0, 0.01], [2.0, -1.0, 0.01, 0.01]]  # 0.01: root of the variance floor
    torch.testing.assert_close(got, torch.tensor(want))


@pytest.mark.parametrize("lengths", [None, [6, 3, 1]])
def test_stats_pool_equals_a_loop(lengths):
    x = random_input(3, 6, 4)
    utts = [utt[:n].numpy() for utt, n in zip(x, lengths or [6] * 3, strict=True)]
    got = StatsPool(4)(x, None if lengths is None else torch.tensor(lengths))
    np.testing.assert_allclose(got, [reference_stats(utt) for utt in utts], rtol=1e-12)


def test_large_means_do_not_swallow_the_deviation():
    x = torch.tensor([[[10000.0], [10001.0], [10002.0]]])
    torch.testing.assert_close(StatsPool(1)(x)[0, 1].item(), math.sqrt(2 / 3))


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("lengths", [None, [6, 3, 1]])
def test_astp_equals_a_loop(training, lengths):
    pool = random_astp(4, dropout=0.0).train(training)
    x = random_input(3, 6, 4)
    utts = [utt[:n].numpy() for utt, n in zip(x, lengths or [6] * 3, strict=True)]
    want = reference_astp(pool, utts)
    got = pool(x, None if lengths is None else torch.tensor(lengths))
    np.testing.assert_allclose(got.detach(), want, rtol=1e-9)


def test_astp_by_hand():
    """Zero networks weigh all frames alike; a bias of the last layer changes nothing."""
    pool = ASTP(2).eval()
    for p in (pool.squeeze.weight, pool.squeeze.bias, pool.expand.weight):
        nn.init.zeros_(p)
    got = pool(torch.tensor([[[1.0, 0.0], [5.0, 2.0]]]))
    torch.testing.assert_close(got, torch.tensor([[3.0, 1.0, 2.0, 1.0]]))


def test_astp_gradients():
    pool = random_astp(4, dropout=0.0).eval()
    x = random_input(2, 5, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: pool(x, torch.tensor([5, 3])), x)


def test_dropped_frames_are_whole_and_never_all():
    """Powers of two as frames: the mean of a uniform softmax says which frames it kept."""
    num_utts, num_frames, p = 4000, 4, 0.5
    pool = ASTP(2, dropout=p).double()
    for parameter in pool.parameters():
        nn.init.zeros_(parameter)
    frames = torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=torch.float64)
    x = torch.stack((frames, -3 * frames), dim=1).expand(num_utts, num_frames, 2)
    torch.manual_seed(0)
    means = pool(x)[:, :2]
    torch.testing.assert_close(means[:, 1], -3 * means[:, 0])
    subsets = [s for n in range(1, 5) for s in itertools.combinations(frames.tolist(), n)]
    # 15 subsets with 13 different means: {1, 2, 4, 8} alone may also stand for "none left".
    by_mean: dict[float, float] = {}
    for subset in subsets:
        mean = round(sum(subset) / len(subset), 6)
        by_mean[mean] = by_mean.get(mean, 0.0) + (2 if len(subset) == 4 else 1) / 16
    seen, counts = np.unique(means[:, 0].detach().numpy().round(6), return_counts=True)
    assert set(seen) == set(by_mean)
    for mean, count in zip(seen, counts, strict=True):
        share = by_mean[mean]
        assert abs(count / num_utts - share) < 5 * math.sqrt(share * (1 - share) / num_utts)
    torch.testing.assert_close(pool.eval()(x)[:, 0], torch.full((num_utts,), 3.75).double())


def test_dropping_frames_respects_padding():
    pool = ASTP(3, dropout=0.9).train()
    x = torch.randn(64, 5, 3)
    lengths = torch.arange(64) % 5 + 1
    for utt, n in zip(x, lengths, strict=True):
        utt[n:] = torch.nan
    x.requires_grad_()
    for _ in range(10):
        out = pool(x, lengths)
        assert out.isfinite().all()
    out.sum().backward()
    assert x.grad.isfinite().all()
    # A constant has the same mean however its frames are weighed, unless padding is among them.
    constant = torch.where(x.isnan(), x, 7.0).detach()
    want = torch.tensor([7.0] * 3 + [0.01] * 3).expand(64, 6)
    torch.testing.assert_close(pool(constant, lengths), want)


@pytest.mark.parametrize("make", [StatsPool, ASTP])
def test_padding_changes_nothing(make):
    pool = make(4).double().eval()
    x = random_input(3, 6, 4)
    lengths = torch.tensor([2, 6, 1])
    padded = x.clone()
    for utt, n in zip(padded, lengths, strict=True):
        utt[n:] = torch.tensor([torch.nan, torch.inf, -torch.inf, 1e300])
    padded.requires_grad_()
    got = pool(padded, lengths)
    got.square().sum().backward()
    for utt, n, pooled, grad in zip(x, lengths, got, padded.grad, strict=True):
        alone = utt[None, :n].clone().requires_grad_()
        want = pool(alone)
        want.square().sum().backward()
        torch.testing.assert_close(pooled, want[0])
        torch.testing.assert_close(grad[:n], alone.grad[0])
        assert not grad[n:].any()


@pytest.mark.parametrize("make", [StatsPool, ASTP])
def test_single_frames_are_finite(make):
    pool = make(4).train()
    x = torch.randn(3, 1, 4, requires_grad=True)
    out = pool(x)
    torch.testing.assert_close(out, torch.cat((x[:, 0], torch.full((3, 4), 0.01)), dim=1))
    out.sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("make", [StatsPool, ASTP])
def test_statistics_of_half_precision_frames_are_float32(make):
    x = (100 + torch.randn(2, 300, 4)).to(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = make(4).eval()(x)
    assert out.dtype == torch.float32
    if make is StatsPool:
        torch.testing.assert_close(out, StatsPool(4)(x.float()))


def test_out_dim():
    assert StatsPool(512).out_dim == 1024
    assert ASTP(512).out_dim == 1024


@pytest.mark.parametrize("pool", [StatsPool(4), ASTP(4)])
@pytest.mark.parametrize("shape", [(2, 4), (2, 4, 3), (2, 0, 4), (2, 3, 5, 4)])
def test_wrong_shapes_are_an_error(pool, shape):
    with pytest.raises(ValueError, match=r"want \(B, T, 4\)"):
        pool(torch.zeros(shape))


@pytest.mark.parametrize("options", [{"reduction": 0.1}, {"dropout": 1.0}, {"dropout": -0.1}])
def test_impossible_options_are_an_error(options):
    with pytest.raises(ValueError, match="want"):
        ASTP(4, **options)
