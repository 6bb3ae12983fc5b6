"""Prepare a folder of recordings: data directories, trials and an audit page, by make-data.

A corpus that needs more than make-data does (official lists, a download) has its own script in this
place. See egs/speechocean762/v1/local/prepare_data.py for one.
"""

import argparse
import subprocess
import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    """Run the script; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], allow_abbrev=False,
        epilog="All other options go to `wespeaker-lap make-data`; see its --help.")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data directories")
    parser.add_argument("--wav_dir", type=Path, help="folder of the recordings")
    parser.add_argument("--download", choices=("true", "false"), default="false",
                        help="accepted like in the other recipes; there is nothing to download")
    args, others = parser.parse_known_args(argv)
    if args.download == "true":
        print("nothing to download: the recordings are in --wav_dir")
        return 0
    if args.wav_dir is None:
        print("prepare_data.py: no recordings; set wav_dir in run.sh, or pass --wav_dir DIR",
              file=sys.stderr)
        return 1
    command = [sys.executable, "-m", "wespeaker_lap", "make-data", "--wav_dir", args.wav_dir,
               "--out", args.data, *others]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
