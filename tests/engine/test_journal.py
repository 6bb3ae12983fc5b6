"""What a training leaves to read: metrics, TensorBoard, log; once for each step, whatever happened.
"""

import json
import logging
import signal

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from trainings import NUM_STEPS, STEPS_PER_EPOCH, read_metrics

from wespeaker_lap.engine.journal import Journal


def log_steps(journal: Journal, first: int, last: int, **changes) -> None:
    for step in range(first, last + 1):
        values = {"losses": [step / 2, 0.0, 0.0], "correct": 3.0, "num_examples": 4, "lr": 0.1,
                  "margin": 0.2, "waited": 0.01, "seconds": 0.1, "num_bytes": 10**6, **changes}
        journal.log_step(step, **values)


def read_board(exp_dir, tag: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(exp_dir / "tb"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_every_step_once_on_the_board_after_a_kill(corpus, launcher, tmp_path):
    """Killed after step 11, gone on from 8: step 8 stays, 9 to 11 are those of the second run."""
    command = corpus.command(tmp_path / "exp")
    accident = {"module": "wespeaker_lap.engine.journal", "function": "Journal.log_step",
                "call": 11, "what": "SIGKILL", "after": True}
    assert launcher.verb(command, accident)[0] == -signal.SIGKILL
    for path in (tmp_path / "exp" / "tb").iterdir():  # files are read in the order of their names
        stamp = path.name.split(".")[3]
        path.rename(path.with_name(path.name.replace(stamp, str(int(stamp) - 60))))
    assert launcher.verb(command)[0] == 0
    metrics = read_metrics(tmp_path / "exp")
    board = read_board(tmp_path / "exp", "train/loss")
    assert [step for step, _ in board] == [*range(1, NUM_STEPS + 1)]
    assert [value for _, value in board] == pytest.approx(
        [record["loss"] for record in metrics if "epoch" not in record], abs=1e-4)
    assert [step for step, _ in read_board(tmp_path / "exp", "valid/eer")] == [
        STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH, 3 * STEPS_PER_EPOCH]


def test_the_losses_add_up_and_those_that_are_used_stand_alone(tmp_path):
    with Journal(tmp_path, True, 0) as journal:
        journal.start_epoch(0, 1, 0)
        log_steps(journal, 1, 1, losses=[0.5, 0.25, 0.0])
    (record,) = read_metrics(tmp_path)
    assert (record["loss"], record["contrast"]) == (0.75, 0.25)
    assert "distillation" not in record


def test_an_epoch_is_the_mean_of_its_steps_by_hand(tmp_path, caplog):
    with Journal(tmp_path, True, 0) as journal:
        journal.start_epoch(0, 3, 0)
        log_steps(journal, 1, 3)
        assert journal.reading() == (pytest.approx(10), pytest.approx(0.1))
        with caplog.at_level(logging.INFO):
            journal.log_epoch(1, 3, 12.34567, [journal.reading(), (5.0, 0.15)],
                              [{"host": 1.5, "device": 7.25}, {"host": 2.12345, "device": 3.0}])
    assert ("rank 0 10 MB/s, 10% of the time waiting for it; rank 1 5 MB/s, 15% of the time "
            "waiting for it") in caplog.text
    assert "peak memory of a process: host 2.12 GB, device 7.25 GB" in caplog.text
    *steps, epoch = read_metrics(tmp_path)
    assert steps[1] == {"step": 2, "loss": 1.0, "acc": 0.75, "lr": 0.1, "margin": 0.2,
                        "seconds": 0.1, "utts_per_s": 40.0, "data_wait": 0.1}
    assert epoch == {"step": 3, "epoch": 1, "loss": 1.0, "acc": 0.75, "utts_per_s": 40.0,
                     "read_mb_per_s": 15.0, "data_wait": 0.15, "host_gb": 2.123,
                     "device_gb": 7.25, "valid_eer": 12.3457}


def test_records_after_the_state_and_torn_lines_are_dropped(tmp_path):
    lines = [json.dumps({"step": n}) for n in (1, 2, 3)]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 2, "lo']))
    with Journal(tmp_path, True, 2) as journal:
        journal.start_epoch(0, 6, 2)
        log_steps(journal, 3, 4)
    assert [record["step"] for record in read_metrics(tmp_path)] == [1, 2, 3, 4]


def test_a_step_is_on_disk_when_it_is_logged(tmp_path):
    with Journal(tmp_path, True, 0) as journal:
        journal.start_epoch(0, 6, 0)
        log_steps(journal, 1, 1)
        assert len(read_metrics(tmp_path)) == 1


def test_other_processes_write_nothing(tmp_path):
    with Journal(tmp_path, False, 0) as journal:
        journal.start_epoch(0, 6, 0)
        log_steps(journal, 1, 2)
        journal.log_epoch(1, 2, None, [journal.reading()], [{"host": 1.0}])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("waited", "num_steps", "is_said"), [
    (0.05, 11, True), (0.01, 11, False), (0.05, 5, False)])
def test_waiting_for_data_is_pointed_out(tmp_path, caplog, waited, num_steps, is_said):
    with caplog.at_level(logging.INFO), Journal(tmp_path, True, 0) as journal:
        journal.start_epoch(0, num_steps, 0)
        log_steps(journal, 1, num_steps, waited=waited)
        journal.log_epoch(1, num_steps, None, [journal.reading()], [{"host": 1.0}])
    assert ("'wespeaker-lap bench-io FEATS --config CONFIG'" in caplog.text) == is_said
    assert "validation EER" not in caplog.text
    assert "valid_eer" not in read_metrics(tmp_path)[-1]


@pytest.mark.parametrize(("error", "level"), [(ValueError, "ERROR"), (KeyboardInterrupt, "INFO")])
def test_how_it_ended_stands_in_the_log(tmp_path, caplog, error, level):
    handlers = list(logging.getLogger().handlers)
    with (caplog.at_level(logging.INFO), pytest.raises(error),
          Journal(tmp_path, True, 0)):
        raise error("the reason")
    assert f"{level} {error.__name__}: the reason" in (tmp_path / "train.log").read_text()
    assert logging.getLogger().handlers == handlers
