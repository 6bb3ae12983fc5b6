"""The model section: one class for each part that can be chosen by name."""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from wespeaker_lap.io.settings import Section


class LapPool(Section):
    """Layer Attentive Pooling."""

    name: Literal["lap"] = "lap"
    out_dim: int = Field(512, gt=0)
    num_heads: int = Field(16, gt=0)
    dropout: float = Field(0.1, ge=0, lt=1)
    combine: Literal["max", "mean"] = "max"  # of the scored layers; the paper takes the maximum


class WeightedSumPool(Section):
    """One learnt weight a layer."""

    name: Literal["weighted_sum"] = "weighted_sum"


class SingleLayerPool(Section):
    """One layer alone."""

    name: Literal["single"] = "single"
    layer: int = -1  # of those stored; negative: from the last one


class UniPoolPool(Section):
    """Universal pooling: D3 blocks over layers and frames, then layer attention."""

    name: Literal["unipool"] = "unipool"
    out_dim: int = Field(512, gt=0)
    channels: int = Field(128, gt=0)
    num_blocks: int = Field(1, ge=1)
    num_heads: int = Field(4, gt=0)
    dropout: float = Field(0.1, ge=0, lt=1)


class XVectorNet(Section):
    """The time-delay network of the x-vector."""

    name: Literal["xvector"] = "xvector"
    channels: int = Field(512, gt=0)
    out_dim: int = Field(1500, gt=0)


class EcapaNet(Section):
    """ECAPA-TDNN."""

    name: Literal["ecapa"] = "ecapa"
    channels: int = Field(512, gt=0)
    out_dim: int = Field(1536, gt=0)
    res2_scale: int = Field(8, ge=2)
    squeeze_dim: int = Field(128, gt=0)


class ResNet34Net(Section):
    """ResNet34 over frames and bands."""

    name: Literal["resnet34"] = "resnet34"
    channels: int = Field(32, gt=0)


class CamPlusPlusNet(Section):
    """CAM++."""

    name: Literal["campplus"] = "campplus"
    growth: int = Field(32, gt=0)
    bottleneck: int = Field(128, gt=0)
    init_channels: int = Field(128, gt=0)
    segment_frames: int = Field(100, gt=0)


class MfaConformerNet(Section):
    """MFA-Conformer."""

    name: Literal["mfa_conformer"] = "mfa_conformer"
    num_blocks: int = Field(6, ge=1)
    block_dim: int = Field(256, gt=1)
    num_heads: int = Field(4, gt=0)
    ffn_dim: int = Field(2048, gt=0)
    kernel_size: int = Field(15, gt=0)
    dropout: float = Field(0.1, ge=0, lt=1)


class AstpPool(Section):
    """Channel- and context-dependent attentive statistics over time."""

    name: Literal["astp"] = "astp"
    reduction: float = Field(0.5, gt=0, le=1)
    dropout: float = Field(0.1, ge=0, lt=1)


class StatsTimePool(Section):
    """Mean and deviation over time."""

    name: Literal["stats"] = "stats"


class MhfaPool(Section):
    """Multi-head factorised attention; the layers are pooled twice, into keys and values."""

    name: Literal["mhfa"] = "mhfa"
    num_heads: int = Field(64, gt=0)
    compression: int = Field(128, gt=0)


class SpanOut(Section):
    """Short spans of frames that are cut out of training utterances."""

    utt_prob: float = Field(0.3, ge=0, le=1)
    start_prob: float = Field(0.05, ge=0, le=1)
    span: int = Field(3, ge=1)


class SpecAugment(Section):
    """Stretches of frames and bands of filters that are masked in training utterances."""

    time_masks: int = Field(1, ge=0)
    time_frames: int = Field(10, ge=0)  # of one at most
    freq_masks: int = Field(1, ge=0)
    freq_bands: int = Field(8, ge=0)


LayerPool = Annotated[LapPool | WeightedSumPool | SingleLayerPool | UniPoolPool,
                      Field(discriminator="name")]
FrameNet = Annotated[XVectorNet | EcapaNet | ResNet34Net | CamPlusPlusNet | MfaConformerNet,
                     Field(discriminator="name")]
TimePool = Annotated[AstpPool | StatsTimePool | MhfaPool, Field(discriminator="name")]


class Model(Section):
    """Pooling over layers, a network over frames, pooling over time, embedding."""

    span_out: SpanOut | None = None
    spec_augment: SpecAugment | None = None  # for filter banks
    layer_pool: LayerPool = LapPool()
    frame_net: FrameNet | None = None
    time_pool: TimePool = AstpPool()
    hidden_dim: int | None = Field(None, gt=0)  # of one more layer before the embedding (x-vector)
    embed_dim: int = Field(192, gt=0)

    @field_validator("layer_pool", "time_pool", mode="before")
    @classmethod
    def _name_default(cls, section: Any, info: ValidationInfo) -> Any:
        """Options without a name are those of the default."""
        if not isinstance(section, dict):
            return section
        return {"name": cls.model_fields[info.field_name].default.name, **section}

    @model_validator(mode="after")
    def _mhfa_pools_layers(self) -> "Model":
        if isinstance(self.time_pool, MhfaPool) and self.frame_net is not None:
            raise ValueError("time_pool mhfa pools keys and values of the layers, and no frame_net "
                             "fits between; leave out one of them")
        return self
