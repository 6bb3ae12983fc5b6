"""What layer attention looks at: a page on a set, and heat maps of single utterances."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from wespeaker_lap.config import load_config
from wespeaker_lap.data.datadir import DataDir
from wespeaker_lap.engine.attention import Read, check_chooses_layers, look_at, sum_attention
from wespeaker_lap.engine.checkpoint import AVERAGED
from wespeaker_lap.engine.dist import choose_device
from wespeaker_lap.engine.embed import load_net
from wespeaker_lap.io.audio import AudioError, read_audio
from wespeaker_lap.io.facts import find_features, load_facts
from wespeaker_lap.io.feats import FeatureStore, as_stored
from wespeaker_lap.io.identity import check_compatible
from wespeaker_lap.io.table import name_some, replacing
from wespeaker_lap.models.layer_shares import drops_first_layer, has_fixed_weights
from wespeaker_lap.share.attention_page import Facts, write_page
from wespeaker_lap.share.attention_plots import plot_heat_map
from wespeaker_lap.share.speaker import SpeakerModel, load_model

SILENCE = 1e-10  # mean square, -100 dB: what digital silence is drawn as


@dataclass(frozen=True, eq=False)
class System:
    """The part of a trained system that is looked at, and where its features come from.

    Args:
        exp_dir: of the training.
        pool: its layer pooling, in eval mode.
        kind: the pooling in words.
        features: identity of the features.
        read: utterance -> features (T, L, D) float32.
        source: where they come from, for the page.
    """

    exp_dir: Path
    pool: nn.Module
    kind: str
    features: dict
    read: Read
    source: str

    @property
    def layers(self) -> list[int]:
        """Numbers of the layers in the encoder."""
        stored = self.features.get("layers", "all")
        return list(range(self.features["num_layers"]) if stored == "all" else stored)


def open_system(exp_dir: str | Path, data: DataDir, feats: str | Path | None = None,
                device: str = "cpu") -> System:
    """Load a trained system's layer pooling.

    Args:
        exp_dir: of the training, after stage 4.
        data: the set.
        feats: its feature store; None: the encoder runs on the set's recordings.
        device: see `load_model`.

    Raises:
        FileNotFoundError: no trained model or no store there.
        ValueError: a system without layers to choose from, features of another identity, or of
            other utterances.
    """
    exp_dir = Path(exp_dir)
    facts = load_facts(exp_dir)
    config = load_config(exp_dir / "config.yaml")
    check_chooses_layers(exp_dir, config, facts["features"])
    if feats is None:
        model = load_model(exp_dir, device)
        net, read, source = model.net, _read_waves(model, data), f"recordings of {data.path.name}"
    else:
        store = FeatureStore(feats)
        check_compatible(feats, store.identity, find_features(facts))
        missing = [utt for utt in sorted(data.wavs) if utt not in store]
        if missing:
            raise ValueError(f"{feats}: no features for {name_some(missing)}; run stage 2 for "
                             f"this set")
        net = load_net(exp_dir, config, facts, AVERAGED).to(choose_device(device))
        read, source = store.read, "stored features"
    kind = config.model.layer_pool.name
    if config.model.time_pool.name == "mhfa":
        kind += ", for keys and values of mhfa"
    return System(exp_dir, net.layer_pool, kind, facts["features"], read, source)


def _read_waves(model: SpeakerModel, data: DataDir) -> Read:
    device = next(model.net.parameters()).device

    def read(utt: str) -> np.ndarray:
        samples = read_audio(data.wavs[utt], model.frontend.sample_rate)
        feats = model.frontend.encode(torch.from_numpy(samples).to(device))  # (T, L, D)
        return as_stored(model.codec, feats.float().cpu().numpy())

    return read


def choose_utts(data: DataDir, utts: Sequence[str] = (), max_utts: int = 200,
                seed: int = 0) -> tuple[list[str], dict[str, str]]:
    """Draw the utterances of the statistics, and one to show where none is given.

    Args:
        data: the set.
        utts: to show.
        max_utts: to measure; all of a smaller set.
        seed: of the draw.

    Returns:
        Utterances to show, and utterance -> speaker of those to measure.

    Raises:
        ValueError: utterances that the set does not have, or fewer than one to measure.
    """
    unknown = [utt for utt in utts if utt not in data.wavs]
    if unknown:
        raise ValueError(f"{data.path}: no utterances {name_some(unknown)}")
    if max_utts < 1:
        raise ValueError(f"want max_utts 1 or more, got {max_utts}")
    every = sorted(data.wavs)
    drawn = [every[at] for at in np.random.default_rng(seed).permutation(len(every))[:max_utts]]
    return list(dict.fromkeys(utts)) or drawn[:1], {utt: data.utt2spk[utt] for utt in drawn}


def write_attention(directory: str | Path, system: System, data: DataDir,
                    utts: Sequence[str] = (), max_utts: int = 200, keep: float = 0.9,
                    seed: int = 0) -> Path:
    """Write `attention.{md,json,png}`, and a heat map and its numbers for each utterance shown.

    Args:
        directory: where to; made when it is not there.
        system: of `open_system`.
        data: the set.
        utts: to show; none: one is drawn.
        max_utts: to measure, drawn from the set.
        keep: part of the attention that the suggested layers have, above 0, up to 1.
        seed: of the draw and of the bootstrap.

    Returns:
        The page.

    Raises:
        ValueError: as `choose_utts`, `engine.attention.look_at` and `suggest_layers`.
    """
    if not 0 < keep <= 1:
        raise ValueError(f"want keep above 0 and up to 1, got {keep}")
    shown, measured = choose_utts(data, utts, max_utts, seed)
    found = sum_attention(system.pool, system.read, measured)
    directory = Path(directory)
    maps = {utt: show_utt(directory / f"utterance-{number}.png", system, data, utt)
            for number, utt in enumerate(shown, 1)}
    facts = Facts(system=system.exp_dir.resolve().name, layer_pool=system.kind,
                  features=system.features, source=system.source, data=data.path.name,
                  num_utts=len(measured), num_speakers=len(set(measured.values())),
                  num_frames=found.num_frames, seed=seed, keep=keep, layers=system.layers,
                  is_fixed=has_fixed_weights(system.pool),
                  drops_first=drops_first_layer(system.pool), maps=maps)
    return write_page(directory, facts, found)


def show_utt(path: Path, system: System, data: DataDir, utt: str) -> str:
    """Write an utterance's heat map, and beside it the numbers as `.npz`.

    The arrays: `layers` (L,), `seconds` (T,) where the frames begin, `level_db` (T,) where the
    recording can be read, and for each stream `<stream>_mass` (T, L) and, where the pooling takes
    a maximum, `<stream>_wins` (T, L).

    Args:
        path: the PNG file.
        system: of `open_system`.
        data: the set.
        utt: the utterance.

    Returns:
        Name of the PNG file.

    Raises:
        ValueError: as `engine.attention.look_at`.
    """
    looks = look_at(system.pool, system.read, utt)
    arrays = {f"{name}_{key}": shares for name, look in looks.items()
              for key, shares in look.shares.items()}
    num_frames = len(next(iter(arrays.values())))
    rate, shift = system.features["sample_rate"], system.features["frame_shift"]
    level = None
    try:
        level = frame_levels(read_audio(data.wavs[utt], rate), shift, num_frames)
    except AudioError as error:  # stored features need no recordings
        logging.warning("%s; the heat map of %s is without its level", error, utt)
    seconds = np.arange(num_frames) * shift / rate
    numbers = {"layers": np.array(system.layers), "seconds": seconds, **arrays}
    with replacing(path.with_suffix(".npz")) as aside, open(aside, "wb") as file:
        np.savez(file, **numbers, **({} if level is None else {"level_db": level}))
    plot_heat_map(path, arrays, system.layers, shift / rate, level, utt)
    return path.name


def frame_levels(samples: np.ndarray, frame_shift: int, num_frames: int) -> np.ndarray:
    """Level of the samples from each frame's beginning to the next one's.

    Args:
        samples: (S,) in [-1, 1].
        frame_shift: samples from one frame to the next.
        num_frames: T.

    Returns:
        (T,) mean square in dB, at least -100.

    >>> frame_levels(np.array([1.0, -1.0, 0.1, 0.1, 0.0]), frame_shift=2, num_frames=3).round(6)
    array([   0.,  -20., -100.])
    """
    kept = samples[:num_frames * frame_shift].astype(np.float64)
    padded = np.zeros(num_frames * frame_shift)
    padded[:len(kept)] = kept
    square = np.square(padded).reshape(num_frames, frame_shift).mean(axis=1)
    return 10 * np.log10(np.maximum(square, SILENCE))
