"""The sections of the losses: classifier, contrastive loss, distillation."""

from typing import Annotated, Literal

from pydantic import Field

from wespeaker_lap.io.settings import Section


class MarginSchedule(Section):
    """The margin stays at `initial`, then rises to the loss's margin over a window of epochs."""

    initial: float = Field(0.0, ge=0)
    start_epoch: float = Field(0.0, ge=0)
    end_epoch: float = Field(20.0, ge=0)
    shape: Literal["log", "linear"] = "log"


class AamLoss(Section):
    """AAM-softmax with sub-centres and inter-top-K."""

    name: Literal["aam"] = "aam"
    scale: float = Field(30.0, gt=0)
    margin: float = Field(0.3, ge=0, lt=1.5)
    num_subcenters: int = Field(3, ge=1)
    top_k: int = Field(5, ge=0)
    top_k_penalty: float = Field(0.06, ge=0)
    schedule: MarginSchedule = MarginSchedule()


class AmLoss(Section):
    """AM-softmax with sub-centres."""

    name: Literal["am"] = "am"
    scale: float = Field(30.0, gt=0)
    margin: float = Field(0.2, ge=0, lt=1)
    num_subcenters: int = Field(1, ge=1)
    schedule: MarginSchedule = MarginSchedule()


class SoftmaxLoss(Section):
    """A linear layer and cross entropy, without a margin."""

    name: Literal["softmax"] = "softmax"


Loss = Annotated[AamLoss | AmLoss | SoftmaxLoss, Field(discriminator="name")]


class Contrastive(Section):
    """Supervised contrastive loss on every block of the frame network (MFCon)."""

    weight: float = Field(0.05, gt=0)
    embed_dim: int = Field(192, gt=0)  # of the blocks' own heads
    temperature: float = Field(0.07, gt=0)


class EmbeddingDistill(Section):
    """One minus the cosine to the teacher's embedding."""

    name: Literal["embedding"] = "embedding"
    teacher: str  # folder of a trained system with the embeddings of this training set (stage 4)
    feats: str | None = None  # its feature store of the set: it then hears the student's crops
    weight: float = Field(1.0, gt=0)
    warm_up_epochs: float = Field(20.0, ge=0)


class LabelDistill(Section):
    """KL divergence of all speakers' probabilities."""

    name: Literal["label"] = "label"
    teacher: str
    feats: str | None = None
    weight: float = Field(1.0, gt=0)
    warm_up_epochs: float = Field(20.0, ge=0)
    temperature: float = Field(1.0, gt=0)


class NonTargetDistill(Section):
    """The target's probability, and with emphasis the other speakers' among themselves (EnsKD)."""

    name: Literal["non_target"] = "non_target"
    teacher: str
    feats: str | None = None
    weight: float = Field(1.0, gt=0)
    warm_up_epochs: float = Field(20.0, ge=0)
    temperature: float = Field(1.0, gt=0)
    gamma: float = Field(2.0, ge=0)


Distill = Annotated[EmbeddingDistill | LabelDistill | NonTargetDistill,
                    Field(discriminator="name")]
