"""What a run will need, before it starts: encoder, disk, time, and what is missing for it."""

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from wespeaker_lap import build
from wespeaker_lap.config import Config, Features
from wespeaker_lap.data.convert import find_ffmpeg
from wespeaker_lap.data.copies import list_speakers
from wespeaker_lap.data.datadir import DataDir, load_data_dir
from wespeaker_lap.engine import timing
from wespeaker_lap.engine.dist import choose_device, choose_precision
from wespeaker_lap.engine.entries import estimate_bytes
from wespeaker_lap.frontends.selection import Selection
from wespeaker_lap.frontends.ssl import FrozenSSL
from wespeaker_lap.io.audio import AudioError
from wespeaker_lap.io.codecs import CODECS, entry_bytes

LAYER_STRIDES = (1, 2, 3)  # of which the table of sizes tells
MARGIN = 1.05  # disk beyond the features: models, embeddings, scores


@dataclass(frozen=True)
class SetPlan:
    """One set: its data (None where stage 1 has not audited it), and the features of it.

    Attributes:
        text: about the data.
        size: bytes of the features.
        seconds: of audio to encode, copies included.
        kept: what is stored of it, in words.
    """

    path: Path
    text: str
    data: DataDir | None = None
    size: int = 0
    seconds: float = 0.0
    kept: str = ""


def describe_plan(config: Config, data_dirs: Sequence[Path], training: Sequence[Path] = (),
                  device: str = "cpu", num_processes: int = 1) -> list[str]:
    """Estimate disk and time from a short trial here and now, and say what is missing.

    Args:
        config: of the run.
        data_dirs: of all sets, prepared or not.
        training: those of them that are trained on.
        device: that will compute, see `dist.choose_device`.
        num_processes: GPUs that share the work; on a CPU one process is timed with all cores.

    Returns:
        Lines for a person; what is to be done first begins with `missing: `.

    Raises:
        ValueError: a training set that is not one of the sets.
    """
    strangers = sorted(str(path) for path in set(training) - set(data_dirs))
    if strangers:
        raise ValueError(f"--training {strangers[0]}: not one of the sets to plan; name it there")
    lines = [_describe_ffmpeg()]
    try:
        frontend = build.build_frontend(config.frontend, config.features)
    except (FileNotFoundError, ValueError, OSError) as error:
        return [*lines, f"missing: encoder: {error}"]
    return [*lines, *_describe_run(config, frontend, data_dirs, training, device, num_processes)]


def _describe_run(config: Config, frontend: FrozenSSL | Selection, data_dirs: Sequence[Path],
                  training: Sequence[Path], device: str, num_processes: int) -> list[str]:
    """All lines that need the encoder."""
    lines = []
    try:
        chosen = choose_device(device)
    except ValueError as error:
        lines, chosen = [f"missing: {error}"], torch.device("cpu")
    sharing = num_processes if chosen.type == "cuda" else 1
    plans = [plan_set(config, frontend, path, path in training) for path in data_dirs]
    encoder, told = _time_encoder(config, frontend.to(chosen),
                                  [plan.data for plan in plans if plan.data], chosen)
    lines += [*told, f"encoder: {frontend.name}, {frontend.num_layers} states of {frontend.dim}; "
              f"one {chosen.type.upper()} process does {encoder.speed:.0f} s of audio a second "
              f"(timed on {encoder.timed_on})"]
    trained = [plan for plan in plans if plan.data and plan.path in training]
    if config.data.source == "wave":
        lines.append("features: none are stored, since data.source is wave")
        lines += [f"{plan.path}: {plan.text}" for plan in plans]
        return lines + [line for plan in trained for line in _miss_speakers(config, plan.data)]
    lines.append(_describe_features(config.features, frontend))
    lines += [_describe_set(plan, encoder.speed * sharing) for plan in plans]
    need = sum(plan.size for plan in plans)
    total = sum(plan.seconds for plan in plans) / (encoder.speed * sharing)
    lines.append(f"stage 2 in all: {need / 1e9:.2f} GB, about {_format_time(total)}"
                 f"{'' if sharing == 1 else f' on {sharing} GPUs'}")
    lines += _describe_disk(config.features, frontend, plans)
    for plan in trained:
        lines.append(_describe_training(config, frontend, plan.data, chosen, sharing))
        lines += _miss_speakers(config, plan.data)
    free = shutil.disk_usage(".").free
    lacking = need * MARGIN - free
    if lacking > 0:
        lines.append(f"missing: {lacking / 1e9:.1f} GB of disk; make room, name another "
                     f"--feats_dir, or choose from the table above")
    return [*lines, f"disk free here: {free / 1e9:.0f} GB"]


def _describe_ffmpeg() -> str:
    try:
        return f"ffmpeg (needed for m4a only): {find_ffmpeg()}"
    except (FileNotFoundError, ValueError) as error:
        return f"ffmpeg (needed for m4a only): {error}"


