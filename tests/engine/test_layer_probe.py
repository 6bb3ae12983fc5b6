"""The layer probe's passes: statistics of true frames alone, in any batch, of any frontend."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import write_voices

from wespeaker_lap import build
from wespeaker_lap.config import load_config
from wespeaker_lap.data.audit import audit_data_dir
from wespeaker_lap.data.datadir import DataDir, load_data_dir
from wespeaker_lap.engine import batches, probe
from wespeaker_lap.frontends.ssl import FrozenSSL
from wespeaker_lap.io.audio import read_audio, write_wav
from wespeaker_lap.score.probe_plan import plan_probe


@pytest.fixture(scope="module")
def frontend() -> FrozenSSL:
    return FrozenSSL.load("wavlm_tiny")


@pytest.fixture(scope="module")
def voices(tmp_path_factory) -> DataDir:
    """Six speakers, four utterances of 0.5 to 0.95 s each."""
    path = write_voices(tmp_path_factory.mktemp("probe") / "voices", "abcdef")
    audit_data_dir(path)
    return load_data_dir(path)


def read_waves(data):
    return {utt: read_audio(data.wavs[utt]) for utt in sorted(data.wavs)}


def pool_alone(frontend, wave):
    """(L, 2D) of one utterance in float64, from the encoder's frames."""
    feats = frontend.encode(torch.from_numpy(wave)).double().numpy()  # (T, L, D)
    return np.concatenate([feats.mean(0), feats.std(0)], axis=-1)


@pytest.mark.parametrize("name", ["wavlm_tiny", "fbank"])
def test_statistics_are_of_each_utterances_own_frames(voices, name):
    """Though they were computed in padded batches."""
    frontend = build.build_frontend(load_config(overrides=[f"frontend.name={name}"]).frontend)
    assert len(batches.make_batches(voices.durations)) == 1
    stats = probe.pool_set(frontend, voices)
    assert stats.shape == (frontend.num_layers, 24, 2 * frontend.dim)
    assert stats.dtype == np.float32
    for row, wave in enumerate(read_waves(voices).values()):
        expected = pool_alone(frontend, wave)
        size = np.abs(expected).max()
        np.testing.assert_allclose(stats[:, row], expected, rtol=1e-3, atol=1e-5 * size)


def test_windows_of_long_recordings(voices):
    """What is longer than the frontend's window is pooled over all of its windows."""
    short = FrozenSSL.load("wavlm_tiny", max_seconds=0.5, overlap_seconds=0.1)
    stats = probe.pool_set(short, voices)
    for row, wave in enumerate(read_waves(voices).values()):
        np.testing.assert_allclose(stats[:, row], pool_alone(short, wave), rtol=1e-3, atol=1e-4)


def test_bfloat16_is_near_and_leaves_float32_statistics(voices, frontend):
    full, half = (probe.pool_set(frontend, voices, dtype) for dtype in (None, torch.bfloat16))
    assert half.dtype == np.float32 and not np.array_equal(full, half)
    assert np.corrcoef(full.ravel(), half.ravel())[0, 1] > 0.999


def test_deviations_beside_a_large_mean():
    """Means a thousand times the deviation, where E[x^2] - E[x]^2 would have no digit left."""
    rng = np.random.default_rng(0)
    feats = (4096 + rng.normal(size=(3001, 2, 5))).astype(np.float32)
    expected = np.concatenate([feats.mean(0, dtype=np.float64), feats.std(0, dtype=np.float64)], -1)
    stats = probe.pool_stats(torch.from_numpy(feats)).numpy()
    np.testing.assert_allclose(stats, expected, rtol=1e-6)
    with np.errstate(invalid="ignore"):
        naive = np.sqrt((feats ** 2).mean(0) - feats.mean(0) ** 2)
    assert not np.allclose(naive, expected[:, 5:], rtol=0.01)


def test_one_frame_has_no_deviation():
    assert probe.pool_stats(torch.full((1, 2, 3), 4.0)).tolist() == [[4.0] * 3 + [0.0] * 3] * 2


def test_the_probe_measures_every_layer(voices, frontend):
    plan = plan_probe(voices)
    found = probe.probe_layers(frontend, plan, precision="float32")
    assert [row.layer for row in found.rows] == [*range(7), None]
    assert found.encoder == frontend.identity()
    assert {"precision": "float32", "shrinkage": 0.1, "seed": 0}.items() <= found.facts.items()
    assert found.facts["num_trials"] == 36 == 2 * found.facts["num_target"]


@pytest.mark.parametrize(("arguments", "message"), [
    ({"shrinkage": 1.5}, r"want a shrinkage from 0 to 1, got 1\.5"),
    ({"precision": "fp16"}, "unknown precision 'fp16'; choose auto, float32, bf16"),
])
def test_settings_are_checked_before_the_work(voices, frontend, monkeypatch, arguments, message):
    monkeypatch.setattr(probe, "pool_set", None)
    with pytest.raises(ValueError, match=message):
        probe.probe_layers(frontend, plan_probe(voices), **arguments)


def test_states_that_are_no_numbers_are_refused_by_utterance(voices):
    broken = FrozenSSL.load("wavlm_tiny")
    broken.model.encoder.transformer.layers[3].final_layer_norm.bias[0] = float("nan")
    with pytest.raises(ValueError, match=r"^[a-f]/录音-[0-3]: hidden states that are not finite"):
        probe.pool_set(broken, voices)


def test_too_short_utterances_are_named(voices, frontend, tmp_path):
    path = tmp_path / "short.wav"
    write_wav(path, np.zeros(300, np.float32), 16000)
    data = replace(voices, wavs={"s": str(path)}, utt2spk={"s": "s"}, durations={"s": 0.02})
    with pytest.raises(ValueError, match=r"^s: 300 samples are too few"):
        probe.pool_set(frontend, data)
