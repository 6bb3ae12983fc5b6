"""How much memory a process has taken at most."""

import resource
import sys

import torch

KIBIBYTES = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux these


def measure_peaks(device: torch.device) -> dict[str, float]:
    """The most memory that this process has had so far.

    Args:
        device: that it computes on.

    Returns:
        GB (10^9 bytes) resident, as `host`, and of tensors on a GPU, as `device`.
    """
    peaks = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIBIBYTES / 1e9}
    if device.type == "cuda":
        peaks["device"] = torch.cuda.max_memory_allocated(device) / 1e9
    return peaks
