"""Stage 3: train a speaker network on features or waveforms, on one process or many."""

import logging
import time
from contextlib import nullcontext
from dataclasses import asdict
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
from wespeaker_lap.engine.initial import describe_initial, find_initial, load_initial
from wespeaker_lap.engine.journal import Journal
from wespeaker_lap.engine.material import gather_material
from wespeaker_lap.engine.memory import measure_peaks
from wespeaker_lap.engine.objective import PARTS
from wespeaker_lap.engine.run import Run, set_up
from wespeaker_lap.engine.schedule import learning_rate, margin_at
from wespeaker_lap.engine.stopping import StopRequest
from wespeaker_lap.engine.validation import Validation, check_validation, validate
from wespeaker_lap.io.facts import save_facts
from wespeaker_lap.io.origin import save_origin
from wespeaker_lap.io.table import name_some, write_text

NO_TABLES = CopySources()
NUM_SUMS = len(PARTS) + 2  # over all processes: the losses, correct examples, requests to stop


def train(config: Config, data: DataDir, feats: str | Path | None, exp_dir: str | Path,
          world: World, validation: Validation | None = None,
          tables: CopySources = NO_TABLES, init: str | Path | None = None) -> None:
    """Train, or go on with the training in `exp_dir`.

    Args:
        config: everything but the facts of the data.
        data: the training set.
        feats: its feature store; None where it is trained on waveforms.
        exp_dir: where config, log, metrics and models go.
        world: this process among all.
        validation: trials whose EER is measured after every epoch.
        tables: recordings that waveforms are augmented with.
        init: a trained model to begin with, see `initial.find_initial`; one that is gone on with
            has its own weights.

    Raises:
        ValueError: the folder holds another training, features do not fit, a loss that is not
            finite (with the utterances of the batch).
        KeyboardInterrupt: asked to stop; the state was saved.
    """
    exp_dir, material = Path(exp_dir), gather_material(config, data, feats, tables)
    check_validation(validation, material, config.score.average == "best")
    stop = StopRequest()
    run = set_up(config, material, data.path.name, exp_dir, world, validation)
    said = _begin(run, data.path.name, init)
    if world.is_main:
        save_origin(exp_dir, {"data": data.path, "feats": feats, **asdict(tables)})
    if run.step == run.total_steps:
        logging.info("%s: the training is finished (%d epochs)", exp_dir, config.train.epochs)
        return
    with stop, Journal(exp_dir, world.is_main, run.step) as journal:
        journal.describe(run, world, build.count_params(run.net), len(material.source.speakers))
        journal.records.say("it begins with: %s", said)
        _train_epochs(run, journal, stop)


def _begin(run: Run, train_set: str, init: str | Path | None) -> str:
    """Write what the training is, load the state or weights that it begins with, and say which."""
    config, exp_dir, features = run.config, run.exp_dir, run.material.identity
    speakers = run.material.source.speakers
    # Reads only, so that all processes refuse together; written is when all have read.
    resume.check_same_training(exp_dir, config, speakers, features)
    said, kept = "the weights of its last state", resume.find_kept(exp_dir)
    if not resume.is_begun(exp_dir):
        said = "random weights"
        if init is not None:
            initial = find_initial(init)
            said = load_initial(initial, run.net, run.objective.head, speakers, features)
            kept = {"init": describe_initial(initial)}
    run.world.barrier()
    if run.world.is_main:
        write_text(exp_dir / "config.yaml", dump_config(config))
        save_facts(exp_dir, features, speakers, train_set, build.count_params(run.net), kept)
    run.world.barrier()
    resume.restore(run)
    return said


