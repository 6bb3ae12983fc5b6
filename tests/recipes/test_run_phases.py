"""The three phases as one recipe: their commands, their configurations, and a run that is killed.

The run is on a part of speechocean762, with the packaged encoder.
"""

import json
import shlex
from pathlib import Path

import pytest
from calling import REPO, Recipe, find_leftovers, read_times
from small_corpus import write_small_corpus

from wespeaker_lap.config import load_config
from wespeaker_lap.io.facts import load_facts, name_encoder

SCRIPT = REPO / "egs" / "speechocean762" / "v1" / "run.sh"
VOXCELEB = REPO / "egs" / "voxceleb" / "v1"
NUM_SPEAKERS = {"train": 18, "test": 3}  # 13 of the first are held back
FOLDERS = ("exp", "exp-joint", "exp-lm")
SMALL = ("--nj", "1", "--device", "cpu", "--valid_set=", "--cohort_set=", "--overrides",
         "train.epochs=1 train.batch_size=5 train.accumulate=1 train.crop_seconds=0.5 "
         "train.num_workers=0 train.checkpoint_steps=1 score.top_n=2",
         "--joint_overrides", "train.epochs=3", "--lm_overrides", "train.crop_seconds=1.0")


# --- a run ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpus(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first speakers of both parts with three utterances each, the sounds where they are."""
    return write_small_corpus(shared / "corpora" / "speechocean762",
                              tmp_path_factory.mktemp("corpus"), NUM_SPEAKERS, 3)


@pytest.fixture(scope="module")
def done(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, dict, str]:
    """Killed in the second phase, which is ended alone, and called again; when the first two phases
    were written, and what the last call said.
    """
    recipe = Recipe(SCRIPT, tmp_path_factory.mktemp("a user's phases"),
                    ("--corpus_dir", str(corpus), "--phase", "all", *SMALL))
    recipe.kill_when((recipe.folder / "exp-joint" / "models" / "last.pt").exists)
    times = read_times(recipe.exp, recipe.feats)
    recipe.run("--phase", "joint")
    times |= read_times(recipe.folder / "exp-joint")
    return recipe, times, recipe.run("--stage", "2").stderr


def test_finished_phases_are_not_done_again(done: tuple[Recipe, dict, str]) -> None:
    recipe, times, told = done
    assert told.count("stages 4-8 of ") == 2 and "0 of 1 shards to do" in told
    kept = {path for path in times if path.suffix in (".ark", ".score", ".safetensors", ".html")}
    assert {path.relative_to(recipe.folder).parts[0] for path in kept} == {
        "exp", "exp-joint", "feats"}
    after = read_times(recipe.folder)
    assert {path: after[path] for path in kept} == {path: times[path] for path in kept}


def test_the_killed_phase_went_on(done: tuple[Recipe, dict, str]) -> None:
    recipe, _, _ = done
    folder = recipe.folder / "exp-joint"
    said = (folder / "train.log").read_text()
    assert "from the start" in said and "from step" in said
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [record["step"] for record in records if "epoch" not in record]
    assert steps == [*range(1, 10)]  # 3 epochs of 15 utterances, 5 a batch
    assert find_leftovers(recipe.folder) == []


def test_each_phase_begins_with_the_one_before(done: tuple[Recipe, dict, str]) -> None:
    recipe, _, _ = done
    facts = [load_facts(recipe.folder / name) for name in FOLDERS]
    assert [one.get("init", {}).get("system") for one in facts] == [None, "exp", "exp-joint"]
    assert [one["num_speakers"] for one in facts] == [15, 5, 5]
    assert [one["train_set"] for one in facts] == ["train_sp", "train", "train"]
    assert facts[2]["features"]["weights_sha256"] == facts[1]["tuned"]["weights_sha256"]
    hashes = {one.get("tuned", one["features"])["weights_sha256"] for one in facts}
    assert len(hashes) == 3  # the encoder was trained in both
    assert {name_encoder(one) for one in facts} == {"wavlm_tiny"}
    for name, kept in (("exp-joint", "5 speakers kept, 10 left out"),
                       ("exp-lm", "5 speakers kept, 0 left out")):
        assert f"avg_model.safetensors: {kept}, 0 new" in (
            recipe.folder / name / "train.log").read_text()
    first = json.loads((recipe.folder / "exp-lm" / "metrics.jsonl").open().readline())
    assert (first["step"], first["margin"]) == (1, 0.4)


