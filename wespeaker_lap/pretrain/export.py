"""From a trained encoder to the folder that `FrozenSSL.load` reads."""

from pathlib import Path

import torch
from torchaudio.models import Wav2Vec2Model

from wespeaker_lap.frontends.export import write_encoder
from wespeaker_lap.pretrain.config import Encoder
from wespeaker_lap.pretrain.encoder import encoder_arguments


def export_encoder(encoder: Wav2Vec2Model, config: Encoder, directory: str | Path,
                   sample_rate: int, normalize_eps: float) -> None:
    """Write `config.json` and `model.safetensors` (float16)."""
    tensors = {name: value.detach().to("cpu", torch.float16).contiguous()
               for name, value in encoder.state_dict().items()}
    write_encoder(directory, tensors, {
        "torchaudio.models.wavlm_model": encoder_arguments(config), "normalize_waveform": True,
        "normalize_eps": normalize_eps, "sample_rate": sample_rate})
