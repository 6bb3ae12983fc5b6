"""Layer attentive pooling as the paper writes it, one line a step: slow, large, easy to check."""

import torch
from torch import Tensor, nn

from wespeaker_lap.models.layer_pool import LAP


class PlainLAP(nn.Module):
    """The parameters of a `LAP`, shared with it, and the seven steps of arXiv 2512.22148.

    Args:
        lap: whose parameters, statistics and dropout to use.
    """

    def __init__(self, lap: LAP):
        super().__init__()
        self.__dict__.update(lap.__dict__)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`(B, T, L, D)` -> `(B, T, F)` and the scores `(B, T, H, L)`."""
        batch_size, num_frames, num_layers, dim = x.shape
        rows = self.in_linear(self.in_norm(x.reshape(-1, dim)))  # (B * T * L, D)
        heads = rows.view(-1, num_layers, self.num_heads, dim // self.num_heads)  # (M, L, H, d)
        heads = heads.transpose(1, 2)  # (M, H, L, d)
        logits = self._excite(heads.mean(dim=-1)) + self._excite(heads.amax(dim=-1))
        scores = self.dropout(logits.sigmoid())  # (M, H, L)
        best = (heads * scores.unsqueeze(-1)).amax(dim=2).flatten(1)  # (M, D)
        frames = self.out_norm(self.out_linear(best))  # (M, F)
        shape = (batch_size, num_frames)
        return frames.unflatten(0, shape), scores.unflatten(0, shape)

    def _excite(self, view: Tensor) -> Tensor:
        """`f(u) = ReLU(u W1 + b1) W2 + b2` of every head: `(M, H, L)` -> `(M, H, L)`."""
        hidden = torch.einsum("mhl,hlk->mhk", view, self.squeeze_weight) + self.squeeze_bias
        expanded = torch.einsum("mhk,hkl->mhl", hidden.relu(), self.expand_weight)
        return expanded + self.expand_bias
