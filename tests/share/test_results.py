"""The results page, its JSON, and the plots."""

import json
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.image import imread

from wespeaker_lap.score.evaluate import ResultRow
from wespeaker_lap.share.plots import plot_det, plot_histogram
from wespeaker_lap.share.results import (
    Results,
    find_commit,
    find_versions,
    format_page,
    read_results,
    write_results,
)


def make_row(**changes):
    row = {"trials": "vox1_O", "norm": "none", "eer": 1.5, "eer_ci": (1.2, 1.8), "min_dcf": 0.15,
           "num_trials": 37720, "num_target": 18860, "coverage": 1.0, "trials_sha256": "f" * 64,
           "threshold": 0.31, "p_target": 0.01, "ci_level": 0.95, "ci_resamples": 1000}
    return ResultRow(**{**row, **changes})


def make_results(seed=1, system="LAP-ASTP", rates=(1.5, 1.25)):
    rows = [make_row(eer=rates[0]),
            make_row(norm="asnorm", eer=rates[1], cohort="train", cohort_size=1211, top_n=300),
            make_row(trials="vox1_H", eer=3.0, trials_sha256="e" * 64, coverage=0.5)]
    return Results(system=system, seed=seed, rows=rows, encoder="wavlm_tiny", params=2_345_678,
                   large_margin=False, mean_subtraction="train", date="2024-02-03",
                   versions={"python": "3.12.1"}, commit="0123456789ab")


def test_json_has_the_agreed_keys_and_reads_back(tmp_path):
    results = make_results()
    write_results(tmp_path, results, {"DET curve": "det.png"})
    facts = json.loads((tmp_path / "results.json").read_text())
    assert list(facts)[:3] == ["system", "seed", "rows"]
    assert (facts["system"], facts["seed"], len(facts["rows"])) == ("LAP-ASTP", 1, 3)
    assert {"trials": "vox1_O", "norm": "asnorm", "eer": 1.25, "eer_ci": [1.2, 1.8],
            "min_dcf": 0.15, "num_trials": 37720}.items() <= facts["rows"][1].items()
    assert read_results(tmp_path / "results.json") == results
    page = (tmp_path / "RESULTS.md").read_text()
    assert "![DET curve](det.png)" in page
    assert sorted(file.name for file in tmp_path.iterdir()) == ["RESULTS.md", "results.json"]


def test_page_of_one_system():
    page = format_page([make_results()])
    for line in ["| Model | Params | LM | AS-Norm | QMF | vox1_O | vox1_H |",
                 "| LAP-ASTP | 2.35 M | no | no | no | 1.500 [1.200, 1.800] / 0.150 | "
                 "3.000 [1.200, 1.800] / 0.150 |",
                 "| LAP-ASTP | 2.35 M | no | yes | no | 1.250 [1.200, 1.800] / 0.150 | - |",
                 f"| vox1_O | 37,720 | 18,860 | 18,860 | 100.00 % | `{'f' * 64}` |",
                 f"| vox1_H | 37,720 | 18,860 | 18,860 | 50.00 % | `{'e' * 64}` |",
                 "- Date: 2024-02-03", "- Encoder: wavlm_tiny", "- Seed: 1",
                 "- Versions: python 3.12.1", "- Commit: 0123456789ab", "- Mean subtracted: train",
                 "- Cohort: train (1211 speakers, top 300)"]:
        assert page.splitlines().count(line) == 1, line
    assert "95 % confidence interval, 1000 speaker resamples" in page
    assert "p_target 0.01, c_miss 1, c_fa 1" in page


def test_every_cohort_size_has_its_line():
    results = make_results()
    results.rows.insert(2, replace(results.rows[1], eer=1.75, top_n=200))
    lines = format_page([results]).splitlines()
    rates = "[1.200, 1.800] / 0.150 | -"
    assert f"| LAP-ASTP | 2.35 M | no | yes (train, top 300) | no | 1.250 {rates} |" in lines
    assert f"| LAP-ASTP | 2.35 M | no | yes (train, top 200) | no | 1.750 {rates} |" in lines


def test_seeds_with_cohorts_of_their_own_are_one_system():
    systems = [make_results(1, rates=(1.0, 1.0)), make_results(2, rates=(1.0, 2.0))]
    systems[1].rows[1] = replace(systems[1].rows[1], cohort="train_s2")
    lines = format_page(systems).splitlines()
    assert "| LAP-ASTP | mean of 2 | 2.35 M | no | yes | no | 1.500 ± 0.707 / 0.150 | - |" in lines


def test_page_of_several_seeds_adds_their_mean():
    systems = [make_results(1, rates=(1.0, 2.0)), make_results(2, rates=(1.5, 2.0)),
               make_results(3, rates=(2.0, 2.0)), make_results(1, "WeightedSum-ASTP")]
    lines = format_page(systems).splitlines()
    assert "| Model | Seed | Params | LM | AS-Norm | QMF | vox1_O | vox1_H |" in lines
    assert ("| LAP-ASTP | mean of 3 | 2.35 M | no | no | no | 1.500 ± 0.500 / 0.150 | "
            "3.000 ± 0.000 / 0.150 |") in lines
    assert "- Seed: 1, 2, 3" in lines
    table = [line.split(" | ")[:2] for line in lines if "-ASTP" in line]
    assert [line[1] for line in table] == ["1", "2", "3", "mean of 3"] * 2 + ["1", "1"]


