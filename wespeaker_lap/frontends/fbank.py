"""Fbank: waveforms to Kaldi's log mel filter banks, and the adapter that stores them as features.

The settings are WeSpeaker's: frames of 25 ms every 10 ms that lie whole in the recording, 16-bit
range, Hamming window, no dither, 20 Hz to half the rate, the mean of each recording taken out.
An utterance has the same features alone and in a padded batch.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchaudio.compliance import kaldi

FRAME_MS, SHIFT_MS = 25.0, 10.0
WINDOW_TYPE = "hamming"
SCALE = 1 << 15  # samples from [-1, 1] to 16 bits, where the floor of the logarithm is harmless
MAX_FRAMES = 6000  # at once: a minute takes about 100 MB


class Fbank(nn.Module):
    """Log mel filter banks: (B, S) -> (B, T, F). Nothing in it is trained.

    The numbers are those of `torchaudio.compliance.kaldi.fbank`. They are computed in float32,
    under autocast too: powers of 16-bit samples do not fit into half precision.

    Args:
        num_mels: F.
        mean_norm: whether each utterance's mean over its own frames is subtracted.
        sample_rate: of the waveforms, in Hz.

    Raises:
        ValueError: fewer than 4 filters.

    >>> fbank = Fbank(num_mels=80)
    >>> feats, lengths = fbank(torch.zeros(2, 16000), lengths=[16000, 400])
    >>> tuple(feats.shape), lengths.tolist()
    ((2, 98, 80), [98, 1])
    """

    def __init__(self, num_mels: int = 80, mean_norm: bool = True, sample_rate: int = 16000):
        super().__init__()
        if num_mels < 4:
            raise ValueError(f"num_mels must be at least 4, got {num_mels}")
        self.num_mels = num_mels
        self.mean_norm = mean_norm
        self.sample_rate = sample_rate

    @property
    def frame_shift(self) -> int:
        """Samples from one frame to the next."""
        return int(self.sample_rate * SHIFT_MS * 0.001)  # rounded down, as Kaldi does

    @property
    def min_samples(self) -> int:
        """Samples of one frame."""
        return int(self.sample_rate * FRAME_MS * 0.001)

    def num_frames(self, num_samples: int) -> int:
        """T for a number of samples; 0 below `min_samples`."""
        return max(0, 1 + (num_samples - self.min_samples) // self.frame_shift)

    def forward(
        self, wav: Tensor, lengths: Tensor | Sequence[int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Compute the filter banks of a padded batch.

        Args:
            wav: (B, S) waveforms in [-1, 1] at `sample_rate`; what is beyond an utterance's length
                is ignored.
            lengths: (B,) samples of each utterance; None means S for all.

        Returns:
            feats: (B, T, F) float32 with T = `num_frames(S)`; zeros beyond an utterance's frames.
            lengths: (B,) frames of each utterance, int64 on the device of `wav`.

        Raises:
            ValueError: not (B, S), or an utterance shorter than `min_samples` or longer than S.
        """
        if wav.ndim != 2:
            raise ValueError(f"want (B, S), got {tuple(wav.shape)}")
        samples = self._check_lengths(wav, lengths)
        with torch.autocast(wav.device.type, enabled=False):
            feats = self._compute(wav.float())  # (B, T, F)
        frames = torch.tensor([self.num_frames(n) for n in samples], device=wav.device)
        pad = torch.arange(feats.shape[1], device=wav.device) >= frames[:, None]  # (B, T)
        feats = feats.masked_fill(pad[:, :, None], 0.0)
        if self.mean_norm:
            mean = feats.sum(dim=1, keepdim=True) / frames[:, None, None]  # (B, 1, F)
            feats = (feats - mean).masked_fill(pad[:, :, None], 0.0)
        return feats, frames

    def _compute(self, wav: Tensor) -> Tensor:
        """The filter banks of every frame, padding included: (B, S) -> (B, T, F).

        Kaldi's function takes one waveform, and a frame depends on its own samples alone. So the
        rows are laid end to end, each filled up to whole shifts: a row's frames are those of its
        own recording, and the few that reach into the next row are cut off.
        """
        size, shift, frame = wav.shape[1], self.frame_shift, self.min_samples
        shifts = math.ceil(size / shift)
        rows = F.pad(wav * SCALE, (0, shifts * shift - size))
        line = F.pad(rows.flatten(), (0, frame - shift))  # every shift of every row begins a frame
        parts = []
        for start in range(0, len(wav) * shifts, MAX_FRAMES):
            end = min(start + MAX_FRAMES, len(wav) * shifts)
            part = line[start * shift : (end - 1) * shift + frame]
            parts.append(kaldi.fbank(
                part[None], num_mel_bins=self.num_mels, sample_frequency=self.sample_rate,
                frame_length=FRAME_MS, frame_shift=SHIFT_MS, window_type=WINDOW_TYPE, dither=0.0))
        return torch.cat(parts).view(len(wav), shifts, -1)[:, : self.num_frames(size)]

    def _check_lengths(self, wav: Tensor, lengths: Tensor | Sequence[int] | None) -> list[int]:
        """The samples of each utterance of a batch (B, S), checked."""
        batch, size = wav.shape
        samples = [size] * batch if lengths is None else [int(n) for n in lengths]
        if len(samples) != batch or max(samples, default=0) > size:
            raise ValueError(f"want {batch} lengths of at most {size} samples, got {samples}")
        for index, num_samples in enumerate(samples):
            if num_samples < self.min_samples:
                raise ValueError(
                    f"recording {index} of the batch has {num_samples} samples; fbank needs at "
                    f"least {self.min_samples} samples"
                )
        return samples