def _time_encoder(config: Config, frontend: FrozenSSL | Selection, audited: Sequence[DataDir],
                  device: torch.device) -> tuple[timing.EncoderSpeed, list[str]]:
    """Time the encoder on recordings, or on noise where they cannot be read, which is told."""
    precision = choose_precision(build.choose_precision_name(config), device)
    try:
        sample = timing.choose_sample(audited)
        return timing.time_encoder(frontend, sample, device, precision), []
    except AudioError as error:
        return (timing.time_encoder(frontend, {}, device, precision),
                [f"missing: recording: {error}; run stage 1 again"])


def _describe_features(features: Features, frontend: FrozenSSL) -> str:
    """What is stored of the encoder's states, and the bytes of a second of it."""
    rate = frontend.sample_rate / frontend.frame_shift
    size = entry_bytes(features.codec, (1000, frontend.num_layers, frontend.dim)) / 1000 * rate
    layers = frontend.layers if isinstance(frontend, Selection) else range(frontend.num_layers)
    return (f"features: layers {', '.join(map(str, layers))}; {rate:g} frames a second; "
            f"{features.codec}: {size / 1e6:.2f} MB a second of audio")


def plan_set(config: Config, frontend: FrozenSSL | Selection, path: Path,
             is_training: bool) -> SetPlan:
    """Work out what the features of a set take.

    Args:
        config: of the run.
        frontend: of the features.
        path: the data directory, prepared or not.
        is_training: whether segments and copies are stored of it.
    """
    if not (path / "wav.scp").is_file():
        return SetPlan(path, "not prepared yet; stage 1 writes it")
    data = load_data_dir(path)
    if not data.durations:
        return SetPlan(path, f"{len(data.wavs)} utterances, not audited yet (stage 1)")
    segments = build.build_segments(config.features, frontend, is_training)
    copies = build.build_copies(config.features, is_training)
    total = sum(data.durations.values())
    size = sum(estimate_bytes(frontend, data, config.features.codec, segments, copies).values())
    parts = [] if segments is None else [f"{segments.num} segments of each utterance"]
    parts += [] if len(copies) == 1 else [f"{len(copies)} copies"]
    return SetPlan(path, f"{len(data.wavs)} utterances, {total / 3600:.2f} h", data, size,
                   total * sum(1 / copy.factor for copy in copies),
                   f" (of {', '.join(parts)})" if parts else "")


def _describe_set(plan: SetPlan, speed: float) -> str:
    """Disk and time of one set's features, as one line."""
    if plan.data is None:
        return f"{plan.path}: {plan.text}"
    return (f"{plan.path}: {plan.text}; features {plan.size / 1e9:.2f} GB{plan.kept}, "
            f"about {_format_time(plan.seconds / speed)}")


def _describe_disk(features: Features, frontend: FrozenSSL | Selection,
                   plans: Sequence[SetPlan]) -> list[str]:
    """A table of sizes by codec and layers: of all sets, or of an hour where none is audited."""
    inner = frontend.frontend if isinstance(frontend, Selection) else frontend
    dim, total = frontend.dim, sum(plan.size for plan in plans)
    rate = frontend.sample_rate / frontend.frame_shift
    # Heads of entries are some bytes; what counts is a frame.
    frame = entry_bytes(features.codec, (1000, frontend.num_layers, dim)) / 1000
    num_frames = total / frame if total else 3600 * rate
    layers = {"chosen": frontend.num_layers,
              **{("all" if stride == 1 else f"layer_stride {stride}"):
                 math.ceil(inner.num_layers / stride) for stride in LAYER_STRIDES}}
    if inner.num_layers == 1:
        layers = {"chosen": 1}
    heads = [f"{f'{name} ({count})':>20}" for name, count in layers.items()]
    lines = [f"disk by codec and layers, in GB for {'all sets' if total else 'an hour of audio'}:",
             " " * 18 + "".join(heads)]
    for codec in CODECS:
        sizes = [entry_bytes(codec, (1000, count, dim)) / 1000 * num_frames / 1e9
                 for count in layers.values()]
        mark = " (chosen)" if codec == features.codec else ""
        lines.append(f"  {codec + mark:16}" + "".join(f"{size:20.2f}" for size in sizes))
    return lines


def _describe_training(config: Config, frontend: FrozenSSL | Selection, data: DataDir,
                       device: torch.device, sharing: int) -> str:
    """The time of training on stored features."""
    copies = build.build_copies(config.features, is_training=True)
    num_speakers = len(list_speakers(data.utt2spk, copies))
    speed = timing.time_training(config, frontend, num_speakers, device) * sharing
    total = config.train.epochs * len(data.wavs) / speed
    return (f"training: {config.train.epochs} epochs of {len(data.wavs):,} utterances of "
            f"{num_speakers:,} speakers, {speed:.0f} crops a second: about "
            f"{_format_time(total)}, reading excepted")


def _miss_speakers(config: Config, data: DataDir) -> list[str]:
    """A line where a training set is too small a cohort for AS-norm."""
    if config.score.top_n <= len(data.speakers):
        return []
    return [f"missing: speakers for AS-norm, if the cohort is {data.path}: it has "
            f"{len(data.speakers)}, and score.top_n is {config.score.top_n}; pass "
            f"--top_n {len(data.speakers)} or less"]


def _format_time(seconds: float) -> str:
    """
    >>> _format_time(30), _format_time(9000)
    ('0.5 min', '2.5 h')
    """
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
