"""Some layers and every n-th frame of a frontend: the knobs that make stored features smaller."""

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from wespeaker_lap.frontends.fbank import FbankLayer
from wespeaker_lap.frontends.ssl import FrozenSSL


class Selection(nn.Module):
    """A frontend of which some layers and every n-th frame are kept: (B, S) -> (B, T, L, D).

    It has all of `FrozenSSL` that extraction, training and inference use, with L the layers and T
    the frames that are kept, so that what stands behind it needs to know nothing of it. The numbers
    are those of the frontend. An encoder's blocks above the highest layer kept do not run.

    Args:
        frontend: what computes the features.
        layers: those to keep, in rising order, 0 to the frontend's last one; None for all.
        frame_stride: frames 0, n, 2n, ... of each utterance are kept.

    Raises:
        ValueError: layers that the frontend does not have or that do not rise, or a stride below 1.

    >>> from wespeaker_lap.frontends.fbank import Fbank
    >>> half = Selection(FbankLayer(Fbank(num_mels=80)), frame_stride=2)
    >>> feats, lengths = half(torch.zeros(2, 16000), lengths=[16000, 400])
    >>> tuple(feats.shape), lengths.tolist()
    ((2, 49, 1, 80), [49, 1])
    """

    def __init__(self, frontend: FrozenSSL | FbankLayer, layers: Sequence[int] | None = None,
                 frame_stride: int = 1):
        super().__init__()
        every = range(frontend.num_layers)
        chosen = list(every if layers is None else layers)
        if not chosen or not set(chosen) <= set(every) or any(a >= b for a, b in pairwise(chosen)):
            raise ValueError(f"features.layers: {frontend.name} has layers 0 to {every[-1]}; want "
                             f"some of them in rising order, got {chosen}")
        if frame_stride < 1:
            raise ValueError(f"features.frame_stride: want 1 or more, got {frame_stride}")
        self.frontend = frontend
        self.layers = chosen
        self.frame_stride = frame_stride
        # Filter banks have one layer and no choice, so they are not asked for any.
        self._asked = {} if chosen == list(every) else {"layers": chosen}

    @property
    def name(self) -> str:
        """Of the frontend."""
        return self.frontend.name

    @property
    def num_layers(self) -> int:
        """L: layers that are kept."""
        return len(self.layers)

    @property
    def dim(self) -> int:
        """D."""
        return self.frontend.dim

    @property
    def sample_rate(self) -> int:
        """Of the waveforms, in Hz."""
        return self.frontend.sample_rate

    @property
    def max_seconds(self) -> float:
        """Longer recordings go through in windows."""
        return self.frontend.max_seconds

    @property
    def frame_shift(self) -> int:
        """Samples from one frame that is kept to the next."""
        return self.frontend.frame_shift * self.frame_stride

    @property
    def min_samples(self) -> int:
        """Samples of one frame."""
        return self.frontend.min_samples

    def num_frames(self, num_samples: int) -> int:
        """T for a number of samples; 0 below `min_samples`."""
        return math.ceil(self.frontend.num_frames(num_samples) / self.frame_stride)

    def identity(self) -> dict:
        """The frontend's, with what is kept of it: `layers` ("all" or a list), `frame_stride`."""
        return {
            **self.frontend.identity(),
            "num_layers": self.num_layers,
            "layers": self.layers if self._asked else "all",
            "frame_stride": self.frame_stride,
        }

    def forward(
        self, wav: Tensor, lengths: Tensor | Sequence[int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Compute a padded batch, see `FrozenSSL.forward`.

        Args:
            wav: (B, S).
            lengths: (B,) samples of each utterance; None means S for all.

        Returns:
            feats (B, T, L, D), and (B,) frames of each utterance.

        Raises:
            ValueError: as for the frontend.
        """
        feats, frames = self.frontend(wav, lengths, **self._asked)
        kept = torch.div(frames + self.frame_stride - 1, self.frame_stride, rounding_mode="floor")
        return feats[:, :: self.frame_stride], kept

    @torch.no_grad()
    def encode(self, wav: Tensor) -> Tensor:
        """Compute one recording of any length, see `FrozenSSL.encode`.

        Args:
            wav: (S,).

        Returns:
            (T, L, D) on the device of `wav`.

        Raises:
            ValueError: as for the frontend.
        """
        return self.frontend.encode(wav, **self._asked)[:: self.frame_stride]


def select(frontend: FrozenSSL | FbankLayer, layers: Sequence[int] | None = None,
           layer_stride: int = 1, frame_stride: int = 1) -> FrozenSSL | FbankLayer | Selection:
    """Keep a part of a frontend's features; the frontend itself where all are kept.

    Args:
        frontend: what computes the features.
        layers: those to keep, in rising order; None for all.
        layer_stride: of all layers every n-th, counted from the last one downwards.
        frame_stride: every n-th frame is kept.

    Raises:
        ValueError: see `Selection`, or both `layers` and a `layer_stride`.
    """
    if layers is not None and layer_stride != 1:
        raise ValueError("layers and layer_stride both choose layers; keep one")
    if layer_stride < 1:
        raise ValueError(f"features.layer_stride: want 1 or more, got {layer_stride}")
    if layers is None and layer_stride == frame_stride == 1:
        return frontend
    strided = range(frontend.num_layers - 1, -1, -layer_stride)[::-1]
    return Selection(frontend, strided if layers is None else layers, frame_stride)


def select_stored(frontend: FrozenSSL | FbankLayer, identity: dict,
                  ) -> FrozenSSL | FbankLayer | Selection:
    """Keep of a frontend's features what a store holds, so that new recordings get the same.

    Args:
        frontend: what computes the features.
        identity: of the store, see `Selection.identity`.

    Raises:
        ValueError: the frontend lacks layers of the store; see `Selection`.
    """
    layers = identity.get("layers", "all")
    return select(frontend, None if layers == "all" else layers,
                  frame_stride=identity.get("frame_stride", 1))


def check_stored(directory: str | Path, identity: dict, layers: Sequence[int] | None = None,
                 layer_stride: int = 1, frame_stride: int = 1) -> None:
    """Refuse a store that holds other layers or frames than were asked for.

    Args:
        directory: of the store, for the message.
        identity: of the store.
        layers, layer_stride, frame_stride: as for `select`.

    Raises:
        ValueError: names the knobs that differ.
    """
    stored = identity.get("layers", "all")
    held = list(range(identity["num_layers"])) if stored == "all" else list(stored)
    if layers is not None:
        asked, fits = f"layers {list(layers)}", held == list(layers)
    elif layer_stride != 1:
        # Which layer is the encoder's last one is not known here, but the pattern is.
        wanted = list(range(held[-1] % layer_stride, held[-1] + 1, layer_stride))
        asked, fits = f"layer_stride {layer_stride}", held == wanted
    else:
        asked, fits = "all layers", stored == "all"
    complaints = [] if fits else [f"its layers are {held}, the configuration wants {asked}"]
    stride = identity.get("frame_stride", 1)
    if stride != frame_stride:
        complaints.append(f"its frame_stride is {stride}, the configuration's {frame_stride}")
    if complaints:
        raise ValueError(f"{directory}: {'; '.join(complaints)} (section features). Run stage 2 "
                         f"into another folder, or train with the store's settings")
