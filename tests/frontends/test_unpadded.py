"""Frontends in the steps of a graph: the features of the frontends themselves."""

import numpy as np
import pytest
import torch
from kaldi_fbank import kaldi_feats
from torchaudio.models import wav2vec2_model

from wespeaker_lap.frontends.fbank import Fbank, FbankLayer
from wespeaker_lap.frontends.selection import Selection
from wespeaker_lap.frontends.ssl import FrozenSSL
from wespeaker_lap.frontends.unpadded import fourier_matrix, make_unpadded


def noise(*shape, seed=0):
    """Noise that falls by 6 dB an octave, as speech does, and is not centred."""
    white = np.random.default_rng(seed).normal(size=shape)
    red = np.cumsum(white, axis=-1) / 300 + 0.01 * white + 0.05
    return torch.from_numpy(red.astype(np.float32)).clamp(-1, 1)


@pytest.mark.parametrize(("num_mels", "sample_rate"), [(80, 16000), (24, 8000)])
def test_filter_banks_are_kaldis(num_mels, sample_rate):
    wav = noise(16007)
    expected = kaldi_feats(wav, num_mels, sample_rate)
    frontend = FbankLayer(Fbank(num_mels, mean_norm=False, sample_rate=sample_rate))
    feats = make_unpadded(frontend)(wav[None])
    assert feats.shape == (1, len(expected), 1, num_mels) and np.ptp(expected) > 5
    np.testing.assert_allclose(feats[0, :, 0], expected, atol=3e-3)


def test_the_matrix_by_hand():
    samples = np.array([0.5, -0.25, 0.125, 0.0, 1.0])
    centred = (samples - samples.mean()) * 32768
    emphasised = [centred[0] * (1 - 0.97),
                  *(centred[n] - 0.97 * centred[n - 1] for n in range(1, 5))]
    window = [0.54 - 0.46 * np.cos(2 * np.pi * n / 4) for n in range(5)]
    expected = [sum(emphasised[n] * window[n] * np.exp(-2j * np.pi * k * n / 8) for n in range(5))
                for k in range(4)]
    found = fourier_matrix(5, 8).double().numpy() @ samples
    np.testing.assert_allclose(found[:4] + 1j * found[4:], expected, rtol=1e-5, atol=0.05)


def test_silence_and_the_shortest_recording():
    frontend = FbankLayer(Fbank(num_mels=20))
    for wav in (torch.zeros(2, 1600), noise(1, 400)):
        torch.testing.assert_close(make_unpadded(frontend)(wav), frontend(wav)[0])


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("last_state", ["after_norm", "before_norm"])
def test_states_of_an_encoder_of_large_style(normalize, last_state):
    torch.manual_seed(0)
    model = wav2vec2_model("layer_norm", [(16, 10, 5), (16, 8, 4)], True, 24, 0.0, 16, 4, 2, 4,
                           0.0, 32, 0.0, 0.0, True, 0.0, None)
    torch.nn.init.uniform_(model.encoder.transformer.layer_norm.weight, 2, 3)
    check_states(FrozenSSL(model, "large", 16000, normalize, last_state=last_state))


@pytest.mark.parametrize("normalize", [False, True])
def test_states_of_the_packaged_encoder(normalize):
    check_states(FrozenSSL.load("wavlm_tiny", normalize_waveform=normalize))


def check_states(encoder):
    for wav in (0.1 * noise(2, 9999), noise(1, encoder.min_samples)):
        wanted, _ = encoder(wav)
        found = make_unpadded(encoder)(wav)
        assert found.shape == wanted.shape
        assert (found - wanted).abs().max() < 1e-5 * wanted.abs().max()


@pytest.mark.parametrize(("layers", "stride"), [([0, 2, 5], 1), (None, 3), ([4], 2)])
def test_a_selection(layers, stride):
    frontend = Selection(FrozenSSL.load("wavlm_tiny"), layers, stride)
    wav = noise(2, 9999)
    wanted, _ = frontend(wav)
    found = make_unpadded(frontend)(wav)
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() < 1e-5 * wanted.abs().max()


def test_every_second_frame_of_filter_banks():
    frontend = Selection(FbankLayer(Fbank(num_mels=20)), frame_stride=2)
    wav = noise(2, 5000)
    torch.testing.assert_close(make_unpadded(frontend)(wav), frontend(wav)[0], atol=3e-3, rtol=0)
