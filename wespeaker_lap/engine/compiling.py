"""`torch.compile` for the parts of a training that are made of standard layers."""

from torch import nn

from wespeaker_lap.frontends.tuning import find_encoder
from wespeaker_lap.models.speaker_net import SpeakerNet


def compile_parts(net: SpeakerNet, frontend: nn.Module | None) -> list[str]:
    """Have the frame network and the encoder's blocks compiled when they first run.

    Each block by itself: they share one compiled program, which a deep encoder has sooner than one
    for all of it. The layer pooling is left as it is: LAP's own gradient, which keeps less in
    memory, would be replaced. Names and weights stay the same.

    Args:
        net: of the training.
        frontend: that runs in it; None where features are stored.

    Returns:
        What is compiled, for the log.
    """
    parts = {}
    if net.frame_net is not None:
        parts["the frame network"] = [net.frame_net]
    if frontend is not None and frontend.name != "fbank":
        blocks = list(find_encoder(frontend).model.encoder.transformer.layers)
        parts[f"{len(blocks)} blocks of the encoder"] = blocks
    for modules in parts.values():
        for module in modules:
            module.compile()
    return list(parts)
