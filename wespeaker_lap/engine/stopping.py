"""Ctrl-C and a scheduler's SIGTERM: finish the step, save, leave."""

import signal


class StopRequest:
    """While it is entered, SIGINT and SIGTERM set `requested`; a second Ctrl-C ends at once.

    A second SIGTERM does not: schedulers send it to every process, and torchrun passes its own
    one on, so that two may come within a millisecond.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt("stopped at once; what follows the last checkpoint is lost")
        self.requested = True
