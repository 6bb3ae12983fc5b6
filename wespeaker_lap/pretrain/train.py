"""Pre-train an encoder, on one process or many, or go on with a training that stopped."""

import logging
import math
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from wespeaker_lap.config import dump_config
from wespeaker_lap.data.packed import PackedAudio
from wespeaker_lap.engine.dist import World, choose_precision
from wespeaker_lap.engine.schedule import learning_rate
from wespeaker_lap.engine.stopping import StopRequest
from wespeaker_lap.frontends.hidden_states import count_frames, normalize
from wespeaker_lap.frontends.ssl import FrozenSSL
from wespeaker_lap.io.table import write_text
from wespeaker_lap.pretrain import resume
from wespeaker_lap.pretrain.batch import Batch, make_ahead, make_batch
from wespeaker_lap.pretrain.config import PretrainConfig, Train
from wespeaker_lap.pretrain.crops import CropSource
from wespeaker_lap.pretrain.encoder import build_encoder, level_front_end
from wespeaker_lap.pretrain.export import export_encoder
from wespeaker_lap.pretrain.journal import Journal
from wespeaker_lap.pretrain.objective import Pretraining
from wespeaker_lap.pretrain.targets import Targets

NORMALIZE_EPS = 1e-7  # of the waveform's normalisation, as in transformers
FIT_CROPS = 512  # from which statistics of the targets are learnt
LEVEL_CROPS = 64  # from which the front end's scales are
VALID_BATCHES = 8
VALID_SEED, FIT_SEED = 101, 102  # keep their draws apart from the training's


@dataclass
class Run:
    """Everything a pre-training consists of; `step` counts the finished steps."""

    config: PretrainConfig
    world: World
    exp_dir: Path
    facts: dict  # what `resume` knows it by
    net: Pretraining
    model: nn.Module  # net, under DDP where there are several processes
    targets: Targets
    source: CropSource
    valid_source: CropSource
    optimizer: torch.optim.Optimizer
    precision: torch.dtype | None
    num_frames: int
    step: int = 0


def pretrain(config: PretrainConfig, audio: PackedAudio, exp_dir: str | Path, world: World,
             noises: PackedAudio | None = None, rirs: PackedAudio | None = None) -> None:
    """Train an encoder, or go on with the training in `exp_dir`.

    Args:
        config: everything but the data.
        audio: the recordings, packed.
        exp_dir: where configuration, log, metrics, state and the encoder go.
        world: this process among all.
        noises, rirs: for corruption, packed.

    Raises:
        ValueError: another training is in the folder, or a loss that is not finite.
        KeyboardInterrupt: asked to stop; the state was saved.
    """
    exp_dir, stop = Path(exp_dir), StopRequest()
    facts = {"config": config.model_dump(mode="json"), "audio": audio.data_hash,
             "noises": noises and noises.data_hash, "rirs": rirs and rirs.data_hash}
    state = resume.load_same_training(exp_dir, facts, world)
    sources = _make_sources(config, audio, noises, rirs)
    run = _set_up(config, world, exp_dir, facts, *sources, is_new=state is None)
    if state is not None:
        resume.restore(run, state)
    if world.is_main:
        write_text(exp_dir / "config.yaml", dump_config(config))
    is_new_work = run.step < config.train.total_steps
    if not is_new_work:
        logging.info("%s: the training is finished (%d steps)", exp_dir, run.step)
    else:
        with stop, Journal(exp_dir, world, run.step, config.train) as journal:
            journal.describe(sum(p.numel() for p in run.net.encoder.parameters()), len(audio),
                             audio.lengths.sum() / audio.sample_rate / 3600, world, run.precision)
            _train_steps(run, journal, stop)
    is_exported = (exp_dir / "encoder" / "config.json").is_file()
    if world.is_main and (is_new_work or not is_exported):
        export_encoder(run.net.encoder, config.encoder, exp_dir / "encoder", audio.sample_rate,
                       NORMALIZE_EPS)
        logging.info("the encoder: %s", exp_dir / "encoder")


