"""What a training minimises: the classifier's loss and those that may stand beside it."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wespeaker_lap.engine.hearing import Span
from wespeaker_lap.engine.teacher import Teacher
from wespeaker_lap.losses.contrastive import MultiScaleContrastive

PARTS = ("classification", "contrast", "distillation")


class Objective(nn.Module):
    """Network and losses as one module, so that DDP sees a single forward.

    Args:
        net: (B, T, L, D) -> (B, E); or a `WaveNet`, (B, S) -> (B, E).
        head: speaker classifier with its loss.
        precision: of the network under autocast; None for float32. Losses are in float32.
        contrastive: on the scales of the network's frame network; `contrast_weight` times it.
        teacher: brings its own weight.
    """

    def __init__(self, net: nn.Module, head: nn.Module, precision: torch.dtype | None,
                 contrastive: MultiScaleContrastive | None = None, contrast_weight: float = 0.0,
                 teacher: Teacher | None = None):
        super().__init__()
        self.net, self.head, self.precision = net, head, precision
        self.contrastive, self.contrast_weight = contrastive, contrast_weight
        self.teacher = teacher

    def forward(self, feats: Tensor, speakers: Tensor, entries: Sequence[str], margin: float,
                epoch: float, spans: Sequence[Span] | None = None) -> tuple[Tensor, Tensor]:
        """Compute the loss of a batch.

        Args:
            feats: (B, T, L, D), or (B, S) where the network gets waveforms.
            speakers: (B,) classes.
            entries: ids of the examples, which the teacher knows them by.
            margin: of the classifier.
            epoch: epochs done, with fractions.
            spans: of the examples' crops, for a teacher that hears them.

        Returns:
            The weighted losses (3,) in the order of `PARTS`, zero where one is not used: their sum
            is what to minimise. And the number of correctly classified examples ().
        """
        contrast = distance = torch.zeros((), device=feats.device)
        with torch.autocast(feats.device.type, self.precision, enabled=self.precision is not None):
            if self.contrastive is None:
                embeddings = self.net(feats)  # (B, E)
            else:
                embeddings, scales, lengths = self.net(feats, return_scales=True)
                # Its heads are networks too; what they find is compared in float32.
                contrast = self.contrast_weight * self.contrastive(scales, speakers, lengths)
        embeddings = embeddings.float()
        loss, logits = self.head(embeddings, speakers, margin)
        if self.teacher is not None:
            distance = self.teacher(entries, embeddings, logits, speakers, epoch, spans)
        with torch.no_grad():  # judged without the margin, as in use
            correct = (self.head.predict(embeddings) == speakers).sum()
        return torch.stack([loss, contrast, distance]), correct
