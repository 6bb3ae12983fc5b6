"""The mini recipe from nothing to the report, in small, and what it says about mistakes."""

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import kaldiio
import numpy as np
import pytest
from calling import REPO, Recipe, find_leftovers, list_files, make_environment

from wespeaker_lap import load_model
from wespeaker_lap.io.table import read_table
from wespeaker_lap.score.scorefile import read_scores

pytest.importorskip("espeakng_loader")
SCRIPT = REPO / "egs" / "mini" / "v1" / "run.sh"
SMALL = ("--train_size", "10x6", "--valid_size", "3x3", "--test_size", "5x4", "--nj", "1",
         "--device", "cpu", "--overrides",
         "train.epochs=2 train.batch_size=16 train.num_workers=0 score.top_n=8")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, str]:
    """All stages, in a folder with a space in its name; the recipe and what it printed."""
    recipe = Recipe(SCRIPT, tmp_path_factory.mktemp("a user's folder"), SMALL)
    return recipe, recipe.run().stdout


def test_every_stage_leaves_its_files(done: tuple[Recipe, str]) -> None:
    recipe, _ = done
    for name in ("train", "valid", "test"):
        assert {"wav.scp", "utt2spk", "spk2utt", "utt2dur"} <= list_files(recipe.data / name)
        assert {"feats.json", "feats.scp", "feats.00000.ark",
                "utt2num_frames"} <= list_files(recipe.feats / name)
        assert read_table(recipe.feats / name / "feats.scp").keys() == read_table(
            recipe.data / name / "wav.scp").keys()
    assert list_files(recipe.data / "test" / "trials") == {"test.kaldi"}
    assert {"config.yaml", "train.log", "metrics.jsonl", "models/last.pt",
            "models/epoch_001.safetensors", "models/epoch_002.safetensors",
            "models/avg_model.safetensors", "embeddings/train/mean_vec.npy",
            "embeddings/train/xvector.scp", "embeddings/test/xvector.scp",
            "embeddings/test/xvector.ark", "scores/test.score", "scores/train_asnorm8_test.score",
            "calibration/train_asnorm8.json", "scores/train_asnorm8_qmf_test.score",
            "RESULTS.md", "results.json", "report.html", "commands.txt", "det.png",
            "histogram_test.png", "histogram_train_asnorm8_test.png",
            "histogram_train_asnorm8_qmf_test.png", "embeddings/train/spk_xvector.scp",
            "bundle/manifest.json", "bundle/README.md"} <= list_files(recipe.exp)
    assert list((recipe.exp / "tb").iterdir())
    assert find_leftovers(recipe.folder) == []


def test_the_report_has_all_rows(done: tuple[Recipe, str]) -> None:
    recipe, printed = done
    results = json.loads((recipe.exp / "results.json").read_text())
    # 5 speakers of 4: 5 * 6 target trials, and as many non-target ones.
    assert [(row["trials"], row["norm"], row["num_trials"], row["num_target"], row["coverage"],
             row["cohort_size"]) for row in results["rows"]] == [
        ("test", "none", 60, 30, 1, None), ("test", "asnorm", 60, 30, 1, 10),
        ("test", "qmf", 60, 30, 1, 10)]
    assert [row["cllr"] is None for row in results["rows"]] == [True, True, False]
    assert f"| {results['rows'][2]['cllr']:.3f} |" in printed
    # 10 speakers of 6: 10 * 15 target trials, and as many others.
    trained = json.loads((recipe.exp / "calibration" / "train_asnorm8.json").read_text())["facts"]
    assert (trained["num_trials"], trained["num_target"]) == (300, 150)
    assert (recipe.exp / "RESULTS.md").read_text() in printed
    assert f"{results['rows'][0]['eer']:.3f}" in printed


