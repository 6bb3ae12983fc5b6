"""What a run will need, before it starts: encoder, disk, time."""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from wespeaker_lap import build
from wespeaker_lap.config import Config
from wespeaker_lap.data.convert import find_ffmpeg
from wespeaker_lap.data.datadir import load_data_dir
from wespeaker_lap.engine.extract import estimate_bytes
from wespeaker_lap.frontends.ssl import FrozenSSL

TRIAL_SECONDS = 10.0  # audio that the encoder is timed on


def describe_plan(config: Config, data_dirs: Sequence[Path]) -> list[str]:
    """Estimate the features' size and the time to compute them, from a short trial here and now.

    Args:
        config: of the run.
        data_dirs: of all sets, prepared or not.

    Returns:
        Lines for a person.
    """
    try:
        lines = [f"ffmpeg (needed for m4a only): {find_ffmpeg()}"]
    except (FileNotFoundError, ValueError) as error:
        lines = [f"ffmpeg (needed for m4a only): {error}"]
    try:
        frontend = build.build_frontend(config.frontend)
    except (FileNotFoundError, ValueError, OSError) as error:
        return [*lines, f"encoder: {error}"]
    speed = time_encoder(frontend)
    lines.append(f"encoder: {frontend.name}, {frontend.num_layers} states of {frontend.dim}; "
                 f"one CPU process does {speed:.0f} s of audio a second")
    for path in data_dirs:
        if not (path / "wav.scp").is_file():
            lines.append(f"{path}: not prepared yet; stage 1 writes it")
            continue
        data = load_data_dir(path)
        if not data.durations:
            lines.append(f"{path}: {len(data.wavs)} utterances, not audited yet (stage 1)")
            continue
        hours = sum(data.durations.values()) / 3600
        size = sum(estimate_bytes(frontend, data, config.features.codec).values())
        lines.append(f"{path}: {len(data.wavs)} utterances, {hours:.2f} h; features "
                     f"{size / 1e9:.2f} GB, about {60 * hours / speed:.1f} min on one CPU process")
    free = shutil.disk_usage(".").free
    return [*lines, f"disk free here: {free / 1e9:.0f} GB"]


@torch.inference_mode()
def time_encoder(frontend: FrozenSSL) -> float:
    """Seconds of audio that the encoder does in a second on the CPU, one process."""
    wave = torch.zeros(1, round(TRIAL_SECONDS * frontend.sample_rate))
    frontend(wave[:, :frontend.sample_rate])  # the first call pays for what later ones reuse
    started = time.perf_counter()
    frontend(wave)
    return TRIAL_SECONDS / (time.perf_counter() - started)
