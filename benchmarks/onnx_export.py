"""Exported graphs against PyTorch: how far the embeddings differ, and which is faster.

    python -m benchmarks.onnx_export MODEL [--parts backend whole] [--threads 1 2] [--runs 5]
        [--seconds 3 10]

Run from the root of the repository, with the packages of the extra `onnx`. MODEL is what
`load_model` takes. Differences are the largest over ten lengths from 0.3 to 25 s, one recording and
two. Times are of one recording, medians of runs in turn; a ratio above 1 is in favour of
onnxruntime. PyTorch's whole model is what `embed` runs once a recording is read.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from wespeaker_lap.share import onnx, onnx_check
from wespeaker_lap.share.inference import embed_samples
from wespeaker_lap.share.speaker import SpeakerModel, load_model

LENGTHS = (0.3, 0.5, 0.9, 1.7, 3.0, 5.3, 8.0, 12.5, 18.0, 25.0)  # in seconds


def measure_difference(path: Path, model: SpeakerModel, part: str) -> tuple[float, float]:
    """The largest absolute difference and cosine distance."""
    session, gaps = onnx_check.open_session(path), []
    for seconds in LENGTHS:
        for num in (1, 2):
            waves = [onnx_check.make_wave(seconds, model.frontend.sample_rate, 10 + seed)
                     for seed in range(num)]
            inputs, wanted = onnx_check.run_model(model, part, waves)
            found = session.run([onnx_check.OUTPUT], {onnx_check.INPUTS[part]: inputs})[0]
            gaps.append(onnx_check.measure_gap(found, wanted))
    absolute, cosine = zip(*gaps, strict=True)
    return max(absolute), max(cosine)


def time_call(call: Callable[[], object]) -> float:
    """Seconds."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def compare_speed(path: Path, model: SpeakerModel, part: str, seconds: float, num_threads: int,
                  num_runs: int) -> None:
    """Time both in turn and print the medians."""
    wave = onnx_check.make_wave(seconds, model.frontend.sample_rate, 0)
    inputs, _ = onnx_check.run_model(model, part, [wave])
    session = onnx_check.open_session(path, num_threads)
    torch.set_num_threads(num_threads)

    @torch.inference_mode()
    def run_torch() -> None:
        if part == "whole":
            embed_samples(model.frontend, model.net, model.codec, [wave])
        else:
            model.net(torch.from_numpy(inputs))

    def run_onnx() -> None:
        session.run([onnx_check.OUTPUT], {onnx_check.INPUTS[part]: inputs})

    times: dict[str, list[float]] = {"torch": [], "onnx": []}
    for run in range(num_runs + 2):  # the first two warm up
        for name, call in (("torch", run_torch), ("onnx", run_onnx)):
            duration = time_call(call)
            if run >= 2:
                times[name].append(duration)
    print(f"{part:8} {seconds:5g} s, {num_threads} thread(s): "
          f"{describe('PyTorch', times['torch'])}, "
          f"{describe('onnxruntime', times['onnx'])}, ratio {ratio(times, statistics.median):.2f} "
          f"(of the fastest {ratio(times, min):.2f})", flush=True)


def describe(name: str, times: list[float]) -> str:
    """Median and minimum in milliseconds."""
    return f"{name} {1000 * statistics.median(times):8.1f} ms (from {1000 * min(times):.1f})"


def ratio(times: dict[str, list[float]], take: Callable[[list[float]], float]) -> float:
    """PyTorch's time over onnxruntime's."""
    return take(times["torch"]) / take(times["onnx"])


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("model")
    parser.add_argument("--parts", nargs="+", choices=onnx.PARTS, default=list(onnx.PARTS))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--seconds", nargs="+", type=float, default=[3.0, 10.0])
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    model = load_model(options.model)
    with tempfile.TemporaryDirectory() as folder:
        for part in options.parts:
            start = time.perf_counter()
            path = onnx.export_onnx(options.model, Path(folder, f"{part}.onnx"), part).path
            print(f"{part:8} exported and compared in {time.perf_counter() - start:.0f} s, "
                  f"{path.stat().st_size / 1e6:.1f} MB")
            absolute, cosine = measure_difference(path, model, part)
            print(f"{part:8} largest difference {absolute:.2g}, {cosine:.2g} in cosine")
            for num_threads in options.threads:
                for seconds in options.seconds:
                    compare_speed(path, model, part, seconds, num_threads, options.runs)
    print(f"{os.cpu_count()} cores, torch {torch.__version__}")


if __name__ == "__main__":
    main()
