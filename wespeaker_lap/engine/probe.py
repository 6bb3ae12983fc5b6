"""The layer probe: how well each layer of an encoder tells speakers apart, before any training.

The encoder runs as in stage 2, but of an utterance only the statistics of its frames stay.
"""

import logging
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from wespeaker_lap.data.datadir import DataDir
from wespeaker_lap.engine.batches import BATCH_SECONDS, encode_batch, make_batches, read_ahead
from wespeaker_lap.engine.dist import choose_precision
from wespeaker_lap.frontends.ssl import FrozenSSL
from wespeaker_lap.io.audio import read_audio
from wespeaker_lap.score.probe import LayerRow, measure_layers
from wespeaker_lap.score.probe_plan import ProbePlan

PRECISIONS = ("auto", "float32", "bf16")


@dataclass(frozen=True)
class Probe:
    """What was measured, and of what; plain values.

    Attributes:
        rows: one a layer, then the mean of all layers' scores.
        encoder: its identity.
        facts: the data, the trials and the settings.
    """

    rows: list[LayerRow]
    encoder: dict
    facts: dict


def probe_layers(frontend: FrozenSSL, plan: ProbePlan, shrinkage: float = 0.1,
                 precision: str = "auto", seed: int = 0) -> Probe:
    """Encode both sets and measure every layer.

    Args:
        frontend: the encoder, on the device that computes.
        plan: from `plan_probe`.
        shrinkage: of the LDA, see `score.probe.score_layer`.
        precision: one of `PRECISIONS`; of the encoder alone, statistics are float32.
        seed: of the bootstrap.

    Raises:
        ValueError: a shrinkage outside [0, 1], an unknown precision, an utterance that fails
            (named), or as `score.probe.measure_layers`.
    """
    if not 0 <= shrinkage <= 1:
        raise ValueError(f"want a shrinkage from 0 to 1, got {shrinkage}")
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}; choose {', '.join(PRECISIONS)}")
    dtype = choose_precision(precision, next(frontend.parameters()).device)
    train, test = (pool_set(frontend, data, dtype) for data in (plan.train, plan.test))
    speakers = [plan.train.utt2spk[utt] for utt in sorted(plan.train.wavs)]
    layers = tqdm(zip(train, test, strict=True), total=len(train), desc="layers", disable=None)
    rows = measure_layers(layers, speakers, plan.index_trials(), shrinkage, seed)
    facts = {**plan.describe(), "shrinkage": shrinkage, "seed": seed,
             "precision": str(dtype or torch.float32).removeprefix("torch.")}
    return Probe(rows, frontend.identity(), facts)


def pool_set(frontend: FrozenSSL, data: DataDir, dtype: torch.dtype | None = None) -> np.ndarray:
    """Statistics of every utterance and layer, with the frames of one batch in memory.

    Args:
        frontend: the encoder, on the device that computes.
        data: n utterances, durations known.
        dtype: of its autocast; None for none.

    Returns:
        (L, n, 2D) float32: means, then standard deviations; utterances by id.

    Raises:
        ValueError: an utterance that is too short, cannot be read or whose states are not finite.
    """
    pooled = PooledFrontend(frontend, dtype)
    rows = {utt: row for row, utt in enumerate(sorted(data.wavs))}
    stats = np.empty((frontend.num_layers, len(rows), 2 * frontend.dim), np.float32)
    hours = sum(data.durations.values()) / 3600
    logging.info("%s: %d utterances, %.2f h; their statistics take %.2f GB of memory", data.path,
                 len(rows), hours, stats.nbytes / 1e9)
    batches = make_batches(data.durations, min(BATCH_SECONDS, frontend.max_seconds))

    def read(batch: list[str]) -> list[np.ndarray]:
        return [read_audio(data.wavs[utt], frontend.sample_rate) for utt in batch]

    with tqdm(total=len(rows), desc=f"encode {data.path.name}", unit="utt",
              disable=None) as progress:
        for batch, waves in read_ahead(batches, data.durations, read):
            for utt, one in zip(batch, encode_batch(pooled, batch, waves), strict=True):
                if not np.isfinite(one).all():
                    raise ValueError(f"{utt}: hidden states that are not finite; look at its "
                                     f"audio, or pass --precision float32")
                stats[:, rows[utt]] = one[0]
            progress.update(len(batch))
    return stats


class PooledFrontend(nn.Module):
    """A frontend whose one frame holds an utterance's statistics: (B, S) -> (B, 1, L, 2D).

    So the frames never leave the device, and an encoder's batches are made and run as in stage 2.

    Args:
        frontend: (B, S) -> (B, T, L, D).
        dtype: of its autocast; None for none.
    """

    def __init__(self, frontend: FrozenSSL, dtype: torch.dtype | None):
        super().__init__()
        self.frontend = frontend
        self.min_samples = frontend.min_samples
        self.dtype = dtype

    def _autocast(self) -> torch.autocast:
        device = next(self.parameters()).device
        return torch.autocast(device.type, self.dtype, enabled=self.dtype is not None)

    def forward(self, wav: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Pool each utterance of a padded batch (B, S) over its own frames."""
        with self._autocast():
            feats, num_frames = self.frontend(wav, lengths)  # (B, T, L, D), (B,)
        stats = [pool_stats(one[:count]) for one, count in
                 zip(feats, num_frames.tolist(), strict=True)]
        return torch.stack(stats)[:, None], torch.ones_like(num_frames)

    def encode(self, wav: Tensor) -> Tensor:
        """Pool one recording (S,) of any length: (1, L, 2D)."""
        with self._autocast():
            feats = self.frontend.encode(wav)  # (T, L, D)
        return pool_stats(feats)[None]


def pool_stats(feats: Tensor) -> Tensor:
    """Mean and standard deviation over the frames of one utterance.

    The variance is the biased one, so that one frame is enough, and is taken of differences from
    the mean: some states have means a thousand times their deviation.

    Args:
        feats: (T, ..., D).

    Returns:
        (..., 2D) float32: means, then standard deviations.

    >>> pool_stats(torch.tensor([[1.0], [3.0]])).tolist()
    [2.0, 1.0]
    """
    feats = feats.float()
    mean = feats.mean(dim=0)
    rest = feats - mean
    error = rest.mean(dim=0)  # what rounding has left in the mean
    std = (rest - error).square().mean(dim=0).sqrt()
    return torch.cat([mean + error, std], dim=-1)
