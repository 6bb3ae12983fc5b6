"""Names and numbers of the configuration, plus facts of the data, to objects."""

from collections.abc import Sequence

from torch import nn

from wespeaker_lap import config as cfg
from wespeaker_lap.config.losses import Contrastive, Loss
from wespeaker_lap.data.balanced import BalancedBatchSampler, expected_pairs
from wespeaker_lap.data.copies import CLEAN, Copy, parse_copies
from wespeaker_lap.data.sampler import ShuffledBatches
from wespeaker_lap.data.segments import Segments
from wespeaker_lap.frontends.fbank import Fbank, FbankLayer
from wespeaker_lap.frontends.selection import Selection, select
from wespeaker_lap.frontends.ssl import FrozenSSL
from wespeaker_lap.losses.contrastive import MultiScaleContrastive
from wespeaker_lap.losses.margin import AAMSoftmax, AMSoftmax
from wespeaker_lap.losses.softmax import Softmax
from wespeaker_lap.models.campplus import CamPlusPlus
from wespeaker_lap.models.ecapa import EcapaTdnn
from wespeaker_lap.models.layer_pool import LAP, SingleLayer, WeightedSum
from wespeaker_lap.models.mfa_conformer import MFAConformer
from wespeaker_lap.models.mhfa import MHFA, TwoStreams
from wespeaker_lap.models.resnet import ResNet34
from wespeaker_lap.models.span_out import SpanOut
from wespeaker_lap.models.speaker_net import SpeakerNet
from wespeaker_lap.models.spec_augment import SpecAugment
from wespeaker_lap.models.time_pool import ASTP, StatsPool
from wespeaker_lap.models.unipool import UniPool
from wespeaker_lap.models.xvector import XVector

LAYER_POOLS = {"weighted_sum": WeightedSum, "single": SingleLayer, "lap": LAP, "unipool": UniPool}
FRAME_NETS = {"xvector": XVector, "ecapa": EcapaTdnn, "resnet34": ResNet34,
              "campplus": CamPlusPlus, "mfa_conformer": MFAConformer}
HEADS = {"aam": AAMSoftmax, "am": AMSoftmax, "softmax": Softmax}
TIME_POOLS = {"stats": StatsPool, "astp": ASTP, "mhfa": MHFA}
LEAST_PAIRS = 0.7  # of one speaker in a plain batch on average: with fewer most batches have none


def build_frontend(config: cfg.Frontend, features: cfg.Features | None = None,
                   ) -> FrozenSSL | FbankLayer | Selection:
    """Load the frozen encoder, or make the filter banks that stand in its place.

    Args:
        config: the frontend section.
        features: the features section: which layers and frames are kept; None for all.
    """
    if isinstance(config, cfg.FbankFrontend):
        frontend = FbankLayer(Fbank(**_options(config)))
    else:
        frontend = FrozenSSL.load(config.name, **_options(config))
    if features is None:
        return frontend
    return select(frontend, features.layers, features.layer_stride, features.frame_stride)


def build_segments(config: cfg.Features, frontend: FrozenSSL | FbankLayer | Selection,
                   is_training: bool) -> Segments | None:
    """The segments that are stored of a set's utterances; None: whole utterances.

    Args:
        config: the features section.
        frontend: what computes the features.
        is_training: whether the set is trained on; others are stored whole.
    """
    chosen = config.segments
    if chosen is None or not is_training:
        return None
    rate = frontend.sample_rate / frontend.frame_shift  # frames a second
    return Segments(chosen.num, max(1, round(chosen.seconds * rate)), chosen.seed)


def build_copies(config: cfg.Features, is_training: bool) -> tuple[Copy, ...]:
    """The copies that are stored of a set's utterances; the clean one alone where nothing is
    trained on the set."""
    return parse_copies(config.copies) if is_training else (CLEAN,)


def build_shares(config: cfg.Data) -> dict[Copy, float]:
    """How crops of waveforms are augmented: copy -> probability, the clean one among them."""
    augment = config.augment
    if augment is None:
        return {CLEAN: 1.0}
    weights = {Copy(kind): getattr(augment, kind) for kind in ("noise", "reverb", "babble")}
    shares = {CLEAN: 1.0 - augment.prob}
    shares |= {copy: augment.prob * weight / sum(weights.values())
               for copy, weight in weights.items()}
    return {copy: share for copy, share in shares.items() if share}


