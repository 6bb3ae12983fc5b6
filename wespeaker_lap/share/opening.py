"""From what a user types to the parts of a trained model: a folder, a tar file, `hf://org/name`."""

import functools
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from wespeaker_lap.config import Config, load_config
from wespeaker_lap.engine.checkpoint import AVERAGED, weights_path
from wespeaker_lap.io.facts import load_facts
from wespeaker_lap.io.table import read_lines
from wespeaker_lap.io.vectors import read_vectors
from wespeaker_lap.io.weights import check_weights
from wespeaker_lap.score.cosine import subtract_mean
from wespeaker_lap.score.evaluate import ResultRow
from wespeaker_lap.score.operating import OperatingPoint, find_points
from wespeaker_lap.score.scorefile import read_scores
from wespeaker_lap.share import bundle, hub


@dataclass(frozen=True, eq=False)
class Cohort:
    """What scores are normalised with.

    Args:
        norm: "asnorm" or "snorm".
        name: of the set.
        vectors: (C, E) mean embeddings of its speakers, the training mean subtracted.
        top_n: highest cohort scores that count.
    """

    norm: str
    name: str
    vectors: np.ndarray
    top_n: int


@dataclass(frozen=True, eq=False)
class Parts:
    """What a trained model consists of.

    Args:
        source: as the user gave it.
        config: of the training.
        facts: see `io.facts`.
        weights: safetensors file of the averaged network.
        encoder: folder of the encoder, where it is included.
        mean: (E,) mean embedding of the training set; None: nothing is subtracted.
        cohort: None where no scores were normalised.
        find_points: gives the operating points, when they are first asked for.
    """

    source: str
    config: Config
    facts: dict
    weights: Path
    encoder: Path | None
    mean: np.ndarray | None
    cohort: Cohort | None
    find_points: Callable[[], Sequence[OperatingPoint]]


@contextmanager
def open_model(source: str | Path) -> Iterator[Parts]:
    """Find and check a trained model.

    Args:
        source: a folder that training or `pack` wrote, a tar file of `pack`, or
            `hf://org/name[@revision]`.

    Yields:
        Its parts, whose files are there as long as the block runs.

    Raises:
        FileNotFoundError: there is none, or a part is missing.
        ValueError: a file was changed, or is of a kind that is not read.
    """
    with open_folder(source) as folder:
        is_packed = (folder / bundle.MANIFEST).is_file()
        yield _read_bundle(folder, str(source)) if is_packed else _read_exp(folder)


@contextmanager
def open_folder(source: str | Path) -> Iterator[Path]:
    """The folder of a trained model; that of a packed one is checked.

    Args:
        source: see `open_model`.

    Yields:
        A folder that is there as long as the block runs.

    Raises:
        FileNotFoundError: there is no such file, or nothing at the hub.
        ValueError: a file was changed, or is of a kind that is not read.
    """
    path = Path(source)
    if str(source).startswith(hub.PREFIX):
        path = hub.fetch_bundle(str(source))
    elif path.is_file():
        with bundle.unpacked(path) as folder:
            bundle.check_bundle(folder)
            yield folder
        return
    if (path / bundle.MANIFEST).is_file():
        bundle.check_bundle(path)
    yield path


def _read_bundle(directory: Path, source: str) -> Parts:
    manifest = bundle.read_manifest(directory / bundle.MANIFEST)
    tensors = _read_arrays(directory / bundle.STATISTICS)
    try:
        scoring = json.loads("\n".join(read_lines(directory / bundle.THRESHOLDS)))
        points = [OperatingPoint(**one) for one in scoring["points"]]
        norm = scoring["normalisation"]
        cohort = norm and Cohort(norm["norm"], norm["cohort"], tensors["cohort"], norm["top_n"])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{source}: {bundle.THRESHOLDS} is not what this version of the toolkit "
                         f"reads ({error}); pack the model again") from error
    has_encoder = f"{bundle.ENCODER}/model.safetensors" in manifest["files"]
    return Parts(source, load_config(directory / bundle.CONFIG), load_facts(directory),
                 directory / bundle.WEIGHTS, directory / bundle.ENCODER if has_encoder else None,
                 tensors.get("mean"), cohort, lambda: points)


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        return safetensors.numpy.load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: not a whole safetensors file ({error})") from error


def _read_exp(exp_dir: Path) -> Parts:
    facts, config = load_facts(exp_dir), load_config(exp_dir / "config.yaml")
    rows, weights = read_rows(exp_dir), weights_path(exp_dir, AVERAGED)
    row = choose_cohort_row(rows, config, facts["train_set"])
    check_weights(exp_dir, [facts["train_set"] if config.score.subtract_mean else None,
                            row and row.cohort], weights)
    mean = None
    if config.score.subtract_mean:
        path = exp_dir / "embeddings" / facts["train_set"] / "mean_vec.npy"
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; run stage 4, which embeds the "
                                    f"training set and writes its mean")
        mean = np.load(path, allow_pickle=False)
    cohort = _read_cohort(exp_dir, row, mean)
    points = functools.cache(functools.partial(measure_points, exp_dir, rows, cohort))
    return Parts(str(exp_dir), config, facts, weights, None, mean, cohort, points)


def read_rows(exp_dir: Path) -> list[tuple[str, ResultRow]]:
    """What was measured of the score files of an experiment.

    Returns:
        Name of the score file and its row, by name; nothing where nothing was scored.

    Raises:
        ValueError: metrics that cannot be read; names the file.
    """
    rows = []
    for path in sorted((exp_dir / "scores").glob("*.json")):
        try:
            facts = json.loads("\n".join(read_lines(path)))
            row = ResultRow(**{field.name: facts[field.name] for field in fields(ResultRow)})
            rows.append((facts["score_file"], row))
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path}: not the metrics of a score file ({error}); remove it and "
                             f"score the list again") from error
    return rows


def choose_cohort_row(rows: Sequence[tuple[str, ResultRow]], config: Config,
                      train_set: str) -> ResultRow | None:
    """A row whose normalisation is the model's: AS-norm before S-norm, then as configured."""
    found = [row for _, row in rows if row.norm in ("asnorm", "snorm")]
    return min(found, default=None, key=lambda row: (
        row.norm, row.top_n != config.score.top_n, row.cohort != train_set, row.cohort, row.top_n))


def _read_cohort(exp_dir: Path, row: ResultRow | None, mean: np.ndarray | None) -> Cohort | None:
    if row is None:
        return None
    path = exp_dir / "embeddings" / row.cohort / "spk_xvector.scp"
    if not path.is_file():
        logging.warning("%s: no such file, so scores are not normalised; run stage 6 again", path)
        return None
    _, vectors = read_vectors(path)
    return Cohort(row.norm, row.cohort, vectors if mean is None else subtract_mean(vectors, mean),
                  row.top_n)


def select_rows(rows: Sequence[tuple[str, ResultRow]],
                cohort: Cohort | None) -> list[tuple[str, ResultRow]]:
    """The rows whose scores the model can compute: cosine, and those of its own cohort."""
    known = {("none", None, None)}
    if cohort is not None:
        known.add((cohort.norm, cohort.name, cohort.top_n))
    return [(file, row) for file, row in rows if (row.norm, row.cohort, row.top_n) in known]


def measure_points(exp_dir: Path, rows: Sequence[tuple[str, ResultRow]],
                   cohort: Cohort | None) -> list[OperatingPoint]:
    """The operating points of the score files of an experiment."""
    points = []
    for file, row in select_rows(rows, cohort):
        trials, scores = read_scores(exp_dir / "scores" / file)
        points += find_points(row, scores, trials.labels)
    return points
