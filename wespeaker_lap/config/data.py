"""The sections of what is trained on: stored features, or waveforms augmented on the fly."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from wespeaker_lap.io.settings import Section


class Augment(Section):
    """What is done to crops of waveforms; how loud, see data/augmenter.py."""

    prob: float = Field(0.6, gt=0, le=1)  # of a crop to be augmented
    noise: float = Field(1.0, ge=0)  # weights of the kinds, of which one is drawn
    reverb: float = Field(1.0, ge=0)
    babble: float = Field(1.0, ge=0)

    @model_validator(mode="after")
    def _some_kind_is_left(self) -> "Augment":
        if not self.noise + self.reverb + self.babble:
            raise ValueError("noise, reverb and babble all have weight 0; set augment to null")
        return self


class Data(Section):
    """Where training examples come from."""

    source: Literal["features", "wave"] = "features"  # of stage 2, or recordings as they are
    augment: Augment | None = None  # of waves
    # Of waves; others than 1 are further utterances, of new speakers.
    speeds: tuple[Annotated[float, Field(ge=0.5, le=2)], ...] = (1.0,)
    speed_share: float = Field(1.0, gt=0, le=1)  # of each other speed's utterances, in an epoch

    @model_validator(mode="after")
    def _speeds_are_of_waves(self) -> "Data":
        if 1 not in self.speeds or len(set(self.speeds)) < len(self.speeds):
            raise ValueError(f"want each speed once, and 1.0 among them, got {list(self.speeds)}")
        if self.source == "features" and (self.augment or len(self.speeds) > 1):
            raise ValueError("augment and speeds are of waves, and source is features: set it to "
                             "wave, or store copies (features.copies)")
        return self


class EncoderTuning(Section):
    """The encoder is trained with everything behind it (joint fine-tuning)."""

    lr: float = Field(5e-5, gt=0)  # highest, of the uppermost block; follows train.lr's schedule
    layer_decay: float = Field(1.0, gt=0, le=1)  # factor of the rate from a block to the one below
    freeze_conv: bool = True  # the convolutions stay as they are
    checkpointing: bool = False  # blocks are computed twice, to keep less in memory
