"""A trained model as an ONNX graph, for programs without PyTorch; checked before it gets its name.

The graphs are made by PyTorch's exporter with `dynamo=True`. The older one (TorchScript) freezes
whatever number of frames Python code looked at, without a word; this one keeps it open or fails.
"""

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from wespeaker_lap import __version__
from wespeaker_lap.frontends.sources import hash_weights
from wespeaker_lap.frontends.unpadded import make_unpadded
from wespeaker_lap.io.table import replacing
from wespeaker_lap.share.onnx_check import INPUTS, OUTPUT, Difference, compare_outputs
from wespeaker_lap.share.opening import open_model
from wespeaker_lap.share.speaker import SpeakerModel, load_model

FORMAT = "wespeaker_lap embedding"
PARTS = tuple(INPUTS)
OPSETS = range(18, 24)  # that the exporter writes
MOST_BYTES = 2_000_000_000  # of weights: an ONNX file, a protocol buffer, holds no more than 2 GiB
TRACED_SECONDS = 1.0


@dataclass(frozen=True)
class Exported:
    """An ONNX file that was written.

    Args:
        path: of the file.
        part: see `export_onnx`.
        opset: of the graph.
        difference: from PyTorch, the largest found.
    """

    path: Path
    part: str
    opset: int
    difference: Difference


class WholeModel(nn.Module):
    """Waveforms to embeddings: (B, S) -> (B, E), all recordings of a batch equally long.

    Args:
        model: whose encoder and back end to use.
    """

    def __init__(self, model: SpeakerModel):
        super().__init__()
        self.frontend = make_unpadded(model.frontend)
        self.net = model.net
        # What a float16 store rounds off can be had in a graph. An int8 store scales each
        # recording's features by their quantiles; those stay unrounded here.
        self.is_rounded = model.codec == "float16"

    def forward(self, wav: Tensor) -> Tensor:
        """Embed the recordings."""
        feats = self.frontend(wav)  # (B, T, L, D)
        return self.net(feats.half().float() if self.is_rounded else feats)


def export_onnx(source: str | Path, out: str | Path, part: str = "backend",
                opset: int | None = None, encoder: str | Path | None = None) -> Exported:
    """Write a trained model as an ONNX graph and compare it with PyTorch.

    Its output "embeddings" (B, E) is what `SpeakerModel.embed` gives: the training mean is not
    subtracted yet. That mean is among the file's metadata, with what else a program needs to know
    (see `describe`).

    Args:
        source: as for `load_model`.
        out: the file. An older one that was exported is replaced.
        part: "backend", input "feats" (B, T, L, D): the encoder's hidden states; or "whole",
            input "wav" (B, S): waveforms at the model's rate. All of a batch are equally long.
        opset: version of the ONNX operators, 18 to 23; None takes the exporter's choice.
        encoder: as for `load_model`.

    Raises:
        ImportError: the packages of the extra `onnx` are missing.
        FileNotFoundError: no trained model there.
        ValueError: an unknown part or opset, a model that no graph can hold, a graph that gives
            other embeddings, or `out` is something else. Nothing is left there then.
    """
    _check_arguments(part, opset)
    _check_packages()
    out = Path(out)
    _refuse_others(out)
    model = load_model(source, "cpu", encoder)
    program = make_program(source, model, part, opset)
    with replacing(out) as aside:
        program.save(aside)
        difference = compare_outputs(source, aside, model, part)
        program.model.metadata_props.update(
            {"format": FORMAT, "part": part, "toolkit": f"wespeaker_lap {__version__}",
             **describe(source, model), **difference.describe()})
        program.save(aside)
    return Exported(out, part, program.model.opset_imports[""], difference)


