"""The configuration of a pre-training: YAML plus dotted overrides, strict like `config.Config`."""

from typing import Literal

from pydantic import Field, model_validator

from wespeaker_lap.io.settings import Section


class Encoder(Section):
    """The architecture, in torchaudio's terms (`torchaudio.models.wavlm_model`)."""

    # Channels, kernel and stride of each convolution.
    conv_layers: tuple[tuple[int, int, int], ...] = ((256, 400, 160), (192, 3, 2))
    filterbank_init: bool = True  # the first convolution begins as a mel filter bank
    dim: int = Field(192, gt=0)
    num_layers: int = Field(6, gt=0)
    num_heads: int = Field(4, gt=0)
    ff_dim: int = Field(768, gt=0)
    pos_conv_kernel: int = Field(64, gt=0)
    pos_conv_groups: int = Field(16, gt=0)
    num_buckets: int = Field(320, gt=0)
    max_distance: int = Field(800, gt=0)
    norm: Literal["post", "pre"] = "post"  # after each block (Base) or inside it (Large)
    dropout: float = Field(0.0, ge=0, lt=1)


class Crops(Section):
    """What is cut out of the recordings, and what is done to it."""

    seconds: float = Field(1.5, gt=0)
    clean_share: float = Field(0.5, ge=0, lt=1)  # of pairs left as they are, nothing masked
    mix_prob: float = Field(0.4, ge=0, le=1)  # another utterance over up to half of the crop
    mix_db: tuple[float, float] = (-5.0, 5.0)  # of the crop over the other one
    noise_prob: float = Field(0.5, ge=0, le=1)
    noise_db: tuple[float, float] = (5.0, 25.0)
    reverb_prob: float = Field(0.2, ge=0, le=1)
    eq_prob: float = Field(0.5, ge=0, le=1)
    eq_db: float = Field(6.0, ge=0)  # deviation of the random equaliser's curve


class Masked(Section):
    """Masked prediction: which frames are hidden and what is predicted for them."""

    span: int = Field(8, gt=0)  # frames
    share: float = Field(0.4, gt=0, lt=1)  # of the frames, about
    unmasked_weight: float = Field(0.3, ge=0)  # of frames in sight
    target: Literal["random_projection", "kmeans"] = "random_projection"
    num_codebooks: int = Field(2, ge=1)
    codebook_size: int = Field(512, ge=2)
    code_weight: float = Field(0.3, ge=0)  # cross-entropy of the codes
    mel_weight: float = Field(3.0, ge=0)  # smooth L1 of the log-mel spectrum
    front_weight: float = Field(3.0, ge=0)  # the same, from the front end alone
    front_grad: float = Field(0.01, ge=0, le=1)  # share of other terms' gradient that it gets
    teacher: str | None = None  # k-means on the states of this encoder; on cepstra where None
    teacher_layer: int = Field(4, ge=0)


class Contrastive(Section):
    """Two crops of one utterance against the crops of all others."""

    pairs: Literal["clean", "all"] = "clean"  # which pairs it brings together

    weight: float = Field(1.0, ge=0)
    layer: int = Field(4, ge=0)
    dim: int = Field(128, gt=0)
    temperature: float = Field(0.1, gt=0)


class Train(Section):
    """The optimisation."""

    front_steps: int = Field(1500, ge=0)  # of the front end alone, before the others
    front_lr: float = Field(4e-3, gt=0)  # highest rate of those
    steps: int = Field(20000, ge=1)
    batch_size: int = Field(128, ge=4)  # crops over all processes, two of each utterance
    lr: float = Field(1e-3, gt=0)
    final_lr: float = Field(1e-5, ge=0)
    warmup_share: float = Field(0.05, ge=0, lt=1)
    weight_decay: float = Field(0.01, ge=0)
    max_grad_norm: float = Field(5.0, gt=0)
    precision: Literal["auto", "float32", "bf16"] = "auto"
    compile: bool = False  # torch.compile: a minute at the start, faster steps
    valid_share: float = Field(0.03, gt=0, lt=1)  # of the recordings, never trained on
    valid_steps: int = Field(500, ge=1)  # from one validation to the next
    checkpoint_steps: int = Field(500, ge=1)

    @property
    def total_steps(self) -> int:
        """Steps of the whole training."""
        return self.front_steps + self.steps


class PretrainConfig(Section):
    """Everything a pre-training is made of."""

    seed: int = Field(1, ge=0)
    encoder: Encoder = Encoder()
    crops: Crops = Crops()
    masked: Masked = Masked()
    contrastive: Contrastive = Contrastive()
    train: Train = Train()

    @model_validator(mode="after")
    def _fits(self) -> "PretrainConfig":
        if self.contrastive.layer > self.encoder.num_layers:
            raise ValueError(f"contrastive.layer {self.contrastive.layer}: the encoder has layers "
                             f"0 to {self.encoder.num_layers}")
        if self.encoder.dim % self.encoder.num_heads:
            raise ValueError("encoder.dim must be a multiple of encoder.num_heads")
        if self.train.batch_size % 2:
            raise ValueError("train.batch_size must be even: two crops of each utterance")
        return self
