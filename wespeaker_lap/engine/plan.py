"""What a run will need, before it starts: encoder, disk, time."""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from wespeaker_lap import build
from wespeaker_lap.config import Config, Features
from wespeaker_lap.data.convert import find_ffmpeg
from wespeaker_lap.data.copies import Copy
from wespeaker_lap.data.datadir import load_data_dir
from wespeaker_lap.data.segments import Segments
from wespeaker_lap.engine.entries import estimate_bytes
from wespeaker_lap.frontends.selection import Selection
from wespeaker_lap.frontends.ssl import FrozenSSL
from wespeaker_lap.io.codecs import entry_bytes

TRIAL_SECONDS = 10.0  # audio that the encoder is timed on


def describe_plan(config: Config, data_dirs: Sequence[Path],
                  training: Sequence[Path] = ()) -> list[str]:
    """Estimate the features' size and the time to compute them, from a short trial here and now.

    Args:
        config: of the run.
        data_dirs: of all sets, prepared or not.
        training: those of them that are trained on.

    Returns:
        Lines for a person.

    Raises:
        ValueError: a training set that is not one of the sets.
    """
    strangers = sorted(str(path) for path in set(training) - set(data_dirs))
    if strangers:
        raise ValueError(f"--training {strangers[0]}: not one of the sets to plan; name it there")
    try:
        lines = [f"ffmpeg (needed for m4a only): {find_ffmpeg()}"]
    except (FileNotFoundError, ValueError) as error:
        lines = [f"ffmpeg (needed for m4a only): {error}"]
    try:
        frontend = build.build_frontend(config.frontend, config.features)
    except (FileNotFoundError, ValueError, OSError) as error:
        return [*lines, f"encoder: {error}"]
    speed = time_encoder(frontend)
    lines.append(f"encoder: {frontend.name}, {frontend.num_layers} states of {frontend.dim}; "
                 f"one CPU process does {speed:.0f} s of audio a second")
    if config.data.source == "wave":
        return [*lines, "features: none are stored, since data.source is wave"]
    lines.append(_describe_features(config.features, frontend))
    for path in data_dirs:
        segments = build.build_segments(config.features, frontend, path in training)
        copies = build.build_copies(config.features, path in training)
        lines.append(_describe_set(path, frontend, config.features.codec, segments, copies, speed))
    free = shutil.disk_usage(".").free
    return [*lines, f"disk free here: {free / 1e9:.0f} GB"]


def _describe_features(features: Features, frontend: FrozenSSL) -> str:
    """What is stored of the encoder's states, and the bytes of a second of it."""
    rate = frontend.sample_rate / frontend.frame_shift
    size = entry_bytes(features.codec, (1000, frontend.num_layers, frontend.dim)) / 1000 * rate
    layers = frontend.layers if isinstance(frontend, Selection) else range(frontend.num_layers)
    return (f"features: layers {', '.join(map(str, layers))}; {rate:g} frames a second; "
            f"{features.codec}: {size / 1e6:.2f} MB a second of audio")


def _describe_set(path: Path, frontend: FrozenSSL, codec: str, segments: Segments | None,
                  copies: Sequence[Copy], speed: float) -> str:
    """Disk and time of one set's features, as one line."""
    if not (path / "wav.scp").is_file():
        return f"{path}: not prepared yet; stage 1 writes it"
    data = load_data_dir(path)
    if not data.durations:
        return f"{path}: {len(data.wavs)} utterances, not audited yet (stage 1)"
    hours = sum(data.durations.values()) / 3600
    size = sum(estimate_bytes(frontend, data, codec, segments, copies).values())
    parts = [] if segments is None else [f"{segments.num} segments of each utterance"]
    parts += [] if len(copies) == 1 else [f"{len(copies)} copies"]
    kept = f" (of {', '.join(parts)})" if parts else ""
    minutes = 60 * hours * sum(1 / copy.factor for copy in copies) / speed
    return (f"{path}: {len(data.wavs)} utterances, {hours:.2f} h; features {size / 1e9:.2f} GB"
            f"{kept}, about {minutes:.1f} min on one CPU process")


@torch.inference_mode()
def time_encoder(frontend: FrozenSSL) -> float:
    """Seconds of audio that the encoder does in a second on the CPU, one process."""
    wave = torch.zeros(1, round(TRIAL_SECONDS * frontend.sample_rate))
    frontend(wave[:, :frontend.sample_rate])  # the first call pays for what later ones reuse
    started = time.perf_counter()
    frontend(wave)
    return TRIAL_SECONDS / (time.perf_counter() - started)
