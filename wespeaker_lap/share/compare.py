"""Systems side by side: is one better than the first, or is it chance?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import mean, stdev

import numpy as np

from wespeaker_lap.score.paired import Difference, compare_eers
from wespeaker_lap.score.scorefile import read_scores
from wespeaker_lap.share.norms import find_several, name_norm
from wespeaker_lap.share.report import read_scored, to_row


@dataclass(frozen=True)
class Scored:
    """One trial list, scored by one training, with one normalisation."""

    system: str
    seed: int
    path: Path


@dataclass(frozen=True)
class Comparison:
    """A system against the first one, on a trial list; A is the system.

    `norm` is what the scores are called, see `norms.name_norm`.
    """

    trials: str
    norm: str
    system: str
    first: str
    difference: Difference


def compare_systems(exp_dirs: Sequence[Path], utt2spk: Mapping[str, str]) -> list[Comparison]:
    """Compare every other system with the first; trainings of one system are those of its seeds.

    Args:
        exp_dirs: folders that were scored, those of the first system first; `X-seed1` and `X-seed2`
            are one system.
        utt2spk: utterance -> speaker, of the trials.

    Returns:
        One comparison a system, trial list and normalisation that both have.

    Raises:
        FileNotFoundError: a folder without scores.
        ValueError: fewer than two systems, nothing in common, score files of other trials, or an
            utterance without a speaker.
    """
    groups = _group_scores(exp_dirs)
    first, *others = groups
    if not others:
        raise ValueError(f"only one system, {first}; give the folders of two or more")
    found = [_compare(groups[first][key], groups[other][key], key, utt2spk)
             for key in groups[first] for other in others if key in groups[other]]
    if not found:
        raise ValueError(f"{first} and {', '.join(others)} have no trial list in common that was "
                         f"scored with the same normalisation")
    return found


def _group_scores(exp_dirs: Sequence[Path]) -> dict[str, dict[tuple[str, str], list[Scored]]]:
    """System -> (trial list, what the scores are called), in a report's order -> its seeds."""
    found = [read_scored(exp_dir) for exp_dir in exp_dirs]
    rows = [[to_row(facts) for facts in scored] for _, _, scored in found]
    several = find_several(rows)
    groups: dict[str, dict[tuple[str, str], list[Scored]]] = {}
    for exp_dir, (system, seed, scored), own in zip(exp_dirs, found, rows, strict=True):
        for facts, row in zip(scored, own, strict=True):
            key = (row.trials, name_norm(row, several))
            groups.setdefault(system, {}).setdefault(key, []).append(
                Scored(system, seed, Path(exp_dir) / "scores" / facts["score_file"]))
    return groups


def _compare(first: list[Scored], other: list[Scored], key: tuple[str, str],
             utt2spk: Mapping[str, str]) -> Comparison:
    trials, _ = read_scores(first[0].path)
    unknown = next((utt for utt in (*trials.enroll, *trials.test) if utt not in utt2spk), None)
    if unknown is not None:
        raise ValueError(f"{first[0].path}: {unknown} has no speaker; give the data directory of "
                         f"these trials")
    scores = {one.path: _read_same(one, first[0], trials) for one in (*first, *other)}
    sides = ([utt2spk[utt] for utt in utts] for utts in (trials.enroll, trials.test))
    difference = compare_eers([scores[one.path] for one in other],
                              [scores[one.path] for one in first], trials.labels, *sides)
    return Comparison(*key, other[0].system, first[0].system, difference)


def _read_same(one: Scored, first: Scored, trials) -> np.ndarray:
    found, scores = read_scores(one.path)
    if (found.enroll, found.test) != (trials.enroll, trials.test):
        raise ValueError(f"{one.path} has other trials than {first.path}; score the same list")
    return scores


def format_comparisons(comparisons: Sequence[Comparison]) -> str:
    """A Markdown table: rates, their difference to the first system's and its interval, in percent.

    With several seeds a rate is their mean, with the standard deviation.
    """
    lines = [["Trials", "Scores", "System", "Seeds", "EER %", f"less {comparisons[0].first}",
              "95 % interval", "Significant"], ["---"] * 8]
    for (trials, norm), group in groupby(comparisons, key=lambda one: (one.trials, one.norm)):
        rows = list(group)
        # The first system's seeds: those that have this normalisation, the same in every row.
        lines.append([trials, norm, rows[0].first,
                      *_format_seeds(rows[0].difference.eers_b), "", "", ""])
        for one in rows:
            found = one.difference
            a, b, low, high = (100 * x for x in (found.eer_a, found.eer_b, found.low, found.high))
            lines.append([trials, norm, one.system, *_format_seeds(found.eers_a),
                          f"{a - b:+.3f}", f"[{low:+.3f}, {high:+.3f}]",
                          "yes" if found.is_significant else "no"])
    resamples = ", ".join(dict.fromkeys(str(one.difference.num_resamples) for one in comparisons))
    return ("".join(f"| {' | '.join(line)} |\n" for line in lines)
            + f"\nThe first system is {comparisons[0].first}; intervals are of the difference, "
            f"paired, {resamples} speaker resamples; several seeds enter as the mean of their "
            f"EERs.\n")


def _format_seeds(eers: Sequence[float]) -> list[str]:
    """How many seeds, and their rate in percent."""
    rate = f"{100 * mean(eers):.3f}"
    return [str(len(eers)), f"{rate} ± {100 * stdev(eers):.3f}" if len(eers) > 1 else rate]
