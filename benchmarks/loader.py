"""The loader of a training against bare reads of the same bytes.

    python benchmarks/loader.py [--runs 5] [--gigabytes 2] [--num_workers N] [--folder FOLDER]

Generated stores of 8 s utterances, 13 layers of 768; crops of 2 s, batches of 64. Every block was
read and checked before, and everything is in the page cache, so that the work of the loader shows,
not the disk's. The loader and `os.pread`, with as many threads, do the same batches in turn; the
figures are medians, with the least and the most of the ratio.

`pread` forgets what it read, so that the processor's caches hold all it writes to; `kept` is the
same reads into memory of a batch's size, as a batch needs it. To fill a batch with float32 takes as
long as to read its float16, whatever computes the numbers.
"""

import argparse
import os
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from wespeaker_lap.config import load_config
from wespeaker_lap.engine.bench_io import draw_batches, list_spans, time_loader, time_raw
from wespeaker_lap.engine.dist import World
from wespeaker_lap.engine.loading import make_loader, make_source
from wespeaker_lap.io.codecs import encode
from wespeaker_lap.io.feats import FeatureStore, FeatureWriter
from wespeaker_lap.io.open_files import OpenFiles
from wespeaker_lap.io.page_cache import Span

SHAPE = (400, 13, 768)  # (T, L, D) of 8 s
IDENTITY = {"num_layers": 13, "dim": 768, "sample_rate": 16000, "frame_shift": 320}
BATCH_SIZE = 64
NUM_BATCHES = 8  # of a run
CASES = (("float32", "host"), ("float16", "host"), ("float16", "device"), ("int8", "host"),
         ("int8", "device"))


def write_store(folder: Path, codec: str, num_bytes: float) -> None:
    """A store of noise."""
    rng = np.random.default_rng(0)
    entries = [encode(codec, rng.standard_normal(SHAPE, np.float32)) for _ in range(4)]
    with FeatureWriter(folder, IDENTITY, codec) as writer:
        for number in range(max(BATCH_SIZE, int(num_bytes / len(entries[0])))):
            writer.write_entry(f"utt{number:06d}", entries[number % 4], SHAPE[0])


def compare(store: FeatureStore, dequantize: str, num_runs: int, num_workers: int | None) -> str:
    """One line of the table."""
    settings = [f"train.batch_size={BATCH_SIZE}", f"train.dequantize={dequantize}"]
    if num_workers is not None:
        settings.append(f"train.num_workers={num_workers}")
    config = load_config(overrides=settings)
    source = make_source(config, store, dict.fromkeys(store, ""), [""])
    sampler, loader = make_loader(config, source, World(0, 1, torch.device("cpu")))
    num_threads = max(1, loader.num_threads)
    files, drawn = OpenFiles(), draw_batches(sampler)
    time_loader(loader, list(islice(drawn, NUM_BATCHES)))  # memory of batches
    loaded, raw, kept, memory = [], [], [], None
    for _ in range(num_runs):
        batches = list(islice(drawn, NUM_BATCHES))
        spans = [[list_spans(source, [key]) for key in keys] for keys in batches]
        size = sum(piece for batch in spans for example in batch for _, _, piece in example) / 1e6
        loaded.append(size / time_loader(loader, batches))
        raw.append(size / time_raw(spans, num_threads, files))
        if memory is None:
            row = round(1.1e6 * size / NUM_BATCHES / BATCH_SIZE)
            memory = np.zeros((BATCH_SIZE, row), np.uint8)
        kept.append(size / time_kept(spans, num_threads, files, memory))
    ratios = [one / other for one, other in zip(loaded, raw, strict=True)]
    share = statistics.median(one / other for one, other in zip(loaded, kept, strict=True))
    mb_per_s = statistics.median(loaded)
    return (f"{store.codec:9}{dequantize:12}{loader.num_threads:8}{size / NUM_BATCHES:10.0f}"
            f"{mb_per_s / size * NUM_BATCHES * BATCH_SIZE:9.0f}{mb_per_s:9.0f}"
            f"{statistics.median(raw):9.0f}{statistics.median(ratios):8.2f}"
            f"{min(ratios):8.2f}{max(ratios):8.2f}{statistics.median(kept):9.0f}{share:8.2f}")


def time_kept(spans: list[list[list[Span]]], num_threads: int, files: OpenFiles,
              memory: np.ndarray) -> float:
    """Seconds to read the pieces of batches, each example into its own row of a batch's memory."""
    def read(batch: list[list[Span]], rows: range) -> None:
        for row in rows:
            place = 0
            for path, first, size in batch[row]:
                os.preadv(files.open(path).number, [memory[row, place:place + size]], first)
                place += size

    begin = time.perf_counter()
    with ThreadPoolExecutor(num_threads) as pool:
        for batch in spans:
            shares = [range(n, len(batch), num_threads) for n in range(num_threads)]
            for _ in pool.map(read, [batch] * num_threads, shares):
                pass
    return time.perf_counter() - begin


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--gigabytes", type=float, default=2.0, help="of each store")
    parser.add_argument("--num_workers", type=int, help="default: as training chooses")
    parser.add_argument("--folder", type=Path, help="where stores are made for a while")
    options = parser.parse_args()
    print(f"{len(os.sched_getaffinity(0))} processors; medians of {options.runs} runs\n"
          f"{'codec':9}{'dequantize':12}{'threads':>8}{'MB/batch':>10}{'utt/s':>9}{'MB/s':>9}"
          f"{'pread':>9}{'ratio':>8}{'least':>8}{'most':>8}{'kept':>9}{'ratio':>8}")
    for codec in dict.fromkeys(codec for codec, _ in CASES):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            write_store(Path(folder), codec, 1e9 * options.gigabytes)
            store = FeatureStore(folder)
            for utt in store:  # checks every block, and brings it into the page cache
                store.read(utt)
            for _, dequantize in (case for case in CASES if case[0] == codec):
                print(compare(store, dequantize, options.runs, options.num_workers), flush=True)


if __name__ == "__main__":
    main()
