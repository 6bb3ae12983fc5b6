"""What a training example is made of, measured on recordings whose samples tell where they are."""

from dataclasses import astuple

import numpy as np
import pytest
from tiny_pretraining import write_pack

from wespeaker_lap.data.packed import PackedAudio
from wespeaker_lap.pretrain.config import Crops
from wespeaker_lap.pretrain.crops import CropSource

RATE, SIZE = 16000, 800
PLAIN = {"clean_share": 0.0, "seconds": SIZE / RATE, "mix_prob": 0, "noise_prob": 0,
         "reverb_prob": 0, "eq_prob": 0}


def make_source(folder, recordings, seed=1, noises=None, rirs=None, **changes) -> CropSource:
    """A source of crops of 800 samples that does nothing to them but what `changes` says."""
    audio, *others = (PackedAudio(write_pack(folder / name, given)) if given else None
                      for name, given in (("speech", recordings), ("noises", noises),
                                          ("rirs", rirs)))
    return CropSource(audio, np.arange(len(audio)), Crops(**{**PLAIN, **changes}), seed, *others)


def make_noise(seed: int, num_samples: int, level: float = 0.1) -> np.ndarray:
    return level * np.random.default_rng(seed).standard_normal(num_samples)


def find_starts(source: CropSource, num_pairs: int) -> np.ndarray:
    """(N, 2) first samples of crops of a recording whose sample i is i/32767."""
    pairs = [source.pair(0, place) for place in range(num_pairs)]
    for first, _ in pairs:
        assert np.array_equal(np.diff(first.clean * 32767).round(), np.ones(SIZE - 1))
    return np.array([[round(float(e.clean[0]) * 32767) for e in pair] for pair in pairs])


@pytest.mark.parametrize("length", [2 * SIZE, 2 * SIZE + 1, 3 * SIZE, 20 * SIZE])
def test_a_pair_does_not_overlap_where_there_is_room(tmp_path, length):
    source = make_source(tmp_path, [np.arange(length) / 32767])
    starts = find_starts(source, 200)
    nearest = int(np.abs(starts[:, 0] - starts[:, 1]).min())
    assert nearest >= SIZE
    assert starts.min() >= 0
    assert starts.max() <= length - SIZE
    assert all(example.has_pair for example in source.pair(0, 0))


@pytest.mark.parametrize(("length", "has_pair"), [
    (SIZE, False), (SIZE * 2 - 1, False), (SIZE * 2, True)])
def test_a_pair_counts_where_there_is_room_for_two_crops(tmp_path, length, has_pair):
    source = make_source(tmp_path, [np.arange(length) / 32767])
    assert [example.has_pair for example in source.pair(0, 0)] == [has_pair] * 2


def test_crops_come_from_everywhere_in_a_recording(tmp_path):
    source = make_source(tmp_path, [np.arange(10 * SIZE) / 32767])
    starts = find_starts(source, 300)
    assert starts.min() < SIZE / 2
    assert starts.max() > 8.5 * SIZE
    counts, _ = np.histogram(starts, 5, (0, 9 * SIZE))
    assert counts.min() > 40  # of 120 each if they were uniform


@pytest.mark.parametrize("length", [1, 300, SIZE - 1])
def test_a_short_recording_is_repeated(tmp_path, length):
    source = make_source(tmp_path, [np.arange(1, length + 1) / 32767])
    for example in source.pair(0, 0):
        assert np.array_equal(np.round(example.clean * 32767), 1 + np.arange(SIZE) % length)
        assert not example.has_pair


def test_longer_recordings_are_drawn_more_often_up_to_eight_seconds(tmp_path):
    """Of 1, 3, 8 and 20 s at 100 Hz: odds 1 : 3 : 8 : 8."""
    lengths = [100, 300, 800, 2000]
    audio = PackedAudio(write_pack(tmp_path / "a", [np.zeros(n) for n in lengths], 100))
    source = CropSource(audio, np.arange(4), Crops(**{**PLAIN, "seconds": 0.1}), 1)
    drawn = [source.pair(0, place)[0].utt for place in range(2000)]
    share = np.bincount(drawn) / 2000
    np.testing.assert_allclose(share, np.array([1, 3, 8, 8]) / 20, atol=0.04)


