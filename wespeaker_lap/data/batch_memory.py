"""Memory of batches, lent out and taken back.

A batch of layer features is hundreds of megabytes. From the system it comes in pages that are
found, cleared and entered one by one, and goes back when the batch is dropped: this costs several
times as much as to read the features. What was a batch before has its pages already.
"""

import weakref

import numpy as np
import torch


class BatchMemory:
    """Lend tensors; the memory of those that nobody holds any more is lent again.

    Args:
        pin: whether the memory is to be page-locked; then torch keeps and lends it, and waits for
            copies to the GPU.
    """

    def __init__(self, pin: bool = False):
        self.pin = pin
        self._free: list[np.ndarray] = []

    def lend(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """A tensor with anything in it.

        Args:
            shape, dtype: of the tensor.
        """
        if self.pin:
            return torch.empty(shape, dtype=dtype, pin_memory=True)
        size = int(np.prod(shape)) * dtype.itemsize
        memory = self._free.pop() if self._free else np.empty(size, np.uint8)
        if len(memory) != size:
            memory = np.empty(size, np.uint8)
        # Tensors hold the array that they were made of, in common with their views: when it goes,
        # so have all of them.
        lent = memory.view()
        weakref.finalize(lent, self._free.append, memory).atexit = False
        return torch.from_numpy(lent).view(dtype).view(shape)