def test_scores_are_the_cosines_of_the_embeddings(done: tuple[Recipe, str]) -> None:
    recipe, _ = done
    vectors = kaldiio.load_scp(str(recipe.exp / "embeddings" / "test" / "xvector.scp"))
    mean = np.load(recipe.exp / "embeddings" / "train" / "mean_vec.npy")
    lines = (recipe.exp / "scores" / "test.score").read_text().splitlines()
    assert len(lines) == 60
    for line in lines:
        enroll, test, score, label = line.split()
        a, b = (vectors[utt].astype(float) - mean for utt in (enroll, test))
        cosine = a @ b / np.sqrt(a @ a) / np.sqrt(b @ b)
        assert abs(float(score) - cosine) < 6e-6  # written with 5 decimals
        assert label == ("target" if enroll[:7] == test[:7] else "nontarget")


def test_the_trained_model_gives_the_numbers_of_the_score_file(done: tuple[Recipe, str]) -> None:
    recipe, _ = done
    trials, scores = read_scores(recipe.exp / "scores" / "test.score")
    wavs = read_table(recipe.data / "test" / "wav.scp")
    model = load_model(recipe.exp / "bundle")
    embedding = model.embed(wavs[trials.enroll[0]])
    assert (embedding.shape, embedding.dtype) == ((192,), np.float32)
    for number in (0, 30, 59):
        files = wavs[trials.enroll[number]], wavs[trials.test[number]]
        assert abs(model.similarity(*files) - scores[number]) < 1e-4
    command = [sys.executable, "-m", "wespeaker_lap", "similarity", str(recipe.exp), *files]
    printed = subprocess.run(command, cwd=recipe.folder, env=make_environment(), check=True,
                             capture_output=True, text=True).stdout
    assert printed == f"{model.similarity(*files):.5f}\n"


# --- dry runs -------------------------------------------------------------------------------------


def test_a_dry_run_prints_every_command_and_runs_none(tmp_path: Path) -> None:
    recipe = Recipe(SCRIPT, tmp_path, SMALL)
    done = recipe.run("--stage", "0", "--dry_run", "true", "--nproc", "2", "--trials", "test",
                      "--noise_scp", "a b/n.scp", "--rir_scp", "r.scp")
    lines = [line for line in done.stdout.splitlines() if not line.startswith("# ")]
    commands = [shlex.split(line) for line in lines]
    verbs = [words[words.index("wespeaker_lap") + 1] for words in commands
             if "wespeaker_lap" in words]
    assert verbs == [
        *(3 * ["audit-data"]), *(2 * ["make-trials"]), *(3 * ["extract-feats"]), "train",
        "average-model", *(2 * ["extract-embeddings"]), "score", "norm-scores",
        "train-calibration", "calibrate-scores", "report", "pack"]
    prepared = [words for words in commands if "local/prepare_data.py" in words]
    assert [words[words.index("--download") + 1] for words in prepared] == ["true", "false"]
    assert prepared[1][prepared[1].index("--train_size") + 1] == "10x6"
    audited = [words[words.index("audit-data") + 1] for words in commands if "audit-data" in words]
    assert audited == [str(recipe.data / name) for name in ("train", "test", "valid")]
    stored = {Path(words[words.index("--out") + 1]).name: words for words in commands
              if "extract-feats" in words}
    assert {name for name, words in stored.items() if "--training" in words} == {"train"}
    assert stored.keys() == {"train", "test", "valid"}
    for option, scp in (("--noise_scp", "a b/n.scp"), ("--rir_scp", "r.scp")):
        assert {name for name, words in stored.items() if option in words} == {"train"}
        assert stored["train"][stored["train"].index(option) + 1] == scp
    calibrated = next(words for words in commands if "train-calibration" in words)
    assert calibrated[calibrated.index("--feats") + 1] == str(recipe.feats / "train")
    assert calibrated[calibrated.index("--cohort") + 1] == str(recipe.data / "train")
    trained = next(words for words in commands if "train" in words)
    assert trained[trained.index("--nproc_per_node") + 1] == "2"
    assert "# encoder: wavlm_tiny, 7 states of 192" in done.stdout
    assert "disk free" in done.stdout
    assert list(tmp_path.iterdir()) == []


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--epochs", "3"], "unknown option --epochs"),
        (["--overrides", "train.epoch=3"], "train.epoch: unknown key; did you mean 'epochs'?"),
        (["--overrides", "train.epochs=3 seed=x"], "seed: Input should be a valid integer"),
        (["--config", "conf/lab.yaml"], "conf/lab.yaml: no such configuration file"),
        (["--seed", "-1"], "seed: "),
        (["--train_size", "10"], "want SPEAKERSxUTTERANCES"),
        (["--nj", "x"], "--nj wants a number from 1 on, got 'x'"),
        (["--stop_stage", "100"], "there are stages 0 to 9, got --stage 1 and --stop_stage 100"),
        (["--stage", "5", "--stop_stage", "3"], "--stage 5 comes after --stop_stage 3"),
        (["--stage", "2", "--nj", "1"], "data/train/wav.scp: no such file"),
        (["--stage", "4"], "is no trained model; give the folder that stage 3 wrote"),
    ],
)
def test_a_mistake_is_told_before_any_work(tmp_path: Path, options: list[str],
                                           message: str) -> None:
    assert message in Recipe(SCRIPT, tmp_path).fail(*options)
    assert list(tmp_path.iterdir()) == []


