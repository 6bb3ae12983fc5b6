"""Stage 3: train a speaker network on stored features, on one process or many."""

import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from wespeaker_lap import build
from wespeaker_lap.config import Config, dump_config
from wespeaker_lap.data.batch import Batch
from wespeaker_lap.data.datadir import DataDir
from wespeaker_lap.data.dequantize import Dequantize
from wespeaker_lap.data.loader import BatchLoader
from wespeaker_lap.data.sampler import ShuffledBatches
from wespeaker_lap.data.trials import Trials
from wespeaker_lap.engine import resume
from wespeaker_lap.engine.dist import World, choose_precision, synchronise_batch_norm
from wespeaker_lap.engine.embed import embed_store
from wespeaker_lap.engine.journal import Journal
from wespeaker_lap.engine.loading import make_loader
from wespeaker_lap.engine.schedule import learning_rate, margin_at
from wespeaker_lap.engine.stopping import StopRequest
from wespeaker_lap.frontends.selection import check_stored
from wespeaker_lap.io.facts import save_facts
from wespeaker_lap.io.feats import FeatureStore
from wespeaker_lap.io.identity import check_compatible
from wespeaker_lap.io.table import name_some, write_text
from wespeaker_lap.score.cosine import cosine_scores, index_trials
from wespeaker_lap.score.metrics import eer


@dataclass(frozen=True)
class Validation:
    """A small trial list to watch: features, the utterances of its trials, the trials."""

    store: FeatureStore
    trials: Trials


class TrainingStep(nn.Module):
    """Network and margin loss as one module, so that DDP sees a single forward."""

    def __init__(self, net: nn.Module, head: nn.Module, precision: torch.dtype | None):
        super().__init__()
        self.net, self.head, self.precision = net, head, precision

    def forward(self, feats: torch.Tensor, speakers: torch.Tensor,
                margin: float) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, T, L, D), (B,) -> loss (), number of correctly classified examples ()."""
        with torch.autocast(feats.device.type, self.precision, enabled=self.precision is not None):
            embeddings = self.net(feats)  # (B, E)
        embeddings = embeddings.float()
        loss, _ = self.head(embeddings, speakers, margin=margin)
        with torch.no_grad():  # judged without the margin, as in use
            best = self.head.cosines(embeddings).argmax(dim=1)
        return loss, (best == speakers).sum()


@dataclass
class Run:
    """Everything a training consists of; `step` counts the finished batches of all epochs."""

    config: Config
    world: World
    exp_dir: Path
    net: nn.Module
    head: nn.Module
    model: nn.Module  # TrainingStep, under DDP where there are several processes
    to_floats: nn.Module  # of a batch's features, where they come as they are stored
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    sampler: ShuffledBatches
    loader: BatchLoader
    validation: Validation | None
    step: int = 0

    @property
    def total_steps(self) -> int:
        """Batches in the whole training."""
        return self.config.train.epochs * self.sampler.steps_per_epoch


def train(config: Config, data: DataDir, feats: str | Path, exp_dir: str | Path, world: World,
          validation: Validation | None = None) -> None:
    """Train, or go on with the training in `exp_dir`.

    Args:
        config: everything but the facts of the data.
        data: the training set.
        feats: its feature store.
        exp_dir: where config, log, metrics and models go.
        world: this process among all.
        validation: trials whose EER is measured after every epoch.

    Raises:
        ValueError: the folder holds another training, features do not fit, a loss that is not
            finite (with the utterances of the batch).
        KeyboardInterrupt: asked to stop; the state was saved.
    """
    exp_dir, store = Path(exp_dir), FeatureStore(feats)
    chosen = config.features
    check_stored(feats, store.identity, chosen.layers, chosen.layer_stride, chosen.frame_stride)
    if validation:
        check_compatible(validation.store.directory, validation.store.identity, store.identity)
        index_trials(validation.trials, list(validation.store))  # a missing one ends it here
    stop = StopRequest()
    run = _set_up(config, data, store, exp_dir, world, validation)
    # Reads only, so that all processes refuse together; written is when all have read.
    resume.check_same_training(exp_dir, config, data.speakers, store.identity)
    world.barrier()
    if world.is_main:
        write_text(exp_dir / "config.yaml", dump_config(config))
        save_facts(exp_dir, store.identity, data.speakers, data.path.name,
                   build.count_params(run.net))
    world.barrier()
    resume.restore(run)
    if run.step == run.total_steps:
        logging.info("%s: the training is finished (%d epochs)", exp_dir, config.train.epochs)
        return
    with stop, Journal(exp_dir, world.is_main, run.step) as journal:
        journal.describe(run, world, build.count_params(run.net), len(data.speakers))
        _train_epochs(run, journal, stop)


def _train_epochs(run: Run, journal: Journal, stop: StopRequest) -> None:
    """The loop: every schedule and every random number is a function of the step."""
    config, world, per_epoch = run.config, run.world, run.sampler.steps_per_epoch
    loss_config, ramp = config.loss, config.loss.schedule
    run.model.train()
    for epoch in range(run.step // per_epoch, config.train.epochs):
        run.sampler.start_at(epoch, run.step % per_epoch)
        journal.start_epoch(epoch, per_epoch, run.step % per_epoch)
        asked = time.perf_counter()
        for batch in run.loader:
            waited = time.perf_counter() - asked
            lr = learning_rate(run.step, run.total_steps, config.train.lr, config.train.final_lr,
                               round(config.train.warmup_share * run.total_steps))
            margin = margin_at(run.step / per_epoch, ramp.start_epoch, ramp.end_epoch,
                               ramp.initial, loss_config.margin, ramp.shape)
            loss, correct = _update(run, batch, lr, margin)
            run.step += 1
            loss, correct, stops = world.sum([loss, correct, float(stop.requested)])
            if not math.isfinite(loss):
                raise ValueError(_blame(run, batch))
            journal.log_step(run.step, loss / world.size, correct, config.train.batch_size, lr,
                             margin, waited, time.perf_counter() - asked, batch.num_bytes)
            if run.step % per_epoch == 0:
                break  # the epoch's own checkpoint follows
            if stops or run.step % config.train.checkpoint_steps == 0:
                resume.save(run)
            if stops:
                _stop(run)
            asked = time.perf_counter()
        journal.log_epoch(epoch + 1, run.step, _validate(run), world.gather(journal.reading()))
        resume.save_epoch(run, epoch + 1)
        if stops and run.step < run.total_steps:
            _stop(run)


def _stop(run: Run) -> NoReturn:
    run.world.barrier()  # or torchrun, seeing the others end, would end the one that still saves
    raise KeyboardInterrupt(f"stopped after step {run.step} of {run.total_steps}; the same "
                            f"command goes on from here")


def _update(run: Run, batch: Batch, lr: float, margin: float) -> tuple[float, float]:
    """One optimizer step; returns this process's loss and number of correct examples."""
    # Dropout follows from (seed, step, rank), so a restart needs no generator's state.
    torch.manual_seed(_mix(run.config.seed, run.step, run.world.rank))
    for group in run.optimizer.param_groups:
        group["lr"] = lr
    feats = run.to_floats(batch.feats.to(run.world.device, non_blocking=True))
    speakers = batch.speakers.to(run.world.device, non_blocking=True)
    loss, correct = run.model(feats, speakers, margin)
    run.optimizer.zero_grad(set_to_none=True)
    run.scaler.scale(loss).backward()
    if run.config.train.max_grad_norm is not None:
        run.scaler.unscale_(run.optimizer)
        nn.utils.clip_grad_norm_(run.model.parameters(), run.config.train.max_grad_norm)
    if torch.isfinite(loss):  # else the weights stay as they are for whoever looks for the cause
        run.scaler.step(run.optimizer)
        run.scaler.update()
    return loss.item(), float(correct)