def build_speeds(config: cfg.Data) -> tuple[Copy, ...]:
    """The copies at another speed."""
    return tuple(Copy("speed", factor) for factor in config.speeds if factor != 1)


def choose_precision_name(config: cfg.Config) -> str:
    """The precision of stage 2; filter banks are always computed in float32."""
    is_fbank = isinstance(config.frontend, cfg.FbankFrontend)
    return "float32" if is_fbank else config.features.precision


def build_net(config: cfg.Model, num_layers: int, dim: int) -> SpeakerNet:
    """Build the back end.

    Args:
        config: the model section.
        num_layers, dim: L and D of the features.
    """
    def make_layer_pool() -> nn.Module:
        return LAYER_POOLS[config.layer_pool.name](num_layers, dim, **_options(config.layer_pool))

    layer_pool, frame_net = make_layer_pool(), None
    if config.time_pool.name == "mhfa":
        layer_pool = TwoStreams(layer_pool, make_layer_pool())
    if config.frame_net is not None:
        kind = FRAME_NETS[config.frame_net.name]
        frame_net = kind(layer_pool.out_dim, **_options(config.frame_net))
    frame_dim = (frame_net or layer_pool).out_dim
    time_pool = TIME_POOLS[config.time_pool.name](frame_dim, **_options(config.time_pool))
    augments = [kind(**_options(section)) for kind, section in (
        (SpanOut, config.span_out), (SpecAugment, config.spec_augment)) if section is not None]
    return SpeakerNet(layer_pool, time_pool, config.embed_dim, frame_net, config.hidden_dim,
                      augments)


def build_head(config: Loss, embed_dim: int, num_speakers: int) -> nn.Module:
    """Build the speaker classifier with its loss."""
    options = config.model_dump(exclude={"name", "schedule"})
    return HEADS[config.name](embed_dim, num_speakers, **options)


def build_contrastive(config: Contrastive, train: cfg.Train, net: SpeakerNet,
                      labels: Sequence[int]) -> MultiScaleContrastive:
    """Build the contrastive loss on the scales of a network.

    Args:
        config: of the loss.
        train: of the batches; without `utts_per_speaker` some may have no pair of one speaker.
        net: a frame network with scales.
        labels: class of each example.

    Raises:
        ValueError: most batches would have no pair.
    """
    is_plain = train.utts_per_speaker is None
    if is_plain and (pairs := expected_pairs(labels, train.batch_size)) < LEAST_PAIRS:
        raise ValueError(
            f"contrastive: batches of {train.batch_size} have {pairs:.2g} pairs of one speaker on "
            "average, most of them none, and then there is nothing to contrast; take batches of P "
            "speakers with K utterances each (train.utts_per_speaker=4), or larger ones "
            "(train.batch_size)")
    return MultiScaleContrastive(net.frame_net.scale_dims, config.embed_dim, config.temperature,
                                 allow_empty=is_plain)


def build_sampler(config: cfg.Train, labels: Sequence[int], seed: int, rank: int,
                  world_size: int, voice_shares: Sequence[float] = (1.0,),
                  ) -> ShuffledBatches | BalancedBatchSampler:
    """Choose which utterances make which step.

    Args:
        config: the train section; a step has `accumulate` batches.
        labels: class of each example.
        seed: of the training.
        rank, world_size: this process among how many.
        voice_shares: see `FeatureSource`.

    Raises:
        ValueError: shares other than 1 where batches are of whole speakers.
    """
    size = config.batch_size * config.accumulate
    if config.utts_per_speaker is None:
        return ShuffledBatches(len(labels), size, seed, rank, world_size, voice_shares)
    if set(voice_shares) != {1}:
        raise ValueError("train.utts_per_speaker: batches of whole speakers take all utterances at "
                         "other speeds; give them weight 1 (train.copy_weights, data.speed_share)")
    return BalancedBatchSampler(labels, size // config.utts_per_speaker, config.utts_per_speaker,
                                seed, rank, world_size)


def count_params(module: nn.Module) -> int:
    """Trainable parameters."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def _options(section: cfg.Section) -> dict:
    return section.model_dump(exclude={"name"})
