"""The configuration: YAML plus dotted overrides to one frozen, strict object.

What can be read from the data (speakers, layers, dimensions, steps) is not in here.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    Discriminator,
    Field,
    NonNegativeInt,
    Tag,
    field_validator,
    model_validator,
)

from wespeaker_lap.config.data import Data, EncoderTuning
from wespeaker_lap.config.losses import AamLoss, Contrastive, Distill, Loss
from wespeaker_lap.config.model import EcapaNet, MfaConformerNet, Model
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


# See data/copies.py, which also knows the range of speeds.
CopyName = Annotated[str, Field(pattern=r"^(clean|noise|reverb|babble|speed[0-9](\.[0-9]{1,4})?)$")]


class Features(Section):
    """Which hidden states are stored, and how."""

    codec: Literal["float16", "float32", "int8"] = "float16"
    # The encoder's autocast; auto: bf16 where the device has it. Filter banks: always float32.
    precision: Literal["auto", "float32", "bf16"] = "float32"
    layers: tuple[NonNegativeInt, ...] | None = Field(None, min_length=1)  # None: all
    layer_stride: int = Field(1, ge=1)  # every n-th layer, from the last one downwards
    frame_stride: int = Field(1, ge=1)  # every n-th frame
    segments: Segments | None = None  # of the training set alone
    copies: tuple[CopyName, ...] = ("clean",)  # of every utterance of the training set
    copies_seed: int = Field(0, ge=0)  # of their noises and rooms; as with segments

    @model_validator(mode="after")
    def _layers_are_chosen_once(self) -> "Features":
        if self.layers is not None and self.layer_stride != 1:
            raise ValueError("layers and layer_stride both choose layers; keep one")
        if self.layers is not None and any(a >= b for a, b in pairwise(self.layers)):
            raise ValueError(f"want layers in rising order, got {list(self.layers)}")
        return self

    @field_validator("copies")
    @classmethod
    def _clean_is_among_the_copies(cls, copies: tuple[str, ...]) -> tuple[str, ...]:
        if "clean" not in copies or len(set(copies)) < len(copies):
            raise ValueError("want each copy once, and clean among them: the training set's "
                             "embeddings are made of it")
        return copies


class Train(Section):
    """The training: everything but the model."""

    epochs: int = Field(40, ge=1)
    batch_size: int = Field(512, ge=1)  # over all processes
    accumulate: int = Field(1, ge=1)  # batches of a step; their gradients are averaged
    utts_per_speaker: int | None = Field(None, ge=2)  # K of P x K batches, P = batch_size / K
    crop_seconds: float = Field(2.0, gt=0)
    # Of features.copies; 1 where none is given. A speed's is the share of it in an epoch.
    copy_weights: dict[CopyName, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    lr: float = Field(1e-3, gt=0)
    final_lr: float = Field(1e-5, ge=0)
    warmup_share: float = Field(0.1, ge=0, lt=1)  # of all steps
    weight_decay: float = Field(5e-5, ge=0)
    max_grad_norm: float | None = None
    encoder: EncoderTuning | None = None  # null: it is frozen; tuning it needs data.source wave
    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto"
    compile: bool = False  # frame network and encoder, by torch.compile; wants a C++ compiler
    num_workers: int | None = Field(None, ge=0)  # a process; None: from the machine
    dequantize: Literal["host", "device"] = "host"  # where int8 and float16 become float32
    checkpoint_steps: int = Field(500, ge=1)  # besides one after every epoch
    # Epochs whose weights stay on disk: the last; if score.average is best, those, and the newest.
    keep_epochs: int = Field(10, ge=1)
    # A moving average of the weights, models/ema_model; null: none. 0.999: of about 1000 steps.
    ema_decay: float | None = Field(None, gt=0, lt=1)

    @model_validator(mode="after")
    def _batches_are_whole_speakers(self) -> "Train":
        if self.utts_per_speaker and self.batch_size % self.utts_per_speaker:
            raise ValueError(f"batch_size {self.batch_size} is no multiple of utts_per_speaker "
                             f"{self.utts_per_speaker}")
        return self


class Score(Section):
    """Scoring."""

    # Which weights are averaged: of the last epochs, of those of the lowest validation EER, or in
    # training already (train.ema_decay).
    average: Literal["last", "best", "ema"] = "last"
    num_avg: int = Field(5, ge=1)  # epochs whose weights are averaged
    bn_batches: int = Field(0, ge=0)  # on which batch norms are measured then; 0: averaged as well
    subtract_mean: bool = True  # of the training set's embeddings
    top_n: int = Field(300, ge=2)  # cohort speakers in AS-norm
    p_target: float = Field(0.01, gt=0, lt=1)


class Config(Section):
    """Everything a run is made of."""

    seed: int = Field(42, ge=0)
    frontend: Frontend = EncoderFrontend()
    features: Features = Features()
    data: Data = Data()
    model: Model = Model()
    loss: Loss = AamLoss()
    contrastive: Contrastive | None = None
    distill: Distill | None = None
    train: Train = Train()
    score: Score = Score()

    @field_validator("loss", mode="before")
    @classmethod
    def _name_default(cls, section: Any) -> Any:
        """Options without a name are those of the default."""
        return {"name": "aam", **section} if isinstance(section, dict) else section

    @model_validator(mode="after")
    def _contrast_has_scales(self) -> "Config":
        if self.contrastive and not isinstance(self.model.frame_net, EcapaNet | MfaConformerNet):
            name = self.model.frame_net.name if self.model.frame_net else "none"
            raise ValueError("contrastive: wants a model.frame_net with several scales, ecapa or "
                             f"mfa_conformer; it is {name}")
        return self

    @model_validator(mode="after")
    def _sources_have_their_own_options(self) -> "Config":
        tuning = self.train.encoder is not None
        if tuning and isinstance(self.frontend, FbankFrontend):
            raise ValueError("train.encoder: filter banks have nothing to train; set it to null")
        if self.data.source == "features":
            if tuning:
                raise ValueError("train.encoder: an encoder is trained from waveforms; set "
                                 "data.source to wave")
            return self
        given = {"features.copies": self.features.copies != ("clean",),
                 "features.segments": self.features.segments is not None,
                 "train.dequantize": self.train.dequantize == "device"}
        strangers = [name for name, is_given in given.items() if is_given]
        if strangers:
            raise ValueError(f"{', '.join(strangers)}: of stored features, but data.source is "
                             f"wave; for copies take data.augment and data.speeds")
        return self

    @model_validator(mode="after")
    def _the_teacher_has_heard_all(self) -> "Config":
        named = {"data.speeds": any(speed != 1 for speed in self.data.speeds),
                 "features.copies": any(copy.startswith("speed") for copy in self.features.copies)}
        found = [name for name, is_so in named.items() if is_so]
        if self.distill and found:
            raise ValueError(f"{', '.join(found)}: a teacher has embedded the recordings of the "
                             f"set, not their copies at other speeds; leave those out, or train "
                             f"both on a set that has them as recordings (add_speed_copies in "
                             f"wespeaker_lap/data/speed.py)")
        if self.distill and self.distill.feats and self.features.segments:
            raise ValueError("features.segments: a teacher with distill.feats has to know where a "
                             "crop lies in its utterance; store whole utterances")
        return self

    @model_validator(mode="after")
    def _averages_will_be_there(self) -> "Config":
        train, score = self.train, self.score
        if score.average == "best" and score.num_avg > train.keep_epochs:
            raise ValueError(f"score.num_avg: the best {score.num_avg} epochs are wanted, but "
                             f"train.keep_epochs leaves {train.keep_epochs} on disk; raise it")
        if score.average == "ema" and train.ema_decay is None:
            raise ValueError("score.average: ema wants a train.ema_decay, such as 0.999")
        return self

    @model_validator(mode="after")
    def _weights_are_of_copies(self) -> "Config":
        strangers = sorted(self.train.copy_weights.keys() - set(self.features.copies))
        if strangers:
            raise ValueError(f"train.copy_weights: {', '.join(strangers)}: not in features.copies")
        return self


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
