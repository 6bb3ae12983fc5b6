"""From a trained encoder to the folder that `FrozenSSL.load` reads."""

import json
from pathlib import Path

import safetensors.torch
import torch
from torchaudio.models import Wav2Vec2Model

from wespeaker_lap.io.table import replacing, write_text
from wespeaker_lap.pretrain.config import Encoder
from wespeaker_lap.pretrain.encoder import encoder_arguments


def export_encoder(encoder: Wav2Vec2Model, config: Encoder, directory: str | Path,
                   sample_rate: int, normalize_eps: float) -> None:
    """Write `config.json` and `model.safetensors` (float16)."""
    directory = Path(directory)
    tensors = {name: value.detach().to("cpu", torch.float16).contiguous()
               for name, value in encoder.state_dict().items()}
    with replacing(directory / "model.safetensors") as aside:
        aside.write_bytes(safetensors.torch.save(tensors))
    facts = {"torchaudio.models.wavlm_model": encoder_arguments(config),
             "normalize_waveform": True, "normalize_eps": normalize_eps,
             "sample_rate": sample_rate}
    write_text(directory / "config.json", json.dumps(facts, indent=2) + "\n")
