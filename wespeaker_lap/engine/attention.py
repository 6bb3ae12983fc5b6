"""What the layer pooling of a trained system looks at, in one utterance or over a set."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from wespeaker_lap.config import Config
from wespeaker_lap.models.layer_shares import layer_shares

Read = Callable[[str], np.ndarray]  # utterance -> its features (T, L, D) float32
MASS, WINS = "mass", "wins"


@dataclass(frozen=True, eq=False)
class Look:
    """What one layer pooling looks at in an utterance.

    Args:
        shares: "mass" -> scores (T, L), mean over the heads; where the pooling takes a maximum
            also "wins" -> (T, L), part of the frame's values that is taken from the layer.
    """

    shares: dict[str, np.ndarray]

    @property
    def num_frames(self) -> int:
        """T."""
        return len(self.shares[MASS])


@dataclass(frozen=True, eq=False)
class Attention:
    """Sums over the frames of a set.

    Args:
        sums: stream ("layers", or "keys" and "values") -> "mass" or "wins" -> (N, L), a row for
            each speaker.
        num_frames: of all utterances.
    """

    sums: dict[str, dict[str, np.ndarray]]
    num_frames: int


def check_chooses_layers(exp_dir: str | Path, config: Config, features: dict) -> None:
    """Refuse a system that has no layers to choose from.

    Args:
        exp_dir: of the training, for the message.
        config: its configuration.
        features: identity of the features it was trained on.

    Raises:
        ValueError: one layer alone.
    """
    advice = "give a system that was trained on several layers with lap, weighted_sum or unipool"
    if features["num_layers"] == 1:
        raise ValueError(f"{exp_dir}: trained on {features['encoder']} features of one layer, so "
                         f"there is nothing to choose among; {advice}")
    if config.model.layer_pool.name == "single":
        raise ValueError(f"{exp_dir}: its layer pool is 'single', which looks at one layer "
                         f"only; {advice}")


def look_at(pool: nn.Module, read: Read, utt: str) -> dict[str, Look]:
    """Look at one utterance.

    Args:
        pool: the layer pooling, in eval mode, on the device that computes.
        read: gives the features.
        utt: the utterance.

    Returns:
        Stream -> what it looks at.

    Raises:
        ValueError: features that cannot be read, do not fit, or lead to scores that are not
            finite; names the utterance.
    """
    device = next(pool.parameters()).device
    try:
        found = layer_shares(pool, torch.from_numpy(read(utt)).to(device))
    except ValueError as error:
        raise ValueError(f"{utt}: {error}") from error
    looks = {name: Look({key: share.double().cpu().numpy() for key, share
                         in ((MASS, one.scores), (WINS, one.wins)) if share is not None})
             for name, one in found.items()}
    if not all(np.isfinite(look.shares[MASS]).all() for look in looks.values()):
        raise ValueError(f"{utt}: layer scores that are not finite; look at its audio and features")
    return looks


def sum_attention(pool: nn.Module, read: Read, utt2spk: Mapping[str, str]) -> Attention:
    """Sum what is looked at over the utterances of every speaker.

    Args:
        pool: the layer pooling, in eval mode.
        read: gives the features.
        utt2spk: the utterances, and whose they are.

    Raises:
        ValueError: as `look_at`, or no utterances.
    """
    if not utt2spk:
        raise ValueError("no utterances to look at")
    rows = {speaker: row for row, speaker in enumerate(sorted(set(utt2spk.values())))}
    sums: dict[str, dict[str, np.ndarray]] = {}
    num_frames = 0
    for utt in tqdm(sorted(utt2spk), desc="look", unit="utt", disable=None):
        for name, look in look_at(pool, read, utt).items():
            for key, shares in look.shares.items():
                empty = np.zeros((len(rows), shares.shape[1]))
                total = sums.setdefault(name, {}).setdefault(key, empty)
                total[rows[utt2spk[utt]]] += shares.sum(axis=0)
        num_frames += look.num_frames
    return Attention(sums, num_frames)
