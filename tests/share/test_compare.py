"""Systems against the first one: groups of seeds, the table, what cannot be compared."""

import shutil

import numpy as np
import pytest

from wespeaker_lap.data.datadir import load_data_dir
from wespeaker_lap.data.trials import Trials
from wespeaker_lap.score.metrics import eer
from wespeaker_lap.score.scorefile import read_scores, write_scores
from wespeaker_lap.score.stages import ScoringJob, normalise_trials, score_trials
from wespeaker_lap.share.compare import compare_systems, format_comparisons


@pytest.fixture
def systems(tiny_system, tmp_path):
    """`first` in one training and `other` in two; only `first` and `other-seed42` have AS-norm."""
    paths = [tmp_path / name for name in ("first", "other-seed42", "other-seed7")]
    for path in paths:
        shutil.copytree(tiny_system.exp_dir, path)
        job = ScoringJob(path, tiny_system.data("test"), tiny_system.trials, "train")
        score_trials(job)
        if path != paths[2]:
            normalise_trials(job, tiny_system.data("train"), "asnorm", 3)
    config = paths[2] / "config.yaml"
    config.write_text(config.read_text().replace("seed: 42", "seed: 7"))
    trials, scores = read_scores(paths[2] / "scores" / "pairs.score")
    noise = 5 * np.random.default_rng(0).standard_normal(len(scores))
    write_scores(paths[2] / "scores" / "pairs.score", trials, scores + noise)
    return paths


@pytest.fixture
def utt2spk(tiny_system):
    return load_data_dir(tiny_system.data("test")).utt2spk


def test_seeds_are_one_system(systems, utt2spk):
    cosine, normed = compare_systems(systems, utt2spk)
    rates = []
    for path in systems:
        trials, scores = read_scores(path / "scores" / "pairs.score")
        rates.append(eer(scores, trials.labels))
    assert (cosine.trials, cosine.norm, cosine.system, cosine.first) == ("pairs", "cosine", "other",
                                                                         "first")
    assert cosine.difference.eers_a == pytest.approx(rates[1:])
    assert cosine.difference.eers_b == pytest.approx(rates[:1])
    assert cosine.difference.eer_b == pytest.approx(rates[0])
    assert cosine.difference.eer_a == pytest.approx((rates[1] + rates[2]) / 2)
    assert rates[2] > rates[0]
    # The other seed was not normalised, so one of each system is left, and the two are the same.
    assert (normed.norm, len(normed.difference.eers_a)) == ("AS-norm", 1)
    assert normed.difference.low == normed.difference.high == 0


def test_cohorts_of_several_sizes_are_no_seeds(tiny_system, systems, utt2spk):
    """One training twice normalised is compared size by size, and not as two trainings."""
    job = ScoringJob(systems[0], tiny_system.data("test"), tiny_system.trials, "train")
    normalise_trials(job, tiny_system.data("train"), "asnorm", 2)
    _, normed = compare_systems(systems, utt2spk)
    assert normed.norm == "AS-norm (train, top 3)"
    assert (len(normed.difference.eers_a), len(normed.difference.eers_b)) == (1, 1)
    _, scores = read_scores(systems[0] / "scores" / "train_asnorm3_pairs.score")
    trials, _ = read_scores(systems[0] / "scores" / "pairs.score")
    assert normed.difference.eer_b == pytest.approx(eer(scores, trials.labels))


def test_the_table(systems, utt2spk):
    comparisons = compare_systems(systems, utt2spk)
    lines = format_comparisons(comparisons).splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:6]]
    assert [row[:4] for row in rows] == [
        ["pairs", "cosine", "first", "1"], ["pairs", "cosine", "other", "2"],
        ["pairs", "AS-norm", "first", "1"], ["pairs", "AS-norm", "other", "1"]]
    low, high = sorted(100 * rate for rate in comparisons[0].difference.eers_a)
    # Two values lie half their distance from the mean; n - 1 makes that distance / sqrt(2).
    assert rows[1][4] == f"{(low + high) / 2:.3f} ± {(high - low) / 2 ** 0.5:.3f}"
    assert rows[2][4] == rows[3][4] and rows[2][5:] == ["", "", ""]
    assert rows[3][5:] == ["+0.000", "[+0.000, +0.000]", "no"]
    assert "less first" in lines[0] and "The first system is first" in lines[-1]


def test_what_cannot_be_compared_is_told(systems, utt2spk):
    with pytest.raises(ValueError, match="only one system, other"):
        compare_systems(systems[1:], utt2spk)
    with pytest.raises(ValueError, match="has no speaker; give the data directory"):
        compare_systems(systems, {})
    shutil.rmtree(systems[1] / "scores")
    with pytest.raises(FileNotFoundError, match="nothing was scored yet"):
        compare_systems(systems, utt2spk)
    path = systems[2] / "scores" / "pairs.score"
    trials, scores = read_scores(path)
    write_scores(path, Trials(trials.enroll[::-1], trials.test[::-1], trials.labels[::-1]),
                 scores[::-1])
    with pytest.raises(ValueError, match="has other trials than"):
        compare_systems([systems[0], systems[2]], utt2spk)
    for path in (systems[2] / "scores").glob("pairs*"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match="nothing was scored yet"):
        compare_systems([systems[0], systems[2]], utt2spk)
