"""The configuration: YAML plus dotted overrides to one frozen, strict object.

What can be read from the data (speakers, layers, dimensions, steps) is not in here.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    Discriminator,
    Field,
    NonNegativeInt,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from wespeaker_lap.io.settings import Section, load_settings


class EncoderFrontend(Section):
    """A frozen encoder (`FrozenSSL.load`)."""

    name: str = "wavlm_tiny"  # packaged name, torchaudio bundle, folder, file or hf://org/name
    bundle: str | None = None  # the torchaudio bundle that a local .pth file belongs to
    last_state: Literal["after_norm", "before_norm"] = "after_norm"
    max_seconds: float = Field(30.0, gt=0)  # longer recordings go through in windows
    overlap_seconds: float = Field(2.0, ge=0)


class FbankFrontend(Section):
    """Log mel filter banks (`Fbank`)."""

    name: Literal["fbank"] = "fbank"
    num_mels: int = Field(80, ge=4)
    mean_norm: bool = True  # of each utterance


def _kind_of_frontend(section: Any) -> str:
    """An encoder may have any name but "fbank"."""
    name = section.get("name") if isinstance(section, dict) else getattr(section, "name", None)
    return "fbank" if name == "fbank" else "encoder"


Frontend = Annotated[
    Annotated[EncoderFrontend, Tag("encoder")] | Annotated[FbankFrontend, Tag("fbank")],
    Discriminator(_kind_of_frontend)]


class Segments(Section):
    """Random segments of every training utterance, stored in place of the whole one."""

    num: int = Field(3, ge=1)
    seconds: float = Field(4.0, gt=0)  # of each; utterances of at most num * seconds stay whole
    seed: int = Field(0, ge=0)  # of their places; not the training's, so that seeds share a store


class Features(Section):
    """Which hidden states are stored, and how."""

    codec: Literal["float16", "float32", "int8"] = "float16"
    layers: tuple[NonNegativeInt, ...] | None = Field(None, min_length=1)  # None: all
    layer_stride: int = Field(1, ge=1)  # every n-th layer, from the last one downwards
    frame_stride: int = Field(1, ge=1)  # every n-th frame
    segments: Segments | None = None  # of the training set alone

    @model_validator(mode="after")
    def _layers_are_chosen_once(self) -> Self:
        if self.layers is not None and self.layer_stride != 1:
            raise ValueError("layers and layer_stride both choose layers; keep one")
        if self.layers is not None and any(a >= b for a, b in pairwise(self.layers)):
            raise ValueError(f"want layers in rising order, got {list(self.layers)}")
        return self


class LapPool(Section):
    """Layer Attentive Pooling."""

    name: Literal["lap"] = "lap"
    out_dim: int = Field(512, gt=0)
    num_heads: int = Field(16, gt=0)
    dropout: float = Field(0.1, ge=0, lt=1)


class WeightedSumPool(Section):
    """One learnt weight a layer."""

    name: Literal["weighted_sum"] = "weighted_sum"


class AstpPool(Section):
    """Channel- and context-dependent attentive statistics over time."""

    name: Literal["astp"] = "astp"
    reduction: float = Field(0.5, gt=0, le=1)
    dropout: float = Field(0.1, ge=0, lt=1)


class StatsTimePool(Section):
    """Mean and deviation over time."""

    name: Literal["stats"] = "stats"


class Model(Section):
    """Layer pooling, pooling over time, embedding."""

    layer_pool: Annotated[LapPool | WeightedSumPool, Field(discriminator="name")] = LapPool()
    time_pool: Annotated[AstpPool | StatsTimePool, Field(discriminator="name")] = AstpPool()
    embed_dim: int = Field(192, gt=0)

    @field_validator("layer_pool", "time_pool", mode="before")
    @classmethod
    def _name_default(cls, section: Any, info: ValidationInfo) -> Any:
        """Options without a name are those of the default."""
        if not isinstance(section, dict):
            return section
        return {"name": cls.model_fields[info.field_name].default.name, **section}


class MarginSchedule(Section):
    """The margin stays at `initial`, then rises to the loss's margin over a window of epochs."""

    initial: float = Field(0.0, ge=0)
    start_epoch: float = Field(0.0, ge=0)
    end_epoch: float = Field(20.0, ge=0)
    shape: Literal["log", "linear"] = "log"


class Loss(Section):
    """AAM-softmax with sub-centres and inter-top-K."""

    scale: float = Field(30.0, gt=0)
    margin: float = Field(0.3, ge=0, lt=1.5)
    num_subcenters: int = Field(3, ge=1)
    top_k: int = Field(5, ge=0)
    top_k_penalty: float = Field(0.06, ge=0)
    schedule: MarginSchedule = MarginSchedule()


class Train(Section):
    """The training: everything but the model."""

    epochs: int = Field(40, ge=1)
    batch_size: int = Field(512, ge=1)  # over all processes
    crop_seconds: float = Field(2.0, gt=0)
    lr: float = Field(1e-3, gt=0)
    final_lr: float = Field(1e-5, ge=0)
    warmup_share: float = Field(0.1, ge=0, lt=1)  # of all steps
    weight_decay: float = Field(5e-5, ge=0)
    max_grad_norm: float | None = None
    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto"
    num_workers: int | None = Field(None, ge=0)  # a process; None: from the machine
    dequantize: Literal["host", "device"] = "host"  # where int8 and float16 become float32
    checkpoint_steps: int = Field(500, ge=1)  # besides one after every epoch
    keep_epochs: int = Field(10, ge=1)  # weights of the last epochs that stay on disk


class Score(Section):
    """Scoring."""

    num_avg: int = Field(5, ge=1)  # epochs whose weights are averaged
    subtract_mean: bool = True  # of the training set's embeddings
    top_n: int = Field(300, ge=2)  # cohort speakers in AS-norm
    p_target: float = Field(0.01, gt=0, lt=1)


class Config(Section):
    """Everything a run is made of."""

    seed: int = Field(42, ge=0)
    frontend: Frontend = EncoderFrontend()
    features: Features = Features()
    model: Model = Model()
    loss: Loss = Loss()
    train: Train = Train()
    score: Score = Score()


# Names that users of LAP's own code know -> where the same thing stands here.
ALIASES = {
    "frontend_cfg": "frontend",
    "layer_aggregation": "model.layer_pool.name",
    "speaker_network": "model.time_pool.name",
    "n_head": "model.layer_pool.num_heads",
    "hidden_size": "model.layer_pool.out_dim",
    "embed_size": "model.embed_dim",
    "cohort_size": "score.top_n",
    "n_subcenter": "loss.num_subcenters",
    "topK": "loss.top_k",
}
ALIAS_VALUES = {"model.layer_pool.name": {"superb": "weighted_sum"}}


def load_config(path: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Read the configuration of a recipe; see `load_settings`.

    >>> load_config(overrides=["train.epochs=3", "layer_aggregation=superb"]).train.epochs
    3
    """
    return load_settings(Config, path, overrides, ALIASES, ALIAS_VALUES)


def dump_config(config: Section) -> str:
    """A configuration as YAML, every value written out."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def get_value(config: Section, dotted: str) -> Any:
    """One value of a configuration.

    Raises:
        ValueError: there is no such key.

    >>> get_value(Config(), "frontend.name")
    'wavlm_tiny'
    """
    value: Any = config.model_dump(mode="json")
    for part in dotted.split("."):
        if not isinstance(value, dict) or part not in value:
            raise ValueError(f"no value {dotted!r} in the configuration")
        value = value[part]
    return value
