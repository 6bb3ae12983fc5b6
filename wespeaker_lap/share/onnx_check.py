"""Does an exported graph give PyTorch's embeddings? Asked of onnxruntime, at several lengths."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from wespeaker_lap.io.feats import as_stored
from wespeaker_lap.share.inference import embed_samples
from wespeaker_lap.share.speaker import SpeakerModel

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

INPUTS = {"backend": "feats", "whole": "wav"}  # part -> name of what goes in
OUTPUT = "embeddings"  # not "embedding", as the exporter names a step of WavLM
SECONDS = (0.5, 1.0, 2.0, 3.3, 5.0, 10.0, 20.0)
BATCHES = (1, 2)
TOLERANCE, COSINE_TOLERANCE = 1e-3, 1e-4


@dataclass(frozen=True)
class Difference:
    """The largest difference from PyTorch that was found.

    Args:
        absolute: of any value of an embedding.
        cosine: 1 - cosine of two embeddings of the same input.
        seconds: lengths that were compared, in batches of one and of two.
    """

    absolute: float
    cosine: float
    seconds: tuple[float, ...]

    def describe(self) -> dict[str, str]:
        """As metadata of a graph."""
        return {"max_difference": f"{self.absolute:.3g}",
                "max_cosine_distance": f"{self.cosine:.3g}",
                "compared_seconds": " ".join(f"{one:g}" for one in self.seconds)}


def compare_outputs(source: str | Path, path: Path, model: SpeakerModel, part: str) -> Difference:
    """Run a graph and the model it was made of on the same recordings.

    Args:
        source: of the model, for the message.
        path: of the graph.
        model: itself.
        part: of it that the graph holds, see `onnx.export_onnx`.

    Raises:
        ValueError: the embeddings differ by more than rounding; says where and by how much.
    """
    with _naming(source):
        session = open_session(path)
    seconds = tuple(sorted({min(one, model.frontend.max_seconds) for one in SECONDS}))
    absolute = cosine = 0.0
    for length in seconds:
        for num in BATCHES:
            waves = [make_wave(length, model.frontend.sample_rate, seed) for seed in range(num)]
            inputs, wanted = run_model(model, part, waves)
            with _naming(source):
                found = session.run([OUTPUT], {INPUTS[part]: inputs})[0]
            gap, distance = measure_gap(found, wanted)
            if not (gap <= TOLERANCE and distance <= COSINE_TOLERANCE):  # NaN is no number below
                raise ValueError(
                    f"{source}: onnxruntime's embeddings of {length:g} s (batch of {num}) differ "
                    f"from PyTorch's by {gap:.2g}, {distance:.2g} in cosine, where {TOLERANCE:g} "
                    f"and {COSINE_TOLERANCE:g} are rounding; the graph was not kept"
                    f"{_explain(model, part)}")
            absolute, cosine = max(absolute, gap), max(cosine, distance)
    return Difference(absolute, cosine, seconds)


def _explain(model: SpeakerModel, part: str) -> str:
    if part == "whole" and model.codec == "int8":
        return (". The model was trained on features rounded to int8, which the graph does not "
                "round; export its back end, --part backend")
    return ""


def open_session(path: Path, num_threads: int = 0) -> InferenceSession:
    """onnxruntime with a graph, on the CPU; as many threads as cores where none are given."""
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.log_severity_level = 4  # what fails is raised
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@contextmanager
def _naming(source: str | Path) -> Iterator[None]:
    """Name the model in what onnxruntime raises, whose errors have no class in common."""
    try:
        yield
    except Exception as error:
        reason = str(error).strip().split("\n", 1)[0]
        raise ValueError(f"{source}: onnxruntime cannot run its graph, which was not kept "
                         f"({reason})") from error


@torch.inference_mode()
def run_model(model: SpeakerModel, part: str,
              waves: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """What a graph gets of some recordings, and what PyTorch makes of it.

    Args:
        model: the model.
        part: "backend" or "whole".
        waves: B waveforms (S,) float32, equally long.

    Returns:
        The input (B, T, L, D) or (B, S), and embeddings (B, E), all float32.
    """
    if part == "whole":
        return np.stack(waves), embed_samples(model.frontend, model.net, model.codec, waves)
    feats = np.stack([as_stored(model.codec, model.frontend.encode(torch.from_numpy(wave)).numpy())
                      for wave in waves])
    return feats, model.net(torch.from_numpy(feats)).numpy()


def measure_gap(found: np.ndarray, wanted: np.ndarray) -> tuple[float, float]:
    """The largest absolute difference and cosine distance of embeddings (B, E)."""
    found, wanted = found.astype(np.float64), wanted.astype(np.float64)
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
    return float(np.abs(found - wanted).max()), float((1 - (found * wanted).sum(1) / norms).max())


def make_wave(seconds: float, sample_rate: int, seed: int) -> np.ndarray:
    """Something like a voice: harmonics of a gliding pitch, syllables of changing level, noise.

    Args:
        seconds: its length.
        sample_rate: in Hz.
        seed: gives pitch, timbre and noise.

    Returns:
        (S,) float32 in [-1, 1].
    """
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    pitch = rng.uniform(90, 220) * (1 + 0.1 * np.sin(2 * np.pi * 0.7 * time + rng.uniform(0, 6)))
    phase = 2 * np.pi * np.cumsum(pitch) / sample_rate
    voice = sum(rng.uniform(0.2, 1) / n * np.sin(n * phase) for n in range(1, 16))
    level = 0.55 + 0.45 * np.sin(2 * np.pi * rng.uniform(2, 4) * time)
    wave = 0.2 * level * voice + 0.01 * rng.standard_normal(len(time))
    return wave.clip(-1, 1).astype(np.float32)
