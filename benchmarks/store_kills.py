"""Kill extraction at random moments, change random bytes of the store, and see it become whole.

    python benchmarks/store_kills.py DATA [--encoder NAME] [--kills 20] [--flips 20] [--seed 0]

Every extraction is a command of its own that gets SIGKILL; the same command is run again, and its
store compared, file by file, with that of an undisturbed run. Then bytes of a store are changed,
one at a time; each must be found, and the repaired store equal the undisturbed one.
"""

import argparse
import hashlib
import logging
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from wespeaker_lap.config import load_config
from wespeaker_lap.data.datadir import load_data_dir
from wespeaker_lap.engine import extract
from wespeaker_lap.engine.dist import join_world
from wespeaker_lap.engine.repair import check_feats
from wespeaker_lap.frontends.ssl import FrozenSSL

POLL_SECONDS = 0.002


def describe(directory: Path) -> dict[str, str]:
    """A hash of every file; the folder's own name in the tables does not count."""
    hashes = {}
    for path in sorted(directory.iterdir()):
        data = path.read_bytes()
        if path.suffix == ".scp":
            data = data.replace(str(directory).encode(), b"")
        hashes[path.name] = hashlib.sha256(data).hexdigest()
    return hashes


def make_command(options: argparse.Namespace, out: Path) -> list[str]:
    """The command that extracts into a folder."""
    return [sys.executable, __file__, str(options.data), "--encoder", options.encoder,
            "--codec", options.codec, "--shard_mib", str(options.shard_mib),
            "--extract_into", str(out)]


def extract_into(options: argparse.Namespace) -> None:
    """Stage 2 with shards of the size asked for."""
    with join_world("cpu") as world:
        extract.extract_feats(FrozenSSL.load(options.encoder), load_data_dir(options.data),
                              options.extract_into, options.codec, world)


def run_kills(options: argparse.Namespace, folder: Path, rng: random.Random) -> int:
    """Kill and run again; returns how many stores were not equal."""
    whole, unequal = folder / "whole", 0
    seconds = (whole / "feats.scp").stat().st_mtime - (whole / "feats.json").stat().st_mtime
    want = describe(whole)
    for number in range(options.kills):
        out = folder / "killed"
        process = subprocess.Popen(make_command(options, out), stderr=subprocess.DEVNULL)
        while process.poll() is None and not (out / "feats.json").is_file():
            time.sleep(POLL_SECONDS)
        moment = rng.uniform(0.0, seconds)
        time.sleep(moment)
        process.kill()
        code = process.wait()
        done, shards = len(list(out.glob("feats.0*.scp"))), len(list(whole.glob("*.ark")))
        half = [path.name for path in out.glob(".*")]
        subprocess.run(make_command(options, out), check=True, stderr=subprocess.DEVNULL)
        is_equal = describe(out) == want
        unequal += not is_equal
        print(f"kill {number + 1}: after {moment:.2f} of {seconds:.2f} s (exit {code}), {done} of "
              f"{shards} shards whole, half-written: {half or 'none'}; run again: "
              f"{'equal' if is_equal else 'NOT EQUAL'}", flush=True)
        shutil.rmtree(out)
    return unequal


def run_flips(options: argparse.Namespace, folder: Path, rng: random.Random) -> int:
    """Change a byte, verify, repair; returns how often that failed."""
    store, failed, want = folder / "whole", 0, describe(folder / "whole")
    frontend, data = FrozenSSL.load(options.encoder), load_data_dir(options.data)
    arks, indexes = (sorted(store.glob(f"*.{kind}")) for kind in ("ark", "idx"))
    for number in range(options.flips):
        path = rng.choice(indexes if number % 5 == 4 else arks)
        at, bits = rng.randrange(path.stat().st_size), rng.randrange(1, 256)
        with open(path, "r+b") as file:
            file.seek(at)
            old = file.read(1)[0]
            file.seek(at)
            file.write(bytes([old ^ bits]))
        begin = time.perf_counter()
        lines, status = check_feats(store)
        verified = time.perf_counter() - begin
        with join_world("cpu") as world:
            check_feats(store, frontend, data, world)
        repaired = time.perf_counter() - begin - verified
        is_good = status == 1 and describe(store) == want
        failed += not is_good
        print(f"flip {number + 1}: byte {at} of {path.name}; found in {verified:.2f} s: "
              f"{lines[0].removeprefix(f'{store}/') if status else 'NOTHING'}; repaired in "
              f"{repaired:.2f} s: {'equal' if is_good else 'NOT EQUAL'}", flush=True)
    return failed


def run_all(options: argparse.Namespace) -> None:
    """The undisturbed run, the kills, the flips; fails where anything differs."""
    rng, folder = random.Random(options.seed), Path(tempfile.mkdtemp())
    try:
        subprocess.run(make_command(options, folder / "whole"), check=True,
                       stderr=subprocess.DEVNULL)
        unequal, failed = run_kills(options, folder, rng), run_flips(options, folder, rng)
    finally:
        shutil.rmtree(folder)
    print(f"{options.kills - unequal} of {options.kills} killed extractions and "
          f"{options.flips - failed} of {options.flips} changed stores became equal to the "
          f"undisturbed one")
    sys.exit(1 if unequal or failed else 0)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("data", type=Path, help="audited data directory")
    parser.add_argument("--encoder", default="wavlm_tiny")
    parser.add_argument("--codec", default=load_config().features.codec)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--flips", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shard_mib", type=float, default=1.0, help="of a shard at least, in MiB")
    parser.add_argument("--extract_into", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    extract.MIN_SHARD_BYTES = int(options.shard_mib * 2 ** 20)
    if options.extract_into:
        extract_into(options)
    else:
        run_all(options)


if __name__ == "__main__":
    main()
