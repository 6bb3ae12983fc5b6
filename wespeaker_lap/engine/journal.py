"""What the training of a speaker network says: of every step, of every epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from wespeaker_lap.config.losses import AamLoss, Loss, SoftmaxLoss
from wespeaker_lap.data.balanced import expected_pairs
from wespeaker_lap.engine.dist import World, choose_precision
from wespeaker_lap.engine.objective import PARTS
from wespeaker_lap.engine.records import Records

if TYPE_CHECKING:
    from wespeaker_lap.engine.run import Run

FEATURE_ADVICE = ("'wespeaker-lap bench-io FEATS --config CONFIG' tells whether the disk or "
                  "decoding is the limit, and what to change: train.num_workers, train.dequantize, "
                  "features.codec, or a faster disk")
WAVE_ADVICE = ("recordings are read and augmented by train.num_workers threads a process: raise "
               "it where there are processors; wav and flac are the fastest to cut crops from")
WAIT_ADVICE = 0.2  # share of the time spent waiting for data from which on it is worth a word


class Journal:
    """Records of one training; silent on all processes but the main one.

    Args:
        exp_dir, active, step: see `Records`.
    """

    def __init__(self, exp_dir: Path, active: bool, step: int):
        self.records = Records(exp_dir, active, step)
        self.advice = FEATURE_ADVICE

    def __enter__(self) -> Journal:
        self.records.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.records.__exit__(*error)

    def describe(self, run: Run, world: World, num_params: int, num_speakers: int) -> None:
        """Say what is trained, on what, from which step."""
        train, say = run.config.train, self.records.say
        precision = choose_precision(train.precision, world.device) or torch.float32
        say("%d parameters, %d speakers, %d utterances, %d steps an epoch",
            num_params, num_speakers, len(run.material.source), run.sampler.steps_per_epoch)
        size = f"{train.accumulate} x " * (train.accumulate > 1) + str(train.batch_size)
        say("%d process(es) on %s, %s, batch %s over all, %s", world.size, world.device.type,
            precision, size, f"from step {run.step}" if run.step else "from the start")
        say("%s", describe_loss(run.config.loss))
        contrastive = run.objective.contrastive
        if contrastive is not None and contrastive.allow_empty:
            pairs = expected_pairs(run.material.source.labels, train.batch_size)
            say("contrastive loss: %.1f pairs of one speaker in a batch on average; %.2g %% of the "
                "batches have none and go without it", pairs, 100 * math.exp(-pairs))
        if run.material.frontend is not None:
            self.advice = WAVE_ADVICE
        if run.encoder is not None:
            say("the encoder is tuned: %d of its %d parameters", _count(run.encoder, True),
                _count(run.encoder, False))
        if run.compiled:
            say("compiled in the first steps: %s", " and ".join(run.compiled))
        if run.ema is not None:
            say("a moving average of the weights goes along, decay %g", train.ema_decay)

    def start_epoch(self, epoch: int, num_steps: int, first_step: int) -> None:
        """Begin the bar of an epoch, counted from 0."""
        self.records.start_bar(f"epoch {epoch + 1}", num_steps, first_step)
        self.loss = self.correct = self.waited = self.seconds = 0.0
        self.num_steps = self.examples = self.num_bytes = 0

    def log_step(self, step: int, losses: Sequence[float], correct: float, num_examples: int,
                 lr: float, margin: float, waited: float, seconds: float, num_bytes: int) -> None:
        """Note one finished step.

        Args:
            step: how many are finished.
            losses: means over the global batch, in the order of `objective.PARTS`.
            correct: correctly classified examples of `num_examples`.
            lr, margin: used in this step.
            waited: seconds until the batch was there; `seconds`: of the whole step.
            num_bytes: that this process read for it.
        """
        loss = sum(losses)
        self.loss += loss
        self.correct += correct
        self.examples += num_examples
        self.waited += waited
        self.seconds += seconds
        self.num_bytes += num_bytes
        self.num_steps += 1
        speed, share = num_examples / seconds, waited / seconds
        parts = {name: part for name, part in zip(PARTS[1:], losses[1:], strict=True) if part}
        values = {"loss": loss, **parts, "acc": correct / num_examples, "lr": lr, "margin": margin,
                  "utts_per_s": speed, "data_wait": share}
        self.records.write({"step": step, **values, "loss": round(loss, 5),
                            **{name: round(part, 5) for name, part in parts.items()},
                            "margin": round(margin, 5), "seconds": round(seconds, 4),
                            "utts_per_s": round(speed, 1),
                            "data_wait": round(share, 3)})
        self.records.plot("train", values, step)
        self.records.advance_bar(f"loss {loss:.3f} acc {correct / num_examples:.2f} "
                                 f"{speed:.0f} utt/s wait {share:.0%}")

    def reading(self) -> tuple[float, float]:
        """What this process read since the epoch began: MB/s, share of the time waiting for it."""
        return self.num_bytes / 1e6 / self.seconds, self.waited / self.seconds

    def log_epoch(self, epoch: int, step: int, valid_eer: float | None,
                  readings: Sequence[tuple[float, float]],
                  peaks: Sequence[dict[str, float]]) -> None:
        """Note a finished epoch.

        Its means are over the steps since the start of this process.

        Args:
            epoch: counted from 1.
            step: finished steps.
            valid_eer: in percent.
            readings: `reading()` of every process.
            peaks: `memory.measure_peaks` of every process, the most of which is noted.
        """
        rates, shares = zip(*readings, strict=True)
        record = {"step": step, "epoch": epoch, "loss": round(self.loss / self.num_steps, 5),
                  "acc": round(self.correct / self.examples, 5),
                  "utts_per_s": round(self.examples / self.seconds, 1),
                  "read_mb_per_s": round(sum(rates), 1), "data_wait": round(max(shares), 3)}
        highest = {name: max(peak[name] for peak in peaks) for name in peaks[0]}
        record |= {f"{name}_gb": round(size, 3) for name, size in highest.items()}
        self.records.plot("memory", highest, step)
        if valid_eer is not None:
            record["valid_eer"] = round(valid_eer, 4)
            self.records.plot("valid", {"eer": valid_eer}, step)
        self.records.write(record)
        say = self.records.say
        say("epoch %d: loss %.4f, accuracy %.3f%s, %.0f utterances/s; reading: %s", epoch,
            record["loss"], record["acc"],
            "" if valid_eer is None else f", validation EER {valid_eer:.2f} %",
            record["utts_per_s"], _format_readings(readings))
        say("peak memory of a process: %s", ", ".join(
            f"{name} {size:.2f} GB" for name, size in highest.items()))
        if max(shares) > WAIT_ADVICE and self.num_steps > 10:
            say("training waits for data: %s", self.advice)


def describe_loss(loss: Loss) -> str:
    """What the classifier asks for, from which epoch on.

    >>> describe_loss(AamLoss(margin=0.5, top_k=0, schedule={"end_epoch": 0}))
    'loss aam: scale 30, margin 0.5 from the first step, 3 sub-centres, no inter-top-K'
    """
    if isinstance(loss, SoftmaxLoss):
        return "loss softmax: no margin"
    ramp, parts = loss.schedule, [f"loss {loss.name}: scale {loss.scale:g}"]
    parts.append(f"margin {loss.margin:g} from the first step" if ramp.end_epoch == 0 else
                 f"margin {ramp.initial:g} to {loss.margin:g} from epoch {ramp.start_epoch:g} to "
                 f"{ramp.end_epoch:g} ({ramp.shape})")
    parts.append(f"{loss.num_subcenters} sub-centre{'s' * (loss.num_subcenters > 1)}")
    if isinstance(loss, AamLoss):
        parts.append(f"inter-top-K of {loss.top_k} with {loss.top_k_penalty:g}" if loss.top_k else
                     "no inter-top-K")
    return ", ".join(parts)


def _count(module: nn.Module, trainable: bool) -> int:
    """Parameters of a module: all, or those that are trained."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable)


def _format_readings(readings: Sequence[tuple[float, float]]) -> str:
    parts = [f"{rate:.0f} MB/s, {share:.0%} of the time waiting for it" for rate, share in readings]
    return parts[0] if len(parts) == 1 else "; ".join(f"rank {rank} {part}"
                                                      for rank, part in enumerate(parts))