def test_other_costs_have_their_own_table():
    assert "Other costs" not in format_page([make_results()])  # results of earlier versions
    systems = []
    for seed, cllr in ((1, 0.25), (2, 0.5)):
        rows = [make_row(min_dcf_05=0.125, min_cllr=0.2),
                make_row(norm="qmf", cohort="train", cohort_size=9, top_n=5, min_dcf_05=0.1,
                         min_cllr=0.1, cllr=cllr),
                make_row(trials="vox1_H")]
        systems.append(replace(make_results(seed), rows=rows))
    lines = format_page(systems).splitlines()
    start = lines.index("| Model | Seed | AS-Norm | QMF | List | minDCF (0.05) | Cllr | min Cllr |")
    assert lines[start + 2:start + 8] == [
        "| LAP-ASTP | 1 | no | no | vox1_O | 0.125 | - | 0.200 |",
        "| LAP-ASTP | 2 | no | no | vox1_O | 0.125 | - | 0.200 |",
        "| LAP-ASTP | mean of 2 | no | no | vox1_O | 0.125 | - | 0.200 |",
        "| LAP-ASTP | 1 | yes | yes | vox1_O | 0.100 | 0.250 | 0.100 |",
        "| LAP-ASTP | 2 | yes | yes | vox1_O | 0.100 | 0.500 | 0.100 |",
        "| LAP-ASTP | mean of 2 | yes | yes | vox1_O | 0.100 | 0.375 | 0.100 |"]
    assert lines[start + 8] == ""  # vox1_H, of which nothing else was measured, is not in it
    assert "| LAP-ASTP | 1 | 2.35 M | no | yes | yes | 1.500 [1.200, 1.800] / 0.150 | - |" in lines
    earlier = replace(make_results(3), rows=[make_row(norm="qmf", min_dcf_05=0.4)])
    mean_of_three = "| LAP-ASTP | mean of 3 | yes | yes | vox1_O | 0.200 | - | - |"
    assert mean_of_three in format_page([*systems, earlier]).splitlines()


def test_results_of_earlier_versions_are_read(tmp_path):
    write_results(tmp_path, make_results())
    facts = json.loads((tmp_path / "results.json").read_text())
    for row in facts["rows"]:
        for name in ("min_dcf_05", "min_cllr", "cllr"):
            assert row.pop(name) is None
    (tmp_path / "results.json").write_text(json.dumps(facts))
    assert read_results(tmp_path / "results.json") == make_results()


def test_page_needs_rows():
    with pytest.raises(ValueError, match="no results"):
        format_page([])


@pytest.mark.parametrize("text", ["{", "[]", '{"system": "x"}', '{"rows": [{"eer_ci": [1, 2]}]}',
                                  '{"rows": [], "system": "x", "typo": 1}'])
def test_unusable_json_is_named(tmp_path, text):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"results\.json: not a results file with the keys system"):
        read_results(path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_results(tmp_path / "nowhere")


def test_versions():
    versions = find_versions(("numpy", "no-such-package-of-anyone"))
    assert versions["numpy"] == np.__version__ and "python" in versions
    assert versions["no-such-package-of-anyone"] == "not installed"


def test_commit_of_a_tracked_file(tmp_path):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    file = tmp_path / "code.py"
    file.write_text("1\n")
    assert find_commit(file) is None  # no checkout
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *command], check=True, capture_output=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True,
                          text=True).stdout
    assert find_commit(file) == head[:12]
    file.write_text("2\n")
    assert find_commit(file) == f"{head[:12]}+changes"
    other = tmp_path / "installed.py"
    other.write_text("3\n")
    assert find_commit(other) is None  # not tracked


@pytest.mark.parametrize("gap", [1.5, 50.0])  # 50: no errors at all
def test_plots_are_images(tmp_path, gap):
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 2 == 0
    scores = rng.standard_normal(400) + gap * labels
    plot_det(tmp_path / "det.png", {"cosine": (scores, labels)}, "DET")
    plot_histogram(tmp_path / "scores.png", scores, labels, "Scores")
    assert imread(tmp_path / "det.png").shape[:2] == (720, 720)
    assert imread(tmp_path / "scores.png").shape[:2] == (540, 960)
    assert len(list(tmp_path.iterdir())) == 2


def test_plots_need_trials(tmp_path):
    with pytest.raises(ValueError, match="no curves"):
        plot_det(tmp_path / "det.png", {}, "DET")
    with pytest.raises(ValueError, match="non-target"):
        plot_histogram(tmp_path / "scores.png", [1.0], [True], "Scores")
    assert not list(tmp_path.iterdir())
