"""The parts of a training, put together from its configuration and its material."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from wespeaker_lap import build
from wespeaker_lap.config import Config
from wespeaker_lap.data.balanced import BalancedBatchSampler
from wespeaker_lap.data.dequantize import Dequantize
from wespeaker_lap.data.loader import BatchLoader
from wespeaker_lap.data.sampler import ShuffledBatches
from wespeaker_lap.engine.dist import World, choose_precision, synchronise_batch_norm
from wespeaker_lap.engine.loading import make_loader
from wespeaker_lap.engine.material import Material
from wespeaker_lap.engine.objective import Objective
from wespeaker_lap.engine.teacher import Teacher
from wespeaker_lap.engine.validation import Validation
from wespeaker_lap.engine.wave_net import WaveNet
from wespeaker_lap.models.speaker_net import SpeakerNet


@dataclass
class Run:
    """Everything a training consists of; `step` counts the finished steps of all epochs."""

    config: Config
    world: World
    exp_dir: Path
    material: Material
    net: SpeakerNet  # what is embedded with: (B, T, L, D) -> (B, E)
    objective: Objective
    model: nn.Module  # the objective, under DDP where there are several processes
    to_floats: nn.Module  # of a batch's features, where they come as they are stored
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    sampler: ShuffledBatches | BalancedBatchSampler
    loader: BatchLoader
    validation: Validation | None
    step: int = 0

    @property
    def total_steps(self) -> int:
        """Steps in the whole training."""
        return self.config.train.epochs * self.sampler.steps_per_epoch


def set_up(config: Config, material: Material, train_set: str, exp_dir: Path, world: World,
           validation: Validation | None) -> Run:
    """Build all parts, with their initial weights.

    Args:
        config: of the training.
        material: what it learns from.
        train_set: name of the set.
        exp_dir: of the training.
        world: this process among all.
        validation: what is watched.

    Raises:
        ValueError: parts of the configuration that do not fit each other or the material.
    """
    torch.manual_seed(config.seed)  # the same initial weights on every process
    source = material.source
    precision = choose_precision(config.train.precision, world.device)
    net = build.build_net(config.model, material.identity["num_layers"], material.identity["dim"])
    objective = _build_objective(config, material, net, train_set, precision)
    objective = synchronise_batch_norm(objective, world).to(world.device)
    optimizer = torch.optim.Adam([p for p in objective.parameters() if p.requires_grad],
                                 lr=config.train.lr, weight_decay=config.train.weight_decay)
    scaler = torch.amp.GradScaler(world.device.type, enabled=precision is torch.float16)
    sampler, loader = make_loader(config, source, world)
    to_floats, model = nn.Identity(), objective
    if source.as_stored:
        to_floats = Dequantize(source.store.codec, source.crop_shape).to(world.device)
    if world.size > 1:
        model = DistributedDataParallel(objective, broadcast_buffers=False)
    return Run(config, world, exp_dir, material, net, objective, model, to_floats, optimizer,
               scaler, sampler, loader, validation)


def _build_objective(config: Config, material: Material, net: SpeakerNet, train_set: str,
                     precision: torch.dtype | None) -> Objective:
    source = material.source
    head = build.build_head(config.loss, config.model.embed_dim, len(source.speakers))
    contrastive, weight, teacher = None, 0.0, None
    if config.contrastive:
        contrastive = build.build_contrastive(config.contrastive, net)
        weight = config.contrastive.weight
    if config.distill:
        teacher = Teacher(config.distill, source.list_entries(), train_set, source.speakers)
        teacher.check(config.model.embed_dim)
    embedder = net if material.frontend is None else WaveNet(material.frontend, net)
    return Objective(embedder, head, precision, contrastive, weight, teacher)
