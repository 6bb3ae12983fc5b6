"""What a pre-training leaves to read: means over some steps, by hand."""

import logging

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_pretraining import ALONE, make_config, read_metrics

from wespeaker_lap.engine.dist import World
from wespeaker_lap.pretrain.journal import Journal

TRAIN = make_config(train__front_steps=2, train__steps=5, train__batch_size=8).train


def log_steps(journal: Journal, first: int, last: int) -> None:
    for step in range(first, last + 1):
        journal.log_step(step, {"loss": float(step), "code": 2.0 * step}, 0.1 / step, 0.05, 0.5)


def test_a_record_is_the_mean_of_its_steps(tmp_path):
    """Steps 1 to 3, 4 to 6, and the last alone; 8 crops in half a second."""
    with Journal(tmp_path, ALONE, 0, TRAIN, every=3) as journal:
        log_steps(journal, 1, 7)
        journal.log_valid(7, {"loss": 1.23456789, "code": 3.0})
    first, second, last, valid = read_metrics(tmp_path)
    assert first == {"step": 3, "loss": 2.0, "code": 4.0, "lr": pytest.approx(0.1 / 3),
                     "crops_per_s": 16.0, "data_wait": 0.1}
    assert (second["step"], second["loss"], second["code"]) == (6, 5.0, 10.0)
    assert (last["step"], last["loss"], last["crops_per_s"]) == (7, 7.0, 16.0)
    assert valid == {"step": 7, "valid": {"loss": 1.23457, "code": 3.0}}


def test_the_same_is_on_the_board(tmp_path):
    with Journal(tmp_path, ALONE, 0, TRAIN, every=3) as journal:
        log_steps(journal, 1, 7)
        journal.log_valid(7, {"loss": 1.5})
    events = EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"train/loss", "train/code", "train/lr",
                                             "train/crops_per_s", "train/data_wait", "valid/loss"}
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(3, 2), (6, 5), (7, 7)]
    assert [(e.step, e.value) for e in events.Scalars("valid/loss")] == [(7, 1.5)]


def test_the_log_is_for_reading(tmp_path, caplog):
    with caplog.at_level(logging.INFO), Journal(tmp_path, ALONE, 0, TRAIN, every=3) as journal:
        journal.describe(1234, 20, 0.5, ALONE, None)
        log_steps(journal, 1, 3)
        journal.log_valid(3, {"loss": 1.5, "code": 2.0})
    said = (tmp_path / "train.log").read_text()
    assert "1234 parameters, 20 recordings, 0.5 hours" in said
    assert "1 process(es) on cpu, torch.float32, 8 crops a batch over all, from the start" in said
    assert ("step 3 of 7: loss 2, code 4; lr 0.0333, 0.500 s a step, 16 crops/s, 10 % of the time "
            "waiting for data\n") in said
    assert "validation after step 3: loss 1.5, code 2" in said


def test_a_restart_drops_later_records_and_begins_its_own_mean(tmp_path):
    with Journal(tmp_path, ALONE, 0, TRAIN, every=3) as journal:
        log_steps(journal, 1, 6)
    with Journal(tmp_path, ALONE, 4, TRAIN, every=3) as journal:
        log_steps(journal, 5, 6)
    assert [(r["step"], r["loss"]) for r in read_metrics(tmp_path)] == [(3, 2.0), (6, 5.5)]


def test_other_processes_write_nothing(tmp_path):
    with Journal(tmp_path, World(1, 2, ALONE.device), 0, TRAIN, every=3) as journal:
        log_steps(journal, 1, 3)
        journal.log_valid(3, {"loss": 1.0})
    assert list(tmp_path.iterdir()) == []


def test_a_term_that_begins_late_is_the_mean_of_its_own_steps(tmp_path):
    with Journal(tmp_path, ALONE, 0, TRAIN, every=4) as journal:
        for step, terms in enumerate([{"loss": 1.0}, {"loss": 2.0}, {"loss": 3.0, "code": 7.0},
                                      {"loss": 6.0, "code": 8.0}], start=1):
            journal.log_step(step, terms, 0.1, 0.0, 1.0)
    (record,) = read_metrics(tmp_path)
    assert (record["loss"], record["code"]) == (3.0, 7.5)
