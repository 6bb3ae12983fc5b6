"""What masked prediction predicts: the log-mel spectrum, and codes of frames.

The frames of the encoder and those of the spectrum begin together: frame t of both starts at sample
t * shift of the waveform, normalised as the encoder gets it.
"""

import torch
import torchaudio
from torch import Tensor, nn
from torch.nn import functional as F

from wespeaker_lap.frontends.ssl import FrozenSSL
from wespeaker_lap.pretrain.config import Masked

NUM_CEPSTRA = 13
MEL_EPS = 1e-5  # added to mel energies of a waveform of unit variance before the logarithm


class LogMel(nn.Module):
    """Log-mel spectrum with the encoder's frame shift: (B, S) -> (B, T, num_mels).

    Args:
        num_mels: bands.
        window, shift: in samples.
    """

    def __init__(self, num_mels: int = 80, window: int = 512, shift: int = 320,
                 sample_rate: int = 16000):
        super().__init__()
        self.mel = torchaudio.transforms.MelSpectrogram(
            sample_rate, n_fft=window, hop_length=shift, n_mels=num_mels, f_min=20.0,
            center=False, mel_scale="htk", norm=None)

    def forward(self, wav: Tensor, num_frames: int) -> Tensor:
        """Spectra of (B, S), cut or padded at the end to so many frames."""
        want = self.mel.hop_length * (num_frames - 1) + self.mel.n_fft
        wav = F.pad(wav, (0, max(0, want - wav.shape[1])))[:, :want]
        return torch.log(self.mel(wav) + MEL_EPS).transpose(1, 2)  # (B, T, M)


class Standardise(nn.Module):
    """Fixed mean and deviation a dimension, learnt once from a sample of frames."""

    def __init__(self, dim: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))

    def fit(self, frames: Tensor) -> None:
        """Take the statistics of (N, F)."""
        self.mean.copy_(frames.mean(dim=0))
        self.std.copy_(frames.std(dim=0).clamp_min(1e-5))

    def forward(self, x: Tensor) -> Tensor:
        """(..., F) -> (..., F)."""
        return (x - self.mean) / self.std


class RandomProjection(nn.Module):
    """Random-projection quantiser (BEST-RQ, Chiu et al. 2022, section 3.1), never trained.

    A frame is projected by a fixed random matrix, brought to unit length, and its code is the
    nearest of random unit vectors; one matrix and one set of vectors a codebook.

    Args:
        dim: F of the frames, standardised.
        num_codebooks, codebook_size: C and V.
        code_dim: of the projections.
        seed: of the random numbers.
    """

    def __init__(self, dim: int, num_codebooks: int, codebook_size: int, code_dim: int = 16,
                 seed: int = 0):
        super().__init__()
        rng = torch.Generator().manual_seed(seed)
        scale = (2.0 / (dim + code_dim)) ** 0.5  # Xavier
        self.register_buffer("projection",
                             scale * torch.randn(num_codebooks, dim, code_dim, generator=rng))
        codes = torch.randn(num_codebooks, codebook_size, code_dim, generator=rng)
        self.register_buffer("codes", F.normalize(codes, dim=-1))

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, F) -> codes (B, T, C)."""
        projected = torch.einsum("btf,cfd->btcd", frames, self.projection)  # length is no matter
        return torch.einsum("btcd,cvd->btcv", projected, self.codes).argmax(dim=-1)


class KMeans(nn.Module):
    """Codes by the nearest of centroids (HuBERT, Hsu et al. 2021, section III-B).

    Args:
        dim: F of the frames.
        codebook_size: V centroids.
    """

    def __init__(self, dim: int, codebook_size: int):
        super().__init__()
        self.register_buffer("centroids", torch.zeros(codebook_size, dim))

    def fit(self, frames: Tensor, seed: int) -> None:
        """Learn the centroids from (N, F), N at least V."""
        from sklearn.cluster import MiniBatchKMeans
        learner = MiniBatchKMeans(len(self.centroids), batch_size=4096, n_init=3,
                                  random_state=seed).fit(frames.numpy())
        self.centroids.copy_(torch.from_numpy(learner.cluster_centers_))

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, F) -> codes (B, T, 1)."""
        # |x - c|^2 without |x|^2, which is the same for every centroid.
        distances = (self.centroids ** 2).sum(1) - 2 * frames @ self.centroids.T
        return distances.argmin(dim=-1, keepdim=True)


