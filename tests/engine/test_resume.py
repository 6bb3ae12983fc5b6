"""A training that was killed, stopped or finished goes on as if nothing had been."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import programs
import pytest
import safetensors.torch
import yaml
from trainings import (
    NO_DROPOUT,
    NUM_STEPS,
    STEPS_PER_EPOCH,
    load_last,
    read_metrics,
    read_steps,
    strip_times,
    weights_of,
    write_store,
)

JOURNAL, TRAIN = "wespeaker_lap.engine.journal", "wespeaker_lap.engine.train"
RESUME, CHECKPOINT = "wespeaker_lap.engine.resume", "wespeaker_lap.engine.checkpoint"


def accident(module: str, function: str, call: int, what: str, **more) -> dict:
    return {"module": module, "function": function, "call": call, "what": what, **more}


def assert_same_training(exp_dir: Path, whole: Path) -> None:
    for epoch in (1, 2, 3):
        assert weights_of(exp_dir, epoch) == weights_of(whole, epoch), epoch
    assert strip_times(read_steps(exp_dir)) == strip_times(read_steps(whole))
    assert [record["step"] for record in read_steps(exp_dir)] == [*range(1, NUM_STEPS + 1)]
    eers = [[record["valid_eer"] for record in read_metrics(folder) if "epoch" in record]
            for folder in (exp_dir, whole)]
    assert eers[0] == eers[1]
    assert len(eers[0]) == 3


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("died", [
    pytest.param(accident(JOURNAL, "Journal.log_step", 9, "SIGKILL", after=True), id="in-epoch"),
    pytest.param(accident(CHECKPOINT, "save_weights", 2, "SIGKILL", after=True), id="in-save"),
])
def test_a_killed_training_ends_with_the_same_weights(corpus, launcher, whole_training, tmp_path,
                                                      num_workers, died):
    """Bit by bit, with dropout: metrics of steps after the last state are dropped and redone."""
    command = corpus.command(tmp_path / "exp", f"train.num_workers={num_workers}")
    code, log = launcher.verb(command, died)
    assert code == -signal.SIGKILL, log
    assert read_metrics(tmp_path / "exp")[-1]["step"] > load_last(tmp_path / "exp")["step"] == 8
    code, log = launcher.verb(command)
    assert code == 0, log
    assert "from step 8" in log
    assert_same_training(tmp_path / "exp", whole_training)


def test_killed_while_the_state_is_written(corpus, launcher, whole_training, tmp_path):
    """The state before counts; the half-written file has another name, and goes."""
    command = corpus.command(tmp_path / "exp")
    # Written before it: the state after step 4, the weights of epoch 1, the state after step 6.
    died = accident("pathlib", "Path.write_bytes", 4, "SIGKILL", after=True)
    assert launcher.verb(command, died)[0] == -signal.SIGKILL
    models = tmp_path / "exp" / "models"
    (models / ".last.pt.tmp").write_bytes((models / ".last.pt.tmp").read_bytes()[:1000])
    assert load_last(tmp_path / "exp")["step"] == 6
    assert launcher.verb(command)[0] == 0
    assert_same_training(tmp_path / "exp", whole_training)
    assert not (models / ".last.pt.tmp").exists()


@pytest.mark.parametrize(("what", "step", "num_workers"), [
    ("SIGINT", 3, 1),
    ("SIGTERM", 9, 0),
    ("SIGTERM", STEPS_PER_EPOCH, 2),
])
def test_a_stopped_training_saves_that_step_and_goes_on(corpus, launcher, whole_training, tmp_path,
                                                        what, step, num_workers):
    """Exit code 130; also at the last step of an epoch, which is then finished first."""
    command = corpus.command(tmp_path / "exp", f"train.num_workers={num_workers}")
    code, log = launcher.verb(command, accident(TRAIN, "_update", step, what))
    assert code == 130, log
    assert "interrupted; the same command goes on" in log
    assert load_last(tmp_path / "exp")["step"] == read_metrics(tmp_path / "exp")[-1]["step"] == step
    said = (tmp_path / "exp" / "train.log").read_text()
    assert f"stopped after step {step} of {NUM_STEPS}" in said
    finished = len(list((tmp_path / "exp" / "models").glob("epoch_*")))
    assert finished == step // STEPS_PER_EPOCH
    assert launcher.verb(command)[0] == 0
    assert_same_training(tmp_path / "exp", whole_training)


def test_a_stop_in_the_very_last_step_is_the_end(corpus, launcher, whole_training, tmp_path):
    code, log = launcher.verb(corpus.command(tmp_path / "exp"),
                              accident(TRAIN, "_update", NUM_STEPS, "SIGTERM"))
    assert code == 0, log
    assert_same_training(tmp_path / "exp", whole_training)


# A constant added here is taken away again by the batch norm, or the softmax over time, behind it:
# the gradient is zero but for rounding, which Adam brings to the size of a step.
WITHOUT_EFFECT = {"net.layer_pool.out_linear.bias", "net.layer_pool.out_norm.running_mean",
                  "net.time_pool.norm.bias", "net.time_pool.expand.bias", "net.pool_norm.bias",
                  "net.linear.bias", "net.embed_norm.running_mean"}


def torchrun(command: list, accident_plan: dict, log_path: Path) -> subprocess.Popen:
    """Start a verb on two processes as the recipes do."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1",
                   "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                   "ACCIDENT": json.dumps(accident_plan)}
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node",
             "2", programs.__file__, *map(str, command)]
    with open(log_path, "w") as log:
        return subprocess.Popen(words, env=environment, stdout=log, stderr=log)


