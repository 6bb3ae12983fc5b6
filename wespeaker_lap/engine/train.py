"""Stage 3: train a speaker network on features or waveforms, on one process or many."""

import logging
import math
import time
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from torch import nn

from wespeaker_lap import build
from wespeaker_lap.config import Config, dump_config
from wespeaker_lap.config.losses import Loss
from wespeaker_lap.data.batch import Batch
from wespeaker_lap.data.copy_sources import CopySources
from wespeaker_lap.data.datadir import DataDir
from wespeaker_lap.engine import resume
from wespeaker_lap.engine.dist import World
from wespeaker_lap.engine.journal import Journal
from wespeaker_lap.engine.material import gather_material
from wespeaker_lap.engine.run import Run, set_up
from wespeaker_lap.engine.schedule import learning_rate, margin_at
from wespeaker_lap.engine.stopping import StopRequest
from wespeaker_lap.engine.validation import Validation, check_validation, validate
from wespeaker_lap.io.facts import save_facts
from wespeaker_lap.io.table import name_some, write_text

NO_TABLES = CopySources()


def train(config: Config, data: DataDir, feats: str | Path | None, exp_dir: str | Path,
          world: World, validation: Validation | None = None,
          tables: CopySources = NO_TABLES) -> None:
    """Train, or go on with the training in `exp_dir`.

    Args:
        config: everything but the facts of the data.
        data: the training set.
        feats: its feature store; None where it is trained on waveforms.
        exp_dir: where config, log, metrics and models go.
        world: this process among all.
        validation: trials whose EER is measured after every epoch.
        tables: recordings that waveforms are augmented with.

    Raises:
        ValueError: the folder holds another training, features do not fit, a loss that is not
            finite (with the utterances of the batch).
        KeyboardInterrupt: asked to stop; the state was saved.
    """
    exp_dir, material = Path(exp_dir), gather_material(config, data, feats, tables)
    if validation:
        check_validation(validation, material)
    stop = StopRequest()
    run = set_up(config, material, data.path.name, exp_dir, world, validation)
    speakers, num_params = material.source.speakers, build.count_params(run.net)
    # Reads only, so that all processes refuse together; written is when all have read.
    resume.check_same_training(exp_dir, config, speakers, material.identity)
    world.barrier()
    if world.is_main:
        write_text(exp_dir / "config.yaml", dump_config(config))
        tuned = run.encoder and resume.find_tuned(exp_dir)
        save_facts(exp_dir, material.identity, speakers, data.path.name, num_params, tuned)
    world.barrier()
    resume.restore(run)
    if run.step == run.total_steps:
        logging.info("%s: the training is finished (%d epochs)", exp_dir, config.train.epochs)
        return
    with stop, Journal(exp_dir, world.is_main, run.step) as journal:
        journal.describe(run, world, num_params, len(speakers))
        _train_epochs(run, journal, stop)


def _train_epochs(run: Run, journal: Journal, stop: StopRequest) -> None:
    """The loop: every schedule and every random number is a function of the step."""
    config, world, per_epoch = run.config, run.world, run.sampler.steps_per_epoch
    run.model.train()
    for epoch in range(run.step // per_epoch, config.train.epochs):
        run.sampler.start_at(epoch, run.step % per_epoch)
        journal.start_epoch(epoch, per_epoch, run.step % per_epoch)
        asked = time.perf_counter()
        for batch in run.loader:
            waited = time.perf_counter() - asked
            lr = learning_rate(run.step, run.total_steps, config.train.lr, config.train.final_lr,
                               round(config.train.warmup_share * run.total_steps))
            margin = _margin(config.loss, run.step / per_epoch)
            losses, correct = _update(run, batch, lr, margin)
            run.step += 1
            *losses, correct, stops = world.sum([*losses, correct, float(stop.requested)])
            if not math.isfinite(sum(losses)):
                raise ValueError(_blame(run, batch))
            journal.log_step(run.step, [loss / world.size for loss in losses], correct,
                             config.train.batch_size, lr, margin, waited,
                             time.perf_counter() - asked, batch.num_bytes)
            if run.step % per_epoch == 0:
                break  # the epoch's own checkpoint follows
            if stops or run.step % config.train.checkpoint_steps == 0:
                resume.save(run)
            if stops:
                _stop(run)
            asked = time.perf_counter()
        journal.log_epoch(epoch + 1, run.step, validate(run), world.gather(journal.reading()))
        resume.save_epoch(run, epoch + 1)
        if stops and run.step < run.total_steps:
            _stop(run)


def _stop(run: Run) -> NoReturn:
    run.world.barrier()  # or torchrun, seeing the others end, would end the one that still saves
    raise KeyboardInterrupt(f"stopped after step {run.step} of {run.total_steps}; the same "
                            f"command goes on from here")


def _margin(loss: Loss, epoch: float) -> float:
    """The classifier's margin after so many epochs; 0 where it knows none."""
    if loss.name == "softmax":
        return 0.0
    ramp = loss.schedule
    return margin_at(epoch, ramp.start_epoch, ramp.end_epoch, ramp.initial, loss.margin, ramp.shape)


def _update(run: Run, batch: Batch, lr: float, margin: float) -> tuple[list[float], float]:
    """One optimizer step; returns this process's losses and number of correct examples."""
    # Dropout follows from (seed, step, rank), so a restart needs no generator's state.
    torch.manual_seed(_mix(run.config.seed, run.step, run.world.rank))
    for group, factor in zip(run.optimizer.param_groups, run.rate_factors, strict=True):
        group["lr"] = factor * lr
    feats = run.to_floats(batch.feats.to(run.world.device, non_blocking=True))
    speakers = batch.speakers.to(run.world.device, non_blocking=True)
    epoch = run.step / run.sampler.steps_per_epoch
    losses, correct = run.model(feats, speakers, batch.utts, margin, epoch)
    loss = losses.sum()
    run.optimizer.zero_grad(set_to_none=True)
    run.scaler.scale(loss).backward()
    if run.config.train.max_grad_norm is not None:
        run.scaler.unscale_(run.optimizer)
        nn.utils.clip_grad_norm_(run.model.parameters(), run.config.train.max_grad_norm)
    if torch.isfinite(loss):  # else the weights stay as they are for whoever looks for the cause
        run.scaler.step(run.optimizer)
        run.scaler.update()
    return losses.tolist(), float(correct)


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
