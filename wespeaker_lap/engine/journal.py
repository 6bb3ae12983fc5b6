"""What the training of a speaker network says: of every step, of every epoch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from wespeaker_lap.engine.dist import World, choose_precision
from wespeaker_lap.engine.records import Records

if TYPE_CHECKING:
    from wespeaker_lap.engine.train import Run

WAIT_ADVICE = 0.2  # share of the time spent waiting for data from which on it is worth a word


class Journal:
    """Records of one training; silent on all processes but the main one.

    Args:
        exp_dir, active, step: see `Records`.
    """

    def __init__(self, exp_dir: Path, active: bool, step: int):
        self.records = Records(exp_dir, active, step)

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
            num_params, num_speakers, run.sampler.num_utts, run.sampler.steps_per_epoch)
        say("%d process(es) on %s, %s, batch %d over all, %s", world.size, world.device.type,
            precision, train.batch_size, f"from step {run.step}" if run.step else "from the start")

    def start_epoch(self, epoch: int, num_steps: int, first_step: int) -> None:
        """Begin the bar of an epoch, counted from 0."""
        self.records.start_bar(f"epoch {epoch + 1}", num_steps, first_step)
        self.loss = self.correct = self.waited = self.seconds = 0.0
        self.num_steps = self.examples = 0

    def log_step(self, step: int, loss: float, correct: float, num_examples: int, lr: float,
                 margin: float, waited: float, seconds: float) -> None:
        """Note one finished step.

        Args:
            step: how many are finished.
            loss: mean over the global batch.
            correct: correctly classified examples of `num_examples`.
            lr, margin: used in this step.
            waited: seconds until the batch was there; `seconds`: of the whole step.
        """
        self.loss += loss
        self.correct += correct
        self.examples += num_examples
        self.waited += waited
        self.seconds += seconds
        self.num_steps += 1
        speed, share = num_examples / seconds, waited / seconds
        values = {"loss": loss, "acc": correct / num_examples, "lr": lr, "margin": margin,
                  "utts_per_s": speed, "data_wait": share}
        self.records.write({"step": step, **values, "loss": round(loss, 5),
                            "margin": round(margin, 5), "utts_per_s": round(speed, 1),
                            "data_wait": round(share, 3)})
        self.records.plot("train", values, step)
        self.records.advance_bar(f"loss {loss:.3f} acc {correct / num_examples:.2f} "
                                 f"{speed:.0f} utt/s wait {share:.0%}")

    def log_epoch(self, epoch: int, step: int, valid_eer: float | None) -> None:
        """Note a finished epoch, counted from 1; `valid_eer` in percent.

        Its means are over the steps since the start of this process.
        """
        share = self.waited / self.seconds
        record = {"step": step, "epoch": epoch, "loss": round(self.loss / self.num_steps, 5),
                  "acc": round(self.correct / self.examples, 5),
                  "utts_per_s": round(self.examples / self.seconds, 1),
                  "data_wait": round(share, 3)}
        if valid_eer is not None:
            record["valid_eer"] = round(valid_eer, 4)
            self.records.plot("valid", {"eer": valid_eer}, step)
        self.records.write(record)
        say = self.records.say
        say("epoch %d: loss %.4f, accuracy %.3f%s, %.0f utterances/s, %.0f %% of the time "
            "waiting for data", epoch, record["loss"], record["acc"],
            "" if valid_eer is None else f", validation EER {valid_eer:.2f} %",
            record["utts_per_s"], 100 * share)
        if share > WAIT_ADVICE and self.num_steps > 10:
            say("training waits for data: raise train.num_workers, or put the features on "
                "a faster disk")
