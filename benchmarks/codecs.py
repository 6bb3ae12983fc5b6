"""Codecs against kaldiio: time, bytes, and what int8 loses with other arrangements.

    python benchmarks/codecs.py [--data DATA] [--encoder NAME] [--utterances 20] [--runs 9]

Times are of one generated utterance of 8 s, 400 x 13 x 768, through a file that the system has in
memory; both sides in turn, medians. A ratio above 1 is in favour of our codec. Errors are rms
errors over the rms of the centred signal, by layer, in percent: of all dimensions, and of those
without planted outliers. With DATA, they are those of an encoder's states on some of its
utterances.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import kaldiio
import numpy as np
import torch

from wespeaker_lap.data.datadir import load_data_dir
from wespeaker_lap.frontends.ssl import FrozenSSL
from wespeaker_lap.io.audio import read_audio
from wespeaker_lap.io.codecs import CODECS, crop_spans, decode, encode

SHAPE = (400, 13, 768)
CROP = (150, 100)  # first frame and frames of a crop of 2 s
OUTLIERS = 3  # dimensions, in layers 3 to 6


def time_in_turn(calls: list[Callable[[], object]], num_runs: int) -> list[float]:
    """Median seconds of each call, after one that is not counted."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(num_runs + 1):
        for call, taken in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            taken.append(time.perf_counter() - start)
    return [statistics.median(taken[1:]) for taken in times]


def write_ours(path: Path, codec: str, feats: np.ndarray) -> None:
    """An ark of one entry by the codec."""
    with open(path, "wb") as file:
        file.writelines((b"a ", encode(codec, feats)))


def write_kaldiio(path: Path, codec: str, feats: np.ndarray) -> None:
    """The same layout as our entry, by kaldiio."""
    if codec == "float16":
        kaldiio.save_ark(str(path), {"a": feats.astype(np.float16)}, write_function="numpy")
    elif codec == "float32":
        kaldiio.save_ark(str(path), {"a": feats.reshape(len(feats), -1)})
    else:
        kaldiio.save_ark(str(path), {"a": feats.reshape(-1, 64).T}, compression_method=2)


def read_kaldiio(path: Path, codec: str, shape: tuple[int, int, int]) -> np.ndarray:
    """(T, L, D) float32 by kaldiio."""
    loaded = kaldiio.load_mat(f"{path}:2")
    return (loaded.T if codec == "int8" else loaded).reshape(shape).astype(np.float32, copy=False)


def read_ours(path: Path, codec: str, shape: tuple[int, int, int], start: int,
              count: int) -> np.ndarray:
    """(count, L, D) float32 by the codec."""
    with open(path, "rb") as file:
        parts = [os.pread(file.fileno(), size, 2 + at)
                 for at, size in crop_spans(codec, shape, start, count)]
    return decode(codec, (count, *shape[1:]), parts)


def compare_times(num_runs: int) -> None:
    """Print milliseconds of writing, reading and reading a crop, ours and kaldiio's."""
    feats = np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)
    start, count = CROP
    print(f"one utterance of 8 s {SHAPE}, a crop of 2 s; ms, medians of {num_runs} runs")
    print(f"{'':9}{'MB':>6}{'write':>8}{'kaldiio':>9}{'ratio':>7}{'read':>8}{'kaldiio':>9}"
          f"{'ratio':>7}{'crop':>8}{'kaldiio':>9}{'ratio':>7}")
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Path(folder) / "ours.ark", Path(folder) / "theirs.ark"
        for codec in CODECS:
            # The codec is bound at once: nothing here outlives its turn of the loop.
            seconds = time_in_turn([
                lambda codec=codec: write_ours(ours, codec, feats),
                lambda codec=codec: write_kaldiio(theirs, codec, feats),
                lambda codec=codec: read_ours(ours, codec, SHAPE, 0, SHAPE[0]),
                lambda codec=codec: read_kaldiio(ours, codec, SHAPE),
                lambda codec=codec: read_ours(ours, codec, SHAPE, start, count),
                lambda codec=codec: read_kaldiio(ours, codec, SHAPE)[start:start + count].copy(),
            ], num_runs)
            ms = [1000 * second for second in seconds]
            print(f"{codec:9}{ours.stat().st_size / 1e6:6.2f}" + "".join(
                f"{mine:8.2f}{other:9.2f}{other / mine:7.1f}"
                for mine, other in zip(ms[::2], ms[1::2], strict=True)))


def through_kaldiio(matrix: np.ndarray, method: int) -> np.ndarray:
    """What is left of a matrix that kaldiio compressed."""
    with tempfile.NamedTemporaryFile(suffix=".ark") as file:
        kaldiio.save_mat(file.name, matrix, compression_method=method)
        return kaldiio.load_mat(file.name)


def through_columns(feats: np.ndarray, size: int) -> np.ndarray:
    """Kaldi's `CM` with its percentiles, a column for every `size` neighbouring values."""
    return through_kaldiio(feats.reshape(-1, size).T, 2).T.reshape(feats.shape)