def describe(source: str | Path, model: SpeakerModel) -> dict[str, str]:
    """What the metadata of a graph say of its model, as texts.

    Args:
        source: of the model.
        model: itself.

    Returns:
        `model`, `encoder`, `sample_rate` in Hz, `min_samples` and `max_seconds` of a recording,
        `num_layers`, `layer_dim`, `embed_dim`, SHA-256 of the weights (`net_sha256`,
        `encoder_sha256`, empty for filter banks); and, where scores want it subtracted, the mean
        of the training set: `mean_of`, its name, and `mean`, a JSON list of E numbers.
    """
    with open_model(source) as parts:
        train_set = parts.facts["train_set"]
    frontend = model.frontend
    facts = {
        "model": Path(str(source)).name, "encoder": frontend.name,
        "sample_rate": frontend.sample_rate, "min_samples": frontend.min_samples,
        "max_seconds": frontend.max_seconds, "num_layers": frontend.num_layers,
        "layer_dim": frontend.dim, "embed_dim": model.net.embed_dim,
        "net_sha256": hash_weights(model.net.state_dict()),
        "encoder_sha256": frontend.identity().get("weights_sha256", ""),
    }
    if model.mean is not None:
        mean = [float(f"{value:.9g}") for value in model.mean]  # 9 digits hold a float32
        facts |= {"mean_of": train_set, "mean": json.dumps(mean)}
    return {name: str(value) for name, value in facts.items()}


def _check_arguments(part: str, opset: int | None) -> None:
    if part not in PARTS:
        raise ValueError(f"want the part {' or '.join(PARTS)}, got {part!r}")
    if opset is not None and opset not in OPSETS:
        raise ValueError(f"want an opset from {OPSETS[0]} to {OPSETS[-1]}, got {opset}")


def _check_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(f"ONNX graphs need onnx, onnxscript and onnxruntime ({error}); pip "
                          f"install 'wespeaker-lap[onnx]'") from error


def _refuse_others(out: Path) -> None:
    """Replace exported models only."""
    if not out.exists():
        return
    import onnx
    from google.protobuf.message import DecodeError
    with contextlib.suppress(DecodeError, OSError):
        metadata = {entry.key: entry.value for entry in onnx.load(out).metadata_props}
        if metadata.get("format") == FORMAT:
            return
    raise ValueError(f"{out}: is there and no exported model; choose another name (-o)")


def make_program(source: str | Path, model: SpeakerModel, part: str,
                 opset: int | None = None) -> torch.onnx.ONNXProgram:
    """Translate a model, batch and length left open.

    Args:
        source: of the model, for messages.
        model: on the CPU. Its network will have no gradients any more, over which the exporter
            stumbles.
        part, opset: as for `export_onnx`.

    Raises:
        ValueError: it is too large, or has steps that no graph holds.
    """
    graph = WholeModel(model) if part == "whole" else model.net
    graph.eval().requires_grad_(False)
    advice = "; export its back end, --part backend" if part == "whole" else ""
    size = sum(value.numel() * value.element_size() for value in graph.state_dict().values())
    if size > MOST_BYTES:
        raise ValueError(f"{source}: has {size / 1e9:.1f} GB of weights, and an ONNX file holds up "
                         f"to {MOST_BYTES / 1e9:g}{advice}")
    example, axis = _make_example(model, part)
    try:
        with _quietly():
            program = torch.onnx.export(
                graph, (example,), dynamo=True, opset_version=opset, input_names=[INPUTS[part]],
                output_names=[OUTPUT], dynamic_shapes=({0: "batch", 1: axis},), verbose=False)
    except torch.onnx.errors.OnnxExporterError as error:
        raise ValueError(f"{source}: cannot be written as an ONNX graph ({_tell_cause(error)})"
                         f"{advice}") from error
    if opset not in (None, program.model.opset_imports[""]):
        raise ValueError(f"{source}: has steps that opset {opset} lacks; leave --opset out")
    return program


def _make_example(model: SpeakerModel, part: str) -> tuple[Tensor, str]:
    """An input of the part, and what its second axis counts."""
    frontend = model.frontend
    size = round(TRACED_SECONDS * frontend.sample_rate)
    if part == "whole":
        return torch.zeros(2, size), "samples"
    shape = (2, frontend.num_frames(size), frontend.num_layers, frontend.dim)
    return torch.zeros(shape), "frames"


def _tell_cause(error: BaseException) -> str:
    """The first line of what went wrong first; what the exporter writes around it fills screens."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {str(error).strip().split(chr(10), 1)[0]}"


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without what the exporter says of each step, and what torch says of itself."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
