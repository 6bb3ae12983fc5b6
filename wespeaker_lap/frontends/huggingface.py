"""Encoders in Hugging Face's format: a directory or `hf://org/name` (extra `[hf]`).

`transformers` reads the weights, torchaudio converts them into its own modules, and from there on
the encoder is like any other: `transformers` is imported here only, and only when asked for.
"""

from pathlib import Path
from types import ModuleType

from torchaudio.models import Wav2Vec2Model
from torchaudio.models.wav2vec2.utils import import_huggingface_model

from wespeaker_lap.frontends.sources import PretrainedEncoder

PREFIX = "hf://"
MODEL_TYPES = ("hubert", "unispeech-sat", "wav2vec2", "wavlm")
HUGGINGFACE_EPS = 1e-7  # of Wav2Vec2FeatureExtractor.zero_mean_unit_var_norm
# What torchaudio's modules have built in; another value would load and give wrong features.
FIXED_SETTINGS = {
    "hidden_act": "gelu",
    "feat_extract_activation": "gelu",
    "layer_norm_eps": 1e-5,
    "feat_proj_layer_norm": True,
    "conv_pos_batch_norm": False,
    "adapter_attn_dim": None,
}
# Only masking during pre-training uses it.
UNUSED_WEIGHTS = {"masked_spec_embed"}


def load_huggingface(location: str, normalize_waveform: bool | None = None) -> PretrainedEncoder:
    """Load a WavLM, HuBERT, wav2vec 2.0 or UniSpeech-SAT model.

    Args:
        location: a directory written by `save_pretrained`, or `hf://org/name`, or
            `hf://org/name@revision`.
        normalize_waveform: None takes `do_normalize` from `preprocessor_config.json`.

    Raises:
        ImportError: `transformers` is not installed.
        FileNotFoundError: the files are neither on disk nor in reach.
        ValueError: another kind of model, or weights that do not fit it.
    """
    transformers = _import_transformers(location)
    repo, revision = location, None
    if location.startswith(PREFIX):
        repo, _, revision = location.removeprefix(PREFIX).partition("@")
    source = {"revision": revision or None}
    model = _load_model(transformers, location, repo, source)
    sample_rate = 16000
    extractor = _load_extractor(transformers, repo, source)
    if extractor is not None:
        sample_rate = int(extractor.sampling_rate)
        if normalize_waveform is None:
            normalize_waveform = bool(extractor.do_normalize)
    if normalize_waveform is None:
        raise FileNotFoundError(
            f"{location}: no preprocessor_config.json, so it is not known whether the encoder "
            "wants normalised waveforms; add that file or say normalize_waveform=True or False"
        )
    name = location if location.startswith(PREFIX) else Path(location).resolve().name
    return PretrainedEncoder(name, model, sample_rate, normalize_waveform, HUGGINGFACE_EPS)


def _import_transformers(location: str) -> ModuleType:
    """The package, or an ImportError that says how to get it."""
    try:
        import transformers
    except ImportError as error:
        raise ImportError(
            f"{location} is in Hugging Face's format, which needs the package transformers: "
            "pip install 'wespeaker-lap[hf]'"
        ) from error
    return transformers


def _load_model(
    transformers: ModuleType, location: str, repo: str, source: dict
) -> Wav2Vec2Model:
    """Read the model with `transformers` and convert it to torchaudio's modules."""
    try:
        config = transformers.AutoConfig.from_pretrained(repo, **source)
        _check_settings(location, config)
        model, report = transformers.AutoModel.from_pretrained(
            repo, config=config, output_loading_info=True, **source
        )
    except OSError as error:
        raise FileNotFoundError(
            f"{location}: config.json or the weights (model.safetensors) could not be read "
            f"({str(error).splitlines()[0]}). Without a network, download the repository's files "
            "into a directory on another machine and give that directory."
        ) from error
    # transformers fills weights it does not find with random numbers and only warns.
    missing = sorted(set(report["missing_keys"]) - UNUSED_WEIGHTS)
    if missing:
        raise ValueError(f"{location}: the weights lack {len(missing)} tensors, first {missing[0]}")
    return import_huggingface_model(model)


def _check_settings(location: str, config: object) -> None:
    """Refuse what torchaudio's modules cannot represent."""
    if config.model_type not in MODEL_TYPES:
        raise ValueError(
            f"{location}: model type '{config.model_type}' is not supported; want one of "
            f"{', '.join(MODEL_TYPES)}"
        )
    wrong = [
        f"{key}={getattr(config, key)!r} (only {value!r} is supported)"
        for key, value in FIXED_SETTINGS.items()
        if getattr(config, key, value) != value
    ]
    if wrong:
        raise ValueError(f"{location}: {'; '.join(wrong)}")


def _load_extractor(transformers: ModuleType, repo: str, source: dict) -> object | None:
    """The preprocessor's settings, or None where the repository has none."""
    try:
        return transformers.Wav2Vec2FeatureExtractor.from_pretrained(repo, **source)
    except OSError:
        return None