def through_ours(feats: np.ndarray, codec: str) -> np.ndarray:
    """What is left of features after a codec."""
    entry = encode(codec, feats)
    parts = [entry[at:at + size] for at, size in crop_spans(codec, feats.shape, 0, len(feats))]
    return decode(codec, feats.shape, parts)


# What is compared; yardsticks are those that cost two bytes, or a crop in L*D pieces.
ARRANGEMENTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "codec float16": lambda x: through_ours(x, "float16"),
    "codec int8": lambda x: through_ours(x, "int8"),
    "CM3, one range": lambda x: through_kaldiio(x.reshape(len(x), -1), 5).reshape(x.shape),
    "CM, column a frame": lambda x: through_columns(x, x[0].size),
    "CM, column a frame and layer": lambda x: through_columns(x, x.shape[2]),
    "CM, column 64 dims, percentiles": lambda x: through_columns(x, 64),
    "yardstick: CM, column a (layer, dim)":
        lambda x: through_kaldiio(x.reshape(len(x), -1), 2).reshape(x.shape),
    "yardstick: CM2, two bytes":
        lambda x: through_kaldiio(x.reshape(len(x), -1), 3).reshape(x.shape),
}


def plant_outliers(feats: np.ndarray, factor: float, offset: float) -> np.ndarray:
    """Make the first dimensions of layers 3 to 6 large: by a factor, or by an offset."""
    feats = feats.copy()
    large = feats[:, 3:7, :OUTLIERS]
    large *= factor
    large += offset
    return feats


def summarize(feats: np.ndarray) -> np.ndarray:
    """Means and deviations over time: (L, 2D), what a statistics pooling sees."""
    return np.concatenate([feats.mean(0), feats.std(0)], axis=-1).astype(np.float64)


def measure_errors(utterances: list[np.ndarray], code: Callable[[np.ndarray], np.ndarray],
                   ) -> tuple[np.ndarray, np.ndarray, float]:
    """Errors of all dimensions and without outliers, (L,) each in percent, and 1 - least cosine."""
    error, power = (np.zeros(utterances[0].shape[1:]) for _ in range(2))
    cosines = []
    for feats in utterances:
        coded = code(feats)
        error += ((coded.astype(np.float64) - feats) ** 2).sum(0)
        power += ((feats.astype(np.float64) - feats.mean(0)) ** 2).sum(0)
        before, after = summarize(feats), summarize(coded)
        norms = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
        cosines.append(((before * after).sum(1) / norms).min())
    by_layer = [100 * np.sqrt(error[:, dims].sum(1) / power[:, dims].sum(1))
                for dims in (slice(None), slice(OUTLIERS, None))]
    return *by_layer, 1 - min(cosines)


def compare_errors(title: str, utterances: list[np.ndarray]) -> None:
    """Print the errors of every arrangement: natural, and with two kinds of planted outliers."""
    for name, factor, offset in (("", 1, 0), (", outliers x 30", 30, 0),
                                 (", outliers + 50", 1, 50)):
        planted = [plant_outliers(feats, factor, offset) for feats in utterances]
        print(f"\n{title}{name}\n{'worst layer, percent':38}{'all':>8}{'no outliers':>12}"
              f"{'1 - cosine of mean and deviation':>35}")
        for arrangement, code in ARRANGEMENTS.items():
            everything, others, cosine = measure_errors(planted, code)
            print(f"{arrangement:38}{everything.max():8.3f}{others.max():12.3f}{cosine:35.1e}")
            if arrangement == "codec int8":
                by_layer = " ".join(f"{value:.2f}" for value in others)
                print(f"  by layer, no outliers: {by_layer}")


def encode_states(data: Path, encoder: str, num_utterances: int) -> list[np.ndarray]:
    """States of utterances spread over a data directory, (T, L, D) each."""
    frontend = FrozenSSL.load(encoder)
    paths = list(load_data_dir(data).wavs.values())
    states = []
    with torch.inference_mode():
        for path in paths[::max(1, len(paths) // num_utterances)][:num_utterances]:
            wav = torch.from_numpy(read_audio(path, frontend.sample_rate))
            feats, _ = frontend(wav[None])  # (1, T, L, D)
            states.append(feats[0].numpy())
    return states


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", type=Path, help="audited data directory; default: Gaussian only")
    parser.add_argument("--encoder", default="wavlm_tiny")
    parser.add_argument("--utterances", type=int, default=20, help="of the data directory")
    parser.add_argument("--runs", type=int, default=9)
    options = parser.parse_args()
    compare_times(options.runs)
    gaussian = np.random.default_rng(1).standard_normal((100, 13, 768), dtype=np.float32)
    compare_errors("Gaussian 13 x 768", [gaussian])
    if options.data:
        compare_errors(f"{options.encoder} on {options.data.name}",
                       encode_states(options.data, options.encoder, options.utterances))


if __name__ == "__main__":
    main()