class FbankLayer(nn.Module):
    """Filter banks in the place of a frozen encoder with one layer: (B, S) -> (B, T, 1, D).

    It has of `FrozenSSL` what extraction and inference use, so that filter banks go through the
    same feature store, training and scoring.

    Args:
        fbank: what computes the features; its F is D.

    >>> layer = FbankLayer(Fbank(num_mels=80))
    >>> tuple(layer.encode(torch.zeros(16000)).shape)
    (98, 1, 80)
    """

    name = "fbank"
    num_layers = 1
    max_seconds = math.inf  # frames know nothing of each other: there are no windows

    def __init__(self, fbank: Fbank):
        super().__init__()
        self.fbank = fbank
        # Nothing to train: a module's device is that of its parameters, so there must be one.
        self.place = nn.Parameter(torch.empty(0), requires_grad=False)

    @property
    def dim(self) -> int:
        """D."""
        return self.fbank.num_mels

    @property
    def sample_rate(self) -> int:
        """Of the waveforms, in Hz."""
        return self.fbank.sample_rate

    @property
    def frame_shift(self) -> int:
        """Samples from one frame to the next."""
        return self.fbank.frame_shift

    @property
    def min_samples(self) -> int:
        """Samples of one frame."""
        return self.fbank.min_samples

    def num_frames(self, num_samples: int) -> int:
        """T for a number of samples; 0 below `min_samples`."""
        return self.fbank.num_frames(num_samples)

    def identity(self) -> dict:
        """What the features depend on, as plain JSON values, for `feats.json`."""
        return {
            "encoder": self.name,
            "num_layers": self.num_layers,
            "dim": self.dim,
            "sample_rate": self.sample_rate,
            "window_type": WINDOW_TYPE,
            "scale": SCALE,
            "mean_norm": self.fbank.mean_norm,
        }

    def forward(
        self, wav: Tensor, lengths: Tensor | Sequence[int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Compute a padded batch, see `Fbank.forward`.

        Args:
            wav: (B, S).
            lengths: (B,) samples of each utterance; None means S for all.

        Returns:
            feats (B, T, 1, D), and (B,) frames of each utterance.

        Raises:
            ValueError: as for `Fbank.forward`.
        """
        feats, frames = self.fbank(wav, lengths)
        return feats.unsqueeze(2), frames

    @torch.no_grad()
    def encode(self, wav: Tensor) -> Tensor:
        """Compute one recording of any length.

        Args:
            wav: (S,).

        Returns:
            (T, 1, D) on the device of `wav`.

        Raises:
            ValueError: not (S,), or shorter than `min_samples`.
        """
        if wav.ndim != 1:
            raise ValueError(f"want (S,), got {tuple(wav.shape)}")
        return self(wav[None])[0][0]
