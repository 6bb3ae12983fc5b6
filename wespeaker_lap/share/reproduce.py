"""Does a model give the scores that an experiment wrote? Computed again, from the recordings."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wespeaker_lap.data.datadir import load_data_dir
from wespeaker_lap.data.trials import Trials
from wespeaker_lap.io.facts import load_facts
from wespeaker_lap.io.table import name_some, read_lines
from wespeaker_lap.score.scorefile import read_scores
from wespeaker_lap.share.opening import read_rows, select_rows
from wespeaker_lap.share.speaker import SpeakerModel

# Share of the standard deviation of a file's scores. Features of stage 2 are computed in batches,
# on another machine perhaps, and rounded; another model is wrong by about 1.
TOLERANCES = {"float32": 0.02, "bf16": 0.2}


@dataclass(frozen=True)
class Reproduced:
    """Scores of one file that were computed again; `difference` is the largest, absolute."""

    score_file: str
    num_scores: int
    difference: float
    tolerance: float


def reproduce_scores(model: SpeakerModel, exp_dir: str | Path, data_dirs: Sequence[str | Path] = (),
                     num: int = 20) -> list[Reproduced]:
    """Compute some scores of each score file of an experiment again.

    Args:
        model: cosine scores are compared, and those normalised with its cohort.
        exp_dir: of the training, scored.
        data_dirs: where the recordings of the trials are; those that stage 5 noted where empty.
        num: trials in all, at least one a list, from the lowest score to the highest.

    Raises:
        FileNotFoundError: nothing was scored, or recordings are not there.
        ValueError: a score differs; names the trial.
    """
    exp_dir = Path(exp_dir)
    rows = select_rows(read_rows(exp_dir), model.cohort)
    if not rows:
        raise FileNotFoundError(f"{exp_dir}/scores: nothing was scored yet; run stage 5")
    tolerated = TOLERANCES[load_facts(exp_dir)["features"].get("precision", "float32")]
    wavs = _find_recordings(exp_dir, rows, data_dirs)
    each = -(-num // len({row.trials for _, row in rows}))
    embeddings: dict[str, np.ndarray] = {}
    found = []
    for file, row in rows:
        trials, scores = read_scores(exp_dir / "scores" / file)
        places = _spread(scores, each)
        _embed_missing(model, embeddings, wavs, trials, places, exp_dir / "scores" / file)
        again = np.array([model.score(embeddings[trials.enroll[n]][None],
                                      embeddings[trials.test[n]], row.norm)[0] for n in places])
        gaps, tolerance = np.abs(again - scores[places]), tolerated * scores.std()
        worst = int(np.argmax(gaps))
        if gaps[worst] > tolerance:
            pair = f"{trials.enroll[places[worst]]} {trials.test[places[worst]]}"
            raise ValueError(
                f"{exp_dir}/scores/{file}: {pair} has {scores[places[worst]]:.5f} there and "
                f"{again[worst]:.5f} with this model, which is not the one that wrote them: run "
                f"stages 4 to 6 again")
        found.append(Reproduced(file, len(places), float(gaps[worst]), float(tolerance)))
    return found


def _spread(scores: np.ndarray, num: int) -> list[int]:
    """Places of so many trials, evenly from the lowest score to the highest."""
    ranks = np.linspace(0, len(scores) - 1, min(num, len(scores))).round().astype(int)
    return np.argsort(scores, kind="stable")[ranks].tolist()


def _find_recordings(exp_dir: Path, rows: Sequence[tuple[str, object]],
                     data_dirs: Sequence[str | Path]) -> dict[str, str]:
    """Utterance -> file, of all data directories."""
    if not data_dirs:
        metrics = [exp_dir / "scores" / f"{file.removesuffix('.score')}.json" for file, _ in rows]
        noted = [json.loads("\n".join(read_lines(path))).get("data_dir") for path in metrics]
        data_dirs = list(dict.fromkeys(filter(None, noted)))
    if not data_dirs:
        raise FileNotFoundError(f"{exp_dir}/scores: does not say where the recordings of the "
                                f"trials are; give their data directories with --data")
    wavs: dict[str, str] = {}
    for directory in data_dirs:
        wavs.update(load_data_dir(directory, with_durations=False).wavs)
    return wavs


def _embed_missing(model: SpeakerModel, embeddings: dict[str, np.ndarray], wavs: dict[str, str],
                   trials: Trials, places: Sequence[int], path: Path) -> None:
    """Embed the recordings of some trials that are not yet among the embeddings."""
    wanted = dict.fromkeys(utt for n in places for utt in (trials.enroll[n], trials.test[n]))
    new = [utt for utt in wanted if utt not in embeddings]
    unknown = [utt for utt in new if utt not in wavs]
    if unknown:
        raise FileNotFoundError(f"{path}: no recordings of {name_some(unknown)}; give the data "
                                f"directory of these trials with --data")
    if new:
        embeddings.update(zip(new, model.embed([wavs[utt] for utt in new]), strict=True))
