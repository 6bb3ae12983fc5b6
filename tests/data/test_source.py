"""Training crops: a function of (seed, epoch, utterance), tiled where an utterance is short."""

import pickle

import numpy as np
import pytest

from wespeaker_lap.data.copies import list_speakers, parse_copies, weigh_copies
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


def test_a_span_is_where_the_crop_was_cut(tmp_path):
    """At 100 frames a second."""
    identity = {"num_layers": 1, "dim": 1, "sample_rate": 8000, "frame_shift": 80}
    with FeatureWriter(tmp_path, identity, "float32") as writer:
        for utt, frames in NUM_FRAMES.items():
            writer.write(utt, np.arange(frames)[:, None, None])
    source = make(FeatureStore(tmp_path))
    out = np.empty(source.shape, np.float32)
    for key in [(epoch, index) for epoch in range(9) for index in range(3)]:
        _, _, count = source.fill(key, out)
        assert source.find_span(key) == pytest.approx((out[0, 0, 0] / 100, count / 100))
        assert count == min(20, NUM_FRAMES[source.utts[key[1]]])


def test_crops_of_whole_utterances_are_where_they_always_were(store):
    """The numbers of numpy's generator that earlier trainings were made of."""
    for epoch in range(20):
        rng = np.random.default_rng([5, epoch, 1])
        assert frames_of(make(store), (epoch, 1))[0] == rng.integers(31)


def test_missing_features_are_named_with_the_store(store):
    utt2spk = {**UTT2SPK, "gone1": "x", "gone2": "x"}
    with pytest.raises(ValueError, match="no features for gone1, gone2; run stage 2 for this set"):
        make(store, utt2spk=utt2spk)


COPIES = parse_copies(["clean", "noise", "reverb", "speed0.9", "speed1.1"])
OFFSETS = {"": 0, "noise-": 100, "reverb-": 200, "sp0.9-": 300, "sp1.1-": 400}


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """Frame t of a copy holds t and the offset of its kind."""
    directory = tmp_path_factory.mktemp("copied")
    with FeatureWriter(directory, {"num_layers": 2, "dim": 3}, "float32") as writer:
        for utt, frames in NUM_FRAMES.items():
            for tag, offset in OFFSETS.items():
                writer.write(tag + utt, np.tile(offset + np.arange(frames)[:, None, None],
                                                (1, 2, 3)))
    return FeatureStore(directory)


def make_copied(store, weights=None, seed=5, crop_frames=20):
    copies = weigh_copies(COPIES, weights or {})
    return FeatureSource(store, UTT2SPK, list_speakers(UTT2SPK, copies), crop_frames, seed, copies)


def test_speed_copies_are_utterances_of_new_speakers(copied):
    source = make_copied(copied, {"noise": 0, "reverb": 0})
    assert source.speakers == ["sp0.9-x", "sp0.9-ü", "sp1.1-x", "sp1.1-ü", "x", "ü"]
    found = [fill(source, (0, n))[0][:2] for n in range(len(source))]
    assert found == [("a", 5), ("b", 4), ("é", 4), ("sp0.9-a", 1), ("sp0.9-b", 0), ("sp0.9-é", 0),
                     ("sp1.1-a", 3), ("sp1.1-b", 2), ("sp1.1-é", 2)]
    assert frames_of(source, (0, 3)) == [300 + t for t in (*range(7), *range(7), *range(6))]


def test_one_of_an_utterances_copies_is_drawn_by_weight(copied):
    """2000 draws with shares 1/7, 4/7 and 2/7: within four deviations, which are below 45."""
    source = make_copied(copied, {"clean": 0.25, "reverb": 0.5})
    names = [fill(source, (epoch, 1))[0][0] for epoch in range(2000)]
    for name, share in (("b", 1 / 7), ("noise-b", 4 / 7), ("reverb-b", 2 / 7)):
        assert abs(names.count(name) - 2000 * share) < 90
    frames = [frames_of(source, (epoch, 1))[0] // 100 for epoch in range(50)]
    assert frames == [["b", "noise-b", "reverb-b"].index(name) for name in names[:50]]
    labels = {fill(source, (epoch, 1))[0][1] for epoch in range(50)}
    assert labels == {source.speakers.index("x")}
    without = make_copied(copied, {"clean": 0.25, "noise": 0})
    assert {fill(without, (epoch, 1))[0][0] for epoch in range(100)} == {"b", "reverb-b"}


def test_the_copy_is_a_function_of_seed_epoch_and_utterance(copied):
    keys = [(epoch, index) for epoch in range(30) for index in range(9)]

    def draw(source, keys):
        return [(fill(source, key)[0], frames_of(source, key)) for key in keys]

    first = draw(make_copied(copied), keys)
    assert draw(make_copied(copied), keys[::-1])[::-1] == first
    assert draw(pickle.loads(pickle.dumps(make_copied(copied))), keys) == first
    assert draw(make_copied(copied, seed=6), keys) != first


def test_with_the_clean_copy_alone_draws_are_what_they_were(copied, store):
    source = make_copied(copied, {"noise": 0, "reverb": 0, "speed0.9": 0, "speed1.1": 0})
    assert len(source) == 3 and source.speakers == ["x", "ü"]
    for epoch in range(20):
        assert frames_of(source, (epoch, 1)) == frames_of(make(store), (epoch, 1))


def test_missing_copies_are_named(store):
    with pytest.raises(ValueError, match="no features for noise-b, noise-a, noise-é, reverb-b"):
        make_copied(store)
