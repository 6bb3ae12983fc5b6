"""ResNet34 over time and frequency: (B, T, F) -> (B, T / 8, channels x F / 8)."""

import torch
from torch import Tensor, nn

from wespeaker_lap.models.conv_frames import norm_frames, prepare_frames

NUM_BLOCKS = (3, 4, 6, 3)  # of each stage; a stage after the first halves both axes


class ResBlock(nn.Module):
    """Two 3 x 3 convolutions and a way past them.

    Source: ResNet, arXiv 1512.03385, figure 2; where the shape changes, the way past is a 1 x 1
    convolution with a batch norm (option B).

    Args:
        in_channels: C.
        out_channels: C'.
        stride: steps over time and frequency; `n` frames become `ceil(n / step)`.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: tuple[int, int] = (1, 1)):
        super().__init__()
        self.stride = stride
        self.conv1 = conv_3x3(in_channels, out_channels, stride)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv_3x3(out_channels, out_channels)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.past_conv = self.past_norm = None
        if in_channels != out_channels or stride != (1, 1):
            self.past_conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
            self.past_norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Filter the map.

        Args:
            x: `(B, C, T, F)`, zeros in the padding.
            mask: `(B, T)` bool of the real frames; None when none is padding.

        Returns:
            `(B, C', T', F')`, zeros in the padding; its mask `(B, T')`.
        """
        time_step, band_step = self.stride
        mask = stride_mask(mask, time_step)
        y = norm_frames(self.norm1, self.conv1(x), mask).relu_()
        y = norm_frames(self.norm2, self.conv2(y), mask)
        if self.past_conv is not None:
            # Sliced rather than strided: PyTorch 2.11's strided 1 x 1 convolution of few channels
            # in bf16, channels last, writes beyond its memory.
            x = norm_frames(self.past_norm, self.past_conv(x[:, :, ::time_step, ::band_step]), mask)
        return (y + x).relu_(), mask


class ResNet34(nn.Module):
    """ResNet34 without the first pooling, for speech: time and frequency are its two axes.

    Source: ResNet, arXiv 1512.03385, table 1, as in the ResNet r-vector (arXiv 1910.12592) and
    WeSpeaker: 3 x 3 stem of stride 1, four stages of 3, 4, 6 and 3 blocks with 1, 2, 4 and 8
    times the channels. Behind it belong `StatsPool` and one linear layer.

    Args:
        in_dim: F, neighbours beside each other, as filter banks are.
        channels: of the first stage.

    >>> import torch
    >>> net = ResNet34(in_dim=80, channels=4)
    >>> net.out_dim  # 8 * 4 channels in 10 bands
    320
    >>> frames, lengths = net(torch.randn(2, 50, 80), torch.tensor([50, 30]))
    >>> frames.shape, lengths.tolist()
    (torch.Size([2, 7, 320]), [7, 4])
    """

    def __init__(self, in_dim: int, channels: int = 32):
        super().__init__()
        self.in_dim = in_dim
        self.stem = conv_3x3(1, channels)
        self.stem_norm = nn.BatchNorm2d(channels)
        blocks, num_bands, width = [], in_dim, channels
        for stage, num_blocks in enumerate(NUM_BLOCKS):
            out_width = channels * 2**stage
            for i in range(num_blocks):
                step = 2 if stage > 0 and i == 0 else 1
                blocks.append(ResBlock(width, out_width, (step, step)))
                num_bands, width = count_steps(num_bands, step), out_width
        self.blocks = nn.ModuleList(blocks)
        self.out_dim = width * num_bands

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Describe every eighth frame with its surroundings.

        Args:
            x: `(B, T, F)`, any values in the padding.
            lengths: `(B,)` frames of each utterance; None when none is padding.

        Returns:
            `(B, ceil(T / 8), out_dim)`, zeros in the padding; the lengths divided by 8, rounded
            up.

        Raises:
            ValueError: `x` or `lengths` has another shape.
        """
        x, mask = prepare_frames(x, lengths, self.in_dim)
        x = norm_frames(self.stem_norm, self.stem(x.unsqueeze(1)), mask).relu_()  # (B, C, T, F)
        for block in self.blocks:
            x, mask = block(x, mask)
            if lengths is not None:
                lengths = count_steps(lengths, block.stride[0])
        return x.transpose(1, 2).flatten(2), lengths  # (B, T', 8 C * F')


def conv_3x3(in_channels: int, out_channels: int, stride: tuple[int, int] = (1, 1)) -> nn.Conv2d:
    """A 3 x 3 convolution without bias: `(B, C, T, F)` -> `(B, C', ceil(T / step), ...)`.

    Its weight lies channels last in memory, which makes the maps behind it do so too: the fast
    order for convolutions on tensor cores and in bf16 on the CPU.
    """
    conv = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
    return conv.to(memory_format=torch.channels_last)


def stride_mask(mask: Tensor | None, stride: int) -> Tensor | None:
    """The mask after a convolution of this stride: `(B, T)` -> `(B, ceil(T / stride))`."""
    return mask if mask is None or stride == 1 else mask[:, ::stride]


def count_steps(num: int | Tensor, stride: int) -> int | Tensor:
    """`num` frames after a convolution of this stride, rounded up."""
    return (num + stride - 1) // stride
