"""D3Net over layers and frames: convolutions that see neighbouring layers and frames at once.

The hidden states of an utterance are a picture of T frames by L layers with C channels, kept as
`(B, T, L, C)`. That is the memory of a channels-last `(B, C, T, L)`, so the convolutions read it
without a copy.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wespeaker_lap.models.masking import pack_frames, unpack_frames

DILATIONS = (1, 2, 4)


class LayerScaling(nn.Module):
    """Attentive scaling: a gate for every layer and frame, set by a look at all the layers.

    Layer l has its own softmax weights `a_l` over the layers and its own linear:
    `y_l = sigmoid(w_l · sum over m of a_lm x_m + b_l) * x_l`.

    Source: arXiv 2409.07770.

    Args:
        num_layers: L.
        dim: C.
    """

    def __init__(self, num_layers: int, dim: int):
        super().__init__()
        self.mix_logits = nn.Parameter(torch.eye(num_layers))  # first of all each layer itself
        self.gate_weight = nn.Parameter(torch.empty(num_layers, dim))
        self.gate_bias = nn.Parameter(torch.zeros(num_layers))
        nn.init.xavier_uniform_(self.gate_weight)

    def forward(self, x: Tensor) -> Tensor:
        """Scale `(B, T, L, C)`; frames do not meet."""
        weights = self.mix_logits.softmax(dim=1)  # (L, L): row l for layer l
        # The linear comes first and the sum over layers after it: L values a layer, not C.
        views = x @ self.gate_weight.t()  # (B, T, m, l)
        gates = ((views * weights.t()).sum(dim=2) + self.gate_bias).sigmoid()  # (B, T, L)
        return x * gates.unsqueeze(-1).to(x.dtype)


class MultiDilatedConv(nn.Module):
    """A 3 x 3 convolution over several inputs, each with a dilation of its own, summed.

    Every input goes through BatchNorm, ReLU and its convolution. The input that already saw the
    most gets the largest dilation, so that no frame or layer in between is skipped by all.

    Source: D3Net, arXiv 2010.01733, section 3.1.

    Args:
        channels: C of every input and of the output.
        dilations: one for each input.
    """

    def __init__(self, channels: int, dilations: Sequence[int]):
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm1d(channels) for _ in dilations)
        self.convs = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=d, dilation=d) for d in dilations)
        for conv in self.convs:
            nn.init.kaiming_uniform_(conv.weight, nonlinearity="relu")
            nn.init.zeros_(conv.bias)

    def forward(self, skips: Sequence[Tensor], mask: Tensor | None) -> Tensor:
        """Convolve `[(B, T, L, C)]`, one for each dilation, into `(B, T, L, C)`."""
        total = None
        for skip, norm, conv in zip(skips, self.norms, self.convs, strict=True):
            # Zeros in the padding, as the convolution has beyond the borders.
            active = _norm_layers(norm, skip, mask).relu()
            out = conv(active.permute(0, 3, 1, 2))  # (B, C, T, L)
            total = out if total is None else total + out
        return total.permute(0, 2, 3, 1)


class D2Block(nn.Module):
    """Densely connected multi-dilated convolutions: `4 C` channels to C, then C more each time.

    Source: D3Net, arXiv 2010.01733, as used in arXiv 2409.07770.

    Args:
        channels: C, the growth; inputs and outputs have `4 C`.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.squeeze = nn.Linear((len(DILATIONS) + 1) * channels, channels)
        self.convs = nn.ModuleList(
            MultiDilatedConv(channels, DILATIONS[: i + 1]) for i in range(len(DILATIONS)))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """`(B, T, L, 4C)` -> `(B, T, L, 4C)`: the squeezed input and every convolution."""
        skips = [self.squeeze(x)]
        for conv in self.convs:
            skips.append(conv(skips, mask))
        return torch.cat(skips, dim=-1)


class ChannelAttention(nn.Module):
    """Squeeze and excitation of the average and of the maximum, summed: a gate a channel.

    Source: CBAM, arXiv 1807.06521, section 3 (there one network for both views), as used in
    arXiv 2409.07770: two networks `Linear, ReLU, BatchNorm, Linear`.

    Args:
        dim: channels.
        hidden_dim: values between the two linears.
    """

    def __init__(self, dim: int, hidden_dim: int):
        super().__init__()
        self.of_mean, self.of_max = (
            nn.Sequential(nn.Linear(dim, hidden_dim), nn.ReLU(), nn.BatchNorm1d(hidden_dim),
                          nn.Linear(hidden_dim, dim))
            for _ in range(2))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Scale the channels of `(B, T, L, dim)`."""
        mean, peak = x.mean(dim=2, dtype=torch.promote_types(x.dtype, torch.float32)), x.amax(dim=2)
        if mask is None:
            mean, peak = mean.mean(dim=1), peak.amax(dim=1)  # (B, dim)
        else:
            padding = ~mask.unsqueeze(-1)  # (B, T, 1)
            num_frames = mask.sum(dim=1, keepdim=True)
            mean = mean.masked_fill(padding, 0.0).sum(dim=1) / num_frames
            peak = peak.masked_fill(padding, -torch.inf).amax(dim=1)
        gates = (self.of_mean(mean) + self.of_max(peak)).sigmoid()  # (B, dim)
        return x * gates[:, None, None].to(x.dtype)


class D3Block(nn.Module):
    """Scaling, then a residual of dense convolutions and channel attention.

    Source: arXiv 2409.07770.

    Args:
        num_layers: L.
        channels: C; inputs and outputs have `4 C`.
    """

    def __init__(self, num_layers: int, channels: int):
        super().__init__()
        dim = (len(DILATIONS) + 1) * channels
        self.scaling = LayerScaling(num_layers, dim)
        self.dense = D2Block(channels)
        self.attention = ChannelAttention(dim, hidden_dim=channels)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """One block.

        Args:
            x: `(B, T, L, 4C)`, any finite values in the padding.
            mask: `(B, T)` bool from `frame_mask`, or None.

        Returns:
            `(B, T, L, 4C)`, finite values in the padding.
        """
        x = self.scaling(x)
        return x + self.attention(self.dense(x, mask), mask)


def _norm_layers(norm: nn.Module, x: Tensor, mask: Tensor | None) -> Tensor:
    """Batch norm of every frame and layer of `(B, T, L, C)`; zeros in the padding."""
    frames = pack_frames(x, mask)  # (M, L, C)
    rows = norm(frames.flatten(0, 1))
    return unpack_frames(rows.view(frames.shape), mask, x.shape[:2])
