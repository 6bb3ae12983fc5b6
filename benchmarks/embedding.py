"""The Python interface: a list of recordings at once against one call a recording.

    python benchmarks/embedding.py MODEL DATA [--num 200] [--batch_sizes 4 8 16] [--runs 5]
        [--num_threads N] [--device cpu]

Files are read and decoded in both, in turn in every run; the figures are medians. A ratio above 1
is in favour of the list. The largest difference between the embeddings is printed, too.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from wespeaker_lap import load_model
from wespeaker_lap.data.datadir import load_data_dir


def clock(work: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    """Seconds it takes, and what it returns."""
    begin = time.perf_counter()
    found = work()
    return time.perf_counter() - begin, found


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("model", help="as load_model takes it")
    parser.add_argument("data", type=Path, help="data directory with the recordings")
    parser.add_argument("--num", type=int, default=200, help="recordings, drawn at random")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--num_threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.num_threads)
    data = load_data_dir(options.data)
    utts = random.Random(0).sample(sorted(data.wavs), min(options.num, len(data.wavs)))
    wavs, seconds = [data.wavs[utt] for utt in utts], sum(data.durations[utt] for utt in utts)
    model = load_model(options.model, device=options.device)
    model.embed(wavs[:8])  # memory in place

    ways = {"one by one": lambda: np.stack([model.embed(wav) for wav in wavs])}
    for size in options.batch_sizes:
        ways[f"list, batches of {size}"] = lambda size=size: model.embed(wavs, batch_size=size)
    taken: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, np.ndarray] = {}
    for _ in range(options.runs):
        for name, work in ways.items():
            elapsed, found[name] = clock(work)
            taken[name].append(elapsed)

    print(f"{len(wavs)} recordings, {seconds / len(wavs):.1f} s on average; {options.device}, "
          f"{options.num_threads} threads; medians of {options.runs} runs\n"
          f"{'':24}{'utt/s':>8}{'x real time':>13}{'ratio':>8}{'difference':>12}")
    alone = taken["one by one"]
    for name, times in taken.items():
        ratio = statistics.median(one / other for one, other in zip(alone, times, strict=True))
        difference = np.abs(found[name] - found["one by one"]).max()
        print(f"{name:24}{len(wavs) / statistics.median(times):8.1f}"
              f"{seconds / statistics.median(times):13.0f}{ratio:8.2f}{difference:12.1e}")


if __name__ == "__main__":
    main()