def test_only_the_chosen_recordings_are_drawn(tmp_path):
    audio = PackedAudio(write_pack(tmp_path / "a", [make_noise(n, SIZE) for n in range(6)]))
    source = CropSource(audio, np.array([1, 4]), Crops(**{**PLAIN, "mix_prob": 1.0}), 1)
    assert {source.pair(0, place)[0].utt for place in range(40)} == {1, 4}


def test_without_corruption_both_are_the_same(tmp_path):
    for example in make_source(tmp_path, [make_noise(0, 3000)]).pair(0, 0):
        assert example.clean.dtype == example.noisy.dtype == np.float32
        assert np.array_equal(example.clean, example.noisy)


def measure_decibels(x: np.ndarray, other: np.ndarray) -> float:
    return 10 * np.log10(np.sum(np.square(x, dtype=np.float64))
                         / np.sum(np.square(other, dtype=np.float64)))


@pytest.mark.parametrize("num_samples", [None, 300, 5000])
def test_noise_is_as_far_below_as_asked(tmp_path, num_samples):
    """Made up here, a short recording, a long one; the level is that of the crop it falls on."""
    noises = [make_noise(9, num_samples, 0.01)] if num_samples else None
    recordings = [make_noise(n, 4000, 0.02 * n) for n in (1, 2, 3)]
    source = make_source(tmp_path, recordings, noises=noises, noise_prob=1, noise_db=(5, 15))
    ratios = [measure_decibels(e.clean, e.noisy - e.clean)
              for place in range(30) for e in source.pair(0, place)]
    assert 4.99 < min(ratios) < 7
    assert 13 < max(ratios) < 15.01


def test_noise_recordings_are_cut_anywhere_and_short_ones_repeated(tmp_path):
    noise = make_noise(9, 300)
    source = make_source(tmp_path, [make_noise(1, 4000)], noises=[noise], noise_prob=1)
    for example in source.pair(0, 0):
        added = (example.noisy - example.clean).astype(np.float64)
        want = np.resize(noise, SIZE)
        assert np.corrcoef(added, want)[0, 1] > 0.999


def test_nothing_is_measured_against_silence(tmp_path):
    """A crop of zeros stays one; noise of zeros adds nothing."""
    source = make_source(tmp_path / "a", [np.zeros(2000)], noise_prob=1, mix_prob=1)
    assert not np.any(source.pair(0, 0)[0].noisy)
    source = make_source(tmp_path / "b", [make_noise(0, 2000)], noises=[np.zeros(2000)],
                         noise_prob=1)
    example = source.pair(0, 0)[0]
    assert np.array_equal(example.clean, example.noisy)


def test_another_utterance_lies_over_at_most_half_of_a_crop(tmp_path):
    """At 3 dB above the crop, a piece of the beginning of a recording, by trying every place."""
    recordings = [make_noise(n, 1000, 0.03 * (n + 1)) for n in range(4)]
    source = make_source(tmp_path, recordings, mix_prob=1, mix_db=(-3, -3))
    sizes = []
    for place in range(20):
        example = source.pair(0, place)[1]
        added = example.noisy.astype(np.float64) - example.clean
        touched = np.flatnonzero(np.abs(added) > 1e-6)
        first, size = touched[0], touched[-1] + 1 - touched[0]
        sizes.append(size)
        assert 0 < size <= SIZE // 2
        assert is_piece_of_one(added[first:first + size], example.clean,
                               [source.audio.read(n)[:SIZE] for n in range(4)])
    assert max(sizes) > SIZE // 4 > min(sizes)


def is_piece_of_one(piece: np.ndarray, clean: np.ndarray, others: list[np.ndarray]) -> bool:
    for other in others:
        gain = 10 ** (3 / 20) * np.sqrt(np.mean(np.square(clean, dtype=np.float64))
                                        / np.mean(np.square(other, dtype=np.float64)))
        windows = np.lib.stride_tricks.sliding_window_view(other, len(piece))
        if np.abs(gain * windows - piece).max(axis=1).min() < 1e-5:
            return True
    return False


@pytest.mark.parametrize("num_taps", [50, 3000])
def test_reverberation_is_a_convolution_that_begins_with_the_direct_sound(tmp_path, num_taps):
    """Also with a response longer than the crop, of which the rest would fall beyond it."""
    response = make_noise(4, num_taps, 0.05) * np.exp(-np.arange(num_taps) / 40)
    response[7] = 0.9
    source = make_source(tmp_path, [make_noise(1, 4000)], rirs=[response], reverb_prob=1)
    taps = source.rirs.read(0).astype(np.float64)[:SIZE][7:]
    taps /= np.sqrt(np.sum(taps ** 2))
    for example in source.pair(0, 0):
        want = np.convolve(example.clean.astype(np.float64), taps)[:SIZE]
        np.testing.assert_allclose(example.noisy, want, atol=1e-5)


