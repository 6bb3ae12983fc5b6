"""The command line: parse, call one function, print. `wespeaker-lap VERB --help` for each."""

import logging
import os
import sys
import traceback

import typer

from wespeaker_lap.cli import data, encoders, features, scoring, sharing, training, voices
from wespeaker_lap.io.command import FAILED, INTERRUPTED, UNDECIDED

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
                  rich_markup_mode=None,
                  help="Speaker verification on frozen speech encoders, stage by stage.")
DECIDING = ("verify", "identify")  # verbs whose exit code 1 means rejected
for part in (data, features, encoders, training, scoring, sharing, voices):
    for verb in part.VERBS:
        app.command()(verb)


def main() -> None:
    """Run one verb; bad input ends in one message on standard error and exit code 1.

    Verbs that decide (`verify`, `identify`) end with 0 for accepted, 1 for rejected and 2 for any
    error. With WESPEAKER_LAP_DEBUG set, the traceback is shown instead.
    """
    failed = UNDECIDED if set(sys.argv[1:2]) & set(DECIDING) else FAILED
    rank = os.environ.get("RANK", "0")
    logging.basicConfig(level=logging.INFO if rank == "0" else logging.WARNING,
                        format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    try:
        app(args=[underscored(arg) for arg in sys.argv[1:]])
    except SystemExit as done:
        if done.code == INTERRUPTED:
            print("interrupted; the same command goes on where this one stopped", file=sys.stderr)
        raise
    except (ValueError, OSError, ImportError) as error:
        if os.environ.get("WESPEAKER_LAP_DEBUG"):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(failed)
    except Exception:
        if failed == FAILED:
            raise
        traceback.print_exc()  # raised on, it would end with 1, which means rejected
        sys.exit(failed)


def underscored(arg: str) -> str:
    """`--exp_dir` and `--exp-dir` are the same option."""
    if not arg.startswith("--"):
        return arg
    name, equals, value = arg.partition("=")
    return name.replace("_", "-") + equals + value
