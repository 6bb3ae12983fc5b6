"""How a command ends: one message for a person, and an exit code for scripts."""

import sys
from collections.abc import Callable

FAILED, INTERRUPTED = 1, 130  # 130: after Ctrl-C, as shells have it
# Of commands that decide: there 1 is an answer, so an error must be something else.
REJECTED, UNDECIDED = 1, 2


def finish_command(name: str, work: Callable[[], None]) -> int:
    """Run the work of a command-line program.

    Args:
        name: of the program, for the message.
        work: raises ValueError, OSError or RuntimeError for what its user can mend.

    Returns:
        The exit code: 0, 1 after an error that was told on standard error, 130 after Ctrl-C.
    """
    try:
        work()
    except (OSError, RuntimeError, ValueError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print(f"{name}: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return INTERRUPTED
    return 0
