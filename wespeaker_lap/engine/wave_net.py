"""A network that gets waveforms: the front end is computed on the device, batch by batch."""

from torch import Tensor, nn


class WaveNet(nn.Module):
    """A front end and the network behind it: (B, S) -> (B, E).

    A frozen front end keeps itself in evaluation mode and leaves no graph; one that is being tuned
    gets its gradients through here.

    Args:
        frontend: (B, S), lengths -> (B, T, L, D), frames of each.
        net: (B, T, L, D), lengths -> (B, E).
    """

    def __init__(self, frontend: nn.Module, net: nn.Module):
        super().__init__()
        self.frontend, self.net = frontend, net

    def forward(self, wav: Tensor, lengths: Tensor | None = None, return_scales: bool = False,
                ) -> Tensor | tuple[Tensor, list[Tensor], Tensor | None]:
        """Embed a batch of waveforms.

        Args:
            wav: (B, S) at the front end's rate.
            lengths: (B,) samples of each; None when none is padding.
            return_scales: as of the network.

        Returns:
            What the network returns.
        """
        feats, frames = self.frontend(wav, lengths)  # (B, T, L, D), (B,)
        return self.net(feats, None if lengths is None else frames,
                        **({"return_scales": True} if return_scales else {}))