def _train_steps(run: Run, journal: Journal, stop: StopRequest) -> None:
    """The loop: the rate and every random number are functions of the step."""
    train, world = run.config.train, run.world
    asked = time.perf_counter()
    with closing(_make_batches(run, run.source, run.step, train.total_steps)) as batches:
        for batch in batches:
            waited = time.perf_counter() - asked
            lr = rate_at(run.step, train)
            terms = _update(run, batch, lr)
            run.step += 1
            *values, stops = world.sum([*terms.values(), float(stop.requested)])
            terms = {name: value / world.size for name, value in zip(terms, values, strict=True)}
            if not math.isfinite(terms["loss"]) or not math.isfinite(terms["grad_norm"]):
                raise ValueError(f"the loss or its gradient is not finite at step {run.step}; "
                                 f"lower train.lr")
            journal.log_step(run.step, terms, lr, waited, time.perf_counter() - asked)
            if run.step % train.valid_steps == 0 or run.step == train.total_steps:
                journal.log_valid(run.step, _validate(run))
            if stops or run.step % train.checkpoint_steps == 0 or run.step == train.total_steps:
                resume.save(run)
            if stops and run.step < train.total_steps:
                _stop(run)
            asked = time.perf_counter()


def rate_at(step: int, train: Train) -> float:
    """The learning rate: one rise and fall for the front end, then one for everything."""
    first, (num_steps, peak) = 0, (train.front_steps, train.front_lr)
    if step >= train.front_steps:
        first, num_steps, peak = train.front_steps, train.steps, train.lr
    return learning_rate(step - first, num_steps, peak, train.final_lr,
                         round(train.warmup_share * num_steps))


def _stop(run: Run) -> NoReturn:
    run.world.barrier()  # until all know that it was saved
    raise KeyboardInterrupt(f"stopped after step {run.step} of {run.config.train.total_steps}; the "
                            f"same command goes on from here")


def _make_batches(run: Run, source: CropSource, first: int, last: int) -> Iterator[Batch]:
    def make(step: int) -> Batch:
        return make_batch(source, step, run.config, run.num_frames,
                          run.world).pin(run.world.device)

    return make_ahead(make, first, last)


def _update(run: Run, batch: Batch, lr: float) -> dict[str, float]:
    """One optimiser step; returns this process's terms."""
    torch.manual_seed(_mix(run.config.seed, run.step, run.world.rank))  # dropout
    for group in run.optimizer.param_groups:
        group["lr"] = lr
    run.net.train()
    terms = _forward(run, batch)
    run.optimizer.zero_grad(set_to_none=True)
    terms["loss"].backward()
    terms["grad_norm"] = nn.utils.clip_grad_norm_(run.net.parameters(),
                                                  run.config.train.max_grad_norm)
    if torch.isfinite(terms["grad_norm"]):
        run.optimizer.step()
    return _read(terms)


def _forward(run: Run, batch: Batch) -> dict[str, Tensor]:
    """The loss on this process's part of a batch, and its terms."""
    batch = batch.to(run.world.device)
    clean, noisy = (normalize(x, [x.shape[1]] * len(x), NORMALIZE_EPS)
                    for x in (batch.clean, batch.noisy))
    inputs = [noisy, run.targets.mel(noisy, run.num_frames)]
    if run.step >= run.config.train.front_steps:
        inputs += [batch.mask, *run.targets(clean, run.num_frames), batch.utts, batch.has_pair]
    with torch.autocast(run.world.device.type, run.precision, enabled=run.precision is not None):
        loss, terms = run.model(*inputs)
    return {"loss": loss, **terms}


def _read(terms: dict[str, Tensor]) -> dict[str, float]:
    """Numbers, fetched from the device at once."""
    values = torch.stack([term.detach().float() for term in terms.values()]).tolist()
    return dict(zip(terms, values, strict=True))


