"""Training crops: a function of (seed, epoch, utterance), tiled where an utterance is short."""

import pickle

import numpy as np
import pytest

from wespeaker_lap.data.source import FeatureSource
from wespeaker_lap.io.feats import FeatureStore, FeatureWriter

NUM_FRAMES = {"b": 50, "a": 7, "é": 20}
UTT2SPK = {"b": "x", "a": "ü", "é": "x"}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Frame t of every utterance holds the number t, so that a crop shows where it was cut."""
    directory = tmp_path_factory.mktemp("feats")
    with FeatureWriter(directory, {"num_layers": 2, "dim": 3}, "float32") as writer:
        for utt, frames in NUM_FRAMES.items():
            writer.write(utt, np.tile(np.arange(frames)[:, None, None], (1, 2, 3)))
    return FeatureStore(directory)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Entries of three segments of 20 frames, and a shorter utterance that is whole."""
    directory = tmp_path_factory.mktemp("parts")
    segments = {"num": 3, "num_frames": 20, "seed": 0}
    with FeatureWriter(directory, {"num_layers": 2, "dim": 3, "segments": segments},
                       "float32") as writer:
        for utt, frames in {"a": 60, "b": 59}.items():
            writer.write(utt, np.tile(np.arange(frames)[:, None, None], (1, 2, 3)))
    return FeatureStore(directory)


def make(store, crop_frames=20, seed=5, utt2spk=UTT2SPK):
    return FeatureSource(store, utt2spk, ["x", "ü"], crop_frames, seed)


def fill(source, key):
    """What `fill` returns, and what it wrote."""
    assert source.shape == (source.crop_frames, 2, 3) and source.frame_bytes == 2 * 3 * 4
    out = np.full(source.shape, np.nan, np.float32)
    return source.fill(key, out), out


def frames_of(source, key):
    _, feats = fill(source, key)
    assert (feats == feats[:, :1, :1]).all()
    return feats[:, 0, 0].astype(int).tolist()


def test_examples_are_of_the_sorted_utterances(store):
    source = make(store)
    assert len(source) == 3
    assert [fill(source, (0, n))[0] for n in range(3)] == [("a", 1, 7), ("b", 0, 20), ("é", 0, 20)]


def test_short_utterances_are_tiled_and_fitting_ones_are_whole(store):
    assert frames_of(make(store), (3, 0)) == [*range(7), *range(7), *range(6)]
    assert frames_of(make(store), (3, 2)) == list(range(20))
    assert frames_of(make(store, crop_frames=9), (3, 0)) == [*range(7), 0, 1]


def test_long_utterances_are_cropped_everywhere(store):
    source = make(store)
    starts = set()
    for epoch in range(400):
        frames = frames_of(source, (epoch, 1))
        assert frames == list(range(frames[0], frames[0] + 20))
        starts.add(frames[0])
    assert starts == set(range(31))  # every place, the first and the last included


def test_a_crop_is_a_function_of_seed_epoch_and_utterance(store):
    def starts(source, keys):
        return [frames_of(source, key)[0] for key in keys]

    keys = [(epoch, 1) for epoch in range(30)]
    first = starts(make(store), keys)
    assert starts(make(store), keys[::-1])[::-1] == first  # whatever was asked for before
    assert starts(pickle.loads(pickle.dumps(make(store))), keys) == first  # in a spawned worker
    assert starts(make(store, seed=6), keys) != first


@pytest.mark.parametrize(("crop", "places"), [(20, 1), (19, 2), (7, 14), (1, 20)])
def test_crops_do_not_reach_over_a_border_between_segments(parts, crop, places):
    source = make(parts, crop_frames=crop, utt2spk={"a": "x", "b": "x"})
    starts = set()
    for epoch in range(1000):
        frames = frames_of(source, (epoch, 0))
        assert frames == list(range(frames[0], frames[0] + crop))
        assert frames[0] // 20 == frames[-1] // 20
        starts.add(frames[0])
    assert starts == {20 * piece + place for piece in range(3) for place in range(places)}
    whole = {frames_of(source, (epoch, 1))[0] for epoch in range(1000)}
    assert whole == set(range(59 - crop + 1))


def test_a_segment_that_is_shorter_than_a_crop_is_tiled(parts):
    source = make(parts, crop_frames=50, utt2spk={"a": "x", "b": "x"})
    found = set()
    for epoch in range(50):
        assert fill(source, (epoch, 0))[0] == ("a", 0, 20)
        frames = frames_of(source, (epoch, 0))
        piece = list(range(frames[0], frames[0] + 20))
        assert frames == [*piece, *piece, *piece[:10]]
        found.add(frames[0])
    assert found == {0, 20, 40}
    assert {frames_of(source, (epoch, 0))[0] for epoch in range(50)} == found
    assert fill(source, (0, 1))[0] == ("b", 0, 50)


def test_crops_of_whole_utterances_are_where_they_always_were(store):
    """The numbers of numpy's generator that earlier trainings were made of."""
    for epoch in range(20):
        rng = np.random.default_rng([5, epoch, 1])
        assert frames_of(make(store), (epoch, 1))[0] == rng.integers(31)


def test_missing_features_are_named_with_the_store(store):
    utt2spk = {**UTT2SPK, "gone1": "x", "gone2": "x"}
    with pytest.raises(ValueError, match="no features for gone1, gone2; run stage 2 for this set"):
        make(store, utt2spk=utt2spk)
