"""What a run will need: sizes and times by hand, and what is not there yet."""

import re
from pathlib import Path

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


def test_waves_need_no_features(folders, monkeypatch):
    monkeypatch.setattr(plan, "time_encoder", lambda frontend: 90.0)
    lines = plan.describe_plan(load_config(overrides=["data.source=wave"]), folders)
    assert lines[-1] == "features: none are stored, since data.source is wave"
    assert not any("GB" in line for line in lines)


def test_float32_takes_twice_as_much(folders, monkeypatch):
    monkeypatch.setattr(plan, "time_encoder", lambda frontend: 90.0)
    lines = plan.describe_plan(load_config(overrides=["features.codec=float32"]), folders)
    size = (149_999 + 29_999) * 7 * 192 * 4 / 1e9
    assert any(f"{size:.2f} GB" in line for line in lines)


def test_layers_and_frames_that_are_left_out(folders, monkeypatch):
    """Layers 2 and 6; of 149,999 and 29,999 frames every second one; 9 bytes for 8 in int8."""
    monkeypatch.setattr(plan, "time_encoder", lambda frontend: 90.0)
    knobs = ["features.layer_stride=4", "features.frame_stride=2", "features.codec=int8"]
    lines = plan.describe_plan(load_config(overrides=knobs), folders)
    size = (75_000 + 15_000) * 2 * 192 * 9 / 8 / 1e9
    assert any(line.startswith(str(folders[0])) and f"; features {size:.2f} GB, about" in line
               for line in lines)
    stored = next(line for line in lines if line.startswith("features: "))
    # 25 frames a second, 2 x 192 numbers each: 10,800 bytes
    assert stored == "features: layers 2, 6; 25 frames a second; int8: 0.01 MB a second of audio"


def test_segments_are_of_training_sets_alone(folders, monkeypatch):
    """Three segments of 200 s of each of the two, which are 3000 s and 600 s long."""
    monkeypatch.setattr(plan, "time_encoder", lambda frontend: 90.0)
    config = load_config(overrides=["features.segments={num: 3, seconds: 200}"])
    whole = (149_999 + 29_999) * 7 * 192 * 2 / 1e9
    parts = (30_000 + 29_999) * 7 * 192 * 2 / 1e9
    for training, expected in (((), f"features {whole:.2f} GB, about"),
                               (folders[:1], f"features {parts:.2f} GB (of 3 segments of each "
                                             f"utterance), about")):
        lines = plan.describe_plan(config, folders, training)
        assert any(expected in line for line in lines), lines
    with pytest.raises(ValueError, match="--training elsewhere: not one of the sets to plan"):
        plan.describe_plan(config, folders, [Path("elsewhere")])


def test_copies_are_of_training_sets_alone(folders, monkeypatch):
    """An hour clean, an hour with noise, and half of one at twice the speed."""
    monkeypatch.setattr(plan, "time_encoder", lambda frontend: 90.0)
    config = load_config(overrides=["features.copies=[clean, noise, speed2]"])
    clean, fast = 149_999 + 29_999, 74_999 + 14_999
    for training, frames, minutes, kept in (((), clean, 60 * 60 / 90 / 60, ""),
                                            (folders[:1], 2 * clean + fast, 2.5 * 60 / 90,
                                             " (of 3 copies)")):
        lines = plan.describe_plan(config, folders, training)
        expected = (f"features {frames * 7 * 192 * 2 / 1e9:.2f} GB{kept}, about {minutes:.1f} min")
        assert any(expected in line for line in lines), lines


def test_layers_that_the_encoder_lacks_end_the_plan(folders):
    lines = plan.describe_plan(load_config(overrides=["features.layers=[0, 12]"]), folders)
    assert lines[-1].startswith("encoder: features.layers: wavlm_tiny has layers 0 to 6")


def test_an_encoder_that_is_not_there_is_said_and_ends_the_plan(folders):
    lines = plan.describe_plan(load_config(overrides=["frontend.name=./no_such_encoder"]), folders)
    assert "no_such_encoder" in lines[-1]
    assert lines[-1].startswith("encoder: ")


def test_the_encoder_is_timed_for_real():
    from wespeaker_lap.build import build_frontend
    assert plan.time_encoder(build_frontend(load_config().frontend)) > 0
