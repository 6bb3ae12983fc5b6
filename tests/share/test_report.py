"""Stage 8: what was scored, on one page."""

import json
import shutil

import pytest
from matplotlib.image import imread

from wespeaker_lap.score.metrics import eer
from wespeaker_lap.score.scorefile import read_scores
from wespeaker_lap.score.stages import ScoringJob, normalise_trials
from wespeaker_lap.share.report import join_results, write_report
from wespeaker_lap.share.results import read_results


@pytest.fixture
def exp_dir(tiny_system, tmp_path):
    """A copy with cosine, AS-norm and S-norm scores."""
    copied = shutil.copytree(tiny_system.exp_dir, tmp_path / "lap-é")
    job = ScoringJob(copied, tiny_system.data("test"), tiny_system.trials, "train")
    normalise_trials(job, tiny_system.data("train"), "asnorm", 3)
    normalise_trials(job, tiny_system.data("train"), "snorm", 3)
    return copied


def test_every_score_file_has_its_row(exp_dir):
    assert write_report(exp_dir) == exp_dir / "RESULTS.md"
    results = json.loads((exp_dir / "results.json").read_text(encoding="utf-8"))
    assert (results["system"], results["seed"], results["encoder"]) == ("lap-é", 42, "wavlm_tiny")
    assert results["mean_subtraction"] == "train" and results["params"] > 1000
    assert [(row["trials"], row["norm"]) for row in results["rows"]] == [
        ("pairs", "none"), ("pairs", "snorm"), ("pairs", "asnorm")]
    assert [row["top_n"] for row in results["rows"]] == [None, 4, 3]
    names = ("pairs", "train_snorm4_pairs", "train_asnorm3_pairs")
    for row, name in zip(results["rows"], names, strict=True):
        trials, scores = read_scores(exp_dir / "scores" / f"{name}.score")
        assert row["num_trials"] == len(trials) == 36
        assert row["eer"] == pytest.approx(100 * eer(scores, trials.labels))
        low, high = row["eer_ci"]
        assert low <= row["eer"] <= high
        assert (exp_dir / "scores" / f"{name}.metrics").read_text().startswith(
            f"EER = {row['eer']:.3f}\nminDCF (p_target:0.01 c_miss:1 c_fa:1) = ")
    assert read_results(exp_dir / "results.json").rows[0].trials == "pairs"


def test_the_page_shows_its_plots(exp_dir):
    page = write_report(exp_dir).read_text(encoding="utf-8")
    for file in ("det.png", "histogram_pairs.png", "histogram_train_asnorm3_pairs.png"):
        assert f"]({file})" in page and imread(exp_dir / file).ndim == 3
    assert "| lap-é |" in page and "- Cohort: train (4 speakers, top 4), train (4 speakers" in page


def test_a_rerun_overwrites(exp_dir):
    write_report(exp_dir)
    before = sorted(path.name for path in exp_dir.iterdir())
    for path in (exp_dir / "scores").glob("train_*"):
        path.unlink()
    write_report(exp_dir)
    assert sorted(path.name for path in exp_dir.iterdir()) == before
    assert len(read_results(exp_dir / "results.json").rows) == 1


def test_several_systems_on_one_page(exp_dir, tmp_path):
    write_report(exp_dir)
    other = shutil.copytree(exp_dir, tmp_path / "lap-é-seed2")
    config = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(config.replace("seed: 42", "seed: 2"))
    write_report(other)
    join_results([exp_dir, other], tmp_path / "new" / "ALL.md")
    page = (tmp_path / "new" / "ALL.md").read_text(encoding="utf-8")
    assert "| lap-é | 42 |" in page and "| lap-é | 2 |" in page and "- Seed: 42, 2" in page
    # The folder's "-seed2" is no other system. Three normalisations, in two tables.
    assert page.count("| lap-é | mean of 2 |") == 6


def test_nothing_scored_yet(exp_dir):
    shutil.rmtree(exp_dir / "scores")
    with pytest.raises(FileNotFoundError, match="scores: nothing was scored yet; run stage 5"):
        write_report(exp_dir)
    assert not (exp_dir / "RESULTS.md").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"score_file": "a", "mean_set": null}'])
def test_broken_metrics_are_named(exp_dir, text):
    (exp_dir / "scores" / "pairs.json").write_text(text)
    with pytest.raises(ValueError, match=r"scores/pairs\.json: not the metrics of a score file "
                                         r".*; remove it and score the list again"):
        write_report(exp_dir)
    assert not (exp_dir / "RESULTS.md").exists()


def test_a_missing_score_file_is_named(exp_dir):
    (exp_dir / "scores" / "pairs.score").unlink()
    with pytest.raises(FileNotFoundError, match=r"pairs\.score: no such file"):
        write_report(exp_dir)


def test_no_experiment(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is no trained model; give the folder"):
        write_report(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"results\.json: no such file"):
        join_results([tmp_path], tmp_path / "ALL.md")
