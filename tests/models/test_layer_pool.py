"""WeightedSum and LAP against loops in numpy, float64."""

import math
import statistics

import numpy as np
import pytest
import torch
from torch import nn

from wespeaker_lap.models.layer_pool import LAP, SingleLayer, WeightedSum

SMALL = {"num_layers": 5, "in_dim": 12, "out_dim": 6}


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter and statistic a value of its own, so that none can be forgotten."""
    generator = torch.Generator().manual_seed(seed)
    module.double()
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            low, high = (0.5, 1.5) if "running_var" in name else (-1.0, 1.0)
            value.uniform_(low, high, generator=generator)
    return module


def random_input(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def batch_norm(rows: np.ndarray, norm: nn.BatchNorm1d, training: bool) -> np.ndarray:
    """Batch norm of `(n, D)` rows, one channel after another."""
    out = np.empty_like(rows)
    for c in range(rows.shape[1]):
        if training:
            mean, var = rows[:, c].mean(), rows[:, c].var()
        else:
            mean, var = float(norm.running_mean[c]), float(norm.running_var[c])
        scaled = (rows[:, c] - mean) / math.sqrt(var + norm.eps)
        out[:, c] = scaled * norm.weight[c].item() + norm.bias[c].item()
    return out


def reference_head(x, w1, b1, w2, b2, how):
    """One frame and head: `x (L, d)` -> pooled `(d,)` and scores `(L,)`."""
    def f(u):
        hidden = [max(0.0, sum(u[i] * w1[i, j] for i in range(len(u))) + b1[j])
                  for j in range(len(b1))]
        return [sum(h * w2[j, i] for j, h in enumerate(hidden)) + b2[i] for i in range(len(u))]

    by_mean = f([layer.mean() for layer in x])
    by_max = f([layer.max() for layer in x])
    scores = [1 / (1 + math.exp(-(a + b))) for a, b in zip(by_mean, by_max, strict=True)]
    combine = {"max": max, "mean": statistics.fmean}[how]
    pooled = [combine([scores[i] * x[i, c] for i in range(len(x))]) for c in range(x.shape[1])]
    return np.array(pooled), np.array(scores)


def reference_lap(pool: LAP, x: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """LAP over frames `(M, L, D)` by the seven steps of the paper."""
    frames = x.numpy()
    num_frames, num_layers, dim = frames.shape
    rows = batch_norm(frames.reshape(-1, dim), pool.in_norm, pool.training)
    if pool.num_heads > 1:
        weight, bias = (p.detach().numpy() for p in pool.in_linear.parameters())
        rows = rows @ weight.T + bias
    frames = rows.reshape(num_frames, num_layers, pool.num_heads, -1)
    nets = [p.detach().numpy() for p in (pool.squeeze_weight, pool.squeeze_bias,
                                         pool.expand_weight, pool.expand_bias)]
    best, scores = [], []
    for frame in frames:
        heads = [reference_head(frame[:, h], *(p[h] for p in nets), pool.combine)
                 for h in range(pool.num_heads)]
        best.append(np.concatenate([pooled for pooled, _ in heads]))
        scores.append([s for _, s in heads])
    out = np.array(best) @ pool.out_linear.weight.detach().numpy().T
    out = batch_norm(out + pool.out_linear.bias.detach().numpy(), pool.out_norm, pool.training)
    return out, np.array(scores)


@pytest.mark.parametrize("num_heads", [1, 3, 12])
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("num_layers", [2, 5])
@pytest.mark.parametrize("combine", ["max", "mean"])
@pytest.mark.parametrize("in_graph", [False, True], ids=["eager", "in a graph"])
def test_lap_equals_the_seven_steps(num_heads, training, num_layers, combine, in_graph,
                                    monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: in_graph)
    sizes = {**SMALL, "num_layers": num_layers, "combine": combine}
    pool = randomise(LAP(**sizes, num_heads=num_heads, dropout=0.0)).train(training)
    x = random_input(2, 4, num_layers, 12)
    want, want_scores = reference_lap(pool, x.flatten(0, 1))
    got, scores = pool(x, return_scores=True)
    np.testing.assert_allclose(got.detach().flatten(0, 1), want, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(scores.detach().flatten(0, 1), want_scores, rtol=1e-10)
    assert got.shape == (2, 4, 6)
    assert scores.shape == (2, 4, num_heads, num_layers)
    assert torch.equal(pool.eval()(x), pool(x, return_scores=True)[0])


def test_lap_by_hand():
    """Identity norms and linears, zero score networks: half of the largest layer."""
    pool = LAP(num_layers=2, in_dim=2, out_dim=2, num_heads=2).eval()
    with torch.no_grad():
        for name, value in pool.named_parameters():
            if "norm" not in name:
                value.zero_()
        pool.in_linear.weight.copy_(torch.eye(2))
        pool.out_linear.weight.copy_(torch.eye(2))
    out = pool(torch.tensor([[[[4.0, -2.0], [1.0, 6.0]]]]))
    torch.testing.assert_close(out, torch.tensor([[[2.0, 3.0]]]), rtol=3e-5, atol=0.0)


@pytest.mark.parametrize("combine", ["max", "mean"])
def test_lap_gradients(combine):
    """The winners are picked outside autograd, so check the gradient of input and parameters."""
    pool = randomise(LAP(**SMALL, num_heads=3, combine=combine)).eval()
    names, values = zip(*pool.named_parameters(), strict=True)

    def run(x, *params):
        parameters = dict(zip(names, params, strict=True))
        return torch.func.functional_call(pool, parameters, (x, None, True))

    values = tuple(v.detach().requires_grad_() for v in values)
    x = random_input(1, 2, 5, 12).requires_grad_()
    assert torch.autograd.gradcheck(run, (x, *values), atol=1e-6)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("combine", ["max", "mean"])
def test_padding_changes_nothing(training, combine):
    """In training too: padding stays out of the batch statistics. NaN there does no harm."""
    lengths = torch.tensor([2, 4, 1])
    x = random_input(3, 4, 5, 12)
    frames = torch.cat([utt[:n] for utt, n in zip(x, lengths, strict=True)])
    pool = LAP(**SMALL, num_heads=3, dropout=0.0, combine=combine)
    pool = randomise(pool).train(training)
    want = pool(frames.unsqueeze(0))[0]
    for utt, n in zip(x, lengths, strict=True):
        utt[n:] = torch.nan
    x.requires_grad_()
    got, scores = pool(x, lengths, return_scores=True)
    kept = torch.cat([utt[:n] for utt, n in zip(got, lengths, strict=True)])
    torch.testing.assert_close(kept, want)
    assert not got[0, 2:].any() and not scores[0, 2:].any()
    got.square().sum().backward()
    assert x.grad.isfinite().all()
    assert not x.grad[0, 2:].any() and x.grad[0, :2].any()
    assert all(p.grad.isfinite().all() for p in pool.parameters())


def test_running_statistics_leave_padding_out():
    pool = LAP(**SMALL, num_heads=3).double()
    x = random_input(2, 4, 5, 12)
    pool(x, torch.tensor([4, 1]))
    frames = torch.cat((x[0], x[1, :1])).reshape(-1, 12)
    torch.testing.assert_close(pool.in_norm.running_mean, 0.1 * frames.mean(dim=0))


def test_dropout_takes_whole_scores_in_training_only():
    pool = LAP(num_layers=5, in_dim=12, num_heads=3, dropout=0.25)
    x = torch.randn(4, 100, 5, 12)
    clean = pool.eval()(x, return_scores=True)[1]
    assert ((clean > 0) & (clean < 1)).all()
    pool.in_norm.momentum = 0.0
    pool.train()
    pool.in_norm.eval()  # so that the scores differ by the dropout alone
    torch.manual_seed(0)
    scores = pool(x, return_scores=True)[1]
    dropped = scores == 0
    assert abs(dropped.float().mean() - 0.25) < 5 * math.sqrt(0.25 * 0.75 / dropped.numel())
    torch.testing.assert_close(scores[~dropped], clean[~dropped] / 0.75)


def test_score_networks_begin_as_separate_xavier_matrices():
    pool = LAP(num_layers=25, in_dim=64, num_heads=16)
    bound = math.sqrt(6 / (25 + 12))
    for weight in (pool.squeeze_weight, pool.expand_weight):
        assert 0.95 * bound < weight.abs().max() <= bound
        assert abs(weight.std() - bound / math.sqrt(3)) < 0.02 * bound
    assert not pool.squeeze_bias.any() and not pool.expand_bias.any()


def test_one_head_has_no_linear():
    pool = LAP(**SMALL, num_heads=1)
    assert isinstance(pool.in_linear, nn.Identity)


def test_batch_norms_can_become_synchronised():
    pool = nn.SyncBatchNorm.convert_sync_batchnorm(LAP(**SMALL, num_heads=3))
    assert isinstance(pool.in_norm, nn.SyncBatchNorm)
    assert isinstance(pool.out_norm, nn.SyncBatchNorm)


def test_weighted_sum_equals_a_loop():
    pool = WeightedSum(num_layers=3, in_dim=4).double()
    logits = [0.3, -1.2, 2.0]
    pool.layer_logits.data.copy_(torch.tensor(logits))
    x = random_input(2, 5, 3, 4).requires_grad_()
    total = sum(math.exp(v) for v in logits)
    want = sum(math.exp(v) / total * x[:, :, i] for i, v in enumerate(logits))
    got = pool(x, torch.tensor([5, 2]))
    torch.testing.assert_close(got, want)
    assert torch.autograd.gradcheck(pool, x)


def test_weighted_sum_begins_as_the_mean():
    x = torch.randn(2, 5, 7, 4)
    torch.testing.assert_close(WeightedSum(7, 4)(x), x.mean(dim=2))


def test_out_dim():
    assert WeightedSum(7, 192).out_dim == 192
    assert LAP(7, 192).out_dim == 512
    assert LAP(7, 192, out_dim=64).out_dim == 64


@pytest.mark.parametrize("pool", [WeightedSum(5, 12), LAP(**SMALL, num_heads=3)])
@pytest.mark.parametrize("shape", [(2, 3, 12, 5), (2, 3, 5), (2, 3, 4, 12), (2, 5, 3, 12)])
def test_wrong_shapes_are_an_error(pool, shape):
    with pytest.raises(ValueError) as error:
        pool(torch.zeros(shape))
    assert str(error.value) == f"want (B, T, 5, 12), got {shape}"


@pytest.mark.parametrize(
    "make",
    [
        lambda: LAP(num_layers=0, in_dim=8, num_heads=2),
        lambda: LAP(num_layers=3, in_dim=8, num_heads=3),
        lambda: LAP(num_layers=3, in_dim=8, num_heads=0),
        lambda: WeightedSum(num_layers=0, in_dim=8),
    ],
)
def test_impossible_sizes_are_an_error(make):
    with pytest.raises(ValueError, match="want num_"):
        make()


@pytest.mark.parametrize("layer", [0, 2, -1])
def test_a_single_layer_is_taken_as_it_is(layer):
    x = random_input(2, 4, 5, 12)
    np.testing.assert_array_equal(SingleLayer(5, 12, layer)(x), x.numpy()[:, :, layer, :])


@pytest.mark.parametrize("layer", [5, -6])
def test_a_layer_that_is_not_there(layer):
    with pytest.raises(ValueError, match=f"want a layer from -5 to 4, got {layer}"):
        SingleLayer(5, 12, layer)


def test_another_way_to_combine_layers_is_an_error():
    with pytest.raises(ValueError, match="want combine 'max' or 'mean', got 'sum'"):
        LAP(**SMALL, num_heads=3, combine="sum")
