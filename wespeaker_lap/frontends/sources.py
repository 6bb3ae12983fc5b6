"""Where a frozen encoder's weights come from: a local checkpoint or a torchaudio bundle.

Each loader returns a `PretrainedEncoder`, torchaudio's module with the facts its waveforms need.
Weights are read as plain tensors (safetensors, or `torch.load` with `weights_only=True`).
"""

import hashlib
import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torchaudio
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torchaudio.models import Wav2Vec2Model, wav2vec2_model, wavlm_model

ARCHITECTURES: dict[str, Callable[..., Wav2Vec2Model]] = {
    "torchaudio.models.wavlm_model": wavlm_model,
    "torchaudio.models.wav2vec2_model": wav2vec2_model,
}
REQUIRED_FIELDS = ("normalize_waveform", "sample_rate")
# The last two only describe the file; they are accepted so that a training script may note them.
OPTIONAL_FIELDS = ("normalize_eps", "frame_shift_samples", "dtype_on_disk")
TORCHAUDIO_EPS = 1e-5  # of torch.nn.functional.layer_norm, which torchaudio's bundles call
BUNDLE_URL = "https://download.pytorch.org/torchaudio/models/"


@dataclass(frozen=True)
class PretrainedEncoder:
    """An encoder with its weights and what it wants of a waveform.

    Attributes:
        name: what the identity of features calls it; never a machine's path.
        model: torchaudio's module without an output head.
        sample_rate: of the waveforms, in Hz.
        normalize_waveform: whether it was trained on zero mean and unit variance.
        normalize_eps: added to the variance by that normalisation.
    """

    name: str
    model: Wav2Vec2Model
    sample_rate: int
    normalize_waveform: bool
    normalize_eps: float = TORCHAUDIO_EPS


def load_checkpoint(directory: Path, name: str | None = None) -> PretrainedEncoder:
    """Load a directory with `config.json` and `model.safetensors`.

    Args:
        directory: its `config.json` holds one of the keys of `ARCHITECTURES` with the arguments of
            that function, `normalize_waveform`, `sample_rate` and perhaps `normalize_eps`.
        name: of the encoder; the directory's own name where None.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: the configuration is wrong or the weights do not fit it.
    """
    config_path = directory / "config.json"
    config = read_json(config_path)
    architecture = _check_config(config_path, config)
    try:
        model = ARCHITECTURES[architecture](**{"aux_num_out": None, **config[architecture]})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{config_path}: cannot build '{architecture}': {error}") from error
    _fill(model, directory / "model.safetensors")
    return PretrainedEncoder(
        name=name or directory.resolve().name,
        model=_without_head(model),
        sample_rate=int(config["sample_rate"]),
        normalize_waveform=config["normalize_waveform"],
        normalize_eps=float(config.get("normalize_eps", TORCHAUDIO_EPS)),
    )


def read_json(path: Path) -> dict:
    """Read a JSON object from a file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no JSON object; the message has file and line.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; an encoder's directory needs one")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def bundle_names() -> list[str]:
    """The names of torchaudio's wav2vec 2.0, HuBERT and WavLM bundles, sorted.

    >>> "WAVLM_BASE_PLUS" in bundle_names()
    True
    """
    pipelines = torchaudio.pipelines
    kind = pipelines.Wav2Vec2Bundle
    return sorted(n for n in pipelines.__all__ if isinstance(getattr(pipelines, n), kind))


def load_bundle(name: str, weights: Path | None = None) -> PretrainedEncoder:
    """Build a torchaudio bundle from its cached, downloaded or hand-copied weights.

    Args:
        name: one of `bundle_names()`.
        weights: the bundle's weights file; None looks in torch.hub's cache and then downloads.

    Raises:
        FileNotFoundError: the weights are not there and cannot be downloaded.
        ValueError: the file is not this bundle's.
    """
    bundle = getattr(torchaudio.pipelines, name)
    # torchaudio has no public name for the file and the normalisation of a bundle.
    url = bundle._path if bundle._path.startswith("https") else BUNDLE_URL + bundle._path
    path = weights or Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    if weights is not None and not weights.is_file():
        raise FileNotFoundError(f"{weights}: no such file; {name}'s weights are at {url}")
    source = {"model_dir": str(path.parent), "file_name": path.name}
    try:  # a file that is already there is loaded without a look at the network
        model = bundle.get_model(dl_kwargs={**source, "weights_only": True, "map_location": "cpu"})
    except OSError as error:
        if path.is_file():  # it is there and cannot be read: the error says why
            raise
        raise FileNotFoundError(
            f"{path}: the weights of {name} are not there and downloading them failed ({error}). "
            f"Download {url} on a machine with a network and put it at {path}, "
            f"or keep it anywhere and give that path with bundle='{name}'."
        ) from error
    except (RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            f"{path}: not the weights of {name} ({reason}). "
            f"If the download broke off, delete the file and fetch {url} again."
        ) from error
    while not isinstance(model, Wav2Vec2Model):  # a wrapper that normalises whole batches
        model = model.model
    facts = (int(bundle.sample_rate), bundle._normalize_waveform)
    return PretrainedEncoder(name, _without_head(model), *facts)


def hash_weights(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over names, shapes and values, in the order of the names.

    Values count as little-endian float32, so a float16 file gives one hash wherever it is loaded.

    Args:
        tensors: a state dict.

    Returns:
        64 hexadecimal digits.

    >>> hash_weights({"a": torch.ones(2)}) == hash_weights({"a": torch.ones(2).half()})
    True
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().float().cpu()
        digest.update(f"{name} {list(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().astype("<f4").tobytes())
    return digest.hexdigest()


def _check_config(path: Path, config: dict) -> str:
    """The one architecture key of a checkpoint's configuration, every other key checked."""
    found = [key for key in ARCHITECTURES if key in config]
    problems = []
    if len(found) != 1:
        problems.append(f"exactly one of {list(ARCHITECTURES)} must be a key, found {len(found)}")
    problems += [f"'{key}' is missing" for key in REQUIRED_FIELDS if key not in config]
    known = {*ARCHITECTURES, *REQUIRED_FIELDS, *OPTIONAL_FIELDS}
    problems += [f"unknown key '{key}'" for key in sorted(set(config) - known)]
    if not isinstance(config.get("normalize_waveform", True), bool):
        problems.append("'normalize_waveform' must be true or false")
    for key in ("sample_rate", "normalize_eps"):
        value = config.get(key, 1)
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            problems.append(f"'{key}' must be a positive number")
    problems += [f"'{key}' must be an object" for key in found if not isinstance(config[key], dict)]
    if problems:
        raise ValueError(f"{path}: {'; '.join(problems)}")
    return found[0]


def _fill(model: Wav2Vec2Model, path: Path) -> None:
    """Copy the tensors of a safetensors file, of any float type, into a float32 model."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; put the encoder's weights there")
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: not a safetensors file: {error}") from error
    try:
        report = model.load_state_dict(tensors, strict=False)
    except RuntimeError as error:  # shapes
        reason = str(error).split("\n")[1].strip()
        raise ValueError(f"{path}: the weights do not fit config.json: {reason}") from error
    missing, unexpected = report.missing_keys, report.unexpected_keys
    if missing or unexpected:
        raise ValueError(
            f"{path}: the weights do not fit config.json: {len(missing)} tensors are missing "
            f"{missing[:3]}, {len(unexpected)} are unexpected {unexpected[:3]}"
        )


def _without_head(model: Wav2Vec2Model) -> Wav2Vec2Model:
    """Drop the output layer of a fine-tuned recogniser: no hidden state depends on it."""
    model.aux = None
    return model
