"""From what a user types to an encoder: a name, a directory, a file or `hf://org/name`."""

import difflib
import re
from pathlib import Path

from wespeaker_lap.frontends.huggingface import PREFIX, load_huggingface
from wespeaker_lap.frontends.sources import (
    ARCHITECTURES,
    PretrainedEncoder,
    bundle_names,
    load_bundle,
    load_checkpoint,
    read_json,
)

PACKAGED = {"wavlm_tiny": Path(__file__).parent / "assets" / "wavlm_tiny"}
WEIGHT_SUFFIXES = (".pt", ".pth")
FILTER_BANKS = "fbank"  # a configuration names it where others name an encoder; see `fbank.py`


def load_encoder(
    name_or_path: str | Path,
    bundle: str | None = None,
    normalize_waveform: bool | None = None,
) -> PretrainedEncoder:
    """Find and load an encoder; names go before paths (write `./wavlm_tiny` for a directory).

    Args:
        name_or_path: a packaged encoder (`wavlm_tiny`), a torchaudio bundle in any spelling
            (`WAVLM_BASE_PLUS`, `wavlm_base_plus`, `WavLM-Base+`), a directory (a local checkpoint
            or Hugging Face's format), `hf://org/name`, or a bundle's `.pt`/`.pth` file.
        bundle: the bundle that a `.pt`/`.pth` file belongs to.
        normalize_waveform: for Hugging Face's format without `preprocessor_config.json`.

    Raises:
        FileNotFoundError: a file or directory is missing.
        ValueError: an unknown name, or a file of another kind.
    """
    text = str(name_or_path)
    if bundle is not None:
        return _load_weights_file(Path(text).expanduser(), bundle)
    if text.startswith(PREFIX):
        return load_huggingface(text, normalize_waveform)
    if text in PACKAGED:
        return load_checkpoint(PACKAGED[text], name=text)
    name = find_bundle(text)
    if name is not None:
        return load_bundle(name)
    return _load_path(text, normalize_waveform)


def find_bundle(text: str) -> str | None:
    """The torchaudio bundle that a spelling means, or None.

    >>> find_bundle("WavLM-Base+")
    'WAVLM_BASE_PLUS'
    >>> find_bundle("wavlm_huge") is None
    True
    """
    return {_plain(name): name for name in bundle_names()}.get(_plain(text))


def _plain(name: str) -> str:
    """A name without case and separators, `+` spelt out."""
    return re.sub(r"[\s_-]", "", name.lower().replace("+", "plus"))


def _load_path(text: str, normalize_waveform: bool | None) -> PretrainedEncoder:
    """Load what lies at a path, or say why nothing does."""
    path = Path(text).expanduser()
    if path.is_dir():
        config = read_json(path / "config.json")
        if any(key in config for key in ARCHITECTURES):
            return load_checkpoint(path)
        if "model_type" in config:
            return load_huggingface(text, normalize_waveform)
        raise ValueError(
            f"{path / 'config.json'}: neither a local checkpoint (key {' or '.join(ARCHITECTURES)})"
            " nor Hugging Face's format (key model_type)"
        )
    if path.is_file():
        raise ValueError(
            f"{path}: a file does not say which encoder it is; for a torchaudio weights file add "
            "bundle=, for example bundle='WAVLM_BASE_PLUS'; otherwise give a directory"
        )
    if path.suffix in WEIGHT_SUFFIXES or text.startswith((".", "/", "~")):
        raise FileNotFoundError(f"{path}: no such encoder file or directory")
    hint = f"; did you mean '{PREFIX}{text}'?" if text.count("/") == 1 else _did_you_mean(text)
    raise ValueError(
        f"unknown encoder '{text}'{hint} Known names: {', '.join([*PACKAGED, *bundle_names()])}. "
        f"A directory or {PREFIX}org/name is also possible. {FILTER_BANKS} is no encoder: only "
        "frontend.name of a configuration may be that."
    )


def _load_weights_file(path: Path, bundle: str) -> PretrainedEncoder:
    """Load a bundle's weights from a file that the user has put anywhere."""
    name = find_bundle(bundle)
    if name is None:
        raise ValueError(
            f"unknown bundle '{bundle}'{_did_you_mean(bundle)} Known: {', '.join(bundle_names())}"
        )
    if path.suffix not in WEIGHT_SUFFIXES:
        raise ValueError(
            f"{path}: with bundle='{bundle}' the path must be a {' or '.join(WEIGHT_SUFFIXES)} file"
        )
    return load_bundle(name, path)


def _did_you_mean(text: str) -> str:
    """A question with the nearest names, or a full stop."""
    plain = {_plain(name): name for name in [*PACKAGED, *bundle_names(), FILTER_BANKS]}
    near = [plain[key] for key in difflib.get_close_matches(_plain(text), plain, n=3)]
    return f"; did you mean {' or '.join(near)}?" if near else "."