class Targets(nn.Module):
    """Codes and spectra of clean crops: (B, S) -> (B, T, C), (B, T, M).

    Args:
        config: which codes, how many.
        sample_rate: in Hz.
        shift: samples from one of the encoder's frames to the next.
        teacher: an encoder whose states k-means clusters; None for cepstra.
        seed: of the random projections and the centroids.

    Raises:
        ValueError: a teacher of another frame shift, or without that layer.
    """

    def __init__(self, config: Masked, sample_rate: int, shift: int,
                 teacher: FrozenSSL | None = None, seed: int = 0):
        super().__init__()
        if teacher is not None and teacher.frame_shift != shift:
            raise ValueError(f"masked.teacher: {teacher.name} has a frame every "
                             f"{teacher.frame_shift} samples, the encoder every {shift}")
        if teacher is not None and config.teacher_layer >= teacher.num_layers:
            raise ValueError(f"masked.teacher_layer {config.teacher_layer}: {teacher.name} has "
                             f"layers 0 to {teacher.num_layers - 1}")
        self.config, self.teacher, self.seed = config, teacher, seed
        self.log_mel = LogMel(shift=shift, sample_rate=sample_rate)
        num_mels = self.log_mel.mel.n_mels
        self.mel_scale = Standardise(num_mels)
        if config.target == "random_projection":
            self.num_codebooks = config.num_codebooks
            self.quantiser = RandomProjection(num_mels, config.num_codebooks,
                                              config.codebook_size, seed=seed)
        else:
            self.num_codebooks = 1
            dim = teacher.dim if teacher is not None else 3 * NUM_CEPSTRA
            self.frame_scale = Standardise(dim)
            self.quantiser = KMeans(dim, config.codebook_size)

    @torch.no_grad()
    def fit(self, wav: Tensor, num_frames: int) -> None:
        """Learn statistics and centroids from normalised crops (N, S)."""
        mel = self.log_mel(wav, num_frames)
        self.mel_scale.fit(mel.flatten(0, 1))
        if self.config.target == "kmeans":
            frames = torch.cat([self._frames(part, self.log_mel(part, num_frames))
                                for part in wav.split(64)]).flatten(0, 1)
            self.frame_scale.fit(frames)
            self.quantiser.fit(self.frame_scale(frames), self.seed)

    @torch.no_grad()
    def forward(self, wav: Tensor, num_frames: int) -> tuple[Tensor, Tensor]:
        """Targets of normalised crops (B, S), for so many frames."""
        mel = self.log_mel(wav, num_frames)
        scaled = self.mel_scale(mel)
        if self.config.target == "random_projection":
            return self.quantiser(scaled), scaled
        return self.quantiser(self.frame_scale(self._frames(wav, mel))), scaled

    @torch.no_grad()
    def mel(self, wav: Tensor, num_frames: int) -> Tensor:
        """Standardised spectra of normalised crops (B, S): (B, T, M)."""
        return self.mel_scale(self.log_mel(wav, num_frames))

    def _frames(self, wav: Tensor, mel: Tensor) -> Tensor:
        """What k-means clusters: (B, T, F)."""
        if self.teacher is not None:
            return self.teacher(wav)[0][:, :, self.config.teacher_layer].float()
        basis = torchaudio.functional.create_dct(NUM_CEPSTRA, mel.shape[-1], "ortho").to(mel)
        cepstra = (mel @ basis).transpose(1, 2)
        slopes = torchaudio.functional.compute_deltas(cepstra)
        bends = torchaudio.functional.compute_deltas(slopes)
        return torch.cat([cepstra, slopes, bends], dim=1).transpose(1, 2)
