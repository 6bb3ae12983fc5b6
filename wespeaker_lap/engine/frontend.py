"""The front end of a trained system, from its folder."""

from pathlib import Path

from wespeaker_lap import build
from wespeaker_lap.config import Config
from wespeaker_lap.frontends.fbank import FbankLayer
from wespeaker_lap.frontends.selection import Selection, select_stored
from wespeaker_lap.frontends.ssl import FrozenSSL
from wespeaker_lap.io.identity import check_compatible


def load_frontend(exp_dir: Path, config: Config, facts: dict) -> FrozenSSL | FbankLayer | Selection:
    """Load what computes the features that a system was trained on.

    Args:
        exp_dir: of the training.
        config, facts: of it.

    Raises:
        FileNotFoundError: weights of the encoder that are not in reach.
        ValueError: the encoder is not the one that it was trained on.
    """
    frontend = select_stored(build.build_frontend(config.frontend), facts["features"])
    identity = frontend.identity()  # once: it hashes all weights
    check_compatible(exp_dir, identity, {key: facts["features"].get(key) for key in identity})
    return frontend
