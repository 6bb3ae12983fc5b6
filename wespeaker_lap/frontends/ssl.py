"""FrozenSSL: waveforms to the hidden states of every layer of a pre-trained speech encoder.

The states are those of `output_hidden_states` in transformers: layer 0 enters the first block (the
projected convolution output after the positional convolution), then one state per block.
Encoders come in two styles. Base style normalises after each block, and its last state is the last
block's output. Large style ("stable layer norm": wav2vec 2.0 Large LV-60K, HuBERT Large, WavLM
Large, wavlm_tiny) normalises inside the blocks and once more after the last. `last_state` chooses
whether its last state is after that norm (`hidden_states[-1]` of transformers 4,
`last_hidden_state` of every version) or before it, like the states of the other layers
(`hidden_states[-1]` of transformers 5).
An utterance has the same states alone and in a padded batch.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torchaudio.models import Wav2Vec2Model

from wespeaker_lap.frontends.hidden_states import compute_states, count_frames, normalize
from wespeaker_lap.frontends.loading import load_encoder
from wespeaker_lap.frontends.sources import hash_weights

LAST_STATES = ("after_norm", "before_norm")


class FrozenSSL(nn.Module):
    """A frozen encoder (WavLM, HuBERT, wav2vec 2.0): (B, S) -> (B, T, L, D).

    Parameters need no gradient and the module stays in evaluation mode, so dropout never acts,
    until `tuning.start_tuning` makes the encoder trainable. Mixed precision is the caller's
    `torch.autocast`.

    Args:
        model: torchaudio's module.
        name: of the encoder, for `identity`.
        sample_rate: of the waveforms, in Hz.
        normalize_waveform: whether each utterance is brought to zero mean and unit variance, over
            its true length.
        normalize_eps: added to the variance by that (1e-5 in torchaudio, 1e-7 in transformers).
        last_state: "after_norm" or "before_norm", see the module's docstring; base style has but
            one last state.
        max_seconds: `encode` cuts longer recordings into windows of this length.
        overlap_seconds: that neighbouring windows share.

    Raises:
        ValueError: an unknown `last_state`, or windows that cannot overlap so.
    """

    def __init__(
        self,
        model: Wav2Vec2Model,
        name: str,
        sample_rate: int = 16000,
        normalize_waveform: bool = False,
        normalize_eps: float = 1e-5,
        last_state: str = "after_norm",
        max_seconds: float = 30.0,
        overlap_seconds: float = 2.0,
    ):
        super().__init__()
        if last_state not in LAST_STATES:
            raise ValueError(f"last_state must be one of {LAST_STATES}, got {last_state!r}")
        self.model = model
        self.name = name
        self.sample_rate = sample_rate
        self.normalize_waveform = normalize_waveform
        self.normalize_eps = normalize_eps
        self.last_state = last_state
        self.max_seconds = max_seconds
        self.overlap_seconds = overlap_seconds
        self.is_tuned = self.checkpointing = False  # see `tuning`
        self._window_frames = self.num_frames(round(max_seconds * sample_rate))
        self._overlap_frames = round(overlap_seconds * sample_rate / self.frame_shift)
        if not 0 <= self._overlap_frames < self._window_frames:
            raise ValueError(
                f"want 0 <= overlap_seconds < max_seconds, got {overlap_seconds} and {max_seconds} "
                f"({self._overlap_frames} and {self._window_frames} frames)"
            )
        self.requires_grad_(False)
        self.eval()

    @classmethod
    def load(
        cls,
        name_or_path: str | Path,
        *,
        last_state: str = "after_norm",
        bundle: str | None = None,
        normalize_waveform: bool | None = None,
        max_seconds: float = 30.0,
        overlap_seconds: float = 2.0,
    ) -> "FrozenSSL":
        """Load an encoder by name, directory, file or `hf://org/name`; see `load_encoder`.

        Args:
            name_or_path: for example "wavlm_tiny", "WAVLM_BASE_PLUS", "./my_encoder",
                "hf://microsoft/wavlm-large".
            bundle: the torchaudio bundle whose weights file `name_or_path` is.
            normalize_waveform: overrules what the encoder's origin says.
            last_state, max_seconds, overlap_seconds: as for the class.

        Raises:
            FileNotFoundError: weights that are neither here nor in reach; says where to put them.
            ValueError: an unknown name, or weights that do not fit.

        >>> encoder = FrozenSSL.load("wavlm_tiny")
        >>> feats, lengths = encoder(torch.zeros(1, 16000))
        >>> tuple(feats.shape), lengths.tolist()
        ((1, 48, 7, 192), [48])
        """
        found = load_encoder(name_or_path, bundle, normalize_waveform)
        normalize = found.normalize_waveform if normalize_waveform is None else normalize_waveform
        facts = (found.model, found.name, found.sample_rate, normalize, found.normalize_eps)
        return cls(*facts, last_state, max_seconds, overlap_seconds)

    def train(self, mode: bool = True) -> "FrozenSSL":
        """Stay in evaluation mode, whatever a parent module is set to, unless it is tuned."""
        return super().train(mode and self.is_tuned)

    @property
    def num_layers(self) -> int:
        """L, layer 0 included."""
        return len(self.model.encoder.transformer.layers) + 1

    @property
    def dim(self) -> int:
        """D, the size of a hidden state."""
        return self.model.encoder.feature_projection.projection.out_features

    @property
    def frame_shift(self) -> int:
        """Samples from one frame to the next."""
        return math.prod(conv.stride for conv in self.model.feature_extractor.conv_layers)

    @property
    def min_samples(self) -> int:
        """Samples that one frame needs: the receptive field of the convolutions."""
        samples = 1
        for conv in reversed(self.model.feature_extractor.conv_layers):
            samples = (samples - 1) * conv.stride + conv.kernel_size
        return samples

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights as they are now; see `hash_weights`. Reads all of them."""
        return hash_weights(self.model.state_dict())

    def num_frames(self, num_samples: int) -> int:
        """T for a number of samples; 0 below `min_samples`."""
        return count_frames(self.model, num_samples)

    def identity(self) -> dict:
        """What the features depend on, as plain JSON values, for `feats.json`."""
        return {
            "encoder": self.name,
            "weights_sha256": self.weights_sha256,
            "num_layers": self.num_layers,
            "dim": self.dim,
            "sample_rate": self.sample_rate,
            "normalize_waveform": self.normalize_waveform,
            "normalize_eps": self.normalize_eps,
            "last_state": self.last_state,
            "max_seconds": self.max_seconds,
            "overlap_seconds": self.overlap_seconds,
        }

    def forward(
        self, wav: Tensor, lengths: Tensor | Sequence[int] | None = None,
        layers: Sequence[int] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Compute the hidden states of a padded batch in one pass.

        Args:
            wav: (B, S) waveforms at `sample_rate`; what is beyond an utterance's length is ignored.
            lengths: (B,) samples of each utterance; None means S for all.
            layers: the layers wanted, in rising order; None for all. See `selection`.

        Returns:
            feats: (B, T, L, D) with T = `num_frames(S)`; zeros beyond an utterance's frames.
            lengths: (B,) frames of each utterance, int64 on the device of `wav`.

        Raises:
            ValueError: not (B, S), or an utterance shorter than `min_samples` or longer than S.
        """
        if wav.ndim != 2:
            raise ValueError(f"want (B, S), got {tuple(wav.shape)}")
        samples = self._check_lengths(wav, lengths)
        feats = self._pass(self._normalize(wav, samples), samples, layers)
        frames = [self.num_frames(n) for n in samples]
        return feats, torch.tensor(frames, dtype=torch.int64, device=wav.device)

    @torch.no_grad()
    def encode(self, wav: Tensor, layers: Sequence[int] | None = None) -> Tensor:
        """Compute the hidden states of one recording, a long one in bounded memory.

        A recording of more than `max_seconds` goes through in windows of that length which begin on
        a frame and share `overlap_seconds` or more with the next; each gives its frames up to the
        middle of the overlap. T is what one pass would give; the waveform is normalised as a whole.
        Beyond `max_seconds` the frames see only their window: attention and group norm differ
        from one pass, which is why the lengths belong to the identity.

        Args:
            wav: (S,) at `sample_rate`, on any device.
            layers: as for `forward`.

        Returns:
            (T, L, D) on the device of `wav`; the passes run on the encoder's device.

        Raises:
            ValueError: not (S,), or shorter than `min_samples`.
        """
        if wav.ndim != 1:
            raise ValueError(f"want (S,), got {tuple(wav.shape)}")
        self._check_lengths(wav[None], None)
        wav_all = self._normalize(wav[None], [len(wav)])  # (1, S)
        num_frames = self.num_frames(len(wav))
        size = min(num_frames, self._window_frames)
        feats = None
        for start, first, last in plan_windows(num_frames, size, self._overlap_frames):
            window = wav_all
            if size < num_frames:
                begin = start * self.frame_shift
                window = wav_all[:, begin : begin + self._samples_of(size)]
            window = window.to(next(self.parameters()).device)
            states = self._pass(window, [window.shape[1]], layers)[0]  # (size, L, D)
            if feats is None:
                feats = states.new_empty((num_frames, *states.shape[1:]), device=wav.device)
            feats[first:last] = states[first - start : last - start]
        return feats

    def _samples_of(self, num_frames: int) -> int:
        """The fewest samples that give so many frames."""
        return (num_frames - 1) * self.frame_shift + self.min_samples

    def _normalize(self, wav: Tensor, samples: list[int]) -> Tensor:
        """Normalise each utterance of (B, S) over its own samples if the encoder wants it."""
        return normalize(wav, samples, self.normalize_eps) if self.normalize_waveform else wav

    def _pass(self, wav: Tensor, samples: list[int], layers: Sequence[int] | None) -> Tensor:
        """The states of a normalised batch: (B, S) -> (B, T, L, D)."""
        return compute_states(self.model, wav, samples, self.last_state == "after_norm", layers,
                              self.checkpointing and self.training)

    def _check_lengths(self, wav: Tensor, lengths: Tensor | Sequence[int] | None) -> list[int]:
        """The samples of each utterance of a batch (B, S), checked."""
        batch, size = wav.shape
        samples = [size] * batch if lengths is None else [int(n) for n in lengths]
        if len(samples) != batch or max(samples, default=0) > size:
            raise ValueError(f"want {batch} lengths of at most {size} samples, got {samples}")
        for index, num_samples in enumerate(samples):
            if num_samples < self.min_samples:
                raise ValueError(
                    f"recording {index} of the batch has {num_samples} samples; {self.name} needs "
                    f"at least {self.min_samples} samples"
                )
        return samples


def plan_windows(num_frames: int, size: int, overlap: int) -> list[tuple[int, int, int]]:
    """Cover frames 0 .. num_frames with windows of one size.

    The last window ends with the recording, so it may overlap its neighbour by more.

    Args:
        num_frames: of the recording, at least `size`.
        size: frames of a window.
        overlap: frames that neighbours share, less than `size`.

    Returns:
        (start, first, last) of each window: it begins at frame `start` and gives frames
        `first` to `last` (exclusive).

    >>> plan_windows(10, 6, 2)
    [(0, 0, 5), (4, 5, 10)]
    """
    starts = [*range(0, num_frames - size, size - overlap), num_frames - size]
    cuts = [(start + size + following) // 2 for start, following in pairwise(starts)]
    return list(zip(starts, [0, *cuts], [*cuts, num_frames], strict=True))
