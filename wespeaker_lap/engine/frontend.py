"""The front end of a trained system, from its folder; and a tuned encoder into it.

A tuned encoder stands in three places: in the files of `models/` beside the network that it was
trained with, in the folder `encoder/`, which can be loaded like any other encoder and is of the
last epoch or, once there is one, of the average, and as a hash in model.json.
"""

from pathlib import Path

from wespeaker_lap import build
from wespeaker_lap.config import Config
from wespeaker_lap.engine import checkpoint
from wespeaker_lap.frontends.export import export_frontend
from wespeaker_lap.frontends.fbank import FbankLayer
from wespeaker_lap.frontends.selection import Selection, select_stored
from wespeaker_lap.frontends.ssl import FrozenSSL
from wespeaker_lap.frontends.tuning import find_encoder
from wespeaker_lap.io.facts import load_facts, save_tuned
from wespeaker_lap.io.identity import check_compatible

FOLDER = "encoder"


def load_frontend(exp_dir: Path, config: Config, facts: dict, weights: str = checkpoint.AVERAGED,
                  ) -> FrozenSSL | FbankLayer | Selection:
    """Load what computes the features that a system was trained on.

    Args:
        exp_dir: of the training.
        config, facts: of it.
        weights: stem of the file in `models/` that a tuned encoder is taken from.

    Raises:
        FileNotFoundError: weights of the encoder that are not in reach.
        ValueError: the encoder is not the one that it was trained on.
    """
    if config.train.encoder is None:
        frontend = select_stored(build.build_frontend(config.frontend), facts["features"])
        identity = frontend.identity()  # once: it hashes all weights
        check_compatible(exp_dir, identity, {key: facts["features"].get(key) for key in identity})
        return frontend
    return select_stored(load_tuned(exp_dir, config, weights), facts["features"])


def load_tuned(exp_dir: Path, config: Config, weights: str = checkpoint.AVERAGED) -> FrozenSSL:
    """Load an encoder that was trained with its network, all its layers.

    Args:
        exp_dir, config: of the training.
        weights: stem of the file in `models/`.
    """
    place = {"name": str(exp_dir.resolve() / FOLDER), "bundle": None}
    encoder = build.build_frontend(config.frontend.model_copy(update=place))
    checkpoint.load_net(exp_dir / "models" / f"{weights}.safetensors", encoder.model, FOLDER)
    return encoder


def export_tuned(exp_dir: Path, frontend: FrozenSSL | Selection) -> None:
    """Write `encoder/` and its hash.

    Args:
        exp_dir: of the training, whose model.json is there.
        frontend: with the encoder as it is now.
    """
    encoder = find_encoder(frontend)
    export_frontend(encoder, exp_dir / FOLDER)
    save_tuned(exp_dir, {"encoder": FOLDER, "weights_sha256": encoder.weights_sha256})


def export_averaged(exp_dir: str | Path, config: Config) -> None:
    """Write `encoder/` from the averaged weights, where the encoder was tuned."""
    exp_dir = Path(exp_dir)
    if config.train.encoder is not None:
        export_tuned(exp_dir, load_frontend(exp_dir, config, load_facts(exp_dir)))