def _train_epochs(run: Run, journal: Journal, stop: StopRequest) -> None:
    """The loop: every schedule and every random number is a function of the step."""
    config, world, per_epoch = run.config, run.world, run.sampler.steps_per_epoch
    run.model.train()
    for epoch in range(run.step // per_epoch, config.train.epochs):
        run.sampler.start_at(epoch, run.step % per_epoch)
        journal.start_epoch(epoch, per_epoch, run.step % per_epoch)
        asked = begun = time.perf_counter()
        part, waited, num_bytes, sums = 0, 0.0, 0, np.zeros(NUM_SUMS)
        for batch in run.loader:
            waited, num_bytes = waited + time.perf_counter() - asked, num_bytes + batch.num_bytes
            lr = learning_rate(run.step, run.total_steps, config.train.lr, config.train.final_lr,
                               round(config.train.warmup_share * run.total_steps))
            margin = _margin(config.loss, run.step / per_epoch)
            losses, correct = _update(run, batch, lr, margin, part)
            sums += world.sum([*losses, correct, float(stop.requested)])
            if not np.isfinite(sums).all():
                raise ValueError(_blame(run, batch))
            part += 1
            if part < config.train.accumulate:
                asked = time.perf_counter()
                continue
            run.step += 1
            *losses, correct, stops = sums.tolist()
            journal.log_step(run.step, [loss / world.size / part for loss in losses], correct,
                             part * config.train.batch_size, lr, margin, waited,
                             time.perf_counter() - begun, num_bytes)
            if run.step % per_epoch == 0:
                break  # the epoch's own checkpoint follows
            if stops or run.step % config.train.checkpoint_steps == 0:
                resume.save(run)
            if stops:
                _stop(run)
            asked = begun = time.perf_counter()
            part, waited, num_bytes, sums = 0, 0.0, 0, np.zeros(NUM_SUMS)
        journal.log_epoch(epoch + 1, run.step, validate(run), world.gather(journal.reading()),
                          world.gather(measure_peaks(world.device)))
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


def _update(run: Run, batch: Batch, lr: float, margin: float,
            part: int = 0) -> tuple[list[float], float]:
    """One batch, and after the last of a step's the optimizer.

    Args:
        run: the training.
        batch: of this process.
        lr, margin: of the step.
        part: number of the batch in its step.

    Returns:
        This process's losses, as means over the batch, and number of correct examples.
    """
    is_last = part + 1 == run.config.train.accumulate
    if part == 0:
        # Dropout follows from (seed, step, rank), so a restart needs no generator's state.
        torch.manual_seed(_mix(run.config.seed, run.step, run.world.rank))
        run.optimizer.zero_grad(set_to_none=True)
    # Gradients are exchanged once a step.
    with nullcontext() if is_last or run.world.size == 1 else run.model.no_sync():
        losses, correct = _forward(run, batch, margin)
        loss = losses.sum()
        run.scaler.scale(loss / run.config.train.accumulate).backward()
    # Else the weights stay as they are for whoever looks for the cause.
    if is_last and torch.isfinite(loss):
        _step(run, lr)
    return losses.tolist(), float(correct)


def _forward(run: Run, batch: Batch, margin: float) -> tuple[torch.Tensor, torch.Tensor]:
    feats = run.to_floats(batch.feats.to(run.world.device, non_blocking=True))
    speakers = batch.speakers.to(run.world.device, non_blocking=True)
    epoch = run.step / run.sampler.steps_per_epoch
    teacher, spans = run.objective.teacher, None
    if teacher is not None and teacher.hears_crops:
        spans = [run.material.source.find_span(key) for key in batch.keys]
    return run.model(feats, speakers, batch.utts, margin, epoch, spans)


def _step(run: Run, lr: float) -> None:
    for group, factor in zip(run.optimizer.param_groups, run.rate_factors, strict=True):
        group["lr"] = factor * lr
    if run.config.train.max_grad_norm is not None:
        run.scaler.unscale_(run.optimizer)
        nn.utils.clip_grad_norm_(run.model.parameters(), run.config.train.max_grad_norm)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    if run.ema is not None:
        run.ema.update_parameters(run.weights)


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
    return f"the loss is not finite at step {run.step + 1}: {cause}"
