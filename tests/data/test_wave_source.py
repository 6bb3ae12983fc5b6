"""Crops of recordings: where they are cut, at which speed, with what added; whoever asks."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wespeaker_lap.data.augmenter import Augmenter
from wespeaker_lap.data.copies import CLEAN, Copy
from wespeaker_lap.data.datadir import DataDir
from wespeaker_lap.data.loader import BatchLoader
from wespeaker_lap.data.wave_source import WaveSource

RATE, CROP = 16000, 800
LENGTHS = {"a1": 4000, "a2": 300, "b1": 800, "c1": 2500, "d1": 3000}
SLOW, FAST = Copy("speed", 0.9), Copy("speed", 1.1)
NOISE, REVERB, BABBLE = Copy("noise"), Copy("reverb"), Copy("babble")


def write_float(path: Path, samples: np.ndarray) -> str:
    soundfile.write(path, samples.astype(np.float32), RATE, subtype="FLOAT")
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("waves")


@pytest.fixture(scope="module")
def data(folder) -> DataDir:
    """Sample t of every recording is t / 10000, so that a crop shows where it was cut."""
    wavs = {utt: write_float(folder / f"{utt}.wav", np.arange(size) / 10000)
            for utt, size in LENGTHS.items()}
    return DataDir(folder, wavs, {utt: utt[0] for utt in LENGTHS}, {}, {})


@pytest.fixture(scope="module")
def augmenter(folder, data) -> Augmenter:
    """A short and a long noise, an echo, babble of the set."""
    rng = np.random.default_rng(0)
    noises = {f"n{size}": write_float(folder / f"n{size}.wav", 0.1 * rng.standard_normal(size))
              for size in (500, 9000)}
    rirs = {"r": write_float(folder / "r.wav", np.r_[0.0, 1.0, np.zeros(99), 0.5])}
    return Augmenter([CLEAN, NOISE, REVERB, BABBLE], 1, noises, rirs, data.wavs, data.utt2spk)


def make(data, augmenter=None, shares=None, speeds=(), seed=5) -> WaveSource:
    return WaveSource(data, CROP, seed, RATE, shares, speeds, augmenter)


def fill(source, key) -> tuple[tuple, np.ndarray]:
    out = np.full(source.shape, np.nan, np.float32)
    return source.fill(key, out), out


def place_of(wave: np.ndarray) -> np.ndarray:
    return np.round(wave * 10000).astype(int)


def test_a_crop_is_a_stretch_of_its_recording(data):
    source = make(data)
    assert source.utts == sorted(LENGTHS) and source.speakers == list("abcd")
    assert source.labels == [0, 0, 1, 2, 3] and len(source) == 5
    starts = {utt: set() for utt in LENGTHS}
    for epoch in range(60):
        for index, utt in enumerate(source.utts):
            (name, label, count), wave = fill(source, (epoch, index))
            places = place_of(wave)
            assert (name, label) == (utt, source.labels[index])
            assert count == min(CROP, LENGTHS[utt])
            if LENGTHS[utt] < CROP:
                assert places.tolist() == [t % LENGTHS[utt] for t in range(CROP)]
            else:
                assert places.tolist() == list(range(places[0], places[0] + CROP))
                assert places[-1] < LENGTHS[utt]
            starts[utt].add(places[0])
    assert starts["b1"] == starts["a2"] == {0} and len(starts["a1"]) > 50
    assert min(starts["a1"]) < 320 and max(starts["a1"]) > 3200 - 320  # of 0 to 3200


def test_a_span_is_where_the_crop_was_cut(data):
    source = make(data)
    for key in [(epoch, index) for epoch in range(10) for index in range(5)]:
        first = place_of(fill(source, key)[1])[0]
        size = LENGTHS[source.utts[key[1]]]
        assert source.find_span(key) == pytest.approx((first / RATE, min(CROP, size) / RATE))


def test_a_span_is_in_seconds_of_another_rate_too(folder):
    """Half as many samples a second: sample t of the crop is sample t / 2 of the recording."""
    path = folder / "slow.wav"
    soundfile.write(path, (np.arange(6000) / 10000).astype(np.float32), RATE // 2, subtype="FLOAT")
    source = make(DataDir(folder, {"slow": str(path)}, {"slow": "s"}, {}, {}))
    starts = set()
    for epoch in range(10):
        _, wave = fill(source, (epoch, 0))
        start, length = source.find_span((epoch, 0))
        assert length == CROP / RATE
        assert wave[CROP // 2] * 10000 == pytest.approx(start * RATE / 2 + CROP / 4, abs=2)
        starts.add(start)
    assert len(starts) == 10


def test_examples_of_an_epoch_are_cut_at_places_of_their_own(data):
    """As shares of where each could begin."""
    source, utts = make(data), ("a1", "c1", "d1")
    for epoch in range(5):
        shares = [place_of(fill(source, (epoch, source.utts.index(utt)))[1])[0]
                  / (LENGTHS[utt] - CROP) for utt in utts]
        assert np.ptp(shares) > 0.01


def test_examples_follow_from_the_key_and_the_seed(data, augmenter):
    shares = {CLEAN: 0.25, NOISE: 0.25, REVERB: 0.25, BABBLE: 0.25}
    keys = [(epoch, index) for epoch in (0, 3, 2**32) for index in range(15)]
    wanted = [fill(make(data, augmenter, shares, (SLOW, FAST)), key) for key in keys]
    source = make(data, augmenter, shares, (SLOW, FAST))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda key: fill(source, key), keys[::-1]))[::-1]
    for (names, wave), (other_names, other) in zip(wanted, found, strict=True):
        assert names == other_names and wave.tobytes() == other.tobytes()
    others = [fill(make(data, augmenter, shares, (SLOW, FAST), seed=6), key)[1] for key in keys]
    assert sum(np.array_equal(a, b) for (_, a), b in zip(wanted, others, strict=True)) < 12


@pytest.mark.parametrize("num_threads", [1, 4])
def test_batches_are_the_same_for_any_number_of_threads(data, augmenter, num_threads):
    source = make(data, augmenter, {NOISE: 0.5, BABBLE: 0.5}, (SLOW,))
    keys = [[(0, n) for n in range(8)], [(1, n) for n in range(2, 10)]]
    alone = list(BatchLoader(source, keys, 0))
    for one, other in zip(alone, BatchLoader(source, keys, num_threads), strict=True):
        assert one.utts == other.utts and one.speakers.tolist() == other.speakers.tolist()
        assert one.feats.numpy().tobytes() == other.feats.numpy().tobytes()
        assert one.num_bytes == other.num_bytes > 0
    assert alone[0].feats.shape == (8, CROP)


def test_another_speed_is_another_speaker(data):
    """A ramp of slope 1 has slope f at speed f; a crop is full, and a short recording tiled."""
    source = make(data, speeds=(SLOW, FAST))
    assert source.speakers == sorted(f"{tag}{s}" for tag in ("", "sp0.9-", "sp1.1-")
                                     for s in "abcd")
    assert len(source) == 15 and source.list_entries().keys() == {
        f"{tag}{utt}" for tag in ("", "sp0.9-", "sp1.1-") for utt in LENGTHS}
    for number, factor in ((1, 0.9), (2, 1.1)):
        for place, utt in enumerate(source.utts):
            (name, label, _), wave = fill(source, (0, 5 * number + place))
            assert name == f"sp{factor}-{utt}" and source.speakers[label] == f"sp{factor}-{utt[0]}"
            if LENGTHS[utt] >= 2500:
                inner = np.diff(wave[100:-100]) * 10000
                np.testing.assert_allclose(inner, factor, atol=0.02)
    _, tiled = fill(source, (0, 6))  # a2: 300 samples at 0.9 are 333
    np.testing.assert_array_equal(tiled[333:666], tiled[:333])


def test_kinds_come_in_their_shares_and_with_their_ratios(data, augmenter):
    """What is added to the known crop: nothing, or noise of 0 to 15 dB, babble of 13 to 20."""
    shares = {CLEAN: 0.4, NOISE: 0.4, BABBLE: 0.2}
    source, clean = make(data, augmenter, shares), make(data)
    counts = {"clean": 0, "noise": 0, "babble": 0}
    for epoch in range(400):
        wave, original = (fill(one, (epoch, 0))[1].astype(np.float64) for one in (source, clean))
        added = np.mean((wave - original) ** 2)
        if added == 0:
            counts["clean"] += 1
            continue
        ratio = 10 * np.log10(np.mean(original ** 2) / added)
        # A ramp correlates with ramps, so that babble is told by its smoothness.
        kind = "noise" if np.abs(np.diff(wave - original)).max() > 0.01 * np.sqrt(
            np.mean(original ** 2)) and np.std(np.diff(wave - original)) > np.std(
                wave - original) / 2 else "babble"
        low, high = (0, 15) if kind == "noise" else (13, 20)
        assert low - 1e-3 <= ratio <= high + 1e-3
        counts[kind] += 1
    for kind, share in (("clean", 0.4), ("noise", 0.4), ("babble", 0.2)):
        assert abs(counts[kind] / 400 - share) < 0.1, counts


def test_reverberation_is_that_of_the_response(data, augmenter):
    source, clean = make(data, augmenter, {REVERB: 1.0}), make(data)
    wave, original = (fill(one, (0, 0))[1].astype(np.float64) for one in (source, clean))
    want = original + 0.5 * np.r_[np.zeros(100), original[:-100]]
    want *= np.sqrt(np.mean(original ** 2) / np.mean(want ** 2))
    np.testing.assert_allclose(wave, want, atol=1e-4)


def test_only_a_stretch_of_a_long_noise_is_read(data, augmenter, monkeypatch):
    sizes, read = [], soundfile.SoundFile.read

    def watched(file, frames=-1, **options):
        sizes.append(frames)
        return read(file, frames, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", watched)
    source = make(data, augmenter, {NOISE: 1.0})
    for epoch in range(20):
        fill(source, (epoch, 0))
    assert sizes.count(CROP) > 25  # all but the short noise, which is read whole
    assert set(sizes) == {CROP, 500}


def test_what_cannot_be_used_is_named(data, augmenter, tmp_path):
    taken = DataDir(data.path, {**data.wavs, "sp0.9-a1": "x"}, {**data.utt2spk, "sp0.9-a1": "e"},
                    {}, {})
    with pytest.raises(ValueError, match=r"called .*already: sp0\.9-a1"):
        make(taken, speeds=(SLOW,))
    lost = DataDir(data.path, {**data.wavs, "a1": str(tmp_path / "no.wav")}, data.utt2spk, {}, {})
    with pytest.raises(ValueError, match=r"no\.wav: no such file"):
        fill(make(lost), (0, 0))
    unknown = Augmenter([NOISE], 1, {"n": str(tmp_path / "gone.wav")})
    with pytest.raises(ValueError, match=r"a1: copy 'noise': .*gone\.wav: no such file"):
        fill(make(data, unknown, {NOISE: 1.0}), (0, 0))
