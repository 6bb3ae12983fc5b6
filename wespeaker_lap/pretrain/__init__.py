"""Self-supervised training of a small WavLM encoder: masked prediction and contrast."""

from collections.abc import Sequence
from pathlib import Path

from wespeaker_lap.io.settings import load_settings
from wespeaker_lap.pretrain.config import PretrainConfig


def load_pretrain_config(path: str | Path | None = None,
                         overrides: Sequence[str] = ()) -> PretrainConfig:
    """Read the configuration of a pre-training; see `io.settings.load_settings`.

    >>> load_pretrain_config(overrides=["train.steps=3"]).train.steps
    3
    """
    return load_settings(PretrainConfig, path, overrides)
