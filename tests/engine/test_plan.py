"""What a run will need: sizes and times by hand, and what is not there yet."""

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from wespeaker_lap.config import load_config
from wespeaker_lap.data.datadir import write_data_dir
from wespeaker_lap.engine import plan, timing
from wespeaker_lap.io.table import write_table


@pytest.fixture(autouse=True)
def speeds(monkeypatch):
    """What is timed elsewhere: 90 s of audio a second, 50 crops a second."""
    monkeypatch.setattr(timing, "time_encoder",
                        lambda *args: timing.EncoderSpeed(90.0, "nothing"))
    monkeypatch.setattr(timing, "time_training", lambda *args: 50.0)


@pytest.fixture
def folders(tmp_path):
    """Audited, not audited, and not there."""
    for name in ("audited", "raw"):
        write_data_dir(tmp_path / name, {"a-1": "a.wav", "a-2": "b.wav"}, {"a-1": "a", "a-2": "a"})
    write_table(tmp_path / "audited" / "utt2dur", {"a-1": 3000, "a-2": 600})
    return [tmp_path / name for name in ("audited", "raw", "none")]


def test_sizes_and_times_by_hand(folders):
    """An hour of wavlm_tiny: 149,999 + 29,999 frames of 7 states of 192 numbers of 2 bytes."""
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


def test_waves_need_no_features(folders):
    config = load_config(overrides=["data.source=wave"])
    lines = plan.describe_plan(config, folders, folders[:1])
    assert "features: none are stored, since data.source is wave" in lines
    assert f"{folders[0]}: 2 utterances, 1.00 h" in lines
    assert lines[-1].startswith("missing: speakers for AS-norm")  # 1 of 300
    assert not any("GB" in line or "stage 2" in line for line in lines)


def test_float32_takes_twice_as_much(folders):
    lines = plan.describe_plan(load_config(overrides=["features.codec=float32"]), folders)
    size = (149_999 + 29_999) * 7 * 192 * 4 / 1e9
    assert any(f"{size:.2f} GB" in line for line in lines)


def test_layers_and_frames_that_are_left_out(folders):
    """Layers 2 and 6; of 149,999 and 29,999 frames every second one; 9 bytes for 8 in int8."""
    knobs = ["features.layer_stride=4", "features.frame_stride=2", "features.codec=int8"]
    lines = plan.describe_plan(load_config(overrides=knobs), folders)
    size = (75_000 + 15_000) * 2 * 192 * 9 / 8 / 1e9
    assert any(line.startswith(str(folders[0])) and f"; features {size:.2f} GB, about" in line
               for line in lines)
    stored = next(line for line in lines if line.startswith("features: "))
    # 25 frames a second, 2 x 192 numbers each: 10,800 bytes
    assert stored == "features: layers 2, 6; 25 frames a second; int8: 0.01 MB a second of audio"


def test_segments_are_of_training_sets_alone(folders):
    """Three segments of 200 s of each of the two, which are 3000 s and 600 s long."""
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


def test_copies_are_of_training_sets_alone(folders):
    """An hour clean, an hour with noise, and half of one at twice the speed."""
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
    assert lines[-1].startswith("missing: encoder: features.layers: wavlm_tiny has layers 0 to 6")


def test_an_encoder_that_is_not_there_is_said_and_ends_the_plan(folders):
    lines = plan.describe_plan(load_config(overrides=["frontend.name=./no_such_encoder"]), folders)
    assert "no_such_encoder" in lines[-1]
    assert lines[-1].startswith("missing: encoder: ")


def read_sizes(lines):
    """Codec -> GB in each column of the table, and the heads of the columns."""
    start = next(i for i, line in enumerate(lines) if line.startswith("disk by codec"))
    rows = {line.split()[0]: [float(x) for x in re.findall(r"\d+\.\d+", line)]
            for line in lines[start + 2:start + 5]}
    return rows, re.findall(r"\S+(?: \d)? \(\d+\)", lines[start + 1]), lines[start]


