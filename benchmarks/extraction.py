"""Stage 2 against the loop one writes first: one utterance at a time, float32, default threads.

    python benchmarks/extraction.py DATA [--encoder NAME] [--nproc 2] [--runs 5]

Both are timed as whole commands, in turn, on the same recordings, into a fresh folder each; the
figures are medians. A ratio above 1 is in favour of stage 2.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from kaldiio import WriteHelper

from wespeaker_lap.data.datadir import load_data_dir
from wespeaker_lap.frontends.ssl import FrozenSSL
from wespeaker_lap.io.audio import read_audio


@torch.inference_mode()
def run_loop(data: Path, encoder: str, out: Path) -> None:
    """The loop: read, encode, write a float32 matrix."""
    frontend = FrozenSSL.load(encoder)
    with WriteHelper(f"ark,scp:{out}/feats.ark,{out}/feats.scp") as writer:
        for utt, path in load_data_dir(data).wavs.items():
            wav = torch.from_numpy(read_audio(path, frontend.sample_rate))
            feats, _ = frontend(wav[None])  # (1, T, L, D)
            writer(utt, feats[0].flatten(1).numpy())


def time_command(command: list[str], environment: dict[str, str]) -> float:
    """Seconds that a command takes; its output only where it fails."""
    start = time.perf_counter()
    done = subprocess.run(command, env={**os.environ, **environment}, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        sys.exit(f"{done.stdout}\nextraction.py: {' '.join(command)} failed")
    return time.perf_counter() - start


def compare(data: Path, encoder: str, nproc: int, num_runs: int) -> None:
    """Time both in turn and print the medians."""
    hours = sum(load_data_dir(data).durations.values()) / 3600
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(nproc)]
    stage = [sys.executable, *(launcher if nproc > 1 else []), "-m", "wespeaker_lap",
             "extract-feats", str(data), "--set", f"frontend.name={encoder}", "--device", "cpu"]
    threads = str(max(1, (os.cpu_count() or 1) // nproc))
    ours, loop = [], []
    for _ in range(num_runs):
        folder = Path(tempfile.mkdtemp())
        try:
            ours.append(time_command([*stage, "--out", str(folder / "store")],
                                     {"OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "passive"}))
            loop.append(time_command([sys.executable, __file__, str(data), "--encoder", encoder,
                                      "--loop_into", str(folder)], {}))
        finally:
            shutil.rmtree(folder)
        print(f"stage 2 {ours[-1]:.1f} s, the loop {loop[-1]:.1f} s", flush=True)
    print(f"{hours:.2f} h of audio, {encoder}, {nproc} process(es), {os.cpu_count()} cores")
    for name, times in (("stage 2", ours), ("the loop", loop)):
        seconds = statistics.median(times)
        print(f"{name}: {seconds:.1f} s, {3600 * hours / seconds:.0f} x real time "
              f"(factor {seconds / 3600 / hours:.5f})")
    print(f"ratio: {statistics.median(loop) / statistics.median(ours):.2f}")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("data", type=Path, help="audited data directory")
    parser.add_argument("--encoder", default="wavlm_tiny")
    parser.add_argument("--nproc", type=int, default=2, help="processes of stage 2")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--loop_into", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.loop_into:
        run_loop(options.data, options.encoder, options.loop_into)
    else:
        compare(options.data, options.encoder, options.nproc, options.runs)


if __name__ == "__main__":
    main()