def wait_until(condition, process: subprocess.Popen, log_path: Path) -> None:
    end = time.monotonic() + programs.PATIENCE
    while not condition() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    if not condition():
        process.kill()
        pytest.fail(log_path.read_text())


def test_torchrun_stopped_and_started_again_equals_one_process(corpus, launcher, plain_training,
                                                                tmp_path):
    """Two processes under the real torchrun, SIGTERM to it, the rest by two without it.

    Without dropout two processes compute what one does, up to the order of sums.
    """
    exp_dir, log_path = tmp_path / "exp", tmp_path / "log"
    command = corpus.command(exp_dir, *NO_DROPOUT, "train.num_workers=1")
    metrics = exp_dir / "metrics.jsonl"
    process = torchrun(command, accident(TRAIN, "_update", 9, "pause", rank=0), log_path)
    wait_until(lambda: metrics.is_file() and '"step": 8' in metrics.read_text(), process, log_path)
    process.terminate()
    assert process.wait(programs.PATIENCE) != 0
    said = log_path.read_text()
    assert said.count("interrupted; the same command goes on") == 2, said
    assert load_last(exp_dir)["step"] == read_steps(exp_dir)[-1]["step"] == 9
    done = launcher.verb_by_two(command)
    assert [code for code, _ in done] == [0, 0], done
    assert "from step 9" in done[0][1]
    one, two = read_steps(plain_training), read_steps(exp_dir)
    assert [record["step"] for record in two] == [*range(1, NUM_STEPS + 1)]
    np.testing.assert_allclose([r["loss"] for r in two], [r["loss"] for r in one], rtol=1e-4)
    assert [(r["lr"], r["margin"]) for r in two] == [(r["lr"], r["margin"]) for r in one]
    weights = [safetensors.torch.load(weights_of(folder)) for folder in (plain_training, exp_dir)]
    for key in weights[0].keys() - WITHOUT_EFFECT:
        np.testing.assert_allclose(weights[1][key], weights[0][key], rtol=1e-4, atol=1e-5,
                                   err_msg=key)


def test_two_processes_agree_on_a_stop_that_one_was_asked_for(corpus, launcher, tmp_path):
    command = corpus.command(tmp_path / "exp")
    done = launcher.verb_by_two(command, accident(TRAIN, "_update", 3, "SIGTERM", rank=1))
    assert [code for code, _ in done] == [130, 130], done
    assert load_last(tmp_path / "exp")["step"] == 3


def test_a_process_that_fails_takes_the_other_along(corpus, launcher, tmp_path):
    """No hanging, without any help of torchrun, and no state of the broken step."""
    done = launcher.verb_by_two(corpus.command(tmp_path / "exp"),
                                accident(TRAIN, "_update", 6, "fail", rank=1))
    assert done[1][0] == 1
    assert "error: the planned accident" in done[1][1]
    assert done[0][0] == 1
    assert "error: lost another process of this run" in done[0][1]
    assert "Traceback" not in done[0][1] + done[1][1]
    assert load_last(tmp_path / "exp")["step"] == 4


def write_strided(directory: Path, corpus) -> Path:
    """A store with every second frame."""
    write_store(directory, corpus.data.utt2spk, 0, frame_stride=2, frame_shift=640)
    return directory


def copy_state(whole: Path, exp_dir: Path) -> None:
    """A started training without running one."""
    shutil.copytree(whole, exp_dir)


def test_another_configuration_is_refused_by_field(corpus, whole_training, tmp_path):
    copy_state(whole_training, tmp_path / "exp")
    before = (tmp_path / "exp" / "config.yaml").read_text()
    with pytest.raises(ValueError, match="holds another training") as caught:
        corpus.train(tmp_path / "exp", "train.lr=0.02", "model.layer_pool.num_heads=2")
    assert "train.lr is 0.01, expected 0.02" in str(caught.value)
    assert "model.layer_pool.num_heads is 4, expected 2" in str(caught.value)
    assert "--exp_dir" in str(caught.value)
    with pytest.raises(ValueError, match=r"model\.time_pool\.name is 'astp', expected 'stats'"):
        corpus.train(tmp_path / "exp", "model.time_pool={name: stats}")
    assert (tmp_path / "exp" / "config.yaml").read_text() == before


