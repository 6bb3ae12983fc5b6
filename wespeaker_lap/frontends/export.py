"""From a loaded encoder of any origin to the folder that `load_checkpoint` reads."""

import json
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn
from torchaudio.models import Wav2Vec2Model
from torchaudio.models.wav2vec2.wavlm_attention import WavLMSelfAttention

from wespeaker_lap.frontends.sources import ARCHITECTURES
from wespeaker_lap.frontends.ssl import FrozenSSL
from wespeaker_lap.io.table import replacing, write_text


def export_frontend(frontend: FrozenSSL, directory: str | Path) -> None:
    """Write `config.json` and `model.safetensors`, from which the same numbers come again.

    Weights are stored as float16 where that loses nothing, as for encoders published so.

    Args:
        frontend: the encoder.
        directory: where to; made when it is not there.

    Raises:
        ValueError: an encoder that its arguments do not describe.
    """
    model = frontend.model
    architecture, arguments = describe_model(model)
    own = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    with torch.device("meta"):
        built = ARCHITECTURES[architecture](**arguments).state_dict()
    if own != {name: tuple(value.shape) for name, value in built.items()}:
        raise ValueError(f"{frontend.name}: built in another way than torchaudio's encoders, so it "
                         f"cannot be written as one")
    tensors = {name: _shrink(value.detach().cpu()) for name, value in model.state_dict().items()}
    write_encoder(directory, tensors, {
        architecture: arguments, "normalize_waveform": frontend.normalize_waveform,
        "normalize_eps": frontend.normalize_eps, "sample_rate": frontend.sample_rate})


def write_encoder(directory: str | Path, tensors: dict[str, Tensor], facts: dict) -> None:
    """Write the two files of an encoder.

    Args:
        directory: where to; made when it is not there.
        tensors: of the model, contiguous on the CPU, in the precision they are kept in.
        facts: the function that builds the model with its arguments, and its input, as
            `load_checkpoint` reads them.
    """
    with replacing(Path(directory) / "model.safetensors") as aside:
        aside.write_bytes(safetensors.torch.save(tensors))
    write_text(Path(directory) / "config.json", json.dumps(facts, indent=2) + "\n")


def describe_model(model: Wav2Vec2Model) -> tuple[str, dict]:
    """The function of torchaudio that builds such an encoder, and its arguments.

    Dropout is part of them: a frozen encoder has no use for it, one that is tuned does.
    """
    convs = model.feature_extractor.conv_layers
    encoder, transformer = model.encoder, model.encoder.transformer
    block, position = transformer.layers[0], transformer.pos_conv_embed
    attention = block.attention
    is_wavlm = isinstance(attention, WavLMSelfAttention)
    arguments = {
        "extractor_mode": "group_norm" if isinstance(convs[0].layer_norm, nn.GroupNorm)
                          else "layer_norm",
        "extractor_conv_layer_config": [[conv.conv.out_channels, conv.kernel_size, conv.stride]
                                        for conv in convs],
        "extractor_conv_bias": convs[0].conv.bias is not None,
        "encoder_embed_dim": attention.embed_dim,
        "encoder_projection_dropout": encoder.feature_projection.dropout.p,
        "encoder_pos_conv_kernel": position.conv.kernel_size[0],
        "encoder_pos_conv_groups": position.conv.groups,
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
    if is_wavlm:
        arguments["encoder_num_buckets"] = attention.num_buckets
        arguments["encoder_max_distance"] = attention.max_distance
    kind = "wavlm_model" if is_wavlm else "wav2vec2_model"
    return f"torchaudio.models.{kind}", arguments


def _shrink(tensor: Tensor) -> Tensor:
    """The same values in float16 where that holds them all, else in float32."""
    half = tensor.half()
    return (half if torch.equal(half.float(), tensor.float()) else tensor).contiguous()
