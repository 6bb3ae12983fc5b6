"""Batch norm and numbers over two processes, and the choice of device and precision."""

import json
import signal
import sys
import time
from pathlib import Path

import numpy as np
import programs
import pytest
import torch
from torch import nn

from wespeaker_lap.engine.dist import (
    GlooSyncBatchNorm,
    World,
    choose_device,
    choose_precision,
    join_world,
    synchronise_batch_norm,
)
from wespeaker_lap.models.layer_pool import LAP

SHAPES = [(6, 5), (4, 5, 7), (4, 5, 3, 2)]


def assert_close(got: torch.Tensor, want: torch.Tensor, tolerance: float) -> None:
    np.testing.assert_allclose(got.double().numpy(), want.double().numpy(), rtol=tolerance,
                               atol=tolerance)


def normalise_jointly(batches: torch.Tensor, upstream: torch.Tensor) -> dict[str, torch.Tensor]:
    """What torch's own batch norm gives on whole batches, and the gradients of the last."""
    kind = nn.BatchNorm2d if batches[0].ndim == 4 else nn.BatchNorm1d
    norm = programs.make_norm(batches[0].shape[1], kind).to(batches[0].dtype)
    for batch in batches:
        whole = batch.clone().requires_grad_()
        norm.zero_grad()
        out = norm(whole)
        (out * upstream).sum().backward()
    return {"out": out.detach(), "x": whole.grad, "weight": norm.weight.grad,
            "bias": norm.bias.grad, "mean": norm.running_mean, "var": norm.running_var,
            "count": norm.num_batches_tracked, "eval": norm.eval()(batches[0]).detach()}


def test_two_halves_are_normalised_as_one_batch(launcher, tmp_path):
    """Outputs, gradients as DDP averages them, running statistics, for vectors, frames and maps."""
    generator = torch.Generator().manual_seed(0)
    cases, tolerances = [], []
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-5)):
        for shape in SHAPES:
            batches = 3.0 + 2.0 * torch.randn((2, *shape), generator=generator, dtype=dtype)
            cases.append((batches, torch.randn(shape, generator=generator, dtype=dtype)))
            tolerances.append(tolerance)
    torch.save(cases, tmp_path / "inputs.pt")
    done = launcher.function_by_two("sync_batch_norm", tmp_path / "inputs.pt", tmp_path)
    assert [code for code, _ in done] == [0, 0], done
    halves = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for number, (case, tolerance) in enumerate(zip(cases, tolerances, strict=True)):
        want = normalise_jointly(*case)
        first, second = halves[0][number], halves[1][number]
        for key in ("out", "x"):
            assert_close(torch.cat([first[key], second[key]]), want[key], tolerance)
        for key in want.keys() - {"out", "x"}:
            assert_close(first[key], want[key], tolerance)
            assert torch.equal(first[key], second[key]), key


def test_sums_and_gathers_are_the_same_everywhere(launcher, tmp_path):
    done = launcher.function_by_two("share_numbers", tmp_path)
    assert [code for code, _ in done] == [0, 0], done
    for rank in range(2):
        total, gathered = json.loads((tmp_path / f"{rank}.json").read_text())
        assert total == [3.0, 0.5]
        assert gathered == [{"rank": 0}, {"rank": 1}]


def test_the_model_goes_before_the_process_group(launcher, tmp_path):
    """As the last owner of the group, DDP can deadlock a process that is about to end."""
    done = launcher.function_by_two("fail_in_training", tmp_path)
    for rank, (code, log) in enumerate(done):
        assert code == 0, log
        assert "error: the step failed" in log
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == [False]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_layer_statistics_are_of_all_processes(launcher, tmp_path):
    """LAP folds its norm into its linear, and must still see the rows of both processes."""
    sizes = {"num_layers": 3, "in_dim": 8, "out_dim": 4, "num_heads": 2, "dropout": 0.0}
    torch.manual_seed(0)
    pool = LAP(**sizes).double()
    x = 5.0 + torch.randn(4, 6, 3, 8).double() * torch.arange(1.0, 5.0).view(4, 1, 1, 1)
    upstream = torch.randn(4, 6, 4).double()
    torch.save((x, upstream, pool.state_dict(), sizes), tmp_path / "inputs.pt")
    done = launcher.function_by_two("pool_layers", tmp_path / "inputs.pt", tmp_path)
    assert [code for code, _ in done] == [0, 0], done
    (pool(x) * upstream).sum().backward()
    # Between a norm and its batch's mean, a constant does nothing.
    wanted = {name: p.grad for name, p in pool.named_parameters() if name != "out_linear.bias"}
    for rank in range(2):
        grads, buffers = torch.load(tmp_path / f"{rank}.pt")
        for name, grad in wanted.items():
            np.testing.assert_allclose(grads[name], grad, rtol=1e-9, atol=1e-11, err_msg=name)
        for name, value in pool.named_buffers():
            np.testing.assert_allclose(buffers[name], value, rtol=1e-12, err_msg=name)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help is Linux's")
def test_workers_end_with_a_killed_torchrun(launcher, tmp_path):
    assert launcher.function("leave_a_child", tmp_path)[0] == -signal.SIGKILL
    child, end = int((tmp_path / "child").read_text()), time.monotonic() + 20
    while is_running(child) and time.monotonic() < end:
        time.sleep(0.02)
    assert not is_running(child)


def test_a_world_of_one_needs_no_process_group(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with join_world("cpu") as world:
        assert (world.rank, world.size, world.is_main) == (0, 1, True)
        world.barrier()
        assert world.sum([1.0, 2.0]) == [1.0, 2.0]
        assert world.gather("mine") == ["mine"]
        assert not torch.distributed.is_initialized()


def test_only_batch_norms_are_changed_and_only_among_several():
    module = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.BatchNorm1d(3)), nn.LayerNorm(3),
                           nn.BatchNorm2d(3))
    names = list(module.state_dict())
    synchronise_batch_norm(module, programs.ALONE)
    assert (type(module[1][0]), type(module[3])) == (nn.BatchNorm1d, nn.BatchNorm2d)
    synchronise_batch_norm(module, World(0, 2, torch.device("cpu")))
    assert type(module[1][0]) is type(module[3]) is GlooSyncBatchNorm
    assert type(module[2]) is nn.LayerNorm
    assert list(module.state_dict()) == names


def test_devices_that_are_not_there_are_an_error():
    assert choose_device("cpu") == torch.device("cpu")
    missing = "mps" if not torch.backends.mps.is_available() else "cuda"
    for name in (missing, "abacus"):
        with pytest.raises(ValueError, match=rf"{name}.*--device"):
            choose_device(name)


def test_auto_takes_what_is_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")


def test_precision_by_name_and_device(monkeypatch):
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert choose_precision("float32", cpu) is None
    assert choose_precision("bf16", cpu) is torch.bfloat16
    assert choose_precision("fp16", cuda) is torch.float16
    with pytest.raises(ValueError, match=r"train\.precision fp16 needs a GPU"):
        choose_precision("fp16", cpu)
    for has_bf16, want in ((True, torch.bfloat16), (False, torch.float16)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda has=has_bf16: has)
        assert choose_precision("auto", cuda) is want
    for features, want in (({"avx512_bf16": True}, torch.bfloat16), ({"avx2": True}, None)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda f=features: f, raising=False)
        assert choose_precision("auto", cpu) is want
    assert choose_precision("auto", torch.device("mps")) is None
