"""Frontends for batches without padding, in steps that an exported graph can hold.

`FrozenSSL`, `Fbank` and `Selection` look at lengths and cut windows in Python, and Kaldi's filter
banks cut frames out by memory strides. These compute the same features where all recordings of a
batch are equally long, by tensor operations alone, whatever B and S.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.compliance import kaldi

from wespeaker_lap.frontends.fbank import SCALE, Fbank, FbankLayer
from wespeaker_lap.frontends.hidden_states import compute_states
from wespeaker_lap.frontends.selection import Selection
from wespeaker_lap.frontends.ssl import FrozenSSL

# Kaldi's defaults, which `Fbank` keeps.
PREEMPHASIS, LOW_HZ = 0.97, 20.0
POWER_FLOOR = torch.finfo(torch.float32).eps


class UnpaddedEncoder(nn.Module):
    """The hidden states of an encoder in one pass: (B, S) -> (B, T, L, D).

    Args:
        encoder: whose weights and settings to use. Its windows are not: a recording above
            `max_seconds` goes through whole.
        layers: the layers wanted, in rising order; None for all.
    """

    def __init__(self, encoder: FrozenSSL, layers: list[int] | None = None):
        super().__init__()
        self.model = encoder.model
        self.after_norm = encoder.last_state == "after_norm"
        self.normalize_eps = encoder.normalize_eps if encoder.normalize_waveform else None
        self.layers = layers

    def forward(self, wav: Tensor) -> Tensor:
        """Compute the states of recordings (B, S), S samples each."""
        if self.normalize_eps is not None:
            var, mean = torch.var_mean(wav, dim=1, correction=0, keepdim=True)  # (B, 1)
            wav = (wav - mean) * torch.rsqrt(var + self.normalize_eps)
        # A list of one length: it is that of all, and B stays open.
        return compute_states(self.model, wav, [wav.shape[1]], self.after_norm, self.layers)


class UnpaddedFbank(nn.Module):
    """Log mel filter banks by one convolution: (B, S) -> (B, T, 1, F).

    Up to the squared magnitudes all of Kaldi's steps are linear in the samples of a frame (no
    mean, pre-emphasis, window, Fourier transform), so together they are one matrix.

    Args:
        fbank: whose settings to use.
    """

    def __init__(self, fbank: Fbank):
        super().__init__()
        self.stride = fbank.frame_shift
        self.mean_norm = fbank.mean_norm
        frame = fbank.min_samples
        size = 1 << (frame - 1).bit_length()
        self.register_buffer("waves", fourier_matrix(frame, size).unsqueeze(1))  # (size, 1, frame)
        filters, _ = kaldi.get_mel_banks(fbank.num_mels, size, float(fbank.sample_rate), LOW_HZ,
                                         0.0, 100.0, -500.0, 1.0)
        self.register_buffer("filters", filters)  # (F, size / 2)

    def forward(self, wav: Tensor) -> Tensor:
        """Compute the filter banks of recordings (B, S), S samples each."""
        real, imaginary = F.conv1d(wav.unsqueeze(1), self.waves, stride=self.stride).chunk(2, dim=1)
        power = real.square() + imaginary.square()  # (B, size / 2, T)
        feats = (self.filters @ power).clamp(min=POWER_FLOOR).log().transpose(1, 2)  # (B, T, F)
        if self.mean_norm:
            feats = feats - feats.mean(dim=1, keepdim=True)
        return feats.unsqueeze(2)


class EveryNth(nn.Module):
    """Every n-th frame of a frontend: (B, S) -> (B, ceil(T / n), L, D).

    Args:
        frontend: (B, S) -> (B, T, L, D).
        stride: n.
    """

    def __init__(self, frontend: nn.Module, stride: int):
        super().__init__()
        self.frontend = frontend
        self.stride = stride

    def forward(self, wav: Tensor) -> Tensor:
        """Compute the features of recordings (B, S), S samples each."""
        return self.frontend(wav)[:, :: self.stride]


def fourier_matrix(frame: int, size: int) -> Tensor:
    """Kaldi's steps from the samples of a frame to its Fourier transform, as one matrix.

    Args:
        frame: samples of a frame, in [-1, 1].
        size: of the transform, `frame` or more, even.

    Returns:
        `(size, frame)` float32: the real parts of the frequencies 0 to size / 2 - 1, then the
        imaginary ones. No mel filter reaches the one at size / 2.
    """
    steps = torch.eye(frame, dtype=torch.float64)  # what becomes of each sample alone
    steps = steps - steps.mean(dim=1, keepdim=True)
    before = torch.cat((steps[:, :1], steps[:, :-1]), dim=1)
    window = torch.hamming_window(frame, periodic=False, dtype=torch.float64)
    spectra = torch.fft.rfft((steps - PREEMPHASIS * before) * window * SCALE, n=size)
    spectra = spectra[:, : size // 2]  # (frame, size / 2) complex
    return torch.cat((spectra.real, spectra.imag), dim=1).t().float().contiguous()


def make_unpadded(frontend: FrozenSSL | FbankLayer | Selection) -> nn.Module:
    """The form of a frontend for batches without padding.

    Args:
        frontend: whose weights and settings to use; a copy is not made.

    Returns:
        (B, S) -> (B, T, L, D), the numbers of `frontend` for recordings of S samples each.

    >>> from wespeaker_lap.frontends.fbank import Fbank
    >>> tuple(make_unpadded(FbankLayer(Fbank(num_mels=80)))(torch.zeros(2, 16000)).shape)
    (2, 98, 1, 80)
    """
    if isinstance(frontend, Selection):
        inner = frontend.frontend
        if isinstance(inner, FrozenSSL):
            return EveryNth(UnpaddedEncoder(inner, frontend.layers), frontend.frame_stride)
        return EveryNth(make_unpadded(inner), frontend.frame_stride)
    if isinstance(frontend, FbankLayer):
        return UnpaddedFbank(frontend.fbank)
    return UnpaddedEncoder(frontend)
