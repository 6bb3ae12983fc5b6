"""Names and numbers of the configuration, plus facts of the data, to objects."""

from torch import nn

from wespeaker_lap import config as cfg
from wespeaker_lap.data.copies import CLEAN, Copy, parse_copies
from wespeaker_lap.data.segments import Segments
from wespeaker_lap.frontends.fbank import Fbank, FbankLayer
from wespeaker_lap.frontends.selection import Selection, select
from wespeaker_lap.frontends.ssl import FrozenSSL
from wespeaker_lap.losses.margin import AAMSoftmax
from wespeaker_lap.models.layer_pool import LAP, WeightedSum
from wespeaker_lap.models.speaker_net import SpeakerNet
from wespeaker_lap.models.time_pool import ASTP, StatsPool

LAYER_POOLS = {"weighted_sum": WeightedSum, "lap": LAP}
TIME_POOLS = {"stats": StatsPool, "astp": ASTP}


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
    layer_pool = LAYER_POOLS[config.layer_pool.name](num_layers, dim, **_options(config.layer_pool))
    time_pool = TIME_POOLS[config.time_pool.name](layer_pool.out_dim, **_options(config.time_pool))
    return SpeakerNet(layer_pool, time_pool, embed_dim=config.embed_dim)


def build_head(config: cfg.Loss, embed_dim: int, num_speakers: int) -> AAMSoftmax:
    """Build the speaker classifier with its margin loss."""
    options = config.model_dump(exclude={"schedule"})
    return AAMSoftmax(embed_dim, num_speakers, **options)


def count_params(module: nn.Module) -> int:
    """Trainable parameters."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def _options(section: cfg.Section) -> dict:
    return section.model_dump(exclude={"name"})
