"""The command line: every verb has help, exit codes and messages, and the whole way once."""

import os
import subprocess
import sys

import numpy as np
import pytest
import yaml
from tiny import TINY_CONFIG, write_voices

from wespeaker_lap import cli, load_model
from wespeaker_lap.data import audit
from wespeaker_lap.data.datadir import load_data_dir
from wespeaker_lap.data.packed import PackedAudio
from wespeaker_lap.data.trials import read_trials
from wespeaker_lap.io.vectors import read_vectors
from wespeaker_lap.score.scorefile import read_scores

VERBS = {command.callback.__name__.replace("_", "-"): command.callback
         for command in cli.app.registered_commands}


def test_there_is_a_verb_for_every_stage():
    assert {"audit-data", "make-trials", "extract-feats", "train", "average-model",
            "extract-embeddings", "score", "norm-scores", "train-calibration", "calibrate-scores",
            "report", "pack", "check-model", "push", "embed", "similarity", "verify", "enroll",
            "identify"} <= VERBS.keys()


@pytest.mark.parametrize("verb", VERBS)
def test_help(lap, verb):
    done = lap(verb, "--help")
    assert (done.code, done.err) == (0, "")
    text = " ".join(done.out.split())
    assert verb in text and VERBS[verb].__doc__ in text
    for name in VERBS[verb].__annotations__:
        shown = {"overrides": "--set", "num_jobs": "--nj"}.get(name, name.replace("_", "-"))
        assert name == "return" or shown in text.lower().replace("_", "-"), name


@pytest.mark.parametrize("args", [(), ("--help",)])
def test_the_list_of_verbs(lap, args):
    done = lap(*args)
    assert all(verb in done.out + done.err for verb in VERBS)
    assert done.code == (0 if args else 2)


@pytest.mark.parametrize(("args", "message"), [
    (("scroe", "x"), "No such command 'scroe'"),
    (("audit-data",), "Missing argument"),
    (("audit-data", "x", "--njj", "2"), "No such option"),
    (("audit-data", "x", "--nj", "two"), "--nj"),
    (("make-trials", "x"), "--out"),
    (("norm-scores", "a", "b", "--trials", "c", "--cohort", "d", "--top-n", "0"), "equal to 2"),
    (("check-model", "a", "b", "--num", "0"), "equal to 1"),
    (("average-model", "a", "b"), "unexpected extra argument"),
])
def test_a_wrong_call_exits_2(lap, args, message):
    done = lap(*args)
    assert done.code == 2 and done.out == ""
    assert message in " ".join(done.err.split()) and "Traceback" not in done.err


@pytest.mark.parametrize("verb", [
    ("audit-data", "x"), ("make-data", "--wav_dir", "x", "--out", "y"),
    ("pack-audio", "x", "--out", "y")])
@pytest.mark.parametrize(("option", "values"), [
    ("--nj", ("-2", "0")), ("--sample_rate", ("0", "-8000")),
    ("--min_seconds", ("-1", "nan", "inf", "-inf")),
    ("--max_reject_share", ("-0.1", "1.01", "5", "nan"))])
