"""ECAPA-TDNN's frame network: (B, T, F) -> (B, T, 1536)."""

import torch
from torch import Tensor, nn

from wespeaker_lap.models.conv_frames import mean_frames, prepare_frames
from wespeaker_lap.models.xvector import TdnnLayer

CONTEXT = 3  # frames that the dilated convolutions see
DILATIONS = (2, 3, 4)  # of the three blocks


class Res2Layer(nn.Module):
    """Convolutions in a row, each over one group of channels plus what the last one found.

    Source: Res2Net, arXiv 1904.01169, equation 1: with groups `x_1 ... x_s`,
    `y_1 = x_1, y_2 = K_2(x_2), y_i = K_i(x_i + y_(i-1))`.

    Args:
        channels: C.
        scale: s, a divisor of C.
        dilation: of the convolutions, in frames.
    """

    def __init__(self, channels: int, scale: int, dilation: int):
        super().__init__()
        width = channels // scale
        self.layers = nn.ModuleList(
            TdnnLayer(width, width, CONTEXT, dilation) for _ in range(scale - 1))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """`(B, C, T)` -> `(B, C, T)`, both with zeros in the padding."""
        first, *rest = x.chunk(len(self.layers) + 1, dim=1)
        found = [first]
        for i, (layer, group) in enumerate(zip(self.layers, rest, strict=True)):
            found.append(layer(group if i == 0 else group + found[-1], mask))
        return torch.cat(found, dim=1)


class SqueezeExcite(nn.Module):
    """One gate a channel, from the means of all channels over the utterance.

    Source: ECAPA-TDNN, arXiv 2005.07143, section 3.2.

    Args:
        channels: C.
        squeeze_dim: width between the two linear layers.
    """

    def __init__(self, channels: int, squeeze_dim: int):
        super().__init__()
        self.squeeze = nn.Linear(channels, squeeze_dim)
        self.expand = nn.Linear(squeeze_dim, channels)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """`(B, C, T)` -> `(B, C, T)`, both with zeros in the padding."""
        gates = self.expand(self.squeeze(mean_frames(x, mask)).relu_()).sigmoid()  # (B, C)
        return x * gates.unsqueeze(-1)


class SERes2Block(nn.Module):
    """A dense layer, a `Res2Layer`, a dense layer, `SqueezeExcite`, and the input added.

    Source: ECAPA-TDNN, arXiv 2005.07143, figure 1.

    Args:
        channels: C.
        scale: groups of the Res2 layer.
        squeeze_dim: width of the squeeze.
        dilation: of the Res2 layer, in frames.
    """

    def __init__(self, channels: int, scale: int, squeeze_dim: int, dilation: int):
        super().__init__()
        self.reduce = TdnnLayer(channels, channels)
        self.res2 = Res2Layer(channels, scale, dilation)
        self.restore = TdnnLayer(channels, channels)
        self.excite = SqueezeExcite(channels, squeeze_dim)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """`(B, C, T)` -> `(B, C, T)`, both with zeros in the padding."""
        y = self.restore(self.res2(self.reduce(x, mask), mask), mask)
        return x + self.excite(y, mask)


class EcapaTdnn(nn.Module):
    """ECAPA-TDNN up to its pooling.

    Source: ECAPA-TDNN, arXiv 2005.07143, figure 2. Every block reads the sum of all outputs
    before it (section 3.3); the three blocks' outputs side by side go through a dense layer with
    a ReLU. Behind it belong `ASTP` with 128 hidden values (`reduction=1/12`), a batch norm and
    one linear layer.

    Args:
        in_dim: F.
        channels: C, 512 or 1024 in the paper.
        out_dim: values of a frame for the pooling.
        res2_scale: groups of the Res2 layers, a divisor of C.
        squeeze_dim: width of the squeeze-excitation.

    Raises:
        ValueError: fewer than 2 groups, or they do not divide the channels.

    >>> net = EcapaTdnn(in_dim=80, channels=64)
    >>> frames, lengths = net(torch.randn(2, 50, 80), torch.tensor([50, 30]))
    >>> frames.shape, lengths.tolist()
    (torch.Size([2, 50, 1536]), [50, 30])
    """

    def __init__(
        self,
        in_dim: int,
        channels: int = 512,
        out_dim: int = 1536,
        res2_scale: int = 8,
        squeeze_dim: int = 128,
    ):
        super().__init__()
        if res2_scale < 2 or channels % res2_scale:
            raise ValueError(
                f"want res2_scale from 2 on to divide channels {channels}, got {res2_scale}")
        self.in_dim = in_dim
        self.out_dim = out_dim
        self.scale_dims = [channels] * len(DILATIONS)  # F_i of the block outputs
        self.stem = TdnnLayer(in_dim, channels, context=5)
        self.blocks = nn.ModuleList(
            SERes2Block(channels, res2_scale, squeeze_dim, dilation) for dilation in DILATIONS)
        self.aggregate = nn.Conv1d(sum(self.scale_dims), out_dim, 1)

    def forward(
        self, x: Tensor, lengths: Tensor | None = None, return_scales: bool = False
    ) -> tuple[Tensor, Tensor | None] | tuple[Tensor, Tensor | None, list[Tensor]]:
        """Describe every frame with its surroundings, at several time scales.

        Args:
            x: `(B, T, F)`, any values in the padding.
            lengths: `(B,)` frames of each utterance; None when none is padding.
            return_scales: also return what each block found, for a multi-scale loss.

        Returns:
            `(B, T, out_dim)`, any finite values in the padding; the lengths, as they came; with
            `return_scales` also the outputs of the three blocks, `(B, T, C)` each, zeros in the
            padding.

        Raises:
            ValueError: `x` or `lengths` has another shape.
        """
        x, mask = prepare_frames(x, lengths, self.in_dim)
        total = self.stem(x.transpose(1, 2), mask)  # (B, C, T)
        found = []
        for block in self.blocks:
            found.append(block(total, mask))
            total = total + found[-1]
        y = self.aggregate(torch.cat(found, dim=1)).relu_().transpose(1, 2)  # (B, T, out_dim)
        if not return_scales:
            return y, lengths
        return y, lengths, [scale.transpose(1, 2) for scale in found]
