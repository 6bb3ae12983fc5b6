"""One pass through torchaudio's modules that keeps every hidden state and ignores padding.

torchaudio's own `extract_features` leaves out layer 0 and the last norm of large style, lets
padding into the statistics of a group-norm front end, and cannot mask WavLM's attention.
An item's numbers here are those it has alone, whatever it is padded with:
- the group norm and the waveform's normalisation see true samples only,
- padded frames are zero before the positional convolution, as beyond the end of a lone utterance,
- no attention looks at them.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torchaudio.models import Wav2Vec2Model
from torchaudio.models.wav2vec2.wavlm_attention import WavLMSelfAttention


def compute_states(
    model: Wav2Vec2Model, wav: Tensor, samples: list[int], after_norm: bool = True,
    layers: Sequence[int] | None = None, checkpointing: bool = False,
) -> Tensor:
    """Compute the hidden states that transformers calls `hidden_states`.

    Args:
        model: torchaudio's module; in training mode its dropout acts, but no block is left out
            (layer drop), since what is behind wants every state.
        wav: (B, S) waveforms, normalised if the encoder wants it.
        samples: B true lengths, each enough for a frame.
        after_norm: large style only: the last state is after the norm that follows the last block.
        layers: the states wanted, in rising order; None for all. Blocks above the last of them
            do not run.
        checkpointing: keep nothing of a block for its gradients, but compute it a second time.

    Returns:
        (B, T, L, D), zeros in padded frames; of the weights' type, under autocast too.
    """
    x = model.encoder.feature_projection(convolve(model, wav, samples))  # (B, T, D)
    frames = [count_frames(model, n) for n in samples]
    if min(frames) == x.shape[1]:  # nothing to hide, and attention is cheaper without a mask
        return torch.stack(run_blocks(model, x, None, after_norm, layers, checkpointing), dim=2)
    ends = torch.tensor(frames, device=x.device)
    pad = torch.arange(x.shape[1], device=x.device) >= ends[:, None]  # (B, T)
    x = x.masked_fill(pad[:, :, None], 0.0)
    states = run_blocks(model, x, pad, after_norm, layers, checkpointing)
    return torch.stack(states, dim=2).masked_fill(pad[:, :, None, None], 0.0)


def count_frames(model: Wav2Vec2Model, num_samples: int) -> int:
    """T for a number of samples; 0 where they are too few for one frame."""
    for conv in model.feature_extractor.conv_layers:
        num_samples = _convolved_length(num_samples, conv)
    return num_samples


def normalize(wav: Tensor, samples: list[int], eps: float) -> Tensor:
    """Bring each utterance to zero mean and unit variance over its true length.

    Args:
        wav: (B, S).
        samples: B true lengths.
        eps: added to the variance.

    Returns:
        (B, S), zeros beyond an utterance's length.
    """
    return _apply_unpadded(lambda x: F.layer_norm(x, x.shape[-1:], eps=eps), wav, samples)


def convolve(model: Wav2Vec2Model, wav: Tensor, samples: list[int]) -> Tensor:
    """(B, S) -> (B, T, C); a true frame depends on its own utterance's samples only."""
    x, lengths = wav[:, None], samples  # (B, C, T)
    for conv in model.feature_extractor.conv_layers:
        x = conv.conv(x)
        lengths = [_convolved_length(n, conv) for n in lengths]
        if isinstance(conv.layer_norm, nn.GroupNorm):
            # Its statistics run over time, where padding must not count.
            x = _apply_unpadded(conv.layer_norm, x, lengths)
        elif conv.layer_norm is not None:
            x = conv.layer_norm(x)
        x = F.gelu(x)
    return x.transpose(1, 2)


def run_blocks(
    model: Wav2Vec2Model, x: Tensor, pad: Tensor | None, after_norm: bool,
    layers: Sequence[int] | None = None, checkpointing: bool = False,
) -> list[Tensor]:
    """(B, T, D) and its padding (B, T) -> L states (B, T, D), of `layers` where given.

    `checkpointing`: see `compute_states`.
    """
    transformer = model.encoder.transformer
    num_blocks = len(transformer.layers)
    wanted = range(num_blocks + 1) if layers is None else layers
    arguments = _attention_arguments(transformer.layers[0].attention, x, pad)
    # Under autocast the sum that all blocks add to stays in float32: what they add is small.
    x = x.to(transformer.layer_norm.weight.dtype)
    x = x + transformer.pos_conv_embed(x)
    # torchaudio's flag tells where this outer norm is: in base style before the blocks.
    large_style = not transformer.layer_norm_first
    if not large_style:
        x = transformer.layer_norm(x)
    x = transformer.dropout(x)
    states = [x] if 0 in wanted else []
    for number, layer in enumerate(islice(transformer.layers, wanted[-1]), start=1):
        run = partial(checkpoint, layer, use_reentrant=False) if checkpointing else layer
        x, _ = run(x, **arguments)
        if number in wanted:
            states.append(x)
    if large_style and after_norm and wanted[-1] == num_blocks:
        states[-1] = transformer.layer_norm(x)
    return states


def _attention_arguments(
    attention: nn.Module, x: Tensor, pad: Tensor | None
) -> dict[str, Tensor | None]:
    """What hides the padding (B, T) from every block's attention, with WavLM's position bias.

    Args:
        attention: of the first block.
        x: (B, T, D), for its shape.
        pad: (B, T), true where padded, or None.
    """
    batch, size, _ = x.shape
    if not isinstance(attention, WavLMSelfAttention):
        visible = None if pad is None else (~pad)[:, None, None].expand(batch, 1, size, size)
        return {"attention_mask": visible}
    # Only the first block's attention, given here, embeds the distances for all of them. Without
    # a batch axis the bias is B times smaller than the one the block would make and pass on.
    bias = attention.compute_bias(size, size)[None]  # (1, heads, T, T)
    if pad is not None:  # as numbers of the bias's type, to which the attention adds them
        pad = torch.zeros_like(pad, dtype=bias.dtype).masked_fill(pad, float("-inf"))
    return {"position_bias": bias, "key_padding_mask": pad}


def _convolved_length(length: int, conv: nn.Module) -> int:
    """Frames that a convolution without padding makes of so many samples."""
    return max(0, (length - conv.kernel_size) // conv.stride + 1)


def _apply_unpadded(
    norm: Callable[[Tensor], Tensor], x: Tensor, lengths: list[int]
) -> Tensor:
    """Apply a norm with statistics over time to each item's true part of (B, ..., T).

    What lies beyond an item's length becomes zero. A loop, because the same call on the same
    numbers is what makes an utterance equal alone and in a batch.
    """
    size = x.shape[-1]
    if min(lengths) == size:
        return norm(x)
    parts = [norm(x[i : i + 1, ..., :n]) for i, n in enumerate(lengths)]
    return torch.cat([F.pad(part, (0, size - part.shape[-1])) for part in parts])
