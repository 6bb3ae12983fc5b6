"""Convolutional networks of one lone utterance in numpy, float64: loops over outputs and taps."""

import numpy as np
import torch
from torch import nn


def randomise(net: nn.Module, seed: int = 0) -> nn.Module:
    """The network in float64 and eval mode, every parameter and running statistic random."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in net.double().state_dict().items():
        if "running_var" in name:
            value.uniform_(0.5, 1.5, generator=generator)
        elif value.is_floating_point():
            # About as large as the sum over a fan-in can be without growing from layer to layer.
            fan_in = max(1, value[0].numel()) if value.dim() > 1 else 4
            value.normal_(0.0, fan_in**-0.5, generator=generator)
    return net.eval()


def random_frames(*shape: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def relu(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, 0.0)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def conv1d(conv: nn.Conv1d, x: np.ndarray, stride: int = 1, dilation: int = 1) -> np.ndarray:
    """`(T, C)` -> `(ceil(T / stride), O)`: output t is centred on input `t * stride`."""
    weight = conv.weight.detach().numpy()  # (O, C, K)
    half = weight.shape[2] // 2
    out = []
    for centre in range(0, len(x), stride):
        total = np.zeros(len(weight)) if conv.bias is None else conv.bias.detach().numpy().copy()
        for tap in range(weight.shape[2]):
            frame = centre + (tap - half) * dilation
            if 0 <= frame < len(x):
                total += weight[:, :, tap] @ x[frame]
        out.append(total)
    return np.array(out)


def conv2d(conv: nn.Conv2d, x: np.ndarray, stride: tuple[int, int] = (1, 1)) -> np.ndarray:
    """`(T, F, C)` -> `(ceil(T / stride 0), ceil(F / stride 1), O)`, without a bias."""
    weight = conv.weight.detach().numpy()  # (O, C, K, K)
    assert conv.bias is None
    half = weight.shape[2] // 2
    out = np.zeros((-(-x.shape[0] // stride[0]), -(-x.shape[1] // stride[1]), len(weight)))
    for t, f in np.ndindex(*out.shape[:2]):
        for i, j in np.ndindex(*weight.shape[2:]):
            at = (t * stride[0] + i - half, f * stride[1] + j - half)
            if 0 <= at[0] < x.shape[0] and 0 <= at[1] < x.shape[1]:
                out[t, f] += weight[:, :, i, j] @ x[at]
    return out


def batch_norm(norm: nn.Module, x: np.ndarray) -> np.ndarray:
    """Running statistics over the last axis."""
    mean, var, gain, shift = (p.detach().numpy() for p in (
        norm.running_mean, norm.running_var, norm.weight, norm.bias))
    return (x - mean) / np.sqrt(var + 1e-5) * gain + shift


def linear(layer: nn.Linear, x: np.ndarray) -> np.ndarray:
    """`(n,)` -> `(m,)`."""
    return layer.weight.detach().numpy() @ x + layer.bias.detach().numpy()
