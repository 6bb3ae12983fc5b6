"""The front end that begins as mel filters: what they hear, and what is left of a frame's level."""

import math

import numpy as np
import pytest
import torch
from tiny_pretraining import make_config

from wespeaker_lap.frontends.hidden_states import convolve, count_frames
from wespeaker_lap.pretrain.config import Encoder
from wespeaker_lap.pretrain.encoder import (
    NUM_LEVEL_CHANNELS,
    build_encoder,
    level_front_end,
    mel_filters,
)

RATE, SIZE, NUM_FILTERS = 16000, 400, 64


def mel_frequencies(num: int) -> np.ndarray:
    """Equally spaced on the mel scale from 20 Hz to 0.49 of the sample rate, in Hz."""
    low, high = (1127 * math.log(1 + hertz / 700) for hertz in (20.0, 0.49 * RATE))
    return 700 * (np.exp(np.linspace(low, high, num) / 1127) - 1)


def test_each_filter_hears_its_frequency_best():
    """Pre-emphasis lifts what is higher, so the peak is a little above; a bin is 40 Hz."""
    filters = mel_filters(NUM_FILTERS, SIZE, RATE)[:, 0].double().numpy()
    spectra = np.abs(np.fft.rfft(filters, 1 << 15))
    peaks = spectra.argmax(axis=1) * RATE / (1 << 15)
    wanted = np.repeat(mel_frequencies(NUM_FILTERS // 4), 4)
    assert np.abs(peaks - wanted)[wanted > 100].max() < 20
    assert np.abs(peaks - wanted).max() < 60  # below 80 Hz the negative frequency is as near


def test_filters_have_unit_energy():
    filters = mel_filters(NUM_FILTERS, SIZE, RATE)
    assert filters.shape == (NUM_FILTERS, 1, SIZE)
    np.testing.assert_allclose((filters.double() ** 2).sum(dim=(1, 2)), 1, rtol=1e-5)


def test_neighbours_are_four_phases_of_one_frequency():
    """Their rectified outputs on a sine add up to nearly the same wherever it is cut."""
    filters = mel_filters(NUM_FILTERS, SIZE, RATE)
    frequency = mel_frequencies(NUM_FILTERS // 4)[9]
    wave = torch.sin(2 * math.pi * frequency / RATE * torch.arange(4000))
    heard = torch.nn.functional.conv1d(wave[None, None], filters)[0].relu()  # (C, T)
    sums = heard.unflatten(0, (-1, 4)).sum(dim=1)  # (C / 4, T)
    assert sums.mean(dim=1).argmax() == 9
    assert (sums[9].max() / sums[9].min()).item() < 1.5  # |sin| + |cos|: from 1 to 1.41
    assert heard[36].min() == 0


def test_filters_hear_the_pre_emphasised_waveform():
    """Correlation with windowed cosines of x[t] - 0.97 x[t-1], by direct loops."""
    filters = mel_filters(8, 40, RATE)[:, 0].double().numpy()
    frequency = mel_frequencies(2)[1]
    time = (np.arange(40) - 19.5) / RATE
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(40) / 39)
    x = np.random.default_rng(0).standard_normal(120)
    emphasised = np.append(x[:1], x[1:] - 0.97 * x[:-1])
    for phase in range(4):
        cosine = np.cos(2 * np.pi * frequency * time + phase * np.pi / 2) * window
        want = np.array([emphasised[t:t + 40] @ cosine for t in range(1, 80)])
        found = np.array([x[t:t + 40] @ filters[4 + phase] for t in range(1, 80)])
        np.testing.assert_allclose(found / np.linalg.norm(found), want / np.linalg.norm(want),
                                   atol=1e-5)


def test_a_number_of_filters_that_has_no_phases():
    with pytest.raises(ValueError, match="filterbank_init wants a multiple of 4 filters, got 6"):
        mel_filters(6, SIZE, RATE)


def make_speech_like(num: int, size: int, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    """Noise that falls by 12 dB an octave and changes in level by up to 40 dB, a step a 0.1 s.

    Returns:
        (B, S) normalised, and the level of each step in dB (B, S / 1600).
    """
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft(rng.standard_normal((num, size)))
    hertz = np.fft.rfftfreq(size, 1 / RATE)
    noise = np.fft.irfft(spectrum / (1 + (hertz / 500) ** 2), size)
    levels = rng.uniform(-40, 0, (num, size // 1600))
    wav = noise * np.repeat(10 ** (levels / 20), 1600, axis=1)
    wav = (wav - wav.mean(axis=1, keepdims=True)) / wav.std(axis=1, keepdims=True)
    return torch.from_numpy(wav).float(), levels


def make_levelled(wav: torch.Tensor, **changes):
    config = make_config(encoder__conv_layers=[[NUM_FILTERS, SIZE, 160], [24, 3, 2]],
                         **changes).encoder
    torch.manual_seed(0)
    encoder = build_encoder(config, RATE)
    level_front_end(encoder.feature_extractor.conv_layers[0].conv, wav)
    return encoder


def test_every_filter_has_unit_deviation_on_speech():
    wav, _ = make_speech_like(8, 16000)
    conv = make_levelled(wav).feature_extractor.conv_layers[0].conv
    with torch.no_grad():
        found = conv(wav[:, None]).double().numpy()
    np.testing.assert_allclose(found.std(axis=(0, 2)), 1, rtol=1e-3)
    held_out, _ = make_speech_like(8, 16000, seed=1)
    with torch.no_grad():
        found = conv(held_out[:, None]).double().numpy()
    np.testing.assert_allclose(found.std(axis=(0, 2)), 1, rtol=0.4)


def test_some_channels_are_marked_half_of_them_negative():
    wav, _ = make_speech_like(2, 16000)
    bias = make_levelled(wav).feature_extractor.conv_layers[0].conv.bias.detach()
    assert (bias > 0).sum() == (bias < 0).sum() == NUM_LEVEL_CHANNELS // 2
    assert bias.sum() == pytest.approx(0, abs=1e-5)


def test_the_level_of_a_frame_is_there_after_the_norm():
    """As linear regression finds it, on recordings that it was not fitted to."""
    wav, levels = make_speech_like(24, 16000)
    layer = make_levelled(wav[:12]).feature_extractor.conv_layers[0]
    with torch.no_grad():
        normed = layer.layer_norm(layer.conv(wav[:, None]))  # (B, C, T)
    # Frames wholly within a step of the level, in dB relative to the recording.
    frames = torch.arange(normed.shape[-1]) * 160
    inside = (frames % 1600 + SIZE <= 1600).nonzero()[:, 0]
    power = (wav.unfold(1, SIZE, 160)[:, inside] ** 2).mean(dim=-1)
    wanted = 10 * torch.log10(power).double().numpy()  # (B, T)
    given = normed[:, :, inside].transpose(1, 2).double().numpy()  # (B, T, C)
    train, test = (np.concatenate([x, np.ones_like(x[:, :1])], axis=1) for x in (
        given[:12].reshape(-1, NUM_FILTERS), given[12:].reshape(-1, NUM_FILTERS)))
    weights = np.linalg.lstsq(train, wanted[:12].ravel(), rcond=None)[0]
    assert np.corrcoef(test @ weights, wanted[12:].ravel())[0, 1] > 0.85
    assert np.ptp(levels) > 30


def test_without_the_constants_the_level_is_gone():
    """The norm over channels takes it away exactly: a frame and its half are the same."""
    wav, _ = make_speech_like(4, 16000)
    layer = make_levelled(wav).feature_extractor.conv_layers[0]
    with torch.no_grad():
        loud, quiet = (layer.layer_norm(layer.conv(x[:, None])) for x in (wav, wav / 2))
        assert (loud - quiet).abs().max() > 0.1
        layer.conv.bias.zero_()
        loud, quiet = (layer.layer_norm(layer.conv(x[:, None])) for x in (wav, wav / 2))
    busy = quiet.std(dim=1) > 0.99  # where the norm's own constant plays no part
    assert busy.float().mean() > 0.8
    assert (loud - quiet).abs().amax(dim=1)[busy].max() < 0.05


def test_frame_t_of_the_encoder_begins_at_sample_t_times_shift():
    """400 samples, and two more such frames 160 apart: 720 samples, 320 from frame to frame."""
    wav, _ = make_speech_like(1, 8000)
    encoder = make_levelled(wav)
    changed = wav.clone()
    changed[0, 3000] += 5.0
    with torch.no_grad():
        one, two = (convolve(encoder, x, [8000])[0] for x in (wav, changed))
    is_changed = (one != two).any(dim=1)
    assert len(is_changed) == count_frames(encoder, 8000) == (8000 - 720) // 320 + 1
    assert is_changed.tolist() == [t * 320 <= 3000 < t * 320 + 720 for t in range(len(is_changed))]


@pytest.mark.parametrize(("norm", "is_before"), [("post", False), ("pre", True)])
def test_the_configuration_is_the_architecture(norm, is_before):
    config = Encoder(dim=24, num_layers=3, num_heads=4, ff_dim=40, norm=norm, num_buckets=32,
                     pos_conv_kernel=8, pos_conv_groups=4, conv_layers=[(8, 400, 160), (12, 3, 2)])
    encoder = build_encoder(config, RATE)
    blocks = encoder.encoder.transformer.layers
    assert len(blocks) == 3
    assert all(block.layer_norm_first == is_before for block in blocks)
    assert encoder.encoder.feature_projection.projection.out_features == 24
    assert blocks[0].feed_forward.intermediate_dense.out_features == 40
    assert [tuple(c.conv.weight.shape) for c in encoder.feature_extractor.conv_layers] == [
        (8, 1, 400), (12, 8, 3)]
    assert torch.equal(encoder.feature_extractor.conv_layers[0].conv.weight,
                       mel_filters(8, 400, RATE))


def test_without_filters_the_first_convolution_is_random():
    config = make_config(encoder__filterbank_init=False).encoder
    weights = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        weights.append(build_encoder(config, RATE).feature_extractor.conv_layers[0].conv.weight)
    assert not torch.equal(*weights)