@torch.no_grad()
def _validate(run: Run) -> dict[str, float]:
    """Mean terms over the same crops of held-out recordings every time."""
    run.net.eval()
    totals: dict[str, float] = {}
    for batch in _make_batches(run, run.valid_source, 0, VALID_BATCHES):
        for name, value in _read(_forward(run, batch)).items():
            totals[name] = totals.get(name, 0.0) + value / VALID_BATCHES
    values = run.world.sum(list(totals.values()))
    return {name: value / run.world.size for name, value in zip(totals, values, strict=True)}


def _mix(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _make_sources(config: PretrainConfig, audio: PackedAudio, noises: PackedAudio | None,
                  rirs: PackedAudio | None) -> tuple[CropSource, CropSource]:
    """Training and held-out recordings."""
    order = np.random.default_rng(config.seed).permutation(len(audio))
    num_valid = max(1, round(config.train.valid_share * len(audio)))
    if num_valid == len(audio):
        raise ValueError(f"{audio.directory}: nothing is left to train on when one recording is "
                         f"held out; want two or more")
    return (CropSource(audio, np.sort(order[num_valid:]), config.crops, config.seed, noises, rirs),
            CropSource(audio, np.sort(order[:num_valid]), config.crops, VALID_SEED, noises, rirs))


def _set_up(config: PretrainConfig, world: World, exp_dir: Path, facts: dict, source: CropSource,
            valid_source: CropSource, is_new: bool) -> Run:
    train, rate = config.train, source.audio.sample_rate
    if train.batch_size % (2 * world.size):
        raise ValueError(f"train.batch_size {train.batch_size} is over all processes and must be a "
                         f"multiple of twice their number, {world.size}")
    torch.manual_seed(config.seed)  # the same initial weights on every process
    encoder = build_encoder(config.encoder, rate)
    num_frames = count_frames(encoder, source.size)
    shift = math.prod(layer[2] for layer in config.encoder.conv_layers)
    teacher = FrozenSSL.load(config.masked.teacher) if config.masked.teacher else None
    targets = Targets(config.masked, rate, shift, teacher, config.seed)
    if is_new:
        if world.is_main:  # DDP shares the encoder
            _fit(targets, encoder, source, num_frames)
        targets.load_state_dict(world.gather(targets.state_dict() if world.is_main else None)[0])
    net = Pretraining(encoder, config, targets.num_codebooks, config.masked.codebook_size,
                      targets.log_mel.mel.n_mels, world).to(world.device)
    if train.compile:
        net.encode = torch.compile(net.encode)
    model = net
    if world.size > 1:  # the first steps leave all but the front end without gradients
        model = DistributedDataParallel(net, find_unused_parameters=train.front_steps > 0)
    precision = choose_precision(train.precision, world.device)
    if precision is torch.float16:  # of GPUs without bf16; nothing here would scale its gradients
        precision = None
    return Run(config, world, exp_dir, facts, net, model, targets.to(world.device), source,
               valid_source, _make_optimizer(net, train), precision, num_frames)


def _fit(targets: Targets, encoder: nn.Module, source: CropSource, num_frames: int) -> None:
    """Learn what is fixed before the first step: statistics of targets, scales of filters."""
    drawn = CropSource(source.audio, source.utts, source.config, FIT_SEED)
    crops = np.stack([drawn.pair(0, place)[0].clean for place in range(FIT_CROPS)])
    wav = normalize(torch.from_numpy(crops), [source.size] * FIT_CROPS, NORMALIZE_EPS)
    targets.fit(wav, num_frames)
    level_front_end(encoder.feature_extractor.conv_layers[0].conv, wav[:LEVEL_CROPS])


def _make_optimizer(net: nn.Module, train: Train) -> torch.optim.Optimizer:
    """AdamW; weight decay on matrices only."""
    matrices = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim <= 1]
    return torch.optim.AdamW([{"params": matrices, "weight_decay": train.weight_decay},
                              {"params": others, "weight_decay": 0.0}],
                             lr=train.lr, betas=(0.9, 0.98), fused=True)
