"""Joint fine-tuning of encoder and back end: seconds a step and peak memory, by batch and setting.

    python -m benchmarks.fine_tuning DATA [--size base] [--batch_sizes 4 8] [--crop_seconds 2]
        [--steps 6] [--device cpu]

A training as `wespeaker-lap train` does it, on a few recordings, in a process of its own for each
row, with LAP and ASTP behind an encoder of WavLM-Base+'s or WavLM-Large's size with random weights
(or behind `--encoder NAME`). Seconds are the median of all steps but the first two.
"""

import argparse
import statistics
import tempfile
from itertools import product
from pathlib import Path

import torch

from benchmarks.extraction import BASE, LARGE, choose_recordings, write_random
from benchmarks.training import train

SIZES = {"base": BASE, "large": LARGE}
MINUTES = 2.0  # of audio
SETTINGS = {  # name -> of train.encoder
    "encoder frozen": None,
    "joint": {"freeze_conv": "true", "checkpointing": "false"},
    "joint, convolutions too": {"freeze_conv": "false", "checkpointing": "false"},
    "joint, checkpointing": {"freeze_conv": "true", "checkpointing": "true"},
}


def measure(data: Path, encoder: str, name: str, batch_size: int, exp_dir: Path,
          options: argparse.Namespace) -> tuple[float, dict]:
    """Seconds of a step, and the highest memory of the training by kind."""
    settings = {"frontend.name": encoder, "data.source": "wave", "train.batch_size": batch_size,
                "train.crop_seconds": options.crop_seconds, "train.epochs": 1,
                "model.layer_pool.num_heads": 12 if options.size == "base" else 16}
    for key, value in (SETTINGS[name] or {}).items():
        settings[f"train.encoder.{key}"] = value
    rows = train(exp_dir, [f"{key}={value}" for key, value in settings.items()],
                 "--data", str(data), "--device", options.device)
    seconds = [row["seconds"] for row in rows if "seconds" in row and "epoch" not in row]
    peaks = {key: value for row in rows for key, value in row.items() if key.endswith("_gb")}
    return statistics.median(seconds[2:]), peaks


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("data", type=Path, help="audited data directory")
    parser.add_argument("--size", choices=SIZES, default="base")
    parser.add_argument("--encoder", help="a real one in place of random weights")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--crop_seconds", type=float, default=2.0)
    parser.add_argument("--steps", type=int, default=6, help="of a training, at least")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    print(f"{options.encoder or options.size}, crops of {options.crop_seconds:g} s, "
          f"{options.device}, {torch.get_num_threads()} threads\n"
          f"{'':26}{'batch':>6}{'s/step':>9}{'crops/s':>9}  peak memory, GB", flush=True)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        encoder = options.encoder or str(write_random(folder / "encoder", SIZES[options.size]))
        minutes = MINUTES * max(1, options.steps * max(options.batch_sizes) / 24)
        data = choose_recordings(options.data, minutes, folder / "data")
        for number, (name, size) in enumerate(product(SETTINGS, options.batch_sizes)):
            seconds, peaks = measure(data, encoder, name, size, folder / f"exp{number}", options)
            memory = ", ".join(f"{kind.removesuffix('_gb')} {gb:.2f}" for kind, gb in peaks.items())
            print(f"{name:26}{size:6}{seconds:9.2f}{size / seconds:9.1f}  {memory}", flush=True)


if __name__ == "__main__":
    main()
