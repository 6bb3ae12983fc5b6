"""A trained system whose embeddings and logits a student is to imitate.

As a rule the teacher's part of a training is done before it: stage 4 has embedded the training set,
and from 192 numbers an utterance the classifier gives the logits of any step. Then neither the
encoder nor its layer features are needed while the student trains, and the teacher has heard the
whole utterance where the student hears a crop. With its layer features (`distill.feats`) it hears
the same crop instead, at the cost of reading them and of its network; its encoder never runs.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from wespeaker_lap import build
from wespeaker_lap.config import load_config
from wespeaker_lap.config.losses import Distill, Loss
from wespeaker_lap.engine import checkpoint
from wespeaker_lap.engine.hearing import Span, StudentCrops, WholeUtterances
from wespeaker_lap.io.table import read_lines
from wespeaker_lap.losses.distill import (
    embedding_distillation,
    label_distillation,
    map_speakers,
    non_target_distillation,
    warm_up,
)


class Teacher(nn.Module):
    """What a trained system says of the utterances of a training set.

    Args:
        config: how the student is to follow it.
        entries: every entry that the student may be given -> the utterance that the teacher is
            asked for; a noisy copy is to be heard as the clean one.
        train_set: name of the set, under which the teacher's folder has its embeddings.
        speakers: the student's classes.
        loss: of the student. A teacher of the same kind takes its scale and its full margin, so
            that logits differ where cosines do.

    Raises:
        FileNotFoundError: no trained system there, or the set is neither embedded nor stored.
        ValueError: it lacks utterances or speakers; lists them; see also the kinds of hearing.
    """

    def __init__(self, config: Distill, entries: Mapping[str, str], train_set: str,
                 speakers: Sequence[str], loss: Loss):
        super().__init__()
        self.config, exp_dir = config, Path(config.teacher)
        self.hearing = (WholeUtterances(exp_dir, entries, train_set) if config.feats is None
                        else StudentCrops(exp_dir, entries, Path(config.feats)))
        names = read_lines(exp_dir / "speakers.txt")
        try:
            index = map_speakers(names, speakers)  # student's class -> teacher's
        except ValueError as error:
            raise ValueError(f"{exp_dir}: {error}") from None
        self.register_buffer("index", index, persistent=False)
        self.head = _load_head(exp_dir, self.embed_dim, len(names), loss)

    def check(self, embed_dim: int) -> None:
        """Refuse a student whose embeddings cannot be compared with the teacher's.

        Raises:
            ValueError: their dimensions differ.
        """
        if self.config.name == "embedding" and embed_dim != self.embed_dim:
            raise ValueError(f"distill embedding: the teacher {self.config.teacher} has embeddings "
                             f"of {self.embed_dim} numbers, the student of {embed_dim}; set "
                             f"model.embed_dim={self.embed_dim}")

    def train(self, mode: bool = True) -> "Teacher":
        """Nothing of it is ever in training mode."""
        return super().train(False)

    @property
    def embed_dim(self) -> int:
        """E of its embeddings."""
        return self.hearing.embed_dim

    @property
    def hears_crops(self) -> bool:
        """Whether `forward` wants the crops' places."""
        return self.config.feats is not None

    def forward(self, entries: Sequence[str], embeddings: Tensor, logits: Tensor,
                speakers: Tensor, epoch: float, spans: Sequence[Span] | None = None) -> Tensor:
        """How far the student is from it.

        Args:
            entries: (B,) that the student was given.
            embeddings: (B, E) of the student.
            logits: (B, N) of the student, with the margin on the target.
            speakers: (B,) classes.
            epoch: epochs done, with fractions.
            spans: of the crops; None where it has heard whole utterances.

        Returns:
            The weighted loss ().
        """
        config, own = self.config, self.hearing(entries, spans)  # (B, E)
        if config.name == "embedding":
            loss = embedding_distillation(embeddings, own)
        else:
            with torch.no_grad():  # with the full margin
                own = self.head(own, self.index[speakers])[1][:, self.index]  # (B, N)
            if config.name == "label":
                loss = label_distillation(logits, own, config.temperature)
            else:
                loss = non_target_distillation(logits, own, speakers, config.gamma,
                                               config.temperature)
        return config.weight * warm_up(epoch, config.warm_up_epochs) * loss


def _load_head(exp_dir: Path, embed_dim: int, num_speakers: int, student: Loss) -> nn.Module:
    """The classifier of the averaged weights, without the penalty that only trains it."""
    config = load_config(exp_dir / "config.yaml").loss
    if config.name == student.name != "softmax":
        config = config.model_copy(update={"scale": student.scale, "margin": student.margin})
    if config.name == "aam":
        config = config.model_copy(update={"top_k": 0})
    head = build.build_head(config, embed_dim, num_speakers)
    checkpoint.load_net(checkpoint.weights_path(exp_dir, checkpoint.AVERAGED), head, "head")
    return head.requires_grad_(False).eval()
