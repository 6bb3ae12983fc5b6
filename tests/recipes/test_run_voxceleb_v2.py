"""VoxCeleb v2 takes its data from v1: what its run.sh asks for, and what it says without it."""

import re
from pathlib import Path

from calling import REPO, Recipe
from test_readme import read_options

from wespeaker_lap.config import load_config

RECIPE = REPO / "egs" / "voxceleb" / "v2"
SCRIPT = RECIPE / "run.sh"


def test_the_data_is_that_of_v1() -> None:
    v1, v2 = (read_options(RECIPE.parent / name / "run.sh") for name in ("v1", "v2"))
    assert (v2["--data"], v2["--stage"]) == ("../v1/data", "2")
    for name in ("--train_set", "--valid_set", "--test_sets"):
        assert v1[name] == v2[name]


def test_it_does_not_prepare_data(tmp_path: Path) -> None:
    recipe = Recipe(SCRIPT, tmp_path)
    told = recipe.fail("--stage", "1")
    assert "bash ../v1/run.sh --stop_stage 1" in told
    assert f"{recipe.data}/vox2_dev/wav.scp: no such file" in recipe.fail(
        "--stop_stage", "2", "--nj", "1")


def test_students_learn_from_a_configuration_of_v1() -> None:
    teachers = {}
    for path in sorted((RECIPE / "conf").glob("*.yaml")):
        config = load_config(path)
        if config.distill:
            teachers[path.stem] = config.distill.teacher
            # Nothing but the teacher is different from the network on its own.
            alone = load_config(path.with_name(re.sub(r"^(enskd|kd_[a-z]+)_", "", path.name)))
            assert config.model_copy(update={"distill": None}) == alone
    assert len(teachers) == 5 and set(teachers.values()) == {"../v1/exp/wavlm_large_lap"}
    teacher = load_config(RECIPE.parent / "v1" / "conf" / "wavlm_large_lap.yaml")
    student = load_config(RECIPE / "conf" / "kd_embedding_xvector.yaml")
    assert teacher.model.embed_dim == student.model.embed_dim
