"""The feature store against kaldiio, against bare reads, with and without checksums, and its index.

    python benchmarks/store.py [--runs 60] [--utts 1000000]

The entries are 8 s long, 13 layers of 768; crops are 2 s. What is compared is called in turn; the
figures are medians. Everything is in the page cache, so that the work of the reader shows, not
the disk's.
"""

import argparse
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import kaldiio
import numpy as np

from wespeaker_lap.io.codecs import CODECS
from wespeaker_lap.io.feats import FeatureStore, FeatureWriter
from wespeaker_lap.io.shard_index import count_blocks, sum_blocks
from wespeaker_lap.io.table import read_table, write_text

SHAPE = (400, 13, 768)  # (T, L, D) of 8 s
CROP = 100  # frames of 2 s
NUM_UTTS = 12
NUM_ARKS = 64


def time_in_turn(calls: dict[str, Callable[[str, int], object]], num_runs: int) -> dict[str, float]:
    """Median seconds of each call, given an utterance and a first frame, made one after another."""
    rng, times = np.random.default_rng(0), {name: [] for name in calls}
    for run in range(num_runs):
        utt, start = f"utt{run % NUM_UTTS}", int(rng.integers(SHAPE[0] - CROP))
        for name in rng.permutation(list(calls)):  # what comes before disturbs the caches
            begin = time.perf_counter()
            calls[name](utt, start)
            times[name].append(time.perf_counter() - begin)
    return {name: statistics.median(found) for name, found in times.items()}


def write_store(folder: Path, codec: str) -> Path:
    """A store of noise."""
    rng = np.random.default_rng(0)
    with FeatureWriter(folder, {"num_layers": SHAPE[1], "dim": SHAPE[2]}, codec) as writer:
        for number in range(NUM_UTTS):
            writer.write(f"utt{number}", rng.standard_normal(SHAPE, np.float32))
    return folder


class Unseen:
    """Reads that are all first reads: each from a store that has checked nothing yet."""

    def __init__(self, directory: Path, num_runs: int):
        self._stores = [FeatureStore(directory) for _ in range(num_runs)]
        for store in self._stores:  # the files open and the index loaded, as in the midst of work
            store.read(f"utt{NUM_UTTS - 1}", 0, 1)

    def read(self, utt: str, start: int, out: np.ndarray) -> np.ndarray:
        return self._stores.pop().read(utt, start, CROP, out)


def compare_crops(folder: Path, codec: str, num_runs: int) -> None:
    """Crops of one codec: kaldiio, this reader with and without checks, and bare reads."""
    directory = write_store(folder / codec, codec)
    entries, out = read_table(directory / "feats.scp"), np.empty((CROP, *SHAPE[1:]), np.float32)
    frame_values = SHAPE[1] * SHAPE[2]

    # As many values as a crop has: int8 entries stand in another order, at the same cost.
    def load(utt: str, start: int) -> np.ndarray:
        whole = kaldiio.load_mat(entries[utt]).reshape(-1)
        return whole[start * frame_values:(start + CROP) * frame_values]

    checked, unseen = FeatureStore(directory), Unseen(directory, num_runs)
    for utt in checked:
        checked.read(utt)
    bare = shutil.copytree(directory, folder / f"{codec}-bare",
                           ignore=shutil.ignore_patterns("*.idx"))
    unchecked = FeatureStore(bare)
    ark = os.open(directory / "feats.00000.ark", os.O_RDONLY)
    size = os.fstat(ark).st_size // NUM_UTTS * CROP // SHAPE[0]
    seconds = time_in_turn({
        "kaldiio, slice": load,
        "kaldiio, slice, float32": lambda utt, start: np.array(load(utt, start), np.float32),
        "no index": lambda utt, start: unchecked.read(utt, start, CROP, out),
        "checked before": lambda utt, start: checked.read(utt, start, CROP, out),
        "checked now": lambda utt, start: unseen.read(utt, start, out),
        "os.pread": lambda utt, start: os.pread(ark, size, start * (size // CROP)),
    }, num_runs)
    os.close(ark)
    print(f"{codec}: crops of {size / 1e6:.2f} MB")
    for name, value in seconds.items():
        print(f"  {name:24} {1e6 * value:7.0f} us  {size / value / 1e9:6.2f} GB/s  "
              f"{seconds['kaldiio, slice, float32'] / value:6.2f} x kaldiio  "
              f"{value / seconds['no index']:6.3f} x no index")


def measure_checksum(num_runs: int) -> None:
    """How fast the checksums of a crop are."""
    crop = np.random.default_rng(0).bytes(2 * CROP * SHAPE[1] * SHAPE[2])
    seconds = time_in_turn({"sum": lambda utt, start: sum_blocks(crop)}, num_runs)["sum"]
    print(f"checksums: {len(crop) / seconds / 1e9:.1f} GB/s in {count_blocks(len(crop))} blocks")


def measure_index(folder: Path, num_utts: int) -> None:
    """Seconds and memory of a large index, in a process of its own."""
    folder.mkdir()
    write_text(folder / "feats.json", '{"codec": "float16", "num_layers": 13, "dim": 768}')
    names = [f"id{n // 100:05d}/{n * 7919 % 10 ** 11:011d}/{n % 100:05d}.wav"
             for n in range(num_utts)]
    arks = [folder / f"feats.{n:05d}.ark" for n in range(NUM_ARKS)]
    for ark in arks:
        ark.touch()
    write_text(folder / "feats.scp", "".join(
        f"{utt} {arks[n * NUM_ARKS // num_utts]}:{n * 8_000_000}\n"
        for n, utt in enumerate(names)))
    write_text(folder / "utt2num_frames", "".join(f"{utt} {200 + n % 400}\n"
                                                  for n, utt in enumerate(names)))
    process = multiprocessing.get_context("spawn").Process(
        target=_load_index, args=(folder, names[::max(1, num_utts // 1000)]))
    process.start()
    process.join()


def _load_index(folder: Path, asked: list[str]) -> None:
    before, begin, begin_work = read_memory(), time.perf_counter(), time.process_time()
    store = FeatureStore(folder)
    worked = time.process_time() - begin_work
    loaded, after = time.perf_counter() - begin, read_memory()
    begin = time.perf_counter()
    assert all(utt in store for utt in asked)
    found = (time.perf_counter() - begin) / len(asked)
    resident, largest = (after[name] - before["VmRSS"] for name in ("VmRSS", "VmHWM"))
    print(f"index of {len(store)} utterances: {loaded:.2f} s ({worked:.2f} s of the processor); "
          f"{resident:.0f} MB resident, {largest:.0f} MB at the most; a look-up takes "
          f"{1e6 * found:.1f} us")


def read_memory() -> dict[str, float]:
    """Memory of this process now (VmRSS) and at its largest (VmHWM), in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return {name: int(fields[name].split()[0]) * 1024 / 1e6 for name in ("VmRSS", "VmHWM")}


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--runs", type=int, default=60, help="crops of each kind")
    parser.add_argument("--utts", type=int, default=1_000_000, help="of the index")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure_checksum(options.runs)
        for codec in CODECS:
            compare_crops(Path(folder), codec, options.runs)
        measure_index(Path(folder) / "large", options.utts)


if __name__ == "__main__":
    main()
