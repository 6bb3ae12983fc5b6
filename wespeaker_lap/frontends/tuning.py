"""An encoder that is trained together with what is behind it: what of it, and how fast."""

from torch import nn

from wespeaker_lap.frontends.selection import Selection
from wespeaker_lap.frontends.ssl import FrozenSSL


def find_encoder(frontend: nn.Module) -> FrozenSSL:
    """The encoder in a front end, which may be a selection of its layers.

    Raises:
        ValueError: there is none in it.
    """
    encoder = frontend.frontend if isinstance(frontend, Selection) else frontend
    if not isinstance(encoder, FrozenSSL):
        raise ValueError(f"{frontend.name}: no encoder that could be trained")
    return encoder


def start_tuning(encoder: FrozenSSL, freeze_conv: bool = True, checkpointing: bool = False) -> None:
    """Make an encoder trainable: its parameters have gradients, in training mode dropout acts.

    Args:
        encoder: any; its dropout probabilities are those it was trained with.
        freeze_conv: whether the convolutions at its beginning stay as they are.
        checkpointing: keep less for the gradients and compute every block twice.
    """
    encoder.requires_grad_(True)
    encoder.model.feature_extractor.requires_grad_(not freeze_conv)
    encoder.is_tuned, encoder.checkpointing = True, checkpointing


def group_parameters(encoder: FrozenSSL, layer_decay: float,
                     ) -> list[tuple[float, list[nn.Parameter]]]:
    """Sort the trainable parameters by the depth of their block.

    Args:
        encoder: being tuned.
        layer_decay: factor of the learning rate from a block to the one below; what comes before
            the first block is one more below.

    Returns:
        Factor of the rate and parameters, from the lowest to the highest; 1 for the last block.
    """
    transformer = encoder.model.encoder.transformer
    blocks = list(transformer.layers)
    # The norm outside of the blocks comes after them in large style, whose flag is inverted.
    own_norm = [] if transformer.layer_norm_first else [transformer.layer_norm]
    above = {id(p) for module in [*blocks, *own_norm] for p in module.parameters()}
    levels = [[p for p in encoder.model.parameters() if id(p) not in above],
              *([*block.parameters()] for block in blocks)]
    levels[-1] += [p for module in own_norm for p in module.parameters()]
    groups = [(layer_decay ** (len(blocks) - level), [p for p in params if p.requires_grad])
              for level, params in enumerate(levels)]
    return [(factor, params) for factor, params in groups if params]