def test_the_lists_that_are_named_must_be_there(done: tuple[Recipe, str]) -> None:
    recipe, _ = done
    before = list_files(recipe.exp)
    told = recipe.fail("--stage", "5", "--trials", "test nosuch")
    assert "no list called 'nosuch'" in told
    assert f"{recipe.data}/<set>/trials of the test sets (test)" in told
    assert list_files(recipe.exp) == before


def test_lists_of_one_name_are_told_apart(done: tuple[Recipe, str]) -> None:
    recipe, _ = done
    other = shutil.copytree(recipe.data / "test", recipe.data / "other")
    before = list_files(recipe.exp)
    told = recipe.fail("--stage", "5", "--test_sets", "test other")
    assert "lists of one name, after which scores are named: test.kaldi; rename all but one" in told
    assert list_files(recipe.exp) == before
    shutil.rmtree(other)


def test_later_stages_do_not_pass_over_settings(done: tuple[Recipe, str]) -> None:
    """They read what the training wrote."""
    recipe, _ = done
    before = list_files(recipe.exp)
    for setting in ("score.top_n=7", "train.epochs=9"):
        told = recipe.fail("--stage", "6", "--overrides", setting)
        assert f"stage 3 has written other values than {setting} to {recipe.exp}/config" in told
    assert list_files(recipe.exp) == before


def test_other_weights_are_scored_and_not_packed(done: tuple[Recipe, str], tmp_path: Path) -> None:
    recipe, _ = done
    exp = shutil.copytree(recipe.exp, tmp_path / "exp")
    shutil.rmtree(exp / "bundle")
    told = recipe.run("--exp_dir", exp, "--stage", "4", "--checkpoint", "epoch_001").stderr
    assert "not packed: a packed model has the averaged weights, not epoch_001" in told
    assert not (exp / "bundle").exists()
    facts = json.loads((exp / "embeddings" / "test" / "weights.json").read_text())
    assert facts["weights"] == "epoch_001"
    with pytest.raises(ValueError, match="train: embedded with epoch_001"):
        load_model(exp)


def test_another_configuration_does_not_go_on_with_a_training(done: tuple[Recipe, str]) -> None:
    recipe, _ = done
    before = (recipe.exp / "models" / "last.pt").stat().st_mtime_ns
    told = recipe.fail("--stage", "3", "--seed", "7")
    assert f"{recipe.exp} holds another training: seed" in told
    assert "stage 3 (train) failed with exit code 1" in told
    assert (recipe.exp / "models" / "last.pt").stat().st_mtime_ns == before