def test_the_table_of_sizes(folders):
    """Layers of all 7: 7, every second 4, every third 3; frames as above."""
    lines = plan.describe_plan(load_config(overrides=["features.layer_stride=4"]), folders)
    rows, heads, title = read_sizes(lines)
    assert heads == ["chosen (2)", "all (7)", "layer_stride 2 (4)", "layer_stride 3 (3)"]
    assert title == "disk by codec and layers, in GB for all sets:"
    frames = 149_999 + 29_999
    for codec, number_bytes in {"float32": 4, "float16": 2, "int8": 9 / 8}.items():
        assert rows[codec] == pytest.approx(
            [frames * count * 192 * number_bytes / 1e9 for count in (2, 7, 4, 3)], abs=0.006)
    assert any(line.startswith("  float16 (chosen)") for line in lines)


def test_the_table_of_sizes_before_there_is_data(folders):
    rows, _, title = read_sizes(plan.describe_plan(load_config(), folders[1:]))
    assert title == "disk by codec and layers, in GB for an hour of audio:"
    assert rows["float16"][0] == pytest.approx(3600 * 50 * 7 * 192 * 2 / 1e9, abs=0.006)


def test_filter_banks_have_one_layer(folders):
    config = load_config(overrides=["frontend.name=fbank", "model.layer_pool.name=weighted_sum"])
    _, heads, _ = read_sizes(plan.describe_plan(config, folders))
    assert heads == ["chosen (1)"]


def test_hours_of_training(folders):
    """Two utterances an epoch, whatever the copies; three speakers with those of another speed."""
    config = load_config(overrides=["train.epochs=600000", "features.copies=[clean, speed2]"])
    lines = plan.describe_plan(config, folders, folders[:1])
    line, = (line for line in lines if line.startswith("training: "))
    assert "600000 epochs of 2 utterances of 2 speakers, 50 crops a second: about 6.7 h" in line
    assert not any(line.startswith("training: ") for line in plan.describe_plan(config, folders))


def test_all_sets_together(folders):
    """The hour twice, once with a copy at twice the speed: 2.5 h, at 90 s a second."""
    second = folders[0].parent / "second"
    shutil.copytree(folders[0], second)
    config = load_config(overrides=["features.copies=[clean, speed2]"])
    lines = plan.describe_plan(config, [*folders, second], [second])
    line, = (line for line in lines if line.startswith("stage 2 in all: "))
    frames = 2 * (149_999 + 29_999) + 74_999 + 14_999
    assert line == f"stage 2 in all: {frames * 7 * 192 * 2 / 1e9:.2f} GB, about {150 / 90:.1f} min"


def test_what_is_missing(folders, monkeypatch):
    def find(*options, **more):
        lines = plan.describe_plan(load_config(overrides=options), folders, **more)
        return [line for line in lines if line.startswith("missing: ")]

    assert find() == []
    told, = find(training=folders[:1])
    assert f"the cohort is {folders[0]}: it has 1, and score.top_n is 300" in told
    told, = find(device="no_such_device")
    assert "no_such_device" in told and "--device" in told
    monkeypatch.setattr(plan.shutil, "disk_usage", lambda path: SimpleNamespace(free=10 ** 8))
    told, = find()
    # 0.48 GB and 5 % of it, of which 0.1 are there
    assert told.startswith("missing: 0.4 GB of disk; make room") and "--feats_dir" in told
    monkeypatch.setattr(plan.shutil, "disk_usage", lambda path: SimpleNamespace(free=6 * 10 ** 8))
    assert find() == []


def test_a_recording_that_is_gone_is_missing(folders, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(timing, "TRIAL_SECONDS", 1.0)
    lines = plan.describe_plan(load_config(), folders)
    told, = (line for line in lines if line.startswith("missing: "))
    assert "missing: recording: a.wav: no such file" in told
    assert any("timed on 1 s of noise" in line for line in lines)
