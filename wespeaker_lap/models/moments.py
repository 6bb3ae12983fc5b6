"""What a batch norm divides by, without the batch norm: statistics of rows that get no gradient.

Features of a frozen encoder are constants, so their mean and variance are too, and the norm need
not keep a normalised copy for its backward. Read in blocks, the rows are passed over once.
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn

CPU_BLOCK_BYTES = 2**21  # a share of the cache
GPU_BLOCK_BYTES = 2**27  # enough work for all of it


def split_rows(x: Tensor, enlarge: int = 1) -> list[slice]:
    """Cut the first dimension into blocks to work on in turn, of a size that suits the device.

    A CPU should find in its cache what it has just written; a GPU wants few, large steps.

    Args:
        x: `(n, ...)`.
        enlarge: how many times the usual block, where a step has a fixed cost.
    """
    row_bytes = max(1, x[:1].numel() * x.element_size())
    block_bytes = CPU_BLOCK_BYTES if x.device.type == "cpu" else GPU_BLOCK_BYTES
    size = max(1, enlarge * block_bytes // row_bytes)
    return [slice(start, start + size) for start in range(0, len(x), size)]


@torch.no_grad()
def norm_statistics(norm: nn.Module, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance with which a batch norm normalises; counts a training batch as it does.

    Args:
        norm: `nn.BatchNorm1d`, or one that is synchronised over processes, which is known by its
            `process_group` (None: all processes) as in `nn.SyncBatchNorm`.
        rows: `(n, D)`; no gradient flows to them.

    Returns:
        `(D,)` mean and `(D,)` biased variance: of the rows of all processes in training, the
        running ones otherwise.

    Raises:
        ValueError: one row alone in training, which has no variance.

    >>> norm = nn.BatchNorm1d(1)
    >>> [v.tolist() for v in norm_statistics(norm, torch.tensor([[1.0], [3.0]]))]
    [[2.0], [1.0]]
    """
    if not norm.training and norm.running_mean is not None:
        return norm.running_mean, norm.running_var
    count, mean, var = _measure(rows, norm.weight.dtype)
    if hasattr(norm, "process_group") and dist.is_available() and dist.is_initialized():
        count, mean, var = _gather(count, mean, var, norm.process_group)
    if count < 2:
        raise ValueError("batch norm wants 2 rows or more in training, got 1: one frame of one "
                         "layer; use larger batches")
    if norm.training and norm.running_mean is not None:
        _update_running(norm, mean, var * (count / (count - 1)))
    return mean, var


def merge_moments(counts: Tensor, means: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of a whole from those of its parts.

    Source: Chan, Golub and LeVeque (1979), "Updating formulae and a pairwise algorithm for
    computing sample variances", which loses no digits where the mean is large.

    Args:
        counts: `(n,)` sizes of the parts.
        means: `(n, D)`.
        variances: `(n, D)`, biased.

    Returns:
        `(D,)` mean and `(D,)` variance.
    """
    shares = (counts / counts.sum())[:, None]
    mean = means[0] + (shares * (means - means[0])).sum(dim=0)
    return mean, (shares * (variances + (means - mean).square())).sum(dim=0)


def _measure(rows: Tensor, dtype: torch.dtype) -> tuple[int, Tensor, Tensor]:
    """`(n, D)` -> n, mean `(D,)`, biased variance `(D,)`."""
    parts = []
    for part in split_rows(rows):
        block = rows[part].to(dtype)
        mean = block.mean(dim=0)
        parts.append((mean.new_tensor(len(block)), mean, (block - mean).square_().mean(dim=0)))
    counts, means, variances = (torch.stack(part) for part in zip(*parts, strict=True))
    return len(rows), *merge_moments(counts, means, variances)


def _gather(count: int, mean: Tensor, var: Tensor,
            group: dist.ProcessGroup | None) -> tuple[float, Tensor, Tensor]:
    """The moments of all processes' rows, in one exchange."""
    own = torch.cat((mean.new_tensor([count]), mean, var))  # (1 + 2 D,)
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, own, group=group)
    counts, means, variances = torch.stack(parts).split((1, len(mean), len(var)), dim=1)
    return float(counts.double().sum()), *merge_moments(counts[:, 0], means, variances)


def _update_running(norm: nn.Module, mean: Tensor, unbiased_var: Tensor) -> None:
    norm.num_batches_tracked += 1
    # Without a momentum the running values are the plain average over all batches so far.
    share = norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked)
    norm.running_mean.lerp_(mean, share)
    norm.running_var.lerp_(unbiased_var, share)
