"""Names and numbers of the configuration, plus facts of the data, to objects."""

from torch import nn

from wespeaker_lap import config as cfg
from wespeaker_lap.frontends.fbank import Fbank, FbankLayer
from wespeaker_lap.frontends.ssl import FrozenSSL
from wespeaker_lap.losses.margin import AAMSoftmax
from wespeaker_lap.models.layer_pool import LAP, WeightedSum
from wespeaker_lap.models.speaker_net import SpeakerNet
from wespeaker_lap.models.time_pool import ASTP, StatsPool

LAYER_POOLS = {"weighted_sum": WeightedSum, "lap": LAP}
TIME_POOLS = {"stats": StatsPool, "astp": ASTP}


def build_frontend(config: cfg.Frontend) -> FrozenSSL | FbankLayer:
    """Load the frozen encoder, or make the filter banks that stand in its place."""
    if isinstance(config, cfg.FbankFrontend):
        return FbankLayer(Fbank(**_options(config)))
    return FrozenSSL.load(config.name, **_options(config))


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