def _mix(seed: int, step: int, rank: int) -> int:
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0])


def _blame(run: Run, batch: Batch) -> str:
    """Say which utterances were in the global batch, and which of them hold broken numbers."""
    stored = run.to_floats(batch.feats.to(run.world.device))
    own = [(utt, bool(torch.isfinite(feats).all()))
           for utt, feats in zip(batch.utts, stored, strict=True)]
    # Batch norm carries one process's broken numbers to all, so all are asked.
    checked = [pair for part in run.world.gather(own) for pair in part]
    broken = [utt for utt, is_finite in checked if not is_finite]
    cause = (f"features that are not finite: {name_some(broken)}" if broken else
             "all its features are finite; lower train.lr. Its utterances: "
             + " ".join(utt for utt, _ in checked))
    return f"the loss is not finite at step {run.step}: {cause}"


def _validate(run: Run) -> float | None:
    """EER in percent on the validation trials, raw cosine."""
    if run.validation is None:
        return None
    trials = run.validation.trials
    utts = sorted({*trials.enroll, *trials.test})
    vectors = embed_store(run.net, run.validation.store, utts, run.world)
    enroll_index, test_index, _ = index_trials(trials, utts)
    return 100 * eer(cosine_scores(vectors, vectors, enroll_index, test_index), trials.labels)


def _set_up(config: Config, data: DataDir, store: FeatureStore, exp_dir: Path, world: World,
            validation: Validation | None) -> Run:
    torch.manual_seed(config.seed)  # the same initial weights on every process
    net = build.build_net(config.model, store.num_layers, store.dim)
    head = build.build_head(config.loss, config.model.embed_dim, len(data.speakers))
    precision = choose_precision(config.train.precision, world.device)
    model = synchronise_batch_norm(TrainingStep(net, head, precision), world).to(world.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.train.lr,
                                 weight_decay=config.train.weight_decay)
    scaler = torch.amp.GradScaler(world.device.type, enabled=precision is torch.float16)
    source, sampler, loader = make_loader(config, store, data.utt2spk, data.speakers, world)
    to_floats = nn.Identity()
    if config.train.dequantize == "device":
        to_floats = Dequantize(store.codec, source.crop_shape).to(world.device)
    wrapped = DistributedDataParallel(model, broadcast_buffers=False) if world.size > 1 else model
    return Run(config, world, exp_dir, net, head, wrapped, to_floats, optimizer, scaler, sampler,
               loader, validation)
