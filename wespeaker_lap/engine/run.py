"""The parts of a training, put together from its configuration and its material."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from wespeaker_lap import build
from wespeaker_lap.config import Config
from wespeaker_lap.data.balanced import BalancedBatchSampler
from wespeaker_lap.data.dequantize import Dequantize
from wespeaker_lap.data.loader import BatchLoader
from wespeaker_lap.data.sampler import ShuffledBatches
from wespeaker_lap.engine.compiling import compile_parts
from wespeaker_lap.engine.dist import World, choose_precision, synchronise_batch_norm
from wespeaker_lap.engine.ema import make_ema
from wespeaker_lap.engine.frontend import FOLDER
from wespeaker_lap.engine.loading import make_loader
from wespeaker_lap.engine.material import Material
from wespeaker_lap.engine.objective import Objective
from wespeaker_lap.engine.teacher import Teacher
from wespeaker_lap.engine.validation import Validation
from wespeaker_lap.engine.wave_net import WaveNet
from wespeaker_lap.frontends.ssl import FrozenSSL
from wespeaker_lap.frontends.tuning import find_encoder, group_parameters, start_tuning
from wespeaker_lap.models.speaker_net import SpeakerNet


@dataclass
class Run:
    """Everything a training consists of; `step` counts the finished steps of all epochs."""

    config: Config
    world: World
    exp_dir: Path
    material: Material
    net: SpeakerNet  # what is embedded with: (B, T, L, D) -> (B, E)
    encoder: nn.Module | None  # that is tuned with it
    objective: Objective
    model: nn.Module  # the objective, under DDP where there are several processes
    to_floats: nn.Module  # of a batch's features, where they come as they are stored
    optimizer: torch.optim.Optimizer
    rate_factors: list[float]  # of the optimizer's groups
    scaler: torch.amp.GradScaler
    sampler: ShuffledBatches | BalancedBatchSampler
    loader: BatchLoader
    validation: Validation | None
    weights: nn.ModuleDict  # what is saved after an epoch, by its name in the file
    ema: AveragedModel | None  # of `weights`; the same on every process
    compiled: list[str]  # parts of the model, for the log
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
    encoder = _start_tuning(config, material)
    objective = _build_objective(config, material, net, train_set, precision)
    objective = synchronise_batch_norm(objective, world).to(world.device)
    compiled = compile_parts(net, material.frontend) if config.train.compile else []
    optimizer, factors = _make_optimizer(config, objective, encoder)
    scaler = torch.amp.GradScaler(world.device.type, enabled=precision is torch.float16)
    sampler, loader = make_loader(config, source, world)
    to_floats = nn.Identity()
    if source.as_stored:
        to_floats = Dequantize(source.store.codec, source.crop_shape).to(world.device)
    model = _distribute(objective, world, encoder is not None)
    weights = nn.ModuleDict({"net": net, "head": objective.head}
                            | ({FOLDER: encoder.model} if encoder is not None else {}))
    decay = config.train.ema_decay
    ema = None if decay is None else make_ema(weights, decay)
    return Run(config, world, exp_dir, material, net, encoder and encoder.model, objective, model,
               to_floats, optimizer, factors, scaler, sampler, loader, validation, weights, ema,
               compiled)


def _distribute(objective: Objective, world: World, is_tuning: bool) -> nn.Module:
    if world.size == 1:
        return objective
    # No state of an encoder's last blocks may be used, and then they have no gradients.
    return DistributedDataParallel(objective, broadcast_buffers=False, gradient_as_bucket_view=True,
                                   find_unused_parameters=is_tuning)


def _start_tuning(config: Config, material: Material) -> FrozenSSL | None:
    tuning = config.train.encoder
    if tuning is None:
        return None
    encoder = find_encoder(material.frontend)
    start_tuning(encoder, tuning.freeze_conv, tuning.checkpointing)
    return encoder


def _make_optimizer(config: Config, objective: nn.Module, encoder: FrozenSSL | None,
                    ) -> tuple[torch.optim.Optimizer, list[float]]:
    """Adam, and the factors that the schedule's rate is multiplied with in each of its groups."""
    tuned = []
    if encoder is not None:
        tuning = config.train.encoder
        tuned = [(tuning.lr / config.train.lr * factor, params)
                 for factor, params in group_parameters(encoder, tuning.layer_decay)]
    known = {id(p) for _, params in tuned for p in params}
    others = [p for p in objective.parameters() if p.requires_grad and id(p) not in known]
    groups = [(1.0, others), *tuned]
    optimizer = torch.optim.Adam([{"params": params} for _, params in groups], lr=config.train.lr,
                                 weight_decay=config.train.weight_decay)
    return optimizer, [factor for factor, _ in groups]


def _build_objective(config: Config, material: Material, net: SpeakerNet, train_set: str,
                     precision: torch.dtype | None) -> Objective:
    source = material.source
    head = build.build_head(config.loss, config.model.embed_dim, len(source.speakers))
    contrastive, weight, teacher = None, 0.0, None
    if config.contrastive:
        contrastive = build.build_contrastive(config.contrastive, config.train, net,
                                              source.labels)
        weight = config.contrastive.weight
    if config.distill:
        teacher = Teacher(config.distill, source.list_entries(), train_set, source.speakers,
                          config.loss)
        teacher.check(config.model.embed_dim)
    embedder = net if material.frontend is None else WaveNet(material.frontend, net)
    return Objective(embedder, head, precision, contrastive, weight, teacher)
