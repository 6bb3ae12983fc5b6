"""From an encoder in memory to the folder that `FrozenSSL.load` reads."""

import json
from pathlib import Path

import safetensors.torch
from torchaudio.models import Wav2Vec2Model
from torchaudio.models.wav2vec2.wavlm_attention import WavLMSelfAttention

from wespeaker_lap.frontends.ssl import FrozenSSL
from wespeaker_lap.io.table import replacing, write_text


def export_encoder(encoder: FrozenSSL, directory: str | Path) -> None:
    """Write `config.json` and `model.safetensors` (float32, so that the hash stays).

    Args:
        encoder: any, wherever it came from.
        directory: made where it is missing.
    """
    directory = Path(directory)
    tensors = {name: value.detach().float().cpu().contiguous()
               for name, value in encoder.model.state_dict().items()}
    with replacing(directory / "model.safetensors") as aside:
        aside.write_bytes(safetensors.torch.save(tensors))
    architecture, arguments = describe_architecture(encoder.model)
    facts = {architecture: arguments, "normalize_waveform": encoder.normalize_waveform,
             "normalize_eps": encoder.normalize_eps, "sample_rate": encoder.sample_rate}
    write_text(directory / "config.json", json.dumps(facts, indent=2) + "\n")


def describe_architecture(model: Wav2Vec2Model) -> tuple[str, dict]:
    """Read off a module what torchaudio builds it from.

    Args:
        model: without an output head.

    Returns:
        One of `sources.ARCHITECTURES`, and the arguments of that function.
    """
    convs = model.feature_extractor.conv_layers
    encoder, transformer = model.encoder, model.encoder.transformer
    block = transformer.layers[0]
    attention, conv = block.attention, transformer.pos_conv_embed.conv
    arguments = {
        # Group norm stands in the first layer alone.
        "extractor_mode": "group_norm" if convs[-1].layer_norm is None else "layer_norm",
        "extractor_conv_layer_config": [[one.conv.out_channels, one.kernel_size, one.stride]
                                        for one in convs],
        "extractor_conv_bias": convs[0].conv.bias is not None,
        "encoder_embed_dim": encoder.feature_projection.projection.out_features,
        "encoder_projection_dropout": encoder.feature_projection.dropout.p,
        "encoder_pos_conv_kernel": conv.kernel_size[0],
        "encoder_pos_conv_groups": conv.groups,
        "encoder_num_layers": len(transformer.layers),
        "encoder_num_heads": attention.num_heads,
        "encoder_attention_dropout": attention.dropout,
        "encoder_ff_interm_features": block.feed_forward.intermediate_dense.out_features,
        "encoder_ff_interm_dropout": block.feed_forward.intermediate_dropout.p,
        "encoder_dropout": block.dropout.p,
        "encoder_layer_norm_first": block.layer_norm_first,
        "encoder_layer_drop": transformer.layer_drop,
        "aux_num_out": None,
    }
    if not isinstance(attention, WavLMSelfAttention):
        return "torchaudio.models.wav2vec2_model", arguments
    return "torchaudio.models.wavlm_model", {
        **arguments, "encoder_num_buckets": attention.num_buckets,
        "encoder_max_distance": attention.max_distance}
