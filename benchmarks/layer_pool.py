"""Layer attentive pooling against its plain form: time and memory of a training step.

    python -m benchmarks.layer_pool [--device cpu] [--runs 5] [--precision float32 bf16]

Run from the root of the repository. A step is forward and backward of the whole module in training
mode, features frozen. Times are medians of runs in turn. Memory is the peak beyond module and
inputs: on a CPU (Linux) how far steps raise the resident memory of a process of its own, which
counts whatever the libraries allocate and keep; on a GPU what torch allocates. Ratios above 1 are
in favour of ours.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from tests.models.plain_lap import PlainLAP
from wespeaker_lap.models.layer_pool import LAP

SIZES = {"13x768": (13, 768), "25x1024": (25, 1024)}  # WavLM Base+ and Large
BATCH, FRAMES = 16, 100
MEBIBYTE = 2**20


def make_step(form: str, size: str, device: torch.device, precision: str) -> Callable[[], None]:
    """A function that does one forward and backward of `plain` or `ours`."""
    num_layers, dim = SIZES[size]
    torch.manual_seed(0)
    lap = LAP(num_layers, dim, out_dim=512, num_heads=16, dropout=0.1).to(device)
    pool = PlainLAP(lap) if form == "plain" else lap
    x = torch.randn(BATCH, FRAMES, num_layers, dim, device=device)  # (B, T, L, D)
    target = torch.randn(BATCH, FRAMES, 512, device=device)

    def step() -> None:
        lap.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            frames, _ = pool(x) if form == "plain" else pool(x, return_scores=True)
        frames.backward(target.to(frames.dtype))

    return step


def time_step(step: Callable[[], None], device: torch.device) -> float:
    """Seconds of one step."""
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def measure_peak(form: str, size: str, device: torch.device, precision: str) -> float:
    """MiB that steps take beyond module and inputs; in a process that did nothing before."""
    step = make_step(form, size, device, precision)
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        step()
        return (torch.cuda.max_memory_allocated(device) - before) / MEBIBYTE
    before = read_peak_resident()
    for _ in range(2):
        step()
    return read_peak_resident() - before


def read_peak_resident() -> float:
    """MiB of this process's largest resident set so far.

    Not `getrusage`, whose figure a new process inherits from the one that started it.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    kibibytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return int(kibibytes) / 1024


def measure_peak_apart(*case: str) -> float:
    """`measure_peak` in a new process."""
    command = [sys.executable, "-m", "benchmarks.layer_pool", "--peak_of", *case]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def compare(size: str, device: torch.device, precision: str, num_runs: int) -> None:
    """Measure both forms of one size in turn and print the medians."""
    steps = {form: make_step(form, size, device, precision) for form in ("plain", "ours")}
    times: dict[str, list[float]] = {form: [] for form in steps}
    for run in range(num_runs + 1):  # the first warms up
        for form, step in steps.items():
            seconds = time_step(step, device)
            if run:
                times[form].append(seconds)
    medians = {form: statistics.median(values) for form, values in times.items()}
    peaks = {form: measure_peak_apart(form, size, str(device), precision) for form in steps}
    for form in steps:
        print(f"{size} {precision:8} {form:6} {1000 * medians[form]:9.1f} ms "
              f"(from {1000 * min(times[form]):.1f}) {peaks[form]:8.0f} MiB")
    print(f"{size} {precision:8} ratio  {medians['plain'] / medians['ours']:9.2f} "
          f"{peaks['plain'] / peaks['ours']:21.2f}", flush=True)
    if device.type == "cuda":
        print_shares(size, device, precision, medians["ours"])


def print_shares(size: str, device: torch.device, precision: str, seconds: float) -> None:
    """How near to the GPU's limits our step comes, the limits measured on the spot.

    Counted: two products with the projection, one a direction; the features read three times
    (statistics, forward, backward) and the projected block written and read once a direction.
    """
    num_layers, dim = SIZES[size]
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    values = BATCH * FRAMES * num_layers * dim
    square = torch.randn(8192, 8192, device=device, dtype=dtype)
    product = min(time_step(lambda: square @ square, device) for _ in range(10))
    source = torch.empty(2**28, device=device)
    target = torch.empty_like(source)
    copy = min(time_step(lambda: target.copy_(source), device) for _ in range(10))
    flops, most_flops = 4 * values * dim / seconds, 2 * 8192**3 / product
    size_bytes, most_bytes = 7 * 4 * values / seconds, 2 * 4 * 2**28 / copy
    print(f"{size} {precision:8} ours   {100 * flops / most_flops:.0f} % of the matrix products' "
          f"limit of {most_flops / 1e12:.0f} TFLOP/s, {100 * size_bytes / most_bytes:.0f} % of the "
          f"memory's of {most_bytes / 1e9:.0f} GB/s")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--precision", nargs="+", choices=("float32", "bf16"),
                        default=["float32", "bf16"])
    parser.add_argument("--peak_of", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak_of:
        form, size, device, precision = options.peak_of
        print(measure_peak(form, size, torch.device(device), precision))
        return
    device = torch.device(options.device)
    print(f"{BATCH} x {FRAMES} frames, {device}, {torch.get_num_threads()} threads, "
          f"torch {torch.__version__}")
    for precision in options.precision:
        for size in options.sizes:
            compare(size, device, precision, options.runs)


if __name__ == "__main__":
    main()
