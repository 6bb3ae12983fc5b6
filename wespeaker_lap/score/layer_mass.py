"""How much of a layer pooling's attention each layer has over a set, and which layers have most.

Every frame counts alike. The interval comes from resampling speakers, because the frames of one
speaker are not independent.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wespeaker_lap.io.codecs import entry_bytes
from wespeaker_lap.score.bootstrap import MAX_RESAMPLES, check_resampling

SIZED_FRAMES = 1000  # of the entry that a frame's bytes are measured on
ROUNDING = 1e-9  # of a sum of shares


@dataclass(frozen=True, eq=False)
class Mass:
    """Shares of the layers, with sum 1, and their intervals.

    Args:
        shares: (L,).
        low, high: (L,) ends of the intervals; None where there are no speakers to resample, or
            nothing that varies between them.
    """

    shares: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None


def measure_mass(sums: np.ndarray, num_resamples: int = MAX_RESAMPLES, seed: int = 0,
                 level: float = 0.95) -> Mass:
    """Shares of the layers, with percentile intervals over speaker resamples.

    Args:
        sums: (N, L) sums over the frames of each speaker, 0 or more.
        num_resamples: how often the N speakers are drawn with replacement.
        seed: of the draw.
        level: share of the resamples inside the interval.

    Returns:
        The shares; one speaker alone has no interval.

    Raises:
        ValueError: not (N, L), sums that are negative, not finite or zero for a speaker, or a
            number is out of range.

    >>> measure_mass(np.array([[1.0, 3.0], [1.0, 5.0]])).shares.tolist()
    [0.2, 0.8]
    """
    sums = np.asarray(sums, np.float64)
    if sums.ndim != 2 or not sums.size:
        raise ValueError(f"want sums (N, L), got {sums.shape}")
    if not (np.isfinite(sums).all() and (sums >= 0).all() and sums.any(axis=1).all()):
        raise ValueError("want finite sums of 0 or more, and not all 0 for a speaker")
    check_resampling(level, num_resamples)
    total = sums.sum(axis=0)
    shares = total / total.sum()
    if len(sums) == 1:
        return Mass(shares)
    draws = np.random.default_rng(seed).multinomial(
        len(sums), np.full(len(sums), 1 / len(sums)), size=num_resamples)  # (R, N)
    drawn = draws @ sums  # (R, L)
    low, high = np.quantile(drawn / drawn.sum(axis=1, keepdims=True),
                            [(1 - level) / 2, (1 + level) / 2], axis=0)
    return Mass(shares, low, high)


def find_smallest_set(shares: np.ndarray, keep: float) -> list[int]:
    """The fewest layers that have a part of the whole together.

    Args:
        shares: (L,) with sum 1; of equal ones the lower layer is taken first, as it costs less to
            compute.
        keep: above 0, up to 1.

    Returns:
        Their numbers, rising.

    Raises:
        ValueError: `keep` is out of range.

    >>> find_smallest_set(np.array([0.2, 0.05, 0.4, 0.35]), keep=0.9)
    [0, 2, 3]
    """
    if not 0 < keep <= 1:
        raise ValueError(f"want keep above 0 and up to 1, got {keep}")
    order = np.argsort(-np.asarray(shares), kind="stable")
    reached = np.cumsum(np.asarray(shares)[order]) >= keep - ROUNDING
    return sorted(order[:int(np.argmax(reached)) + 1].tolist())


@dataclass(frozen=True)
class Suggestion:
    """Which layers to keep, and what that spares.

    Args:
        by: what they were chosen by, "mass" or "wins".
        layers: as `features.layers`, rising.
        kept: stream -> the part of its mass or wins that these layers have.
        bytes_per_second: on disk, of one second of audio.
        saved: part of the disk that is spared, 0 to 1.
    """

    by: str
    layers: list[int]
    kept: dict[str, float]
    bytes_per_second: float
    saved: float


def suggest_layers(by: str, shares: dict[str, np.ndarray], layers: Sequence[int], features: dict,
                   keep: float = 0.9, needs_first: bool = False) -> Suggestion:
    """The smallest set of layers for every stream, all streams together.

    Args:
        by: what the shares are, for the answer.
        shares: stream -> (L,), with sum 1.
        layers: numbers of the L layers in the encoder.
        features: identity of the store: codec, num_layers, dim, sample_rate, frame_shift.
        keep: part that each stream keeps at least.
        needs_first: whether the model leaves out the lowest layer that it gets, so that there must
            be one to leave out.

    Raises:
        ValueError: as `find_smallest_set`.
    """
    chosen = {0} if needs_first else set()
    chosen = sorted(chosen.union(*(find_smallest_set(one, keep) for one in shares.values())))
    all_bytes, some_bytes = (second_bytes(features, count) for count in (len(layers), len(chosen)))
    return Suggestion(by, [layers[at] for at in chosen],
                      {name: float(one[chosen].sum()) for name, one in shares.items()},
                      some_bytes, 1 - some_bytes / all_bytes)


def second_bytes(features: dict, num_layers: int) -> float:
    """Bytes on disk of a second of audio, with so many layers.

    Args:
        features: identity of the store: codec, dim, sample_rate, frame_shift.
        num_layers: L.
    """
    size = entry_bytes(features["codec"], (SIZED_FRAMES, num_layers, features["dim"]))
    return size / SIZED_FRAMES * features["sample_rate"] / features["frame_shift"]
