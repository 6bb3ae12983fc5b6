"""What any training leaves to read: train.log, metrics.jsonl, TensorBoard; and its progress bar."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from wespeaker_lap.io.metrics import FILE
from wespeaker_lap.io.table import read_lines, write_text


class Records:
    """Writes them; silent on all processes but the main one.

    Args:
        exp_dir: of the training.
        active: whether this process writes.
        step: finished steps; records of later ones, from before a restart, are dropped.
    """

    def __init__(self, exp_dir: Path, active: bool, step: int):
        self.active = active
        if not active:
            return
        self.metrics_path = exp_dir / FILE
        if self.metrics_path.is_file():
            kept = [line for line in read_lines(self.metrics_path) if _is_until(line, step)]
            write_text(self.metrics_path, "".join(f"{line}\n" for line in kept))
        self.board = SummaryWriter(exp_dir / "tb", purge_step=step + 1)
        self.handler = logging.FileHandler(exp_dir / "train.log", encoding="utf-8")
        self.handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))

    def __enter__(self) -> Records:
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

    def start_bar(self, name: str, total: int, done: int) -> None:
        """Begin a progress bar over so many steps, in place of the one before."""
        if self.active:
            self.bar.close()
            self.bar = tqdm(total=total, initial=done, desc=name, unit="batch", disable=None,
                            leave=False)

    def advance_bar(self, text: str) -> None:
        """One step further, with a word on it."""
        if self.active:
            self.bar.set_postfix_str(text, refresh=False)
            self.bar.update()

    def write(self, record: Mapping[str, object]) -> None:
        """A line of metrics.jsonl, which is on disk at once; it must have a `step`."""
        if self.active:
            self.file.write(json.dumps(record) + "\n")

    def plot(self, section: str, values: Mapping[str, float], step: int) -> None:
        """Scalars `section/name` on the board."""
        if self.active:
            for name, value in values.items():
                self.board.add_scalar(f"{section}/{name}", value, step)

    def say(self, message: str, *values: object) -> None:
        """A line of train.log and of the terminal."""
        if self.active:
            logging.info(message, *values)


def _is_until(line: str, step: int) -> bool:
    """Whether a record is of a step up to `step`; a line cut off by a kill is not."""
    try:
        return json.loads(line)["step"] <= step
    except (ValueError, KeyError, TypeError):
        return False