def test_one_table_has_all_phases(done: tuple[Recipe, dict, str]) -> None:
    recipe, _, _ = done
    lines = (recipe.folder / "exp-phases" / "RESULTS.md").read_text().splitlines()
    table = [line.strip("| ").split(" | ") for line in lines if line.startswith("| exp")]
    results = [cells for cells in table if cells[1].endswith(" M")]
    # System, parameters, large margin, AS-norm, calibration, EER.
    assert [[cells[0], *cells[2:5]] for cells in results] == [
        [name, mark, *norm] for name, mark in zip(FOLDERS, ("no", "no", "yes"), strict=True)
        for norm in (("no", "no"), ("yes", "no"), ("yes", "yes"))]
    for name in FOLDERS:
        rows = json.loads((recipe.folder / name / "results.json").read_text())["rows"]
        assert [cells[5].split()[0] for cells in results if cells[0] == name] == [
            f"{row['eer']:.3f}" for row in rows]
    start = lines.index("## Training")
    costs = [line.strip("| ").split(" | ") for line in lines[start:] if line.startswith("| exp")]
    assert [cells[0] for cells in costs] == list(FOLDERS)
    assert [cells[2] for cells in costs] == ["1", "3", "1"]  # epochs
    assert all(0.1 < float(cells[4]) < 50 for cells in costs)  # GB
    assert "- Encoder: wavlm_tiny" in lines


# --- commands -------------------------------------------------------------------------------------


def list_commands(folder: Path, *options: object, script: Path = SCRIPT) -> list[list[str]]:
    """The verbs that a recipe would run, with their arguments."""
    told = Recipe(script, folder).run("--dry_run", "true", "--stage", "3", *options).stdout
    lines = [shlex.split(line) for line in told.splitlines() if not line.startswith("#")]
    return [words[words.index("wespeaker_lap") + 1:] for words in lines if "wespeaker_lap" in words]


def value_of(words: list[str], option: str) -> str | None:
    return words[words.index(option) + 1] if option in words else None


@pytest.mark.parametrize("options", [("--phase", "all"), ("--stop_stage", "9")])
def test_a_dry_run_prints_all_phases(tmp_path: Path, options: tuple[str, str]) -> None:
    commands = list_commands(tmp_path, *options, "--exp_dir", "exp/a-seed4", "--seed", "4")
    trains = [words for words in commands if words[0] == "train"]
    assert [[value_of(words, name) for name in ("--exp_dir", "--init", "--config", "--data")]
            for words in trains] == [
        ["exp/a-seed4", None, "conf/lap.yaml", f"{tmp_path}/data/train_sp"],
        ["exp/a-joint-seed4", "exp/a-seed4", "conf/lap_joint.yaml", f"{tmp_path}/data/train"],
        ["exp/a-lm-seed4", "exp/a-joint-seed4", "conf/lap_lm.yaml", f"{tmp_path}/data/train"]]
    assert "frontend.name=exp/a-joint-seed4/encoder" in trains[2]
    assert all("seed=4" in words for words in trains)
    packed = [words[1] for words in commands if words[0] == "pack"]
    assert packed == ["exp/a-seed4", "exp/a-joint-seed4", "exp/a-lm-seed4"]
    assert commands[-1] == ["join-reports", *packed, "--out", "exp/a-phases-seed4/RESULTS.md"]


def test_a_phase_alone(tmp_path: Path) -> None:
    commands = list_commands(tmp_path, "--phase", "large_margin", "--init", "other", "--exp_dir",
                             "exp/a", "--stop_stage", "4", "--lm_overrides", "train.epochs=7")
    assert [words[0] for words in commands] == [
        "train", "average-model", "extract-embeddings", "extract-embeddings"]
    assert (value_of(commands[0], "--init"), value_of(commands[0], "--exp_dir")) == (
        "other", "exp/a-lm")
    assert {"train.epochs=7", "frontend.name=other/encoder"} <= set(commands[0])
    # One whose encoder is as it was.
    (tmp_path / "frozen").mkdir()
    commands = list_commands(tmp_path, "--phase", "large_margin", "--init", tmp_path / "frozen",
                             "--stop_stage", "3")
    assert "frontend" not in " ".join(commands[0])


def test_stage_9_is_the_later_phases(tmp_path: Path) -> None:
    commands = list_commands(tmp_path, "--stage", "9", "--exp_dir", "exp/a")
    assert [value_of(words, "--exp_dir") for words in commands if words[0] == "train"] == [
        "exp/a-joint", "exp/a-lm"]
    commands = list_commands(tmp_path, "--phase", "all", "--stage", "5", "--stop_stage", "6")
    assert [words[0] for words in commands] == 3 * ["score", "norm-scores"]


