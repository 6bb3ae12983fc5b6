"""What a run will need, said before it starts."""

import re

import pytest

from wespeaker_lap.config import load_config
from wespeaker_lap.data.datadir import load_data_dir
from wespeaker_lap.engine import plan


def test_size_and_time_of_the_features(tiny_system, monkeypatch):
    monkeypatch.setattr(plan, "time_encoder", lambda _: 100.0)
    path = tiny_system.data("train")
    lines = plan.describe_plan(load_config(), [path])
    assert "wavlm_tiny, 7 states of 192; one CPU process does 100 s of audio a second" in lines[1]
    durations = load_data_dir(path).durations.values()
    # 720 samples for the first frame, 320 for each that follows; 7 x 192 numbers of 2 bytes.
    frames = sum((round(16000 * seconds) - 720) // 320 + 1 for seconds in durations)
    hours, minutes = sum(durations) / 3600, sum(durations) / 100 / 60
    assert lines[2] == (f"{path}: 16 utterances, {hours:.2f} h; features "
                        f"{frames * 7 * 192 * 2 / 1e9:.2f} GB, about {minutes:.1f} min on one CPU "
                        f"process")
    assert re.fullmatch(r"disk free here: \d+ GB", lines[3]) and len(lines) == 4


def test_a_set_that_is_not_ready_is_no_error(tiny_system, tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "time_encoder", lambda _: 100.0)
    for name in ("wav.scp", "utt2spk"):
        (tmp_path / name).write_text("a x\n")
    lines = plan.describe_plan(load_config(), [tmp_path / "later", tmp_path])
    assert lines[2:4] == [f"{tmp_path}/later: not prepared yet; stage 1 writes it",
                          f"{tmp_path}: 1 utterances, not audited yet (stage 1)"]


def test_an_encoder_that_is_not_in_reach_is_told(tmp_path):
    lines = plan.describe_plan(load_config(overrides=["frontend.name=./nowhere"]), [tmp_path])
    assert len(lines) == 2 and lines[1].startswith("encoder: ") and "nowhere" in lines[1]


def test_the_encoder_is_timed(monkeypatch):
    """Ten seconds of audio in a quarter of a second, by a clock of the test's own."""
    ticks = iter([7.0, 7.25])
    monkeypatch.setattr(plan.time, "perf_counter", lambda: next(ticks))
    calls = []

    class Frontend:
        sample_rate = 16000

        def __call__(self, wave):
            calls.append(tuple(wave.shape))

    assert plan.time_encoder(Frontend()) == pytest.approx(40.0)
    assert calls == [(1, 16000), (1, 160000)]
