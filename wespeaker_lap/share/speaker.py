"""The inference interface: load what training wrote, embed recordings, compare them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from wespeaker_lap.config import load_config
from wespeaker_lap.engine.checkpoint import AVERAGED
from wespeaker_lap.engine.dist import choose_device
from wespeaker_lap.engine.embed import load_net
from wespeaker_lap.engine.frontend import load_frontend
from wespeaker_lap.frontends.ssl import FrozenSSL
from wespeaker_lap.io.audio import read_audio
from wespeaker_lap.io.facts import load_facts
from wespeaker_lap.io.feats import as_stored


class SpeakerModel:
    """A trained system: recordings to embeddings to similarities.

    Args:
        frontend: the encoder it was trained on.
        net: (B, T, L, D) -> (B, E).
        codec: of the features it was trained on; features are rounded alike, so that an
            embedding is the one that stage 4 computes.
        mean: (E,) mean embedding of the training set, or None: nothing is subtracted.
    """

    def __init__(self, frontend: FrozenSSL, net: nn.Module, codec: str, mean: np.ndarray | None):
        self.frontend, self.net, self.codec, self.mean = frontend, net, codec, mean

    def embed(self, audio: str | Path | np.ndarray | Sequence) -> np.ndarray:
        """Embed one recording or several.

        Args:
            audio: a file, samples (S,) float in [-1, 1] at the encoder's rate, or a list of
                either.

        Returns:
            (E,) float32 for one recording, (n, E) for a list.

        Raises:
            AudioError: a file that cannot be read.
            ValueError: a recording shorter than the encoder's window, samples of another type or
                shape, or that are not finite.
        """
        if isinstance(audio, list | tuple):
            return np.stack([self.embed(one) for one in audio])
        name, samples = "the samples", audio
        if isinstance(audio, str | Path):
            name, samples = str(audio), read_audio(audio, self.frontend.sample_rate)
        samples = np.asarray(samples)
        if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
            raise ValueError(f"{name}: want samples (S,) of floats in [-1, 1], got "
                             f"{samples.shape} {samples.dtype}")
        if not np.isfinite(samples).all():
            raise ValueError(f"{name}: samples that are not finite numbers")
        if len(samples) < self.frontend.min_samples:
            raise ValueError(f"{name}: {len(samples)} samples are too few, the encoder needs "
                             f"{self.frontend.min_samples}")
        return self._embed_samples(samples.astype(np.float32))

    @torch.inference_mode()
    def _embed_samples(self, samples: np.ndarray) -> np.ndarray:
        device = next(self.net.parameters()).device
        feats = self.frontend.encode(torch.from_numpy(samples).to(device)).float()  # (T, L, D)
        stored = as_stored(self.codec, feats.cpu().numpy())
        return self.net(torch.from_numpy(stored)[None].to(device))[0].cpu().numpy()

    def similarity(self, a: str | Path | np.ndarray, b: str | Path | np.ndarray) -> float:
        """Cosine of two recordings' embeddings, the training mean subtracted.

        Args:
            a, b: files or samples, as for `embed`.

        Returns:
            In [-1, 1]; the number that stage 5 writes for this pair.
        """
        first, second = (self.embed(one).astype(np.float64) for one in (a, b))
        if self.mean is not None:
            first, second = first - self.mean, second - self.mean
        return float(first @ second / (np.linalg.norm(first) * np.linalg.norm(second)))


def load_model(exp_dir: str | Path, device: str = "cpu") -> SpeakerModel:
    """Load a trained system from the folder that training wrote.

    Args:
        exp_dir: of the training, after stage 4 (averaged weights, training mean).
        device: `cpu`, `cuda`, `cuda:1`, `mps` or `auto`.

    Raises:
        FileNotFoundError: no trained model there, or weights of the encoder that are not in reach.
        ValueError: the encoder is not the one that it was trained on, or files do not fit.
    """
    exp_dir = Path(exp_dir)
    facts, config = load_facts(exp_dir), load_config(exp_dir / "config.yaml")
    chosen = choose_device(device)
    frontend = load_frontend(exp_dir, config, facts).to(chosen)
    net = load_net(exp_dir, config, facts, AVERAGED).to(chosen)
    mean_path = exp_dir / "embeddings" / facts["train_set"] / "mean_vec.npy"
    mean = None
    if config.score.subtract_mean:
        if not mean_path.is_file():
            raise FileNotFoundError(f"{mean_path}: no such file; run stage 4, which embeds the "
                                    f"training set and writes its mean")
        mean = np.load(mean_path, allow_pickle=False)
    return SpeakerModel(frontend, net, facts["features"]["codec"], mean)
