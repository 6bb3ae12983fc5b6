"""Fusion: the scores of several systems, joined; refusals by name."""

import json
import shutil

import numpy as np
import pytest

from wespeaker_lap.data.datadir import load_data_dir
from wespeaker_lap.data.trials import Trials
from wespeaker_lap.score.cllr import cllr
from wespeaker_lap.score.evaluate import measure_row
from wespeaker_lap.score.metrics import eer
from wespeaker_lap.score.scorefile import read_scores
from wespeaker_lap.score.stages import write_scored
from wespeaker_lap.share.fusion import fuse_systems
from wespeaker_lap.share.report import join_results
from wespeaker_lap.share.results import read_results


def draw_trials(utt2spk, num, rng):
    """Pairs of any two utterances, both kinds among them."""
    utts = sorted(utt2spk)
    pairs = [(utts[a], utts[b]) for a, b in rng.integers(len(utts), size=(num, 2))]
    labels = np.array([utt2spk[a] == utt2spk[b] for a, b in pairs])
    return Trials([a for a, _ in pairs], [b for _, b in pairs], labels)


@pytest.fixture
def systems(tiny_system, tmp_path):
    """Two systems whose scores on "known" and on "pairs" are drawn: each sees its own half."""
    rng = np.random.default_rng(0)
    for name in ("one", "two"):
        copied = shutil.copytree(tiny_system.exp_dir, tmp_path / name)
        shutil.rmtree(copied / "scores")
    for set_name, list_name in (("train", "known"), ("test", "pairs")):
        utt2spk = load_data_dir(tiny_system.data(set_name)).utt2spk
        trials = draw_trials(utt2spk, 600, rng)
        for name, scale in (("one", 1.0), ("two", 10.0)):
            noise = rng.standard_normal(len(trials))
            scores = (scale * (2 * trials.labels - 1 + noise)).round(5)
            row = measure_row(list_name, "none", trials, scores, utt2spk)
            write_scored(tmp_path / name / "scores", list_name, trials, scores, row, "train")
    return tmp_path


def fuse(systems, tiny_system, names=("one", "two"), train="known", trials=("pairs",),
         norm="none"):
    return fuse_systems([systems / name for name in names], [tiny_system.data("test")], train,
                        list(trials), norm, systems / "fused")


def test_two_systems_are_better_than_one(systems, tiny_system):
    row, = fuse(systems, tiny_system)
    trials, llrs = read_scores(systems / "fused" / "scores" / "pairs.score")
    one, two = (read_scores(systems / name / "scores" / "pairs.score")[1]
                for name in ("one", "two"))
    assert trials.enroll == read_scores(systems / "one" / "scores" / "pairs.score")[0].enroll
    # Each score is Gaussian, at +-1 with deviation 1, so its ratio is 2 x, whatever its unit.
    weights = json.loads((systems / "fused" / "fusion.json").read_text())["weights"]
    assert weights == {"one": pytest.approx(2, abs=0.5), "two": pytest.approx(0.2, abs=0.05)}
    assert np.abs(llrs - (2 * one + 0.2 * two)).mean() < 0.7
    assert row.eer == 100 * eer(llrs, trials.labels)
    assert row.eer < 100 * min(eer(one, trials.labels), eer(two, trials.labels)) - 2
    assert row.cllr == cllr(llrs, trials.labels)
    assert abs(row.cllr - cllr(2 * one + 0.2 * two, trials.labels)) < 0.02


def test_what_was_skipped_is_known(systems, tiny_system):
    path = systems / "one" / "scores" / "pairs.json"
    facts = json.loads(path.read_text())
    path.write_text(json.dumps({**facts, "coverage": 0.5, "trials_sha256": "f" * 64,
                                "cohort": "train", "cohort_size": 4, "top_n": 3}))
    row, = fuse(systems, tiny_system)
    assert (row.coverage, row.trials_sha256, row.num_trials) == (0.5, "f" * 64, 600)
    assert (row.cohort, row.cohort_size, row.top_n) == ("train", 4, 3)


def test_the_fused_system_has_its_page(systems, tiny_system):
    fuse(systems, tiny_system)
    results = read_results(systems / "fused" / "results.json")
    num_params = json.loads((tiny_system.exp_dir / "model.json").read_text())["num_params"]
    assert (results.system, results.params, results.encoder, results.mean_subtraction) == (
        "fused", 2 * num_params, "wavlm_tiny", "train")
    page = (systems / "fused" / "RESULTS.md").read_text()
    assert "| fused |" in page and f"| {results.rows[0].cllr:.3f} |" in page
    join_results([systems / "fused"], systems / "ALL.md")
    assert "| fused |" in (systems / "ALL.md").read_text()


@pytest.mark.parametrize(("changes", "message"), [
    ({"names": ["one"]}, "want two or more systems in folders of different names, got one"),
    ({"names": ["one", "one"]}, "folders of different names, got one, one"),
    ({"norm": "asnorm"}, "one/scores: want one score file of the list 'known' with the normalisati"
                         "on 'asnorm', found none"),
    ({"trials": ["other"]}, "one score file of the list 'other' .* found none"),
    ({"train": "pairs"}, r"12 utterances are in pairs and in pairs: .*; train on a list of other"),
])
def test_what_cannot_be_fused(systems, tiny_system, changes, message):
    with pytest.raises(ValueError, match=message):
        fuse(systems, tiny_system, **changes)
    assert not (systems / "fused").exists()


@pytest.mark.parametrize("change", [
    lambda lines: lines[1:],
    lambda lines: [" ".join([*lines[0].split()[:3], {"target": "nontarget", "nontarget": "target"}[
        lines[0].split()[3]]]), *lines[1:]]])
def test_other_trials_are_refused(systems, tiny_system, change):
    path = systems / "two" / "scores" / "pairs.score"
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")
    with pytest.raises(ValueError, match=r"two/scores/pairs\.score has other trials than .*one; s"):
        fuse(systems, tiny_system)
    assert not (systems / "fused").exists()
