"""Batch norm's running statistics, measured anew.

A running mean is of what earlier weights computed. Of averaged weights it is not the average of the
running means, and still less so of the variances: they are measured on some training crops.
"""

from collections.abc import Iterable, Iterator
from itertools import islice

import torch
from torch import Tensor, nn

from wespeaker_lap.config import Config
from wespeaker_lap.data.source import FeatureSource
from wespeaker_lap.data.wave_source import WaveSource
from wespeaker_lap.engine.dist import BatchNorm, World
from wespeaker_lap.engine.loading import make_loader


def find_norms(net: nn.Module) -> list[nn.Module]:
    """The batch norms of a network that keep running statistics."""
    return [module for module in net.modules()
            if isinstance(module, BatchNorm) and module.track_running_stats]


@torch.no_grad()
def measure_norms(model: nn.Module, net: nn.Module, batches: Iterable[Tensor]) -> int:
    """Replace running mean and variance by their plain averages over some batches.

    The batch norms are in training mode, so that each one sees what those before it have
    normalised with the batch's own statistics, as in training; all else is in evaluation mode,
    so that nothing is dropped. `torch.optim.swa_utils.update_bn` would train everything.

    Args:
        model: what a batch is given to; left in evaluation mode.
        net: the part of it whose batch norms are measured.
        batches: inputs of `model`.

    Returns:
        How many batches there were. Without batch norms none are taken.

    Raises:
        ValueError: there are batch norms, but no batch.

    >>> net, batch = nn.BatchNorm1d(1), torch.tensor([[1.0], [3.0]])
    >>> measure_norms(net, net, [batch, batch + 4]), net.running_mean.item(), net.running_var.item()
    (2, 4.0, 2.0)
    """
    model.eval()
    momenta, count = {norm: norm.momentum for norm in find_norms(net)}, 0
    if not momenta:
        return 0
    for norm in momenta:
        norm.reset_running_stats()
        norm.train().momentum = None  # the mean over all batches, not one that forgets
    for batch in batches:
        model(batch)
        count += 1
    if not count:
        raise ValueError("batch norms want one batch or more to be measured on, got none")
    for norm, momentum in momenta.items():
        norm.eval().momentum = momentum
    return count


def draw_crops(config: Config, source: FeatureSource | WaveSource, world: World,
               num_batches: int) -> Iterator[Tensor]:
    """The crops that the training would have gone on with after its last epoch.

    Args:
        config: its seed and its train section.
        source: of the crops, which come as floats.
        world: this process; alone.
        num_batches: how many batches.

    Yields:
        (B, T, L, D), or waveforms (B, S), on the device.
    """
    for batch in islice(_iterate(config, source, world), num_batches):
        yield batch.feats.to(world.device, non_blocking=True)


def _iterate(config: Config, source: FeatureSource | WaveSource, world: World) -> Iterator:
    sampler, loader = make_loader(config, source, world)
    epoch = config.train.epochs
    while True:
        sampler.start_at(epoch)
        yield from loader
        epoch += 1
