"""What a run will need: sizes and times by hand, and what is not there yet."""

import re

import pytest

from wespeaker_lap.config import load_config
from wespeaker_lap.data.datadir import write_data_dir
from wespeaker_lap.engine import plan
from wespeaker_lap.io.table import write_table


@pytest.fixture
def folders(tmp_path):
    """Audited, not audited, and not there."""
    for name in ("audited", "raw"):
        write_data_dir(tmp_path / name, {"a-1": "a.wav", "a-2": "b.wav"}, {"a-1": "a", "a-2": "a"})
    write_table(tmp_path / "audited" / "utt2dur", {"a-1": 3000, "a-2": 600})
    return [tmp_path / name for name in ("audited", "raw", "none")]


def test_sizes_and_times_by_hand(folders, monkeypatch):
    """An hour of wavlm_tiny: 149,999 + 29,999 frames of 7 states of 192 numbers of 2 bytes."""
    monkeypatch.setattr(plan, "time_encoder", lambda frontend: 90.0)
    lines = plan.describe_plan(load_config(), folders)
    assert any("wavlm_tiny, 7 states of 192" in line and "90 s of audio" in line for line in lines)
    about = {name: next(line for line in lines if line.startswith(f"{folders[0].parent}/{name}"))
             for name in ("audited", "raw", "none")}
    size = (149_999 + 29_999) * 7 * 192 * 2 / 1e9
    assert "2 utterances, 1.00 h" in about["audited"]
    assert f"{size:.2f} GB" in about["audited"]
    assert "about 0.7 min" in about["audited"]
    assert "not audited yet" in about["raw"]
    assert "not prepared yet" in about["none"]
    assert re.search(r"disk free here: \d+ GB", lines[-1])


def test_float32_takes_twice_as_much(folders, monkeypatch):
    monkeypatch.setattr(plan, "time_encoder", lambda frontend: 90.0)
    lines = plan.describe_plan(load_config(overrides=["features.codec=float32"]), folders)
    size = (149_999 + 29_999) * 7 * 192 * 4 / 1e9
    assert any(f"{size:.2f} GB" in line for line in lines)


def test_an_encoder_that_is_not_there_is_said_and_ends_the_plan(folders):
    lines = plan.describe_plan(load_config(overrides=["frontend.name=./no_such_encoder"]), folders)
    assert "no_such_encoder" in lines[-1]
    assert lines[-1].startswith("encoder: ")


def test_the_encoder_is_timed_for_real():
    from wespeaker_lap.build import build_frontend
    assert plan.time_encoder(build_frontend(load_config().frontend)) > 0
