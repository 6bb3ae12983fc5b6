"""Segments: where they are, that every place is as likely, and what an entry consists of."""

import json
from collections import Counter
from itertools import combinations, pairwise

import numpy as np
import pytest

from wespeaker_lap.data.segments import Segments, read_segments


@pytest.mark.parametrize(("num", "size", "total"), [
    (3, 10, 31), (3, 10, 100), (1, 7, 8), (5, 1, 9), (2, 200, 2000), (4, 3, 13)])
def test_segments_rise_do_not_overlap_and_are_inside(num, size, total):
    segments = Segments(num, size, seed=3)
    for number in range(200):
        starts = segments.starts(f"u{number}", total)
        assert len(starts) == num and starts[0] >= 0 and starts[-1] + size <= total
        assert all(b - a >= size for a, b in pairwise(starts))


def test_every_layout_is_as_likely_as_any_other():
    """Two segments of 3 frames in 9: with a <= b - 3 <= 3 there are 4 * 5 / 2 = 10 layouts."""
    layouts = [(a, b) for a, b in combinations(range(7), 2) if b - a >= 3]
    assert len(layouts) == 10
    found = Counter(tuple(Segments(2, 3).starts(f"{n}é", 9)) for n in range(5000))
    assert sorted(found) == layouts
    # 500 each; the deviation of such a count is 21.
    assert all(400 < count < 600 for count in found.values()), found


def test_every_frame_is_reached():
    seen = set()
    for number in range(300):
        for start in Segments(3, 5).starts(f"u{number}", 40):
            seen |= set(range(start, start + 5))
    assert seen == set(range(40))


def test_a_cut_is_made_of_the_frames_of_its_segments():
    feats = np.arange(50 * 2 * 3, dtype=np.float32).reshape(50, 2, 3)
    segments = Segments(3, 10, seed=1)
    cut = segments.cut("a/语", feats)
    want = [feats[start + n] for start in segments.starts("a/语", 50) for n in range(10)]
    assert cut.shape == (30, 2, 3) and np.array_equal(cut, np.stack(want))


@pytest.mark.parametrize("total", [1, 10, 29, 30])
def test_what_is_no_longer_than_all_segments_stays_whole(total):
    feats = np.arange(total)[:, None, None]
    assert np.array_equal(Segments(3, 10).cut("a", feats), feats)
    assert Segments(3, 10).count(total) == total


def test_the_number_of_frames_kept():
    segments = Segments(3, 10)
    assert [segments.count(n) for n in (1, 29, 30, 31, 5000)] == [1, 29, 30, 30, 30]
    for total in range(1, 60):
        assert len(segments.cut("a", np.zeros((total, 1, 1)))) == segments.count(total)


def test_what_an_entry_consists_of():
    assert Segments(3, 10).pieces(29) == (1, 29)
    assert Segments(3, 10).pieces(30) == (3, 10)


def test_places_follow_from_the_seed_and_the_utterance():
    def places(seed, utts):
        return [Segments(2, 10, seed).starts(utt, 500) for utt in utts]

    utts = [f"u{n}" for n in range(30)]
    assert places(0, utts) == places(0, utts[::-1])[::-1]
    assert places(0, utts) != places(1, utts)
    assert len({tuple(starts) for starts in places(0, utts)}) > 25


def test_the_identity_and_back():
    segments = Segments(3, 200, 7)
    identity = json.loads(json.dumps({"segments": segments.identity()}))
    assert identity == {"segments": {"num": 3, "num_frames": 200, "seed": 7}}
    assert read_segments(identity) == segments
    assert read_segments({}) is None and read_segments({"segments": None}) is None


@pytest.mark.parametrize(("num", "size"), [(0, 10), (3, 0)])
def test_no_segments_are_refused(num, size):
    with pytest.raises(ValueError, match=f"want 1 or more segments .*, got {num} of {size}"):
        Segments(num, size)
