"""What any training leaves to read: train.log, metrics.jsonl, TensorBoard."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from wespeaker_lap.io.table import read_lines, write_text


class Records:
    def __init__(self, exp_dir: Path, active: bool, step: int, every: int = 50):
        self.active, self.exp_dir, self.every = active, exp_dir, every
        if not active:
            return
        self.metrics_path = exp_dir / "metrics.jsonl"
        self.board = SummaryWriter(exp_dir / "tb", purge_step=step + 1)
        self.totals: dict[str, float] = {}
        self.n = 0
        self.t0 = time.time()

    def __enter__(self):
        if self.active:
            self.file = open(self.metrics_path, "a", 1, encoding="utf-8")
        return self

    def __exit__(self, *a):
        if self.active:
            self.file.close()
            self.board.close()

    def say(self, m, *v):
        if self.active:
            logging.info(m, *v)

    def log_step(self, step, values):
        if not self.active:
            return
        self.n += 1
        for k, v in values.items():
            self.totals[k] = self.totals.get(k, 0) + v
        if step % self.every == 0:
            r = {"step": step, **{k: round(v / self.n, 5) for k, v in self.totals.items()}, "t": round(time.time() - self.t0, 1)}
            self.file.write(json.dumps(r) + "\n")
            logging.info("%s", " ".join(f"{k} {v:.4g}" for k, v in r.items()))
            self.totals, self.n = {}, 0

    def log_valid(self, step, values):
        if self.active:
            self.file.write(json.dumps({"step": step, "valid": {k: round(v, 5) for k, v in values.items()}}) + "\n")
            logging.info("VALID %d %s", step, " ".join(f"{k} {v:.4g}" for k, v in values.items()))
