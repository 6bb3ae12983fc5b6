"""CAM++'s frame network: (B, T, F) -> (B, T / 2, 512)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wespeaker_lap.models.conv_frames import mean_frames, norm_frames, prepare_frames
from wespeaker_lap.models.resnet import ResBlock, conv_3x3, count_steps, stride_mask

NUM_LAYERS = (12, 24, 16)  # of each dense block
DILATIONS = (1, 2, 2)
STEM_CONTEXT = 5
STEM_STRIDE = 2


class ConvHead(nn.Module):
    """The front convolution module: over time and frequency, which it cuts by 8.

    Source: CAM++, arXiv 2303.00332.

    Args:
        in_dim: F.
        channels: C.
    """

    def __init__(self, in_dim: int, channels: int = 32):
        super().__init__()
        self.stem = conv_3x3(1, channels)
        self.stem_norm = nn.BatchNorm2d(channels)
        strides = ((1, 2), (1, 1), (1, 2), (1, 1))  # over time and frequency
        self.blocks = nn.ModuleList(ResBlock(channels, channels, stride) for stride in strides)
        self.last = conv_3x3(channels, channels, (1, 2))
        self.last_norm = nn.BatchNorm2d(channels)
        num_bands = in_dim
        for _ in range(3):
            num_bands = count_steps(num_bands, 2)
        self.out_dim = channels * num_bands

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """`(B, T, F)` -> `(B, C * ceil(F / 8), T)`, both with zeros in the padding."""
        x = norm_frames(self.stem_norm, self.stem(x.unsqueeze(1)), mask).relu_()  # (B, C, T, F)
        for block in self.blocks:
            x, _ = block(x, mask)
        x = norm_frames(self.last_norm, self.last(x), mask).relu_()
        return x.transpose(2, 3).flatten(1, 2)


class NormReluConv(nn.Module):
    """Batch norm, ReLU, then a convolution without bias over single frames.

    Args:
        in_dim: C.
        out_dim: C'.
    """

    def __init__(self, in_dim: int, out_dim: int):
        super().__init__()
        self.norm = nn.BatchNorm1d(in_dim)
        self.conv = nn.Conv1d(in_dim, out_dim, 1, bias=False)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """`(B, C, T)` -> `(B, C', T)`, of any finite values to zeros in the padding."""
        return self.conv(norm_frames(self.norm, x, mask).relu_())


class MaskedConv(nn.Module):
    """Context-aware masking: a convolution whose outputs the wider context lets through.

    Source: CAM++, arXiv 2303.00332: `conv(x) * sigmoid(W2 relu(W1 c + b1) + b2)`,
    where c of a frame is the mean of the utterance plus the mean of the frame's segment.

    Args:
        in_dim: C.
        out_dim: C'.
        dilation: of the convolution of 3 frames.
        segment_frames: frames of a segment; the last one of an utterance may be shorter.
    """

    def __init__(self, in_dim: int, out_dim: int, dilation: int, segment_frames: int):
        super().__init__()
        self.segment_frames = segment_frames
        self.local = nn.Conv1d(in_dim, out_dim, 3, dilation=dilation, padding=dilation, bias=False)
        self.squeeze = nn.Conv1d(in_dim, in_dim // 2, 1)
        self.expand = nn.Conv1d(in_dim // 2, out_dim, 1)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """`(B, C, T)` with zeros in the padding -> `(B, C', T)`, any finite values there."""
        # All frames of a segment share their context, so its gates are computed once.
        context = mean_segments(x, mask, self.segment_frames)  # (B, C, S)
        context = context + mean_frames(x, mask).unsqueeze(-1)
        gates = self.expand(self.squeeze(context).relu_()).sigmoid()  # (B, C', S)
        gates = gates.repeat_interleave(self.segment_frames, dim=2)[:, :, : x.shape[2]]
        return self.local(x) * gates


class DenseLayer(nn.Module):
    """A bottleneck and a `MaskedConv`, whose outputs join the inputs.

    Source: CAM++, arXiv 2303.00332 (densely connected time-delay layer).

    Args:
        in_dim: C.
        growth: channels that it adds.
        bottleneck: channels between.
        dilation: of the masked convolution.
        segment_frames: of its context.
    """

    def __init__(self, in_dim: int, growth: int, bottleneck: int, dilation: int,
                 segment_frames: int):
        super().__init__()
        self.reduce = NormReluConv(in_dim, bottleneck)
        self.norm = nn.BatchNorm1d(bottleneck)
        self.masked = MaskedConv(bottleneck, growth, dilation, segment_frames)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """`(B, C, T)` -> `(B, C + growth, T)`, any finite values in the padding of both."""
        y = norm_frames(self.norm, self.reduce(x, mask), mask).relu_()
        return torch.cat((x, self.masked(y, mask)), dim=1)


class CamPlusPlus(nn.Module):
    """CAM++ up to its pooling.

    Source: CAM++, arXiv 2303.00332: a convolutional head over time and frequency, a
    time-delay layer that halves the frames, three densely connected blocks of 12, 24 and 16
    layers, a transition to half the channels behind each. Behind it belong `StatsPool` and one
    linear layer.

    Args:
        in_dim: F, neighbours beside each other, as filter banks are.
        growth: channels that a layer adds.
        bottleneck: channels inside a layer, 2 or more.
        init_channels: channels before the first block.
        segment_frames: frames (after the halving) whose mean is part of a frame's context.

    Raises:
        ValueError: a size below 1, or a bottleneck below 2.

    >>> net = CamPlusPlus(in_dim=80)
    >>> frames, lengths = net(torch.randn(2, 50, 80), torch.tensor([50, 31]))
    >>> frames.shape, lengths.tolist()
    (torch.Size([2, 25, 512]), [25, 16])
    """

    def __init__(
        self,
        in_dim: int,
        growth: int = 32,
        bottleneck: int = 128,
        init_channels: int = 128,
        segment_frames: int = 100,
    ):
        super().__init__()
        if min(in_dim, growth, init_channels, segment_frames) < 1 or bottleneck < 2:
            raise ValueError(
                "want in_dim, growth, init_channels and segment_frames >= 1 and bottleneck >= 2, "
                f"got {in_dim}, {growth}, {init_channels}, {segment_frames} and {bottleneck}")
        self.in_dim = in_dim
        self.head = ConvHead(in_dim)
        self.stem = nn.Conv1d(self.head.out_dim, init_channels, STEM_CONTEXT, STEM_STRIDE,
                              padding=STEM_CONTEXT // 2, bias=False)
        self.stem_norm = nn.BatchNorm1d(init_channels)
        layers, width = [], init_channels
        for num_layers, dilation in zip(NUM_LAYERS, DILATIONS, strict=True):
            for _ in range(num_layers):
                layers.append(DenseLayer(width, growth, bottleneck, dilation, segment_frames))
                width += growth
            layers.append(NormReluConv(width, width // 2))
            width //= 2
        self.layers = nn.ModuleList(layers)
        self.out_norm = nn.BatchNorm1d(width)
        self.out_dim = width

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Describe every second frame with its surroundings.

        Args:
            x: `(B, T, F)`, any values in the padding.
            lengths: `(B,)` frames of each utterance; None when none is padding.

        Returns:
            `(B, ceil(T / 2), out_dim)`, zeros in the padding; the lengths halved, rounded up.

        Raises:
            ValueError: `x` or `lengths` has another shape.
        """
        x, mask = prepare_frames(x, lengths, self.in_dim)
        x = self.stem(self.head(x, mask))  # (B, C, T')
        mask = stride_mask(mask, STEM_STRIDE)
        x = norm_frames(self.stem_norm, x, mask).relu_()
        for layer in self.layers:
            x = layer(x, mask)
        x = norm_frames(self.out_norm, x, mask).relu_()
        return x.transpose(1, 2), None if lengths is None else count_steps(lengths, STEM_STRIDE)


