"""LAP in blocks against its plain form, which autograd differentiates."""

import copy
import statistics

import pytest
import torch
from plain_lap import PlainLAP
from torch import Tensor, nn

from wespeaker_lap.models import moments
from wespeaker_lap.models.layer_pool import LAP

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a GPU"))]


class FixedDropout(nn.Module):
    """The same drops for both forms, whatever order they ask in."""

    def __init__(self, num_frames: int, num_heads: int, num_layers: int):
        super().__init__()
        kept = torch.rand(num_frames, num_heads, num_layers) > 0.3
        self.register_buffer("kept", kept.double() / 0.7, persistent=False)

    def forward(self, scores: Tensor) -> Tensor:
        return scores * self.kept.to(scores.dtype) if self.training else scores


@pytest.fixture(autouse=True)
def few_rows(monkeypatch):
    """Blocks of a few frames, the last of them shorter."""
    monkeypatch.setattr(moments, "CPU_BLOCK_BYTES", 1200)
    monkeypatch.setattr(moments, "GPU_BLOCK_BYTES", 1200)


def make_pair(num_layers: int, in_dim: int, num_heads: int, num_frames: int) -> tuple[LAP, LAP]:
    """Twice the same pool, no two parameters alike, in float64."""
    torch.manual_seed(0)
    pool = LAP(num_layers, in_dim, out_dim=6, num_heads=num_heads).double()
    for name, value in pool.state_dict().items():
        if value.is_floating_point():
            value.uniform_(*((0.5, 1.5) if "running_var" in name else (-1.0, 1.0)))
    pool.dropout = FixedDropout(num_frames, num_heads, num_layers)
    return pool, copy.deepcopy(pool)


def differentiate(pool: nn.Module, lap: LAP, x: Tensor, wants_x: bool) -> dict[str, Tensor]:
    """Outputs, statistics and every gradient of a loss that needs frames and scores."""
    x = x.detach().clone().requires_grad_(wants_x)
    frames, scores = pool(x) if pool is not lap else pool(x, return_scores=True)
    generator = torch.Generator().manual_seed(5)
    loss = sum((out.double() * torch.randn(out.shape, generator=generator).to(out)).sum()
               for out in (frames, scores))
    loss.backward()
    found = {name: p.grad for name, p in lap.named_parameters()} | dict(lap.named_buffers())
    return found | {"frames": frames.detach(), "scores": scores.detach()} | (
        {"x": x.grad} if wants_x else {})


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("wants_x", [False, True], ids=["frozen", "joint"])
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize(("num_layers", "in_dim", "num_heads"),
                         [(5, 12, 3), (5, 12, 1), (4, 12, 12), (1, 12, 3), (7, 12, 2)])
def test_all_gradients_are_those_of_the_plain_form(num_layers, in_dim, num_heads, training, wants_x,
                                                   device):
    ours, plain = (pool.train(training).to(device)
                   for pool in make_pair(num_layers, in_dim, num_heads, 2 * 9))
    x = 2.0 + 3.0 * torch.randn(2, 9, num_layers, in_dim, dtype=torch.float64).to(device)
    got = differentiate(ours, ours, x, wants_x)
    want = differentiate(PlainLAP(plain).train(training), plain, x, wants_x)
    assert got.keys() == want.keys()
    for name, value in want.items():
        if value is None:  # with one head there is no linear
            assert got[name] is None
        else:
            torch.testing.assert_close(got[name], value, rtol=1e-10, atol=1e-10, msg=name)


@pytest.mark.parametrize(("num_layers", "in_dim"), [(300, 4), (256, 4), (2, 600), (2, 512)])
def test_indices_that_need_more_than_a_byte(num_layers, in_dim):
    ours, plain = make_pair(num_layers, in_dim, 2, 3)
    x = torch.randn(1, 3, num_layers, in_dim, dtype=torch.float64)
    got, want = differentiate(ours, ours, x, True), differentiate(PlainLAP(plain), plain, x, True)
    for name in ("frames", "in_linear.weight", "squeeze_weight", "x"):
        torch.testing.assert_close(got[name], want[name], rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_no_more_rounding_than_the_plain_form(precision):
    """Features whose mean is ten times their deviation: rounded uncentred, they would be lost."""
    exact = make_pair(5, 48, 4, 40)[1]
    x = 10.0 + torch.randn(2, 20, 5, 48)
    want = differentiate(PlainLAP(exact), exact, x.double(), False)
    errors = {}
    for form, pool in zip(("ours", "plain"), make_pair(5, 48, 4, 40), strict=True):
        pool.float()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            called = pool if form == "ours" else PlainLAP(pool)
            found = differentiate(called, pool, x, False)
        errors[form] = {name: float((found[name].double() - value).norm() / value.norm())
                        for name, value in want.items() if "num_batches" not in name}
    del errors["ours"]["out_linear.bias"]  # before a norm in training: its gradient is 0
    ratios = {name: error / errors["plain"][name] for name, error in errors["ours"].items()}
    assert statistics.median(ratios.values()) < 1.1, ratios
    assert max(ratios.values()) < 5.0, ratios  # a few noisy ones are of few numbers


def test_nothing_as_large_as_the_features_is_stored():
    pool = LAP(num_layers=13, in_dim=64, out_dim=32, num_heads=4)
    x = torch.randn(4, 50, 13, 64)
    stored = {}

    def note(tensor: Tensor) -> Tensor:
        stored[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        pool(x)
    del stored[x.data_ptr()]  # what it was given is not its own
    assert 0 < sum(stored.values()) < x.nbytes


def test_equal_layers_choose_the_lowest_and_nan_stays_nan():
    pool = LAP(num_layers=3, in_dim=4, out_dim=4, num_heads=2).eval()
    same = torch.randn(1, 2, 1, 4).expand(1, 2, 3, 4).clone()
    assert pool(same).isfinite().all()
    same[0, 1] = torch.nan
    out = pool(same)
    assert out[0, 0].isfinite().all() and out[0, 1].isnan().all()
    out.sum().backward()


def test_autocast_keeps_the_scores_in_full_precision():
    pool = LAP(num_layers=3, in_dim=8, out_dim=4, num_heads=2)
    with torch.autocast("cpu", torch.bfloat16):
        frames, scores = pool(torch.randn(2, 4, 3, 8), return_scores=True)
    assert (frames.dtype, scores.dtype) == (torch.bfloat16, torch.float32)
