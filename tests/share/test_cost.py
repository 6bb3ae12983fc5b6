"""What a training took: its steps' seconds, its epochs' peaks."""

import json
from dataclasses import replace

import pytest
from test_results import make_results

from wespeaker_lap.share.cost import format_costs, read_cost
from wespeaker_lap.share.results import format_page, read_results, write_results


def write_metrics(exp_dir, records, end="\n"):
    exp_dir.mkdir(exist_ok=True)
    text = "\n".join(json.dumps(record) for record in records) + end
    (exp_dir / "metrics.jsonl").write_text(text)


STEPS = [{"step": 1, "seconds": 1000.0}, {"step": 2, "seconds": 800.0}]
EPOCHS = [{"step": 1, "epoch": 1, "host_gb": 1.5, "device_gb": 3.0},
          {"step": 2, "epoch": 2, "host_gb": 1.25, "device_gb": 4.5}]


def test_seconds_add_up_and_peaks_do_not(tmp_path):
    write_metrics(tmp_path, [STEPS[0], EPOCHS[0], STEPS[1], EPOCHS[1]])
    assert read_cost(tmp_path) == {"epochs": 2, "hours": 0.5, "host_gb": 1.5, "device_gb": 4.5}
    write_metrics(tmp_path, [STEPS[0], {"step": 1, "epoch": 1, "host_gb": 1.5}, STEPS[1]],
                  '\n{"step": 3, "sec')
    assert read_cost(tmp_path) == {"epochs": 1, "hours": 0.5, "host_gb": 1.5}


@pytest.mark.parametrize("records", [
    [], STEPS, [{"step": 1, "loss": 2.0}, EPOCHS[0]], [EPOCHS[0]]])
def test_what_was_not_noted_is_not_known(tmp_path, records):
    assert read_cost(tmp_path / "nowhere") is None
    write_metrics(tmp_path, records)
    assert read_cost(tmp_path) is None


def test_the_table():
    cost = {"epochs": 3, "hours": 1.23456, "host_gb": 2.0}
    assert format_costs([("a", 1, cost), ("b", 2, None)]).splitlines() == [
        "| Model | Seed | Epochs | Hours | Memory (GB) | GPU memory (GB) |",
        "| --- | --- | --- | --- | --- | --- |",
        "| a | 1 | 3 | 1.235 | 2.00 | - |", "| b | 2 | - | - | - | - |"]
    assert format_costs([("b", 2, None)]) == ""


def test_it_is_part_of_the_results(tmp_path):
    results = replace(make_results(), cost={"epochs": 3, "hours": 0.5, "host_gb": 2.0})
    write_results(tmp_path, results)
    assert read_results(tmp_path / "results.json") == results
    assert "| LAP-ASTP | 1 | 3 | 0.500 | 2.00 | - |" in (tmp_path / "RESULTS.md").read_text()
    assert "## Training" not in format_page([make_results()])
