"""Short trials: which recordings are taken, what counts as done, with a clock of our own."""

import numpy as np
import pytest
import torch

from wespeaker_lap.config import load_config
from wespeaker_lap.data.datadir import DataDir
from wespeaker_lap.engine import timing
from wespeaker_lap.frontends.fbank import Fbank, FbankLayer
from wespeaker_lap.io.audio import AudioError, write_wav

CPU = torch.device("cpu")


def make_set(durations):
    wavs = {utt: f"{utt}.wav" for utt in durations}
    return DataDir(None, wavs, dict.fromkeys(wavs, "s"), {}, durations)


def test_the_sample_is_spread_over_all_lengths():
    """Of 100 lengths, five: the middles of fifths."""
    sets = [make_set({f"a{n}": float(n) for n in range(0, 100, 2)}),
            make_set({f"b{n}": float(n) for n in range(1, 100, 2)}), make_set({})]
    assert timing.choose_sample(sets, 5) == {
        "a10.wav": 10, "a30.wav": 30, "a50.wav": 50, "a70.wav": 70, "a90.wav": 90}
    assert timing.choose_sample(sets[2:]) == {}
    assert len(timing.choose_sample(sets)) == 20
    few = make_set({"x": 1.0, "y": 2.0})
    assert timing.choose_sample([few]) == {"x.wav": 1.0, "y.wav": 2.0}


@pytest.fixture
def frontend(monkeypatch):
    """Filter banks that take an hour of a false clock for each second of audio."""
    clock = [0.0]
    encode = timing.encode_batch

    def slowly(frontend, utts, waves, precision):
        clock[0] += 3600 * sum(map(len, waves)) / 16000
        return encode(frontend, utts, waves, precision)

    monkeypatch.setattr(timing, "encode_batch", slowly)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(timing, "BUDGET_SECONDS", 1e9)
    return FbankLayer(Fbank(num_mels=8))


def write_sample(folder, *seconds):
    sample = {}
    for number, length in enumerate(seconds):
        path = folder / f"{number}.wav"
        write_wav(path, 0.1 * np.random.default_rng(number).uniform(-1, 1, round(16000 * length)))
        sample[str(path)] = length
    return sample


def test_recordings_are_timed_without_the_warm_up(frontend, tmp_path):
    speed = timing.time_encoder(frontend, write_sample(tmp_path, 0.5, 1.0, 2.5), CPU)
    assert speed.speed == pytest.approx(1 / 3600)
    assert speed.timed_on.startswith("3 utterances of these sets, threads: ")


def test_of_long_recordings_a_part(frontend, tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "MAX_UTT_SECONDS", 1.0)
    encoded = []
    encode = timing.encode_batch
    monkeypatch.setattr(timing, "encode_batch", lambda f, utts, waves, p: encoded.extend(
        map(len, waves)) or encode(f, utts, waves, p))
    timing.time_encoder(frontend, write_sample(tmp_path, 0.5, 3.0), CPU)
    assert sorted(encoded[1:]) == [8000, 16000]  # the first one is the warm-up


def test_a_slow_encoder_ends_the_trial(frontend, tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "BUDGET_SECONDS", 3600.0)
    monkeypatch.setattr(timing, "BATCH_SECONDS", 1.0)  # so each is a batch of its own
    speed = timing.time_encoder(frontend, write_sample(tmp_path, 0.75, 0.8, 0.85, 0.9), CPU)
    assert speed.timed_on.startswith("2 utterances") and speed.speed == pytest.approx(1 / 3600)


def test_noise_where_there_is_nothing(frontend):
    speed = timing.time_encoder(frontend, {}, CPU)
    assert speed.speed == pytest.approx(1 / 3600) and speed.timed_on.startswith("10 s of noise")


def test_a_recording_that_is_gone_is_named(frontend, tmp_path):
    with pytest.raises(AudioError, match=r"absent\.wav: no such file"):
        timing.time_encoder(frontend, {str(tmp_path / "absent.wav"): 1.0}, CPU)


def test_training_steps(monkeypatch):
    """Four timed steps of 16 crops, each of which takes a second of a false clock."""
    clock, shapes = [0.0], []
    build_net = timing.build.build_net

    def watched(*args):
        net = build_net(*args)

        def step(module, inputs):
            clock[0] += 1.0
            shapes.append(tuple(inputs[0].shape))

        net.register_forward_pre_hook(step)
        return net

    monkeypatch.setattr(timing.build, "build_net", watched)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    config = load_config(overrides=["train.batch_size=64", "train.crop_seconds=0.5",
                                    "model.layer_pool.name=weighted_sum", "loss.top_k=0"])
    frontend = FbankLayer(Fbank(num_mels=8))
    assert timing.time_training(config, frontend, 3, CPU, num_steps=4) == pytest.approx(16 * 4 / 4)
    assert set(shapes) == {(16, 50, 1, 8)} and len(shapes) == 5
