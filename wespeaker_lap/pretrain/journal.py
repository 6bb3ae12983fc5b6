"""What a pre-training says: means over some steps, validations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from wespeaker_lap.engine.dist import World
from wespeaker_lap.engine.records import Records
from wespeaker_lap.pretrain.config import Train

EVERY = 50  # steps that a record is the mean of


class Journal:
    """Records of one pre-training; silent on all processes but the main one.

    Args:
        exp_dir, step: see `Records`.
        world: this process among all.
        train: how many steps and crops.
        every: steps of a record; the first after a restart is of those since the restart.
    """

    def __init__(self, exp_dir: Path, world: World, step: int, train: Train, every: int = EVERY):
        self.records = Records(exp_dir, world.is_main, step)
        self.device, self.train, self.every, self.first_step = world.device, train, every, step
        self._reset_totals()

    def __enter__(self) -> Journal:
        self.records.__enter__()
        self.records.start_bar("pre-training", self.train.total_steps, self.first_step)
        return self

    def __exit__(self, *error: object) -> None:
        self.records.__exit__(*error)

    def _reset_totals(self) -> None:
        self.totals: dict[str, float] = {}
        self.counts: dict[str, int] = {}  # steps with a term: the front end's have but its own
        self.waited = self.seconds = 0.0
        self.num_steps = 0

    def describe(self, num_params: int, num_recordings: int, hours: float, world: World,
                 precision: torch.dtype | None) -> None:
        """Say what is trained, on what, from which step."""
        say, step = self.records.say, self.first_step
        say("%d parameters, %d recordings, %.1f hours", num_params, num_recordings, hours)
        say("%d process(es) on %s, %s, %d crops a batch over all, %s", world.size,
            world.device.type, precision or torch.float32, self.train.batch_size,
            f"from step {step}" if step else "from the start")

    def log_step(self, step: int, terms: Mapping[str, float], lr: float, waited: float,
                 seconds: float) -> None:
        """Note one finished step.

        Args:
            step: how many are finished.
            terms: what makes up the loss, and it, of the batch over all processes.
            lr: used in this step.
            waited: seconds until the batch was there; `seconds`: of the whole step.
        """
        for name, value in terms.items():
            self.totals[name] = self.totals.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0) + 1
        self.waited += waited
        self.seconds += seconds
        self.num_steps += 1
        self.records.advance_bar(f"loss {terms['loss']:.3f}")
        if step % self.every == 0 or step == self.train.total_steps:
            self._log_means(step, lr)

    def _log_means(self, step: int, lr: float) -> None:
        terms = {name: total / self.counts[name] for name, total in self.totals.items()}
        pace, share = self.seconds / self.num_steps, self.waited / self.seconds
        facts = {"lr": lr, "crops_per_s": round(self.train.batch_size / pace, 1),
                 "data_wait": round(share, 3)}
        if self.device.type == "cuda":
            facts["gpu_gib"] = round(torch.cuda.max_memory_allocated(self.device) / 2**30, 2)
        self.records.write({"step": step, **_rounded(terms), **facts})
        self.records.plot("train", {**terms, **facts}, step)
        memory = f", at most {facts['gpu_gib']} GiB of the GPU" if "gpu_gib" in facts else ""
        self.records.say("step %d of %d: %s; lr %.3g, %.3f s a step, %.0f crops/s, %.0f %% of "
                         "the time waiting for data%s", step, self.train.total_steps,
                         _spell(terms), lr, pace, facts["crops_per_s"], 100 * share, memory)
        self._reset_totals()

    def log_valid(self, step: int, terms: Mapping[str, float]) -> None:
        """Note the terms on held-out recordings after a step."""
        self.records.write({"step": step, "valid": _rounded(terms)})
        self.records.plot("valid", terms, step)
        self.records.say("validation after step %d: %s", step, _spell(terms))


def _rounded(terms: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 5) for name, value in terms.items()}


def _spell(terms: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in terms.items())