def test_the_equaliser_is_a_filter_whose_curve_has_eight_random_points(tmp_path):
    """Circular convolution with the response of the curve through eight gains."""
    source = make_source(tmp_path, [make_noise(1, 4000)], eq_prob=1, eq_db=6.0)
    points, bins = np.linspace(0, SIZE // 2, 8), np.arange(SIZE // 2 + 1)
    gains = []
    for place in range(100):
        example = source.pair(0, place)[0]
        ratio = np.fft.rfft(example.noisy) / np.fft.rfft(example.clean)
        decibels = 20 * np.log10(np.abs(ratio))
        # Between the points the curve is straight: continue each first and last piece.
        knots = np.array([decibels[0], *(extrapolate(decibels, p) for p in points[1:-1]),
                          decibels[-1]])
        gains.append(knots)
        curve = 10 ** (np.interp(bins, points, knots) / 20)
        taps = np.fft.irfft(curve, SIZE)
        want = np.convolve(np.tile(example.clean.astype(np.float64), 2), taps)[SIZE:2 * SIZE]
        np.testing.assert_allclose(example.noisy, want, atol=1e-4)
    assert np.std(gains) == pytest.approx(6.0, rel=0.1)  # of 800
    assert np.abs(np.mean(gains)) < 0.7


def extrapolate(decibels: np.ndarray, point: float) -> float:
    """The value at a point between two bins, on the straight line that ends there."""
    last = int(point)
    return decibels[last] + (decibels[last] - decibels[last - 1]) * (point - last)


def test_reverberation_and_equaliser_keep_the_length_together(tmp_path):
    source = make_source(tmp_path, [make_noise(1, 4000)], rirs=[make_noise(2, 100)],
                         reverb_prob=1, eq_prob=1)
    for example in source.pair(0, 0):
        assert example.noisy.shape == (SIZE,)
        assert np.isfinite(example.noisy).all()


@pytest.mark.parametrize(("name", "odds"), [
    ("noise_prob", 0.3), ("mix_prob", 0.3), ("eq_prob", 0.3), ("reverb_prob", 0.3)])
def test_each_corruption_has_its_odds(tmp_path, name, odds):
    source = make_source(tmp_path, [make_noise(n, 2000) for n in range(3)],
                         rirs=[make_noise(5, 20)], **{name: odds})
    is_changed = [not np.array_equal(e.clean, e.noisy)
                  for place in range(200) for e in source.pair(0, place)]
    assert np.mean(is_changed) == pytest.approx(odds, abs=0.08)  # of 400


def test_an_example_follows_from_seed_step_and_place(tmp_path):
    recordings = [make_noise(n, 3000) for n in range(5)]
    everything = {"noise_prob": 0.5, "mix_prob": 0.5, "eq_prob": 0.5, "reverb_prob": 0.5}
    folders = iter("abc")

    def make(seed: int = 1) -> CropSource:
        return make_source(tmp_path / next(folders), recordings, seed, rirs=[make_noise(8, 30)],
                           **everything)

    source, again, other = make(), make(), make(2)
    for step, place in ((3, 1), (0, 0), (3, 2)):  # in any order
        for one, two in zip(source.pair(step, place), again.pair(step, place), strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(astuple(one), astuple(two),
                                                            strict=True))
    crops = [given.pair(*at)[0].noisy for given, at in (
        (source, (0, 0)), (source, (0, 1)), (source, (1, 0)), (other, (0, 0)))]
    assert len({crop.tobytes() for crop in crops}) == 4


def test_clean_pairs_are_left_as_they_are(tmp_path):
    source = make_source(tmp_path, [make_noise(0, 4 * SIZE), make_noise(1, 4 * SIZE)],
                         clean_share=0.3, noise_prob=1.0)
    pairs = [source.pair(0, place) for place in range(600)]
    for first, second in pairs:
        assert first.is_clean == second.is_clean
        for example in (first, second):
            assert np.array_equal(example.clean, example.noisy) == example.is_clean
    assert np.mean([first.is_clean for first, _ in pairs]) == pytest.approx(0.3, abs=0.06)