def mean_segments(x: Tensor, mask: Tensor | None, size: int) -> Tensor:
    """Means over segments of the time axis; over what there is, where a segment is cut short.

    Args:
        x: `(B, C, T)`, zeros in the padding.
        mask: `(B, T)` bool of the real frames; None when none is padding.
        size: frames of a segment.

    Returns:
        `(B, C, S)`, `S = T // size + 2`; zeros for a segment without a real frame.

    >>> x = torch.tensor([[[1.0, 2.0, 6.0, 4.0, 0.0]]])
    >>> mean_segments(x, torch.tensor([[True] * 4 + [False]]), size=3).tolist()
    [[[3.0, 4.0, 0.0]]]
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    real = x.new_ones(1, x.shape[2], dtype=wide) if mask is None else mask.to(wide)
    # Two segments or more, never a full last one: so no length is a special case, and a graph
    # exported for one length fits all.
    num_segments = x.shape[2] // size + 2
    room = (0, num_segments * size - x.shape[2])
    total = F.pad(x, room).unflatten(2, (num_segments, size)).sum(dim=3, dtype=wide)
    count = F.pad(real, room).unflatten(1, (num_segments, size)).sum(dim=2).unsqueeze(1)
    return (total / count.clamp(min=1.0)).to(x.dtype)