def test_a_value_out_of_range_is_a_wrong_call(lap, tmp_path, monkeypatch, verb, option, values):
    monkeypatch.chdir(tmp_path)
    if verb[0] == "pack-audio" and option in ("--min_seconds", "--max_reject_share"):
        return  # it rejects nothing
    for value in values:
        done = lap(*verb, f"{option}={value}")
        assert (done.code, done.out) == (2, "")
        told = " ".join(done.err.split())
        assert f"Invalid value for '{option.replace('_', '-')}'" in told, told
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("args", "message"), [
    (("audit-data", "nowhere"), "nowhere/wav.scp: no such file; check the path or run the stage"),
    (("make-trials", "nowhere", "--out", "x"), "nowhere/wav.scp: no such file"),
    (("show-config", "--config", "nowhere.yaml"), "nowhere.yaml: no such configuration file"),
    (("show-config", "--get", "seed.x"), "no value 'seed.x' in the configuration"),
    (("show-config", "--set", "seed"), "override 'seed': expected section.key=value"),
    (("extract-feats", "nowhere", "--out", "x"), "nowhere/wav.scp: no such file"),
    (("pack-audio", "nowhere", "--out", "x"), "nowhere/wav.scp: no such file"),
    (("pretrain", "--audio", "nowhere", "--exp_dir", "x"), "nowhere/audio.json: no such file; run"),
    (("train", "--data", "a", "--feats", "nowhere", "--exp_dir", "c"), "no such file"),
    (("train", "--data", "a", "--feats", "b", "--exp_dir", "c", "--valid_feats", "d"),
     "--valid_trials goes together with either --valid_feats or --valid_data"),
    (("average-model", "nowhere"), "nowhere is no trained model; give the folder that stage 3"),
    (("average-model", "nowhere", "--num_avg", "2"), "nowhere/model.json: no such file"),
    (("extract-embeddings", "nowhere", "no", "--feats", "x"), "no/wav.scp: no such file"),
    (("score", "nowhere", "no", "--trials", "x"), "nowhere is no trained model; give the folder"),
    (("norm-scores", "nowhere", "no", "--trials", "x", "--cohort", "y"), "nowhere/model.json"),
    (("train-calibration", "nowhere", "no", "--feats", "x", "--cohort", "y"), "nowhere/model.json"),
    (("calibrate-scores", "nowhere", "no", "--trials", "x", "--cohort", "y"), "nowhere/model.json"),
    (("fuse-scores", "nowhere", "no", "--data", "x", "--train", "a", "--trials", "b", "--out", "y"),
     "nowhere/config.yaml: no such configuration file"),
    (("report", "nowhere"), "nowhere is no trained model; give the folder that stage 3 wrote"),
    (("report", "nowhere", "too"), "several systems needs a place: give --out PAGE.html"),
    (("join-reports", "nowhere", "--out", "x"), "nowhere/results.json: no such file"),
    (("embed", "nowhere", "a.wav", "--out", "x"), "nowhere/model.json: no such file"),
    (("similarity", "nowhere", "a.wav", "b.wav"), "nowhere/model.json: no such file"),
    (("attention", "nowhere", "no", "--out", "x"), "no/wav.scp: no such file"),
    (("pack", "nowhere", "--out", "x"), "nowhere/model.json: no such file"),
    (("check-model", "nowhere", "exp"), "nowhere/model.json: no such file"),
    (("push", "nowhere", "hf://org/name"), "nowhere/manifest.json: no such file"),
    (("enroll", "nowhere", "ann", "a.wav", "--gallery", "x"), "nowhere/model.json: no such file"),
])
def test_an_error_is_one_line_and_exits_1(lap, tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    done = lap(*args)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: ") and done.err.count("\n") == 1 and message in done.err
    assert not list(tmp_path.iterdir())


def test_debugging_shows_where_an_error_comes_from(lap, monkeypatch):
    monkeypatch.setenv("WESPEAKER_LAP_DEBUG", "1")
    monkeypatch.setattr(sys, "argv", ["wespeaker-lap", "audit-data", "nowhere"])
    with pytest.raises(FileNotFoundError):
        cli.main()


def test_ctrl_c_exits_130_with_one_line(lap, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(audit, "audit_data_dir", stop)
    done = lap("audit-data", "x")
    assert (done.code, done.out) == (130, "")
    assert done.err == "interrupted; the same command goes on where this one stopped\n"


@pytest.mark.parametrize("option", [
    ("--min-seconds", "0.6"), ("--min_seconds", "0.6"), ("--min_seconds=0.6",),
    ("--min-seconds=0.6",)])
def test_dashes_and_underscores_are_the_same(lap, tmp_path, option):
    path = write_voices(tmp_path / "my_set", "ab")
    done = lap("audit-data", path, *option, "--max_reject_share", "1")
    assert done.code == 0
    expected = {utt for utt, seconds in load_data_dir(path).durations.items() if seconds >= 0.6}
    assert 0 < len(expected) < 8 and load_data_dir(path).wavs.keys() == expected


def test_only_names_are_changed_not_values(lap, tmp_path):
    done = lap("show-config", "--set=frontend.name=my_--x_y", "--get=frontend.name")
    assert (done.code, done.out) == (0, "my_--x_y\n")


def test_show_config(lap, tmp_path):
    (tmp_path / "a.yaml").write_text("train: {epochs: 3}\n")
    done = lap("show-config", "--config", tmp_path / "a.yaml", "--set", "seed=7", "--set",
               "topK=2")
    shown = yaml.safe_load(done.out)
    assert (shown["train"]["epochs"], shown["seed"], shown["loss"]["top_k"]) == (3, 7, 2)
    assert lap("show-config", "--get", "train.epochs").out == "40\n"


def test_show_config_of_a_pretraining(lap, tmp_path):
    (tmp_path / "a.yaml").write_text("train: {steps: 3}\n")
    done = lap("show-config", "--pretraining", "--config", tmp_path / "a.yaml", "--set",
               "encoder.conv_layers=[[8, 400, 160], [4, 3, 2]]")
    shown = yaml.safe_load(done.out)
    assert (shown["train"]["steps"], shown["crops"]["mix_db"]) == (3, [-5, 5])
    assert shown["encoder"]["conv_layers"] == [[8, 400, 160], [4, 3, 2]]
    assert lap("show-config", "--pretraining", "--get", "encoder.norm").out == "post\n"
    done = lap("show-config", "--pretraining", "--set", "train.step=3")
    assert done.code == 1 and "train.step: unknown key; did you mean 'steps'?" in done.err


def test_pack_audio(lap, tmp_path):
    sets = [write_voices(tmp_path / speaker, speaker) for speaker in "ay"]
    assert all(lap("audit-data", path).code == 0 for path in sets)
    out = tmp_path / "pack"
    assert lap("pack-audio", *sets, "--out", out, "--nj", "2", "--sample_rate", "8000").code == 0
    packed = PackedAudio(out)
    seconds = {**load_data_dir(sets[0]).durations, **load_data_dir(sets[1]).durations}
    assert packed.sample_rate == 8000
    assert packed.lengths / 8000 == pytest.approx([seconds[utt] for utt in packed.utts], abs=1e-3)
    done = lap("pack-audio", sets[0], "--out", out)
    assert done.code == 1 and f"{out}: holds a pack of other data" in done.err


def test_plan(lap, tiny_system, tmp_path):
    done = lap("plan", tiny_system.data("train"), tmp_path / "later")
    assert done.code == 0
    assert "encoder: wavlm_tiny, 7 states of 192; one CPU process does" in done.out
    assert f"{tiny_system.data('train')}: 16 utterances, 0.00 h; features 0.0" in done.out
    assert f"{tmp_path}/later: not prepared yet; stage 1 writes it" in done.out
    assert "disk free here" in done.out
    done = lap("plan", tmp_path, "--set", "frontend.name=WAVLM_TYPO")
    assert done.code == 0 and "encoder: " in done.out and "WAVLM_TYPO" in done.out


def test_python_m_is_the_command(tmp_path):
    environment = {**os.environ, "LC_ALL": "C", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "wespeaker_lap", "audit-data", "wö"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True,
                          check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == ("error: wö/wav.scp: no such file; check the path or run the stage that "
                           "writes it\n")


def test_the_whole_way(lap, tmp_path, monkeypatch):
    """Stages 1 to 8 and inference, from recordings to a page, in relative paths."""
    monkeypatch.chdir(tmp_path)
    settings = [part for item in TINY_CONFIG for part in ("--set", item)]
    for name, speakers in (("train", "abcé"), ("test", "xy语")):
        write_voices(tmp_path / "data" / name, speakers)
        assert lap("audit-data", f"data/{name}", "--nj", "2").code == 0
        done = lap("extract-feats", f"data/{name}", "--out", f"feats/{name}", *settings,
                   "--device", "cpu")
        assert done.code == 0, done.err
    assert lap("make-trials", "data/test", "--out", "data/test/trials/test.kaldi").code == 0
    valid = ["--valid_feats", "feats/test", "--valid_trials", "data/test/trials/test.kaldi"]
    done = lap("train", "--data", "data/train", "--feats", "feats/train", "--exp_dir", "exp/é",
               *settings, *valid, "--device", "cpu")
    assert done.code == 0 and "validation EER" in done.log, done.err
    assert lap("average-model", "exp/é").code == 0
    for name in ("train", "test"):
        done = lap("extract-embeddings", "exp/é", f"data/{name}", "--feats", f"feats/{name}",
                   "--device", "cpu")
        assert done.code == 0, done.err
    scoring = ("exp/é", "data/test", "--trials", "data/test/trials/test.kaldi")
    cosine = lap("score", *scoring)
    assert cosine.code == 0 and cosine.out.startswith("EER = ")
    assert (tmp_path / "exp/é/scores/test.metrics").read_text() == cosine.out
    normed = lap("norm-scores", *scoring, "--cohort", "data/train")
    assert normed.code == 0
    assert "asnorm: 36 trials (18 target), coverage 100.00 %, cohort train (4, top 3)" in normed.log
    assert (tmp_path / "exp/é/scores/train_asnorm3_test.score").is_file()
    cohort = ("--cohort", "data/train", "--top_n", "2")  # of four, two are left of a trial
    done = lap("train-calibration", "exp/é", "data/train", "--feats", "feats/train", *cohort,
               "--num_trials", "40", "--crop_seconds", "0.2", "--crop_seconds", "0.4", "--device",
               "cpu")
    assert done.code == 0 and "calibration on 40 trials (20 target)" in done.log, done.err
    calibrated = lap("calibrate-scores", *scoring, *cohort)
    assert calibrated.code == 0 and "\nCllr = " in calibrated.out, calibrated.err
    assert (tmp_path / "exp/é/scores/train_asnorm2_qmf_test.score").is_file()
    page = lap("report", "exp/é")
    assert page.code == 0 and "| é |" in page.out
    assert lap("join-reports", "exp/é", "exp/é", "--out", "ALL.md").code == 0
    check_inference(lap, tmp_path)


def check_inference(lap, root):
    """One trial from its recordings, against the score file."""
    trials, scores = read_scores(root / "exp/é/scores/test.score")
    assert trials.enroll == read_trials(root / "data/test/trials/test.kaldi").enroll
    wavs = load_data_dir(root / "data/test").wavs
    a, b = wavs[trials.enroll[0]], wavs[trials.test[0]]
    done = lap("similarity", "exp/é", a, b)
    assert done.code == 0 and float(done.out) == pytest.approx(scores[0], abs=1e-4)
    done = lap("embed", "exp/é", a, b, "-o", "mine")
    assert (done.code, done.out) == (0, "mine/xvector.scp\n")
    _, vectors = read_vectors("mine/xvector.scp", [a, b])
    np.testing.assert_allclose(vectors, load_model("exp/é").embed([a, b]), rtol=1e-5, atol=1e-6)
