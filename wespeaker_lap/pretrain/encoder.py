"""The encoder to be trained: torchaudio's WavLM, with a front end that begins as mel filters."""

import math

import torch
from torch import Tensor, nn
from torchaudio.models import Wav2Vec2Model, wavlm_model

from wespeaker_lap.pretrain.config import Encoder

PRE_EMPHASIS = 0.97
LOWEST_HZ = 20.0
HIGHEST_SHARE = 0.49  # of the sample rate; at one half two of the phases would be silent
NUM_LEVEL_CHANNELS = 8  # an even number, half of them negative
QUIET_POWER = 1e-3  # mean square over channels, speech has 1, at which they begin to matter
PHASES = 4  # of each mel filter: rectified and summed they follow the envelope


def encoder_arguments(config: Encoder) -> dict:
    """The arguments of `torchaudio.models.wavlm_model`, as `config.json` holds them."""
    return {
        "extractor_mode": "layer_norm",
        "extractor_conv_layer_config": [list(layer) for layer in config.conv_layers],
        "extractor_conv_bias": True,
        "encoder_embed_dim": config.dim,
        "encoder_projection_dropout": 0.0,
        "encoder_pos_conv_kernel": config.pos_conv_kernel,
        "encoder_pos_conv_groups": config.pos_conv_groups,
        "encoder_num_layers": config.num_layers,
        "encoder_num_heads": config.num_heads,
        "encoder_num_buckets": config.num_buckets,
        "encoder_max_distance": config.max_distance,
        "encoder_attention_dropout": config.dropout,
        "encoder_ff_interm_features": config.ff_dim,
        "encoder_ff_interm_dropout": 0.0,
        "encoder_dropout": config.dropout,
        "encoder_layer_norm_first": config.norm == "pre",
        "encoder_layer_drop": 0.0,
        "aux_num_out": None,
    }


def build_encoder(config: Encoder, sample_rate: int) -> Wav2Vec2Model:
    """A new encoder with random weights, from torch's generator."""
    model = wavlm_model(**encoder_arguments(config))
    if config.filterbank_init:
        conv = model.feature_extractor.conv_layers[0].conv
        with torch.no_grad():
            conv.weight.copy_(mel_filters(conv.out_channels, conv.kernel_size[0], sample_rate))
    return model


def mel_filters(num_filters: int, size: int, sample_rate: int) -> Tensor:
    """Pre-emphasised, windowed cosines at mel-spaced frequencies in four phases.

    Args:
        num_filters: a multiple of four.
        size: samples.
        sample_rate: in Hz.

    Returns:
        (num_filters, 1, size), each of unit energy; phases of a frequency are neighbours.
    """
    if num_filters % PHASES:
        raise ValueError(f"filterbank_init wants a multiple of {PHASES} filters, got {num_filters}")
    low, high = (1127 * math.log(1 + hz / 700) for hz in (LOWEST_HZ, HIGHEST_SHARE * sample_rate))
    mels = torch.linspace(low, high, num_filters // PHASES)
    hertz = 700 * (torch.exp(mels / 1127) - 1)
    time = (torch.arange(size) - (size - 1) / 2) / sample_rate
    phases = torch.arange(PHASES) * (2 * math.pi / PHASES)
    waves = torch.cos(2 * math.pi * hertz[:, None, None] * time + phases[:, None])
    filters = (waves * torch.hann_window(size, periodic=False)).reshape(num_filters, size)
    filters = filters - PRE_EMPHASIS * torch.roll(filters, -1, dims=1)
    return (filters / filters.norm(dim=1, keepdim=True))[:, None]


@torch.no_grad()
def level_front_end(conv: nn.Conv1d, wav: Tensor) -> None:
    """Scale the first convolution to speech, and let it keep the level of a frame.

    Speech falls by tens of decibels from low to high frequencies; the norm over channels that
    follows would leave nothing of the high ones, so each filter gets unit mean square. The norm
    would also take away how loud a frame is. A few channels get a constant that the norm divides by
    the same number as all others: it is louder in a quiet frame, and the level is still there.

    Args:
        conv: the first convolution.
        wav: (B, S) normalised waveforms.
    """
    power = conv(wav[:, None]).var(dim=(0, 2))  # (C,)
    conv.weight.mul_(power.clamp_min(1e-8).rsqrt()[:, None, None])
    conv.bias.zero_()
    level = math.sqrt(QUIET_POWER * conv.out_channels / NUM_LEVEL_CHANNELS)
    marked = torch.linspace(0, conv.out_channels - 1, NUM_LEVEL_CHANNELS).long()
    conv.bias[marked[0::2]], conv.bias[marked[1::2]] = level, -level
