"""Filter banks: the numbers of kaldi-native-fbank, padding, and the way to a trained model."""

import json
import math

import numpy as np
import pytest
import torch
from kaldi_fbank import kaldi_feats

import wespeaker_lap
from wespeaker_lap import build
from wespeaker_lap.config import load_config
from wespeaker_lap.data.audit import audit_data_dir
from wespeaker_lap.data.datadir import load_data_dir
from wespeaker_lap.engine import batches, checkpoint, dist, embed, extract, plan, timing, train
from wespeaker_lap.frontends import fbank as module
from wespeaker_lap.frontends.fbank import Fbank, FbankLayer
from wespeaker_lap.io.audio import read_audio
from wespeaker_lap.io.feats import FeatureStore
from wespeaker_lap.io.vectors import read_vectors

LENGTHS = [24000, 9999, 400]
FRAMES = [148, 60, 1]  # 1 + (S - 400) // 160


def noise(*shape, seed=0):
    """Noise that falls by 6 dB an octave, as speech does, with a jump in level."""
    white = np.random.default_rng(seed).normal(size=shape)
    red = np.cumsum(white, axis=-1) / 300 + 0.01 * white
    red[..., shape[-1] // 2 :] *= 0.01
    return torch.from_numpy(red.astype(np.float32)).clamp(-1, 1)


@pytest.mark.parametrize(("num_mels", "sample_rate"), [(80, 16000), (40, 16000), (64, 8000)])
def test_the_numbers_of_kaldi(num_mels, sample_rate):
    wav = noise(20001)
    feats, frames = Fbank(num_mels, mean_norm=False, sample_rate=sample_rate)(wav[None])
    expected = kaldi_feats(wav, num_mels, sample_rate)
    assert feats.shape == (1, *expected.shape) and frames.tolist() == [len(expected)]
    np.testing.assert_allclose(feats[0], expected, atol=2e-3)
    assert expected.max() - expected.min() > 5


def test_the_numbers_of_kaldi_on_speech(shared):
    path = next((shared / "corpora" / "speechocean762" / "WAVE").rglob("*.*"))
    wav = torch.from_numpy(read_audio(path))
    expected = kaldi_feats(wav)
    raw = Fbank(mean_norm=False)(wav[None])[0][0]
    np.testing.assert_allclose(raw, expected, atol=2e-3)
    np.testing.assert_allclose(Fbank()(wav[None])[0][0], expected - expected.mean(0), atol=2e-3)


def test_a_frame_by_hand():
    """One frame: mean out, 0.97 of the sample before, Hamming, |FFT|^2, triangles in mel, log."""
    wav = noise(400).double().numpy() * 32768
    wav = wav - wav.mean()
    wav = wav - 0.97 * np.concatenate([wav[:1], wav[:-1]])
    window = 0.54 - 0.46 * np.cos(2 * np.pi * np.arange(400) / 399)
    power = np.abs(np.fft.rfft(wav * window, 512)) ** 2
    mel = 1127 * np.log(1 + np.arange(257) * 16000 / 512 / 700)
    low, high = 1127 * math.log(1 + 20 / 700), 1127 * math.log(1 + 8000 / 700)
    edges = low + (high - low) / 81 * np.arange(82)
    triangles = [np.interp(mel, edges[n : n + 3], [0, 1, 0]) for n in range(80)]
    feats, _ = Fbank(mean_norm=False)(noise(400)[None])
    np.testing.assert_allclose(feats[0, 0], np.log(np.stack(triangles) @ power), atol=2e-3)


def test_mean_normalisation_by_hand():
    wav = noise(2, 8000)
    raw, _ = Fbank(mean_norm=False)(wav, [8000, 720])  # 48 and 3 frames
    feats, _ = Fbank()(wav, [8000, 720])
    first, second, third = raw[1, :3].double()
    mean = (first + second + third) / 3
    np.testing.assert_allclose(feats[1, :3], raw[1, :3] - mean, atol=1e-5)
    np.testing.assert_allclose(feats.sum(dim=1), np.zeros((2, 80)), atol=1e-3)
    assert not feats[1, 3:].any() and not raw[1, 3:].any()


@pytest.mark.parametrize("mean_norm", [True, False])
@pytest.mark.parametrize("filler", [0.0, 0.7, float("nan")])
def test_alone_and_in_a_batch(mean_norm, filler):
    fbank, wav = Fbank(mean_norm=mean_norm), noise(3, 24000)
    padded = wav.clone()
    for row, num_samples in zip(padded, LENGTHS, strict=True):
        row[num_samples:] = filler
    feats, frames = fbank(padded, torch.tensor(LENGTHS))
    assert feats.shape == (3, 148, 80) and frames.tolist() == FRAMES
    for i, (num_samples, num_frames) in enumerate(zip(LENGTHS, FRAMES, strict=True)):
        alone, _ = fbank(wav[i : i + 1, :num_samples])
        torch.testing.assert_close(feats[i, :num_frames], alone[0], atol=1e-4, rtol=0)
        assert not feats[i, num_frames:].any()


def test_a_long_recording_in_pieces_has_the_same_numbers(monkeypatch):
    wav = noise(2, 24000)
    whole, _ = Fbank()(wav)
    monkeypatch.setattr(module, "MAX_FRAMES", 37)
    torch.testing.assert_close(Fbank()(wav)[0], whole, atol=1e-4, rtol=0)


def test_number_of_frames():
    fbank = Fbank()
    assert (fbank.frame_shift, fbank.min_samples) == (160, 400)
    for num_samples, frames in {0: 0, 399: 0, 400: 1, 559: 1, 560: 2, 16000: 98}.items():
        assert fbank.num_frames(num_samples) == frames
        if frames:
            assert fbank(torch.zeros(1, num_samples))[0].shape == (1, frames, 80)


@pytest.mark.parametrize("level", [0.0, 1e-9, 1.0])
def test_silence_and_full_scale_are_finite(level):
    for mean_norm in (True, False):
        assert Fbank(mean_norm=mean_norm)(torch.full((1, 4000), level))[0].isfinite().all()


def test_autocast_and_double_precision_change_nothing():
    wav = noise(1, 8000)
    exact, _ = Fbank()(wav)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(Fbank()(wav)[0], exact)
    assert torch.equal(Fbank()(wav.double())[0], exact)


def test_a_gradient_reaches_the_waveform():
    wav = noise(2, 4000).requires_grad_(True)
    Fbank()(wav, [4000, 1000])[0].square().sum().backward()
    assert wav.grad[0].any() and wav.grad[1, :880].any()
    assert wav.grad.isfinite().all() and not wav.grad[1, 1000:].any()


@pytest.mark.parametrize("lengths", [None, [5000, 399]])
def test_too_short_is_refused(lengths):
    wav = noise(2, 5000) if lengths else noise(1, 399)
    with pytest.raises(ValueError, match="399 samples; fbank needs at least 400 samples"):
        Fbank()(wav, lengths)


def test_wrong_shapes_lengths_and_sizes_are_refused():
    with pytest.raises(ValueError, match=r"want \(B, S\), got \(5000,\)"):
        Fbank()(noise(5000))
    with pytest.raises(ValueError, match="want 2 lengths of at most 5000 samples"):
        Fbank()(noise(2, 5000), [5000, 5001])
    with pytest.raises(ValueError, match=r"want \(S,\), got \(1, 5000\)"):
        FbankLayer(Fbank()).encode(noise(1, 5000))
    with pytest.raises(ValueError, match="num_mels must be at least 4, got 3"):
        Fbank(num_mels=3)


# In the place of an encoder


def test_the_layer_axis():
    layer, wav = FbankLayer(Fbank(num_mels=40)), noise(3, 24000)
    feats, frames = layer(wav, LENGTHS)
    expected, _ = Fbank(num_mels=40)(wav, LENGTHS)
    assert feats.shape == (3, 148, 1, 40) == (3, 148, layer.num_layers, layer.dim)
    assert torch.equal(feats[:, :, 0], expected) and frames.tolist() == FRAMES
    assert torch.equal(layer.encode(wav[0]), feats[0])
    assert not any(p.requires_grad for p in layer.parameters())


def test_identity():
    assert json.loads(json.dumps(FbankLayer(Fbank()).identity())) == {
        "encoder": "fbank", "num_layers": 1, "dim": 80, "sample_rate": 16000,
        "window_type": "hamming", "scale": 32768, "mean_norm": True}
    assert not FbankLayer(Fbank(mean_norm=False)).identity()["mean_norm"]


def test_extraction_names_what_is_too_short():
    fits, short = np.zeros(400, np.float32), np.zeros(399, np.float32)
    for utts, waves in ((["a", "b"], [fits, short]), (["b"], [short])):
        with pytest.raises(ValueError, match=r"^b: 399 samples are too few .* needs 400; audit"):
            batches.encode_batch(FbankLayer(Fbank()), utts, waves)


def test_a_plan_names_it(monkeypatch):
    monkeypatch.setattr(timing, "time_encoder",
                        lambda *args: timing.EncoderSpeed(900.0, "nothing"))
    lines = plan.describe_plan(load_config(overrides=["frontend.name=fbank"]), [])
    assert any(line.startswith("encoder: fbank, 1 states of 80; ") for line in lines)


def test_from_recordings_to_embeddings(data, tmp_path):
    """Features, a training step, embeddings, and the same from a recording."""
    config = load_config(overrides=[
        "frontend.name=fbank", "model.layer_pool.name=weighted_sum", "model.embed_dim=16",
        "loss.num_subcenters=1", "loss.top_k=0", "train.epochs=1", "train.batch_size=8",
        "train.crop_seconds=0.3", "train.num_workers=0", "train.precision=float32"])
    audit_data_dir(data)
    loaded, exp_dir = load_data_dir(data), tmp_path / "exp"
    with dist.join_world("cpu") as world:
        frontend = build.build_frontend(config.frontend)
        extract.extract_feats(frontend, loaded, tmp_path / "feats", "float16", world)
        train.train(config, loaded, tmp_path / "feats", exp_dir, world)
        checkpoint.average_epochs(exp_dir, 1)
        scp = embed.embed_set(exp_dir, tmp_path / "feats", sorted(loaded.wavs), data.name, world)
    store, model = FeatureStore(tmp_path / "feats"), wespeaker_lap.load_model(exp_dir)
    vectors = dict(zip(*read_vectors(scp), strict=True))
    assert vectors.keys() == loaded.wavs.keys()
    for utt, path in loaded.wavs.items():
        expected = kaldi_feats(torch.from_numpy(read_audio(path)))
        np.testing.assert_allclose(store[utt][:, 0], expected - expected.mean(0), atol=0.02)
        np.testing.assert_allclose(model.embed(path), vectors[utt], rtol=1e-2, atol=1e-3)
