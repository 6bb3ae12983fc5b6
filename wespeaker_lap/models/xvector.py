"""X-vector's frame network, and the time-delay layer it is made of: (B, T, F) -> (B, T, 1500)."""

from torch import Tensor, nn

from wespeaker_lap.models.conv_frames import norm_frames, prepare_frames


class TdnnLayer(nn.Module):
    """Time-delay layer: convolution over time, ReLU, batch norm.

    Source: X-vectors, Snyder et al. 2018, table 1. Zeros stand for the frames before the first
    and after the last, so that the number of frames stays.

    Args:
        in_dim: channels in.
        out_dim: channels out.
        context: frames that one output sees, an odd number.
        dilation: steps between them, in frames.

    Raises:
        ValueError: an even context.
    """

    def __init__(self, in_dim: int, out_dim: int, context: int = 1, dilation: int = 1):
        super().__init__()
        if context % 2 != 1:
            raise ValueError(f"want an odd context, got {context}")
        padding = context // 2 * dilation
        self.conv = nn.Conv1d(in_dim, out_dim, context, dilation=dilation, padding=padding)
        self.norm = nn.BatchNorm1d(out_dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Filter the frames.

        Args:
            x: `(B, in_dim, T)`, zeros in the padding.
            mask: `(B, T)` bool of the real frames; None when none is padding.

        Returns:
            `(B, out_dim, T)`, zeros in the padding.
        """
        return norm_frames(self.norm, self.conv(x).relu_(), mask)


class XVector(nn.Module):
    """The five frame layers of an x-vector, 15 frames of context together.

    Source: X-vectors, Snyder et al. 2018, table 1, layers frame1 to frame5; the original drops
    the 7 frames at either end, where these see zeros instead, so that one frame is enough. Behind
    it belong `StatsPool` and two linear layers, of which the first has a ReLU and a batch norm.

    Args:
        in_dim: F.
        channels: width of the first four layers.
        out_dim: width of the last one.

    >>> import torch
    >>> net = XVector(in_dim=80)
    >>> frames, lengths = net(torch.randn(2, 50, 80), torch.tensor([50, 30]))
    >>> frames.shape, lengths.tolist()
    (torch.Size([2, 50, 1500]), [50, 30])
    """

    def __init__(self, in_dim: int, channels: int = 512, out_dim: int = 1500):
        super().__init__()
        self.in_dim = in_dim
        self.out_dim = out_dim
        self.layers = nn.ModuleList([
            TdnnLayer(in_dim, channels, context=5),
            TdnnLayer(channels, channels, context=3, dilation=2),
            TdnnLayer(channels, channels, context=3, dilation=3),
            TdnnLayer(channels, channels),
            TdnnLayer(channels, out_dim),
        ])

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Describe every frame with its surroundings.

        Args:
            x: `(B, T, F)`, any values in the padding.
            lengths: `(B,)` frames of each utterance; None when none is padding.

        Returns:
            `(B, T, out_dim)`, zeros in the padding; the lengths, as they came.

        Raises:
            ValueError: `x` or `lengths` has another shape.
        """
        x, mask = prepare_frames(x, lengths, self.in_dim)
        x = x.transpose(1, 2)  # (B, F, T)
        for layer in self.layers:
            x = layer(x, mask)
        return x.transpose(1, 2), lengths
