"""Pre-train an encoder, on one process or many, or go on with a training that stopped."""

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
import yaml
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from wespeaker_lap.data.packed import PackedAudio
from wespeaker_lap.engine import checkpoint
from wespeaker_lap.engine.dist import World, choose_precision
from wespeaker_lap.engine.records import Records
from wespeaker_lap.engine.schedule import learning_rate
from wespeaker_lap.engine.stopping import StopRequest
from wespeaker_lap.frontends.hidden_states import count_frames, normalize
from wespeaker_lap.frontends.ssl import FrozenSSL
from wespeaker_lap.io.table import write_text
from wespeaker_lap.pretrain.config import PretrainConfig
from wespeaker_lap.pretrain.crops import CropSource
from wespeaker_lap.pretrain.encoder import build_encoder, level_front_end
from wespeaker_lap.pretrain.export import export_encoder
from wespeaker_lap.pretrain.objective import Pretraining, draw_mask
from wespeaker_lap.pretrain.targets import Targets

NORMALIZE_EPS = 1e-7  # of the waveform's normalisation, as in transformers
FIT_CROPS = 512  # from which statistics of the targets are learnt
VALID_BATCHES = 8
VALID_SEED, FIT_SEED, MASK_SEED = 101, 102, 103  # keep their draws apart from the training's


@dataclass
class Run:
    """Everything a pre-training consists of; `step` counts the finished steps."""

    config: PretrainConfig
    world: World
    exp_dir: Path
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
    run = _set_up(config, audio, exp_dir, world, noises, rirs)
    _restore(run, facts)
    if run.step == config.train.steps:
        logging.info("%s: the training is finished (%d steps)", exp_dir, run.step)
        return
    with stop, Records(exp_dir, world.is_main, run.step) as records:
        records.say("%d parameters, %d recordings, %.1f h, from step %d",
                    sum(p.numel() for p in run.net.encoder.parameters()), len(audio),
                    audio.lengths.sum() / audio.sample_rate / 3600, run.step)
        _train_steps(run, records, stop, facts)
    if world.is_main:
        export_encoder(run.net.encoder, config.encoder, exp_dir / "encoder", audio.sample_rate,
                       NORMALIZE_EPS)
        logging.info("the encoder: %s", exp_dir / "encoder")


def _train_steps(run: Run, records: Records, stop: StopRequest, facts: dict) -> None:
    """The loop: the rate and every random number are functions of the step."""
    train, world = run.config.train, run.world
    while run.step < train.steps:
        lr = learning_rate(run.step, train.steps, train.lr, train.final_lr,
                           round(train.warmup_share * train.steps))
        terms = _update(run, lr)
        run.step += 1
        names = sorted(terms)
        *values, stops = world.sum([terms[name] for name in names] + [float(stop.requested)])
        terms = {name: value / world.size for name, value in zip(names, values, strict=True)}
        if not math.isfinite(terms["loss"]):
            raise ValueError(f"the loss is not finite at step {run.step}; lower train.lr")
        records.log_step(run.step, {**terms, "lr": lr})
        if run.step % train.valid_steps == 0 or run.step == train.steps:
            records.log_valid(run.step, _validate(run))
        if stops or run.step % train.checkpoint_steps == 0 or run.step == train.steps:
            _save(run, facts)
        if stops and run.step < train.steps:
            _stop(run)


def _stop(run: Run) -> NoReturn:
    run.world.barrier()  # until all know that it was saved
    raise KeyboardInterrupt(f"stopped after step {run.step} of {run.config.train.steps}; the same "
                            f"command goes on from here")


def _update(run: Run, lr: float) -> dict[str, float]:
    """One optimiser step; returns this process's terms."""
    torch.manual_seed(_mix(run.config.seed, run.step, run.world.rank))  # dropout
    for group in run.optimizer.param_groups:
        group["lr"] = lr
    run.net.train()
    loss, terms = _forward(run, run.source, run.step)
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(run.net.parameters(), run.config.train.max_grad_norm)
    if torch.isfinite(loss):
        run.optimizer.step()
    return {"loss": loss.item(), "grad_norm": norm.item(),
            **{name: term.item() for name, term in terms.items()}}


def _forward(run: Run, source: CropSource, step: int) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss on this process's part of the batch of a step."""
    batch = make_batch(source, step, run.config, run.num_frames, run.world)
    clean, noisy, mask, utts, has_pair = (x.to(run.world.device) for x in batch)
    codes, mel = run.targets(clean, run.num_frames)
    with torch.autocast(run.world.device.type, run.precision, enabled=run.precision is not None):
        return run.model(noisy, mask, codes, mel, utts, has_pair)


