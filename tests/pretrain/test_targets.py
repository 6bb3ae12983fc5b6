"""What is predicted, against brute force and arithmetic on frames cut by hand."""

import math

import numpy as np
import pytest
import scipy.fft
import torch

from wespeaker_lap.frontends.ssl import FrozenSSL
from wespeaker_lap.pretrain.config import Masked
from wespeaker_lap.pretrain.targets import (
    MEL_EPS,
    KMeans,
    LogMel,
    RandomProjection,
    Standardise,
    Targets,
)

RATE, WINDOW, SHIFT, NUM_MELS = 16000, 512, 320, 80


def nearest(x: np.ndarray, centres: np.ndarray) -> tuple[int, np.ndarray]:
    distances = np.array([np.sum((x - centre) ** 2) for centre in centres])
    return int(distances.argmin()), distances


def assert_nearest(code: int, x: np.ndarray, centres: np.ndarray) -> None:
    """`code` is the nearest, or as near as float32 can tell."""
    _, distances = nearest(x, centres)
    assert distances[code] <= distances.min() + 1e-5 * (1 + np.sum(x ** 2))


def test_random_projection_by_brute_force():
    """The nearest of unit vectors to the projected frame of unit length."""
    quantiser = RandomProjection(dim=12, num_codebooks=3, codebook_size=40, code_dim=6, seed=4)
    frames = torch.randn(2, 9, 12, generator=torch.Generator().manual_seed(1))
    codes = quantiser(frames)
    assert codes.shape == (2, 9, 3)
    matrices, vectors = (x.double().numpy() for x in (quantiser.projection, quantiser.codes))
    np.testing.assert_allclose(np.sqrt((vectors ** 2).sum(axis=-1)), 1, atol=1e-6)
    for b, t, c in np.ndindex(2, 9, 3):
        projected = frames[b, t].double().numpy() @ matrices[c]
        assert_nearest(int(codes[b, t, c]), projected / np.linalg.norm(projected), vectors[c])
    assert len(torch.unique(codes)) > 20
    assert not torch.equal(codes[:, :, 0], codes[:, :, 1])


def test_random_projection_does_not_hear_how_loud_a_frame_is():
    quantiser = RandomProjection(10, 2, 30)
    frames = torch.randn(1, 50, 10)
    assert torch.equal(quantiser(frames), quantiser(7 * frames))


def test_random_projection_follows_from_the_seed():
    one, two, other = (RandomProjection(10, 2, 30, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert not any(torch.equal(one[key], other[key]) for key in one)


def test_kmeans_assigns_by_distance():
    quantiser = KMeans(dim=7, codebook_size=25)
    rng = torch.Generator().manual_seed(2)
    quantiser.centroids.copy_(3 * torch.randn(25, 7, generator=rng))
    frames = 3 * torch.randn(3, 20, 7, generator=rng)
    codes = quantiser(frames)
    assert codes.shape == (3, 20, 1)
    for b, t in np.ndindex(3, 20):
        assert_nearest(int(codes[b, t, 0]), frames[b, t].double().numpy(),
                       quantiser.centroids.double().numpy())


def test_kmeans_finds_clusters():
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0], [10, 0], [0, 10], [10, 10]], dtype=np.float32)
    labels = rng.integers(4, size=800)
    points = torch.from_numpy(centres[labels] + rng.normal(0, 0.3, (800, 2)).astype(np.float32))
    quantiser = KMeans(2, 4)
    quantiser.fit(points, seed=1)
    found = [nearest(centre, quantiser.centroids.numpy())[0] for centre in centres]
    assert sorted(found) == [0, 1, 2, 3]
    assert np.array_equal(quantiser(points[None])[0, :, 0].numpy(), np.array(found)[labels])
    again = KMeans(2, 4)
    again.fit(points, seed=1)
    assert torch.equal(again.centroids, quantiser.centroids)