def test_a_configuration_of_an_earlier_version_is_completed(corpus, whole_training, tmp_path):
    """Keys that it did not know yet have the values that they had for it: the defaults."""
    copy_state(whole_training, tmp_path / "exp")
    path = tmp_path / "exp" / "config.yaml"
    saved = yaml.safe_load(path.read_text())
    saved["features"] = {"codec": saved["features"]["codec"]}
    path.write_text(yaml.safe_dump(saved))
    with pytest.raises(ValueError, match=r"another training: features\.frame_stride is 1, exp"):
        corpus.train(tmp_path / "exp", "features.frame_stride=2",
                     feats=write_strided(tmp_path / "feats", corpus), validation=None)
    corpus.train(tmp_path / "exp")  # finished, and it is the same one


def test_both_processes_refuse_with_the_same_words(corpus, launcher, whole_training, tmp_path):
    """None is left waiting for the other, or says something about a lost connection."""
    copy_state(whole_training, tmp_path / "exp")
    for code, log in launcher.verb_by_two(corpus.command(tmp_path / "exp", "seed=8")):
        assert code == 1
        assert "seed is 7, expected 8" in log
        assert "Traceback" not in log


def test_other_speakers_and_other_features_are_refused(corpus, whole_training, tmp_path):
    copy_state(whole_training, tmp_path / "exp")
    data = corpus.data
    fewer = {utt: spk for utt, spk in data.utt2spk.items() if spk != "train00"}
    with pytest.raises(ValueError, match="speakers are others"):
        corpus.train(tmp_path / "exp", data=type(data)(data.path, {u: u for u in fewer}, fewer, {},
                                                       {}))
    write_store(tmp_path / "feats", data.utt2spk, 0, encoder="another", data_hash="1")
    with pytest.raises(ValueError, match="encoder is 'made_up', expected 'another'"):
        corpus.train(tmp_path / "exp", feats=tmp_path / "feats", validation=None)


def test_a_smaller_set_of_the_same_speakers_is_refused(corpus, whole_training, tmp_path):
    copy_state(whole_training, tmp_path / "exp")
    data = corpus.data
    fewer = {utt: spk for utt, spk in data.utt2spk.items() if utt != "train00-0"}
    with pytest.raises(ValueError, match="trained on 48 utterances, the set has 47"):
        corpus.train(tmp_path / "exp", data=type(data)(data.path, {u: u for u in fewer}, fewer, {},
                                                       {}))


def test_what_does_not_change_the_result_may_change(corpus, launcher, whole_training, tmp_path):
    """Workers, checkpoints, epochs kept, and all of scoring; the new values are written down."""
    launcher.verb(corpus.command(tmp_path / "exp"), accident(TRAIN, "_update", 5, "SIGTERM"))
    free = ("train.num_workers=1", "train.checkpoint_steps=2", "train.keep_epochs=5",
            "score.top_n=77")
    code, log = launcher.verb(corpus.command(tmp_path / "exp", *free))
    assert code == 0, log
    assert_same_training(tmp_path / "exp", whole_training)
    assert "top_n: 77" in (tmp_path / "exp" / "config.yaml").read_text()


def test_a_broken_state_is_an_error_that_says_what_to_do(corpus, whole_training, tmp_path):
    copy_state(whole_training, tmp_path / "exp")
    path = tmp_path / "exp" / "models" / "last.pt"
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ValueError, match=r"last\.pt: not readable .*remove it"):
        corpus.train(tmp_path / "exp")


def test_a_start_from_nothing_drops_what_an_older_training_left(corpus, whole_training, tmp_path):
    """Else its later epochs would be averaged with the new ones."""
    copy_state(whole_training, tmp_path / "exp")
    (tmp_path / "exp" / "models" / "last.pt").unlink()
    corpus.train(tmp_path / "exp", "train.epochs=1", "seed=8")
    left = sorted(path.name for path in (tmp_path / "exp" / "models").iterdir())
    assert left == ["epoch_001.safetensors", "last.pt"]
    assert weights_of(tmp_path / "exp", 1) != weights_of(whole_training, 1)
    assert [r["step"] for r in read_steps(tmp_path / "exp")] == [*range(1, STEPS_PER_EPOCH + 1)]


def test_processes_with_different_states_are_refused(corpus, launcher, whole_training, tmp_path):
    """As on two machines whose folders are not the same disk."""
    for name in ("here", "there"):
        copy_state(whole_training, tmp_path / name)
    (tmp_path / "there" / "models" / "last.pt").unlink()
    commands = [corpus.command(tmp_path / name) for name in ("here", "there")]
    for code, log in launcher.verbs_of_two(commands):
        assert code == 1
        assert "must be on a disk that all machines share" in log
