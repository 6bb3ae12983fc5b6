"""One process or many: the process group, the device, synchronised batch norm, precision."""

import ctypes
import gc
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as differentiable
from torch import nn

BatchNorm = nn.modules.batchnorm._BatchNorm  # of any number of axes, synchronised or not

# How long a process waits for the others. In extraction one may be done hours before the last;
# that another has died shows by its closed connection and through torchrun, not by this.
PATIENCE = timedelta(days=1)
PR_SET_PDEATHSIG = 1  # of Linux's prctl: the signal to get when the parent dies


@dataclass(frozen=True)
class World:
    """This process among all: `rank` of `size`, of whom `local_size` share this machine, and the
    device it computes on."""

    rank: int
    size: int
    device: torch.device
    local_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes what is written once."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            dist.barrier()

    def sum(self, values: list[float]) -> list[float]:
        """Add numbers up over all processes."""
        if self.size == 1:
            return values
        total = torch.tensor(values, dtype=torch.float64, device=_reducible(self.device))
        dist.all_reduce(total)
        return total.tolist()

    def gather(self, value: object) -> list:
        """One picklable value of every process, in the order of the ranks."""
        if self.size == 1:
            return [value]
        values: list = [None] * self.size
        dist.all_gather_object(values, value)
        return values


def _reducible(device: torch.device) -> torch.device:
    return device if device.type == "cuda" else torch.device("cpu")


def choose_device(name: str = "auto", local_rank: int = 0) -> torch.device:
    """Find a device.

    Args:
        name: `auto` (cuda, then mps, then cpu), or any torch device.
        local_rank: of this process on this machine, which picks its GPU under `cuda`.

    Raises:
        ValueError: the device is not there.
    """
    if name == "auto":
        has_mps = torch.backends.mps.is_available()
        name = "cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu"
    try:
        device = torch.device(name)
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", local_rank)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name!r} cannot be used here ({str(error).splitlines()[0]}); "
                         f"choose another with --device") from error
    return device


@contextmanager
def join_world(device: str = "auto") -> Iterator[World]:
    """Join the process group that `torchrun` started, or be alone.

    Args:
        device: see `choose_device`.

    Yields:
        The world; NCCL on CUDA, gloo elsewhere.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    chosen = choose_device(device, int(os.environ.get("LOCAL_RANK", "0")))
    if size == 1:
        yield World(0, 1, chosen)
        return
    _end_with_parent()
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        local_size = int(os.environ.get("LOCAL_WORLD_SIZE", size))
        yield World(dist.get_rank(), size, chosen, local_size)
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)  # which hold the model
        if isinstance(error, RuntimeError) and "gloo" in str(error):
            raise ConnectionError("lost another process of this run; its own message says "
                                  "why") from error
        raise
    finally:
        # What DDP holds must go before the group. As the group's last owner it would wait for the
        # group's threads without letting them finish: they need the interpreter's lock.
        gc.collect()
        dist.destroy_process_group()


def _end_with_parent() -> None:
    """Be killed when torchrun is: nobody else would end its workers, and a restart would find two
    trainings in one folder."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class GlooSyncBatchNorm(BatchNorm):
    """Batch norm over all processes on devices that torch's SyncBatchNorm does not serve.

    Same numbers as `nn.BatchNorm1d` and `nn.BatchNorm2d` on the joined batch; (N, C) or
    (N, C, …).
    """

    process_group = None  # all processes; as in nn.SyncBatchNorm, and known by it in models/moments

    def _check_input_dim(self, x: torch.Tensor) -> None:
        """Any number of axes, as in nn.SyncBatchNorm."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise per channel with the statistics of all processes while training."""
        if not self.training:
            return super().forward(x)
        dims = [axis for axis in range(x.ndim) if axis != 1]
        shape = [1, -1] + [1] * (x.ndim - 2)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        count = wide.new_tensor(x.numel() // x.shape[1])
        dist.all_reduce(count)
        mean = differentiable.all_reduce(wide.sum(dims)) / count
        centred = wide - mean.view(shape)
        var = differentiable.all_reduce((centred * centred).sum(dims)) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * count / (count - 1), self.momentum)
        scale = self.weight * torch.rsqrt(var + self.eps)
        return (centred * scale.view(shape) + self.bias.view(shape)).to(x.dtype)


def synchronise_batch_norm(module: nn.Module, world: World) -> nn.Module:
    """Make every batch norm use the statistics of the whole batch over all processes."""
    if world.size == 1:
        return module
    if world.device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    for child in module.modules():
        if isinstance(child, BatchNorm):
            child.__class__ = GlooSyncBatchNorm  # same parameters and buffers, other forward
    return module


def choose_precision(name: str, device: torch.device) -> torch.dtype | None:
    """The autocast type for `auto`, `float32`, `bf16` or `fp16`.

    `auto` is bf16 where the device computes in it (CUDA from Ampere, CPUs with AMX or
    AVX512-BF16), fp16 on older CUDA, float32 elsewhere.

    Returns:
        The type, or None for float32 throughout.

    Raises:
        ValueError: fp16 was asked for on a CPU, where its gradients cannot be scaled.
    """
    if name == "fp16" and device.type == "cpu":
        raise ValueError("train.precision fp16 needs a GPU; choose bf16, float32 or auto")
    if name != "auto":
        return {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type == "cpu":
        features = getattr(torch.cpu, "get_capabilities", dict)()
        return torch.bfloat16 if features.get("avx512_bf16") or features.get("amx_bf16") else None
    return None
