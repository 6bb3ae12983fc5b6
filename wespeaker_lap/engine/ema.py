"""A moving average of the weights that goes along with a training."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def make_ema(weights: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of weights: `e = d e + (1 - d) w` after every step.

    After n steps `d = min(decay, n / (9 + n))`, n from 2: what the random first weights leave
    behind is soon forgotten. The average begins with the weights after the first step.

    Source: Polyak and Juditsky (1992) for averages of iterates; the warm-up
    `min(decay, (1 + t) / (10 + t))`, t updates before this one, is that of TensorFlow's
    ExponentialMovingAverage.

    Args:
        weights: what is averaged, in float32 as it is itself, whatever autocast does. Means and
            variances of batch norms are averaged too, counts are the newest.
        decay: d, in (0, 1); 0.999 remembers about a thousand steps.

    Returns:
        The average, as `module`. `update_parameters(weights)` is for every step, and its state is
        all that a restart needs.

    >>> linear = nn.Linear(1, 1)
    >>> ema = make_ema(linear, decay=0.999)
    >>> for value in (3.0, 14.0):
    ...     _ = nn.init.constant_(linear.weight, value)
    ...     ema.update_parameters(linear)
    >>> ema.module.weight.item()  # 2/11 of 3 and 9/11 of 14
    12.0
    """
    def update(averages: list[Tensor], values: list[Tensor], count: Tensor) -> None:
        if not averages[0].is_floating_point():
            torch._foreach_copy_(averages, values)
            return
        now = min(decay, (1 + int(count)) / (10 + int(count)))
        get_ema_multi_avg_fn(now)(averages, values, count)

    return AveragedModel(weights, multi_avg_fn=update, use_buffers=True).requires_grad_(False)
