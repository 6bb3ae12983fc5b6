"""Ctrl-C and a scheduler's SIGTERM: finish the step, save, leave."""

import functools
import multiprocessing
import os
import signal
from collections.abc import Callable
from ctypes import c_bool


class StopRequest:
    """While it is entered, SIGINT and SIGTERM set `requested`; a second Ctrl-C ends at once.

    A second SIGTERM does not: schedulers send it to every process, and torchrun passes its own
    one on, so that two may come within a millisecond.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, object] = {}
        self._process = os.getpid()
        self._is_over = multiprocessing.RawValue(c_bool, False)  # shared with the workers

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.value = True
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        if os.getpid() != self._process:  # a worker, forked a moment ago
            _leave_if_over(self._is_over, number, frame)
        elif self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt("stopped at once; what follows the last checkpoint is lost")
        self.requested = True

    def make_worker_init(self) -> Callable[[int], None]:
        """What a loader's workers begin with, so that they outlive a request to stop.

        Ctrl-C reaches every process of a terminal, schedulers and torchrun signal whole groups. A
        worker that died of it would take the parent down before it has saved its state. Once the
        parent has left the `with` block, SIGTERM ends a worker as usual.
        """
        return functools.partial(_begin_worker, self._is_over)


def _begin_worker(is_over: c_bool, worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, functools.partial(_leave_if_over, is_over))


def _leave_if_over(is_over: c_bool, number: int, frame: object) -> None:
    if is_over.value and number == signal.SIGTERM:
        os._exit(0)  # what other exits would do at their leisure is the parent's business