def make_batch(source: CropSource, step: int, config: PretrainConfig, num_frames: int,
               world: World) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """This process's part of the batch of a step.

    Returns:
        clean (B, S) and noisy (B, S), normalised; mask (B, T); utts (B,); has_pair (B,).
    """
    pairs = config.train.batch_size // 2 // world.size
    places = range(world.rank * pairs, (world.rank + 1) * pairs)
    examples = [example for place in places for example in source.pair(step, place)]
    masks = [draw_mask(num_frames, config.masked.span, config.masked.share, config.masked.crop_prob,
                       np.random.default_rng([source.seed, step, place, MASK_SEED + half]))
             for place in places for half in (0, 1)]
    sizes = [source.size] * len(examples)
    clean = normalize(torch.from_numpy(np.stack([e.clean for e in examples])), sizes, NORMALIZE_EPS)
    noisy = normalize(torch.from_numpy(np.stack([e.noisy for e in examples])), sizes, NORMALIZE_EPS)
    return (clean, noisy, torch.from_numpy(np.stack(masks)),
            torch.tensor([e.utt for e in examples]), torch.tensor([e.has_pair for e in examples]))


@torch.no_grad()
def _validate(run: Run) -> dict[str, float]:
    """Mean terms over the same crops of held-out recordings every time."""
    run.net.eval()
    totals: dict[str, float] = {}
    for step in range(VALID_BATCHES):
        loss, terms = _forward(run, run.valid_source, step)
        for name, term in {"loss": loss, **terms}.items():
            totals[name] = totals.get(name, 0.0) + term.item() / VALID_BATCHES
    values = run.world.sum([totals[name] for name in sorted(totals)])
    return {name: value / run.world.size for name, value in zip(sorted(totals), values,
                                                                strict=True)}


def _mix(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _set_up(config: PretrainConfig, audio: PackedAudio, exp_dir: Path, world: World,
            noises: PackedAudio | None, rirs: PackedAudio | None) -> Run:
    if config.train.batch_size % (2 * world.size):
        raise ValueError(f"train.batch_size {config.train.batch_size} is over all processes and "
                         f"must be a multiple of twice their number, {world.size}")
    torch.manual_seed(config.seed)  # the same initial weights on every process
    order = np.random.default_rng(config.seed).permutation(len(audio))
    num_valid = max(1, round(config.train.valid_share * len(audio)))
    extras = (noises, rirs)
    source = CropSource(audio, np.sort(order[num_valid:]), config.crops, config.seed, *extras)
    valid = CropSource(audio, np.sort(order[:num_valid]), config.crops, VALID_SEED, *extras)
    encoder = build_encoder(config.encoder, audio.sample_rate)
    num_frames = count_frames(encoder, source.size)
    shift = math.prod(layer[2] for layer in config.encoder.conv_layers)
    teacher = FrozenSSL.load(config.masked.teacher) if config.masked.teacher else None
    targets = Targets(config.masked, audio.sample_rate, shift, teacher, config.seed)
    fit_source = CropSource(audio, source.utts, config.crops, FIT_SEED)
    clean = torch.from_numpy(np.stack([fit_source.pair(0, n)[0].clean for n in range(FIT_CROPS)]))
    clean = normalize(clean, [source.size] * FIT_CROPS, NORMALIZE_EPS)
    targets.fit(clean, num_frames)
    level_front_end(encoder.feature_extractor.conv_layers[0].conv, clean[:64])
    net = Pretraining(encoder, config, targets.num_codebooks, config.masked.codebook_size,
                      targets.log_mel.mel.n_mels, world).to(world.device)
    if config.train.compile:
        net.encode = torch.compile(net.encode)
    model = DistributedDataParallel(net) if world.size > 1 else net
    return Run(config, world, exp_dir, net, model, targets.to(world.device), source, valid,
               _make_optimizer(net, config.train), choose_precision(config.train.precision,
                                                                    world.device), num_frames)


def _make_optimizer(net: nn.Module, config: "Train") -> torch.optim.Optimizer:
    """AdamW; weight decay on matrices only."""
    matrices = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim <= 1]
    return torch.optim.AdamW([{"params": matrices, "weight_decay": config.weight_decay},
                              {"params": others, "weight_decay": 0.0}],
                             lr=config.lr, betas=(0.9, 0.98), fused=True)


def _save(run: Run, facts: dict) -> None:
    if run.world.is_main:
        checkpoint.save_state(run.exp_dir / "models" / "last.pt", {
            "step": run.step, "facts": facts, "net": run.net.state_dict(),
            "targets": run.targets.state_dict(), "optimizer": run.optimizer.state_dict()})


def _restore(run: Run, facts: dict) -> None:
    """Load the state of `exp_dir` where there is one; it must be of this training."""
    path = run.exp_dir / "models" / "last.pt"
    if path.is_file():
        state = checkpoint.load_state(path)
        run.net.load_state_dict(state["net"])
        run.targets.load_state_dict(state["targets"])
        run.optimizer.load_state_dict(state["optimizer"])
        run.step = state["step"]
    run.world.barrier()
    if run.world.is_main:
        write_text(run.exp_dir / "config.yaml",
                   yaml.safe_dump(run.config.model_dump(mode="json"), sort_keys=False))