@pytest.mark.parametrize(("options", "message"), [
    (["--phase", "second"], "--phase wants frozen, joint, large_margin or all, got 'second'"),
    (["--phase", "all", "--stop_stage", "3"], "give --stop_stage 4 or more"),
    (["--phase", "all", "--config", "conf/single.yaml"], "there is no conf/single_joint.yaml"),
    (["--phase", "all", "--lm_overrides", "train.epoch=1"], "did you mean"),
    (["--phase", "all", "--lm_overrides", "data.augment.noise=1"],
     "conf/lap_lm.yaml augments with noise: give --noise_scp"),
    (["--phase", "joint", "--overrides", "data.augment.reverb=0.5"], "give --rir_scp")])
def test_mistakes_are_told_before_anything_runs(tmp_path: Path, options: list[str],
                                                message: str) -> None:
    told = Recipe(SCRIPT, tmp_path).fail(*options)
    assert message in told and " stage 1: " not in told
    assert list(tmp_path.iterdir()) == []


# --- configurations -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["wavlm_large_lap", "wavlm_base_plus_lap"])
def test_voxceleb_has_the_published_settings(name: str) -> None:
    """The table of arXiv 2512.22148's authors' defaults."""
    frozen, joint, large = (load_config(VOXCELEB / "conf" / f"{name}{tail}.yaml")
                            for tail in ("", "_joint", "_lm"))
    assert frozen.model == joint.model == large.model
    assert frozen.frontend == joint.frontend == large.frontend
    rows = [(one.train.epochs, one.train.crop_seconds, one.train.batch_size, one.train.accumulate,
             one.train.lr, one.train.final_lr, one.train.weight_decay, one.loss.margin,
             one.loss.top_k, one.loss.schedule.end_epoch) for one in (frozen, joint, large)]
    assert rows == [(40, 2.0, 512, 1, 1e-3, 1e-5, 5e-5, 0.3, 5, 20),
                    (10, 2.0, 512, 1, 5e-5, 5e-6, 1e-5, 0.3, 5, 0),
                    (3, 6.0, 128, 4, 5e-6, 5e-6, 1e-5, 0.5, 0, 0)]
    assert {(one.loss.scale, one.loss.num_subcenters) for one in (frozen, joint, large)} == {
        (30, 3)}
    assert large.train.warmup_share == 0
    for one in (joint, large):
        assert one.data.source == "wave" and one.data.speeds == (1.0,)
        assert one.data.augment.prob == 0.6 and one.data.augment.noise and one.data.augment.reverb
        assert one.train.encoder.lr == one.train.lr


def test_the_frozen_phase_is_augmented_as_published() -> None:
    """From a store or from recordings: 0.6 with noise, speeds at 1:3:1."""
    plain = load_config(VOXCELEB / "conf" / "wavlm_large_lap.yaml")
    stored = load_config(VOXCELEB / "conf" / "wavlm_large_lap_copies.yaml")
    assert stored.model == plain.model and stored.loss == plain.loss
    weights = stored.train.copy_weights
    assert weights.keys() == set(stored.features.copies)
    assert sum(weights[name] for name in ("noise", "reverb", "babble")) / sum(
        weights[name] for name in ("clean", "noise", "reverb", "babble")) == pytest.approx(0.6)
    assert [weights[f"speed{factor}"] for factor in (0.9, 1.1)] == pytest.approx(2 * [1 / 3], 1e-3)
    assert stored.train.model_copy(update={"copy_weights": {}}) == plain.train
    told = (VOXCELEB / "README.md").read_text()
    overrides = told.split('--frozen_overrides "')[1].split('"')[0].split()
    waves = load_config(VOXCELEB / "conf" / "wavlm_large_lap.yaml", overrides).data
    assert (waves.source, waves.augment.prob, waves.speeds) == ("wave", 0.6, (0.9, 1.0, 1.1))
    assert waves.speed_share == pytest.approx(1 / 3, 1e-3)


@pytest.mark.parametrize("recipe", ["speechocean762", "mini"])
def test_small_recipes_need_no_further_recordings(recipe: str) -> None:
    frozen, joint, large = (load_config(REPO / "egs" / recipe / "v1" / "conf" / f"lap{tail}.yaml")
                            for tail in ("", "_joint", "_lm"))
    assert frozen.model == joint.model == large.model
    assert large.loss.margin > joint.loss.margin == frozen.loss.margin
    assert large.loss.top_k == 0 and large.train.crop_seconds > joint.train.crop_seconds
    for one in (joint, large):
        assert not one.data.augment.noise and not one.data.augment.reverb
        assert one.loss.schedule.end_epoch == 0 and one.loss.num_subcenters == 1