def mel_bands() -> np.ndarray:
    """(bands, bins): triangles between points that are equally spaced on HTK's mel scale."""
    low, high = (2595 * math.log10(1 + hertz / 700) for hertz in (20.0, RATE / 2))
    points = 700 * (10 ** (np.linspace(low, high, NUM_MELS + 2) / 2595) - 1)
    bins = np.linspace(0, RATE / 2, WINDOW // 2 + 1)
    bands = np.zeros((NUM_MELS, len(bins)))
    for band in range(NUM_MELS):
        left, centre, right = points[band:band + 3]
        rising, falling = (bins - left) / (centre - left), (right - bins) / (right - centre)
        bands[band] = np.maximum(0, np.minimum(rising, falling))
    return bands


def log_mel_by_hand(wav: np.ndarray, num_frames: int) -> np.ndarray:
    """(S,) -> (T, M): frame t is samples from t * shift on, zeros beyond the end."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    padded = np.concatenate([wav, np.zeros(num_frames * SHIFT + WINDOW)])
    frames = [padded[t * SHIFT:t * SHIFT + WINDOW] * window for t in range(num_frames)]
    power = np.abs(np.fft.rfft(frames)) ** 2
    return np.log(power @ mel_bands().T + MEL_EPS)


@pytest.mark.filterwarnings("ignore:At least one mel filterbank has all zero")
@pytest.mark.parametrize("num_frames", [1, 8, 13])  # 13: beyond the end
def test_log_mel_of_a_sine_in_noise_by_hand(num_frames):
    time = np.arange(4000) / RATE
    wav = (math.sqrt(2) * np.sin(2 * np.pi * 1000 * time)
           + 0.1 * np.random.default_rng(0).standard_normal(4000))
    found = LogMel()(torch.from_numpy(wav[None]).float(), num_frames)[0]
    want = log_mel_by_hand(wav.astype(np.float32), num_frames)
    assert found.shape == (num_frames, NUM_MELS)
    np.testing.assert_allclose(found.numpy(), want, atol=2e-3)
    centres = 700 * (10 ** (np.linspace(2595 * math.log10(1 + 20 / 700),
                                        2595 * math.log10(1 + 8000 / 700), 82)[1:-1] / 2595) - 1)
    assert abs(centres[int(found[0].argmax())] - 1000) < 60


@pytest.mark.filterwarnings("ignore:At least one mel filterbank has all zero")
@pytest.mark.parametrize("place", [0, 900, 1500])
def test_frame_t_begins_at_sample_t_times_shift(place):
    wav = torch.zeros(1, 4000)
    wav[0, place + 1] = 100.0  # the window is 0 at its very first sample
    is_heard = (LogMel()(wav, 10)[0] > math.log(MEL_EPS) + 1e-4).any(dim=1)
    want = [t * SHIFT <= place < t * SHIFT + WINDOW - 1 for t in range(10)]
    assert is_heard.tolist() == want


def test_standardise():
    frames = torch.tensor([[1.0, 5.0], [3.0, 5.0], [8.0, 5.0]])
    scale = Standardise(2)
    scale.fit(frames)
    # Mean 4, variance (9 + 1 + 16) / 2 = 13; a constant dimension stays finite.
    want = np.array([-3, -1, 4]) / math.sqrt(13)
    np.testing.assert_allclose(scale(frames)[:, 0], want, rtol=1e-6)
    assert scale(frames)[:, 1].tolist() == [0, 0, 0]


def make_waves(num: int = 6, size: int = 4000) -> torch.Tensor:
    rng = torch.Generator().manual_seed(7)
    wav = torch.randn(num, size, generator=rng) * torch.rand(num, size, generator=rng).cumsum(1)
    return torch.nn.functional.layer_norm(wav, [size])


@pytest.mark.filterwarnings("ignore:At least one mel filterbank has all zero")
def test_spectra_are_standardised_with_the_statistics_of_the_fit():
    wav = make_waves()
    targets = Targets(Masked(codebook_size=16), RATE, SHIFT)
    targets.fit(wav, 11)
    raw = np.stack([log_mel_by_hand(x.double().numpy(), 11) for x in wav])
    frames = raw.reshape(-1, NUM_MELS)
    want = (raw - frames.mean(axis=0)) / np.maximum(frames.std(axis=0, ddof=1), 1e-5)
    codes, mel = targets(wav[:2], 11)
    lively = frames.std(axis=0) > 0.1  # the lowest bands have no bin of the spectrum
    assert lively.sum() > 70
    np.testing.assert_allclose(mel.numpy()[:, :, lively], want[:2, :, lively], atol=0.02)
    assert codes.shape == (2, 11, 2)
    assert torch.equal(codes, targets.quantiser(mel))


def cepstra_by_hand(mel: np.ndarray) -> np.ndarray:
    """(T, M) -> (T, 39): thirteen cepstra with their slopes, and the slopes of these."""
    def slopes(x: np.ndarray) -> np.ndarray:
        at = np.clip(np.arange(-2, len(x) + 2), 0, len(x) - 1)
        wide, size = x[at], len(x)
        return sum(n * (wide[2 + n:2 + n + size] - wide[2 - n:2 - n + size])
                   for n in (1, 2)) / 10
    cepstra = scipy.fft.dct(mel, norm="ortho", axis=1)[:, :13]
    return np.concatenate([cepstra, slopes(cepstra), slopes(slopes(cepstra))], axis=1)


@pytest.mark.filterwarnings("ignore:At least one mel filterbank has all zero")
def test_codes_of_cepstra_by_brute_force():
    wav = make_waves()
    targets = Targets(Masked(target="kmeans", codebook_size=8), RATE, SHIFT)
    targets.fit(wav, 11)
    frames = np.stack([cepstra_by_hand(log_mel_by_hand(x.double().numpy(), 11)) for x in wav])
    flat = frames.reshape(-1, 39)
    scaled = (frames - flat.mean(axis=0)) / flat.std(axis=0, ddof=1)
    codes, _ = targets(wav, 11)
    assert codes.shape == (6, 11, 1)
    assert len(torch.unique(codes)) > 4
    centroids = targets.quantiser.centroids.double().numpy()
    agree = [int(codes[b, t, 0]) == nearest(scaled[b, t], centroids)[0]
             for b, t in np.ndindex(6, 11)]
    assert np.mean(agree) > 0.97  # a frame half way between two may go to either


def test_codes_of_a_teachers_states_by_brute_force():
    teacher, wav = FrozenSSL.load("wavlm_tiny"), make_waves(3)
    num_frames = teacher.num_frames(wav.shape[1])
    config = Masked(target="kmeans", codebook_size=6, teacher="wavlm_tiny", teacher_layer=2)
    targets = Targets(config, RATE, SHIFT, teacher)
    targets.fit(wav, num_frames)
    states = teacher(wav)[0][:, :, 2].double().numpy()
    flat = states.reshape(-1, states.shape[-1])
    scaled = (states - flat.mean(axis=0)) / flat.std(axis=0, ddof=1)
    codes, _ = targets(wav, num_frames)
    centroids = targets.quantiser.centroids.double().numpy()
    for b, t in np.ndindex(3, num_frames):
        assert_nearest(int(codes[b, t, 0]), scaled[b, t], centroids)


@pytest.mark.filterwarnings("ignore:At least one mel filterbank has all zero")
def test_targets_go_on_from_their_state():
    """Statistics and codebooks are in it: nothing has to be learnt again."""
    wav, config = make_waves(), Masked(target="kmeans", codebook_size=8)
    fitted, restored = (Targets(config, RATE, SHIFT, seed=seed) for seed in (1, 2))
    fitted.fit(wav, 11)
    restored.load_state_dict(fitted.state_dict())
    for one, two in zip(fitted(wav, 11), restored(wav, 11), strict=True):
        assert torch.equal(one, two)
