"""What a training says: progress bar, train.log, metrics.jsonl, TensorBoard."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from wespeaker_lap.engine.dist import World, choose_precision
from wespeaker_lap.io.table import read_lines, write_text

if TYPE_CHECKING:
    from wespeaker_lap.engine.train import Run

WAIT_ADVICE = 0.2  # share of the time spent waiting for data from which on it is worth a word


class Journal:
    """Records of one training; silent on all processes but the main one.

    Args:
        exp_dir: of the training.
        active: whether this process writes.
        step: finished steps; records of later ones, from before a restart, are dropped.
    """

    def __init__(self, exp_dir: Path, active: bool, step: int):
        self.active, self.exp_dir = active, exp_dir
        if not active:
            return
        self.metrics_path = exp_dir / "metrics.jsonl"
        if self.metrics_path.is_file():
            kept = [line for line in read_lines(self.metrics_path) if _is_until(line, step)]
            write_text(self.metrics_path, "".join(f"{line}\n" for line in kept))
        self.board = SummaryWriter(exp_dir / "tb", purge_step=step + 1)
        self.handler = logging.FileHandler(exp_dir / "train.log", encoding="utf-8")
        self.handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))

    def __enter__(self) -> Journal:
        if self.active:
            logging.getLogger().addHandler(self.handler)
            self.file = open(self.metrics_path, "a", 1, encoding="utf-8")
            self.bar = tqdm(disable=True)
        return self

    def __exit__(self, error_type: type | None, error: BaseException | None, _: object) -> None:
        if not self.active:
            return
        if error is not None:
            logging.log(logging.INFO if error_type is KeyboardInterrupt else logging.ERROR,
                        "%s: %s", error_type.__name__, error)
        self.bar.close()
        self.file.close()
        self.board.close()
        logging.getLogger().removeHandler(self.handler)
        self.handler.close()

    def describe(self, run: Run, world: World, num_params: int, num_speakers: int) -> None:
        """Say what is trained, on what, from which step."""
        train = run.config.train
        precision = choose_precision(train.precision, world.device) or torch.float32
        self._say("%d parameters, %d speakers, %d utterances, %d steps an epoch",
                  num_params, num_speakers, run.sampler.num_utts, run.sampler.steps_per_epoch)
        self._say("%d process(es) on %s, %s, batch %d over all, %s", world.size,
                  world.device.type, precision, train.batch_size,
                  f"from step {run.step}" if run.step else "from the start")

    def start_epoch(self, epoch: int, num_steps: int, first_step: int) -> None:
        """Begin the bar of an epoch, counted from 0."""
        if not self.active:
            return
        self.bar.close()
        self.bar = tqdm(total=num_steps, initial=first_step, desc=f"epoch {epoch + 1}",
                        unit="batch", disable=None, leave=False)
        self._reset_totals()

    def _reset_totals(self) -> None:
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
        if not self.active:
            return
        self.loss += loss
        self.correct += correct
        self.examples += num_examples
        self.waited += waited
        self.seconds += seconds
        self.num_steps += 1
        speed, share = num_examples / seconds, waited / seconds
        self._write({"step": step, "loss": round(loss, 5), "acc": correct / num_examples,
                     "lr": lr, "margin": round(margin, 5), "utts_per_s": round(speed, 1),
                     "data_wait": round(share, 3)})
        for name, value in {"loss": loss, "acc": correct / num_examples, "lr": lr,
                            "margin": margin, "utts_per_s": speed, "data_wait": share}.items():
            self.board.add_scalar(f"train/{name}", value, step)
        self.bar.set_postfix_str(f"loss {loss:.3f} acc {correct / num_examples:.2f} "
                                 f"{speed:.0f} utt/s wait {share:.0%}", refresh=False)
        self.bar.update()

    def log_epoch(self, epoch: int, step: int, valid_eer: float | None) -> None:
        """Note a finished epoch, counted from 1; `valid_eer` in percent.

        Its means are over the steps since the start of this process.
        """
        if not self.active:
            return
        share = self.waited / self.seconds
        record = {"step": step, "epoch": epoch, "loss": round(self.loss / self.num_steps, 5),
                  "acc": round(self.correct / self.examples, 5),
                  "utts_per_s": round(self.examples / self.seconds, 1),
                  "data_wait": round(share, 3)}
        if valid_eer is not None:
            record["valid_eer"] = round(valid_eer, 4)
            self.board.add_scalar("valid/eer", valid_eer, step)
        self._write(record)
        self.file.flush()
        self._say("epoch %d: loss %.4f, accuracy %.3f%s, %.0f utterances/s, %.0f %% of the time "
                  "waiting for data", epoch, record["loss"], record["acc"],
                  "" if valid_eer is None else f", validation EER {valid_eer:.2f} %",
                  record["utts_per_s"], 100 * share)
        if share > WAIT_ADVICE and self.num_steps > 10:
            self._say("training waits for data: raise train.num_workers, or put the features on "
                      "a faster disk")

    def _write(self, record: dict) -> None:
        self.file.write(json.dumps(record) + "\n")

    def _say(self, message: str, *values: object) -> None:
        if self.active:
            logging.info(message, *values)


def _is_until(line: str, step: int) -> bool:
    """Whether a record is of a step up to `step`; a line cut off by a kill is not."""
    try:
        return json.loads(line)["step"] <= step
    except (ValueError, KeyError, TypeError):
        return False
