"""The messages on the page about troubleshooting are those of the code; `…` is what differs."""

import ast
import re
import shutil
from pathlib import Path

import pytest
from blocks import REPO, read_blocks

from wespeaker_lap.data.datadir import load_data_dir
from wespeaker_lap.io.table import read_table, write_table

PAGE = REPO / "docs" / "pages" / "troubleshooting.md"
MESSAGES = [" ".join(block.text.split()) for block in read_blocks(PAGE)
            if block.language == "text"]
MIN_LETTERS = 12  # of a message that are not `…`


def read_python(path: Path) -> list[str]:
    """The strings of a program, `…` where a value is put in."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            found.append("".join(part.value if isinstance(part, ast.Constant) else "…"
                                 for part in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
    return [" ".join(text.split()) for text in found]


def read_shell(path: Path) -> list[str]:
    """What a script may say, in one line each, `…` where a variable is put in."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ").replace('" "', " ")
    text = re.sub(r"\$\([^()]*\)|\$\{[^{}]*\}|\$\w+", "…", text)
    said = re.split(r"\b(?:die|env_say|log|reason=)", text)
    return [" ".join(one.replace('"', "").split()) for one in said]


def list_templates() -> list[str]:
    """What the code may say."""
    programs = [*REPO.glob("wespeaker_lap/**/*.py"), *REPO.glob("egs/*/*/local/*.py")]
    scripts = [*REPO.glob("tools/*.sh"), *REPO.glob("egs/*.sh")]
    return [text for path in programs for text in read_python(path)] + [
        text for path in scripts for text in read_shell(path)]


@pytest.fixture(scope="module")
def templates() -> list[str]:
    return list_templates()


def says(template: str, message: str) -> bool:
    """Whether a string of the code has this message in it."""
    parts = [re.escape(part) for part in message.split("…")]
    return re.search(".*".join(parts), template) is not None


def test_there_are_enough() -> None:
    assert len(MESSAGES) == len(set(MESSAGES)) >= 40


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_is_in_the_code(message: str, templates: list[str]) -> None:
    assert len(message.replace("…", "")) >= MIN_LETTERS
    plain = message.removeprefix("error: ")  # which the command line and `die` put before it
    assert any(says(template, plain) for template in templates)


def test_another_message_is_not() -> None:
    assert says("…: … of … recordings", "…: … of … recordings")
    assert not says("…: … of … recordings", "…: … of … utterances")


# --- some of them, as a user comes to them --------------------------------------------------------


def expect(told: str, beginning: str) -> None:
    """The one message of the page with this in it is what was told."""
    message, = (one for one in MESSAGES if beginning in one)
    assert says(" ".join(told.split()), message.removeprefix("error: ").strip("… ")), told


def test_mistakes_with_data(lap, data: Path, tmp_path: Path) -> None:
    expect(lap("audit-data", tmp_path / "x").err, "no such file; check the path")
    (data / "wav.scp").write_text("a sox a.wav - |\n")
    (data / "utt2spk").write_text("a a\n")
    assert lap("audit-data", data).code == 1
    expect((data / "rejects.tsv").read_text(), "a pipe, which is never run")
    (data / "wav.scp").write_text("a\n")
    expect(lap("audit-data", data).err, "expected 'key value'")


def test_too_many_rejects(lap, data: Path) -> None:
    wavs = read_table(data / "wav.scp")
    Path(next(iter(wavs.values()))).unlink()
    expect(lap("audit-data", data).err, "recordings cannot be used")


def test_every_recording_its_own_speaker(lap, data: Path) -> None:
    utts = read_table(data / "wav.scp")
    write_table(data / "utt2spk", {utt: utt.replace("/", "") for utt in utts})
    expect(lap("make-trials", data, "--out", data / "x.kaldi").err, "no target pair")


def test_mistakes_with_a_configuration(lap, tiny_system, tmp_path: Path) -> None:
    expect(lap("show-config", "--set", "train.epoch=3").err, "mistake(s)")
    given = ("train", "--data", tiny_system.data("train"), "--feats", tiny_system.feats("train"))
    small = ("--set", "train.epochs=1", "--set", "model.layer_pool.num_heads=4", "--device", "cpu")
    expect(lap(*given, "--exp_dir", tmp_path, *small, "--set", "train.precision=fp16").err,
           "fp16 needs a GPU")
    expect(lap(*given, "--exp_dir", tmp_path, *small, "--init", tiny_system.exp_dir, "--set",
               "model.layer_pool.out_dim=32", "--set", "model.embed_dim=16").err,
           "its classifier is another")
    expect(lap(*given, "--exp_dir", tmp_path, "--device", "cuda:99").err, "cannot be used here")


def test_another_training_in_the_folder(lap, tiny_system, copied: Path) -> None:
    done = lap("train", "--data", tiny_system.data("train"), "--feats", tiny_system.feats("train"),
               "--exp_dir", copied, "--config", copied / "config.yaml", "--set", "seed=7",
               "--device", "cpu")
    expect(done.err, "holds another training")


def test_mistakes_with_features(lap, tiny_system, tmp_path: Path) -> None:
    expect(lap("extract-feats", tiny_system.data("train"), "--out", tiny_system.feats("test"),
               "--device", "cpu").err, "holds features of another identity")
    store = shutil.copytree(tiny_system.feats("test"), tmp_path / "store")
    (store / "feats.scp").unlink()
    expect(lap("bench-io", store).err, "the extraction was not finished")
    expect(lap("extract-feats", tiny_system.data("train"), "--out", tmp_path / "new", "--set",
               "frontend.name=wavlm_tny").err, "unknown encoder")
    expect(lap("extract-feats", tiny_system.data("train"), "--out", tmp_path / "new", "--training",
               "--set", "features.copies=[clean,noise]", "--device", "cpu").err,
           "needs recordings and there are none")


def test_mistakes_with_scores(lap, tiny_system, copied: Path, tmp_path: Path) -> None:
    scoring = (copied, tiny_system.data("test"), "--trials", tiny_system.trials)
    expect(lap("norm-scores", *scoring, "--cohort", tiny_system.data("train"), "--top_n", 9).err,
           "lower top_n (--top_n)")
    expect(lap("norm-scores", *scoring, "--cohort", tiny_system.data("test")).err,
           "speakers of the trials are in the cohort")
    first, second, *_ = sorted(load_data_dir(tiny_system.data("test")).wavs)
    (tmp_path / "x.kaldi").write_text(f"{first} {second} target\n{first} nobody nontarget\n")
    expect(lap("score", *scoring[:3], tmp_path / "x.kaldi").err, "have no embedding")
    (tmp_path / "y.kaldi").write_text(f"{first} {second} target\n")
    expect(lap("score", *scoring[:3], tmp_path / "y.kaldi").err, "error rates need both kinds")


def test_mistakes_with_a_model(lap, tiny_system, tmp_path: Path) -> None:
    wavs = list(load_data_dir(tiny_system.data("test")).wavs.values())
    expect(lap("verify", tmp_path, *wavs[:2]).err, "is no trained model")
    expect(lap("verify", tiny_system.exp_dir, *wavs[:2], "--point", "far_7").err,
           "no operating point")
    enrolment = ("enroll", tiny_system.exp_dir, "ann", wavs[0], "--gallery", tmp_path / "g")
    assert lap(*enrolment).code == 0
    expect(lap(*enrolment).err, "enrolled already")
