"""What checksums cost a training in its first epoch, which checks every block that it reads.

    python -m benchmarks.checksums DATA FEATS --config CONFIG [--runs 5] [--set section.key=value …]

One epoch of `wespeaker-lap train` on a store, and on the same store without its .idx files, which
is read without a check; in turn, each in a process of its own, after one that is not counted. Later
epochs check nothing. Medians; the cost is that of each pair of runs, with the least and the most.
"""

import argparse
import os
import statistics
import tempfile
from pathlib import Path

from benchmarks.training import train


def link_unchecked(feats: Path, folder: Path) -> None:
    """The same store without what it is checked against."""
    for path in feats.iterdir():
        if path.is_file() and path.suffix != ".idx":
            os.link(path, folder / path.name)


def train_epoch(feats: Path, options: argparse.Namespace) -> tuple[float, float]:
    """Utterances a second of one epoch, and the share of its time that waited for batches."""
    with tempfile.TemporaryDirectory() as exp_dir:
        records = train(exp_dir, [*options.settings, "train.epochs=1"], "--data", str(options.data),
                        "--feats", str(feats), "--config", str(options.config))
    epoch, = (record for record in records if "epoch" in record)
    return epoch["utts_per_s"], epoch["data_wait"]


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("data", type=Path, help="training set")
    parser.add_argument("feats", type=Path, help="its feature store")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--set", dest="settings", action="append", default=[])
    options = parser.parse_args()
    rates: dict[str, list[float]] = {"checked": [], "unchecked": []}
    waits: dict[str, list[float]] = {"checked": [], "unchecked": []}
    with tempfile.TemporaryDirectory(dir=options.feats.parent) as folder:
        link_unchecked(options.feats, Path(folder))
        train_epoch(options.feats, options)  # brings the store into the page cache
        for _ in range(options.runs):
            for name, store in (("checked", options.feats), ("unchecked", Path(folder))):
                rate, wait = train_epoch(store, options)
                rates[name].append(rate)
                waits[name].append(wait)
    for name, found in rates.items():
        print(f"{name:10}{statistics.median(found):7.1f} utterances/s, "
              f"{100 * statistics.median(waits[name]):.1f} % of the time waiting for batches")
    costs = [100 * (bare / rate - 1) for rate, bare in zip(*rates.values(), strict=True)]
    print(f"checksums cost {statistics.median(costs):+.1f} % [{min(costs):+.1f}, "
          f"{max(costs):+.1f}] of the first epoch, {options.runs} pairs of runs")


if __name__ == "__main__":
    main()
