"""The encoder of a trained model: by name, from a folder that the user gives, or included."""

from pathlib import Path

from wespeaker_lap import build
from wespeaker_lap.config import EncoderFrontend, FbankFrontend
from wespeaker_lap.engine.frontend import load_tuned
from wespeaker_lap.frontends.fbank import FbankLayer
from wespeaker_lap.frontends.huggingface import PREFIX
from wespeaker_lap.frontends.loading import PACKAGED, WEIGHT_SUFFIXES, find_bundle
from wespeaker_lap.frontends.selection import Selection, select_stored
from wespeaker_lap.frontends.sources import load_checkpoint
from wespeaker_lap.frontends.ssl import FrozenSSL
from wespeaker_lap.io.facts import find_features
from wespeaker_lap.io.identity import check_compatible
from wespeaker_lap.share.opening import Parts


def load_frontend(parts: Parts,
                  encoder: str | Path | None = None) -> FrozenSSL | FbankLayer | Selection:
    """Load the encoder that a model was trained on, and make sure that it is that one.

    Args:
        parts: of the model.
        encoder: where it is; None takes the included one, or the one that is named.

    Raises:
        FileNotFoundError: it is not in reach.
        ValueError: it is another one; names the fields that differ.
    """
    features, section = find_features(parts.facts), parts.config.frontend
    if isinstance(section, FbankFrontend):
        frontend = build.build_frontend(section)
    elif encoder is not None:
        frontend = build.build_frontend(_point_to(section, str(encoder), features["encoder"]))
        frontend.name = features["encoder"]  # its weights decide, wherever they lie
    elif parts.encoder is not None:
        found = load_checkpoint(parts.encoder, features["encoder"])
        frontend = FrozenSSL(found.model, found.name, found.sample_rate, found.normalize_waveform,
                             found.normalize_eps, section.last_state, section.max_seconds,
                             section.overlap_seconds)
    elif parts.config.train.encoder is not None:  # not packed: it is that of the averaged weights
        frontend = load_tuned(Path(parts.source), parts.config)
    else:
        try:
            frontend = build.build_frontend(section)
        except (ValueError, FileNotFoundError) as error:
            raise type(error)(
                f"{parts.source}: its encoder {features['encoder']} (weights "
                f"{features['weights_sha256'][:12]}…) is not part of it and was not found by name; "
                f"give its place with --encoder (in Python encoder=): {error}") from error
    frontend = select_stored(frontend, features)
    identity = frontend.identity()  # once: it hashes all weights
    check_compatible(parts.source, identity, {key: features.get(key) for key in identity})
    return frontend


def _point_to(section: EncoderFrontend, encoder: str, name: str) -> EncoderFrontend:
    """The settings with another place; a file of weights is of the bundle that is named."""
    bundle = name if Path(encoder).suffix in WEIGHT_SUFFIXES else None
    return section.model_copy(update={"name": encoder, "bundle": bundle})


def is_public(name: str) -> bool:
    """Whether anybody finds an encoder by its name alone."""
    return name in PACKAGED or name.startswith(PREFIX) or find_bundle(name) is not None
