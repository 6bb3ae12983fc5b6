"""Plain softmax loss, the baseline of those with a margin."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wespeaker_lap.losses.centers import check_embeddings, make_centers, target_index, widen


class Softmax(nn.Module):
    """A linear layer and cross entropy, the length of the embeddings included.

    Args:
        embed_dim: E.
        num_speakers: N.

    Raises:
        ValueError: a number is out of its range.

    >>> loss_fn = Softmax(embed_dim=192, num_speakers=10)
    >>> loss, logits = loss_fn(torch.randn(4, 192), torch.tensor([0, 3, 3, 9]))
    >>> loss.shape, logits.shape
    (torch.Size([]), torch.Size([4, 10]))
    """

    def __init__(self, embed_dim: int, num_speakers: int):
        super().__init__()
        self.centers = make_centers(embed_dim, num_speakers, 1)
        self.bias = nn.Parameter(torch.zeros(num_speakers))

    def forward(
        self, emb: Tensor, speakers: Tensor, margin: float | None = None
    ) -> tuple[Tensor, Tensor]:
        """Compute the loss of a batch.

        Args:
            emb: `(B, E)` embeddings.
            speakers: `(B,)` integer labels from 0 to N - 1.
            margin: there is none; None or 0, for callers that follow a schedule.

        Returns:
            The mean cross entropy `()`, and the logits `(B, N)`.

        Raises:
            ValueError: a shape does not fit, a label is no speaker, or a margin is asked for.
        """
        if margin is not None and margin != 0.0:
            raise ValueError(f"plain softmax has no margin, got {margin}; set it to 0 or choose "
                             "AMSoftmax or AAMSoftmax")
        logits = self.logits(emb)
        target = target_index(speakers, logits)  # (B, 1)
        return F.cross_entropy(logits, target.squeeze(1)), logits

    def logits(self, emb: Tensor) -> Tensor:
        """Logits `(B, N)` of embeddings `(B, E)`, float32 or float64."""
        check_embeddings(emb, self.centers)
        with torch.autocast(emb.device.type, enabled=False):
            return F.linear(widen(emb), widen(self.centers[:, 0]), widen(self.bias))

    def predict(self, emb: Tensor) -> Tensor:
        """Name the likeliest speaker of each embedding `(B, E)`: `(B,)` labels."""
        return self.logits(emb).argmax(dim=1)
