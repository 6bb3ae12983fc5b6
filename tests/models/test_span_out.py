"""Spans of frames that are cut out of training utterances."""

import math
from itertools import pairwise

import pytest
import torch

from wespeaker_lap.models.span_out import SpanOut


def numbered_frames(num_utts: int, num_frames: int) -> torch.Tensor:
    """Frames `(B, T, 1, 1)` whose value is their place."""
    return torch.arange(1.0, num_frames + 1).view(1, -1, 1, 1).repeat(num_utts, 1, 1, 1)


def test_what_is_left_keeps_its_order_and_lost_frames_come_in_spans():
    torch.manual_seed(0)
    x, lengths = numbered_frames(200, 50), torch.arange(200) % 50 + 1
    out, new_lengths = SpanOut(utt_prob=1.0, start_prob=0.1, span=4)(x, lengths)
    assert out.shape == (200, int(new_lengths.max()), 1, 1)
    some_end_is_whole = False
    for utt, n, old in zip(out[:, :, 0, 0], new_lengths, lengths, strict=True):
        places = [0, *utt[:n].int().tolist()]
        assert all(a < b <= old for a, b in pairwise(places))
        gaps = [b - a - 1 for a, b in pairwise(places)]
        assert not any(0 < gap < 4 for gap in gaps)  # only an utterance's end may cut a span short
        some_end_is_whole |= n < old and places[-1] == old
    assert some_end_is_whole


def test_shares_of_utterances_and_frames():
    torch.manual_seed(0)
    num_utts, num_frames, span, start = 4000, 40, 3, 0.05
    _, lengths = SpanOut()(numbered_frames(num_utts, num_frames))
    untouched = 0.7 + 0.3 * (1 - start) ** num_frames
    share = (lengths == num_frames).double().mean()
    assert abs(share - untouched) < 5 * math.sqrt(untouched * (1 - untouched) / num_utts)
    # Frame t is cut out if one of the min(t, span) frames up to it starts a span.
    kept = sum((1 - start) ** min(t, span) for t in range(1, num_frames + 1)) / num_frames
    want = 0.7 + 0.3 * kept
    assert abs(lengths.double().mean() / num_frames - want) < 0.005


def test_an_utterance_never_loses_all_its_frames():
    x, lengths = torch.zeros(3, 5, 2, 2), torch.tensor([5, 2, 1])
    out, new_lengths = SpanOut(utt_prob=1.0, start_prob=1.0)(x, lengths)
    assert out.shape == x.shape and new_lengths.tolist() == [5, 2, 1]


def test_nothing_happens_in_eval_mode():
    x, lengths = torch.zeros(3, 50, 2, 2), torch.tensor([50, 20, 40])
    out, same = SpanOut(utt_prob=1.0, start_prob=0.3).eval()(x, lengths)
    assert out is x and same is lengths


def test_without_spans_the_batch_stays_as_it_is():
    x = torch.zeros(3, 5, 2, 2)
    out, lengths = SpanOut(utt_prob=0.0)(x)
    assert out is x and lengths is None


@pytest.mark.parametrize("options", [{"utt_prob": 1.1}, {"start_prob": -0.1}, {"span": 0}])
def test_impossible_options_are_an_error(options):
    with pytest.raises(ValueError, match="want"):
        SpanOut(**options)


def test_lengths_of_another_batch_are_an_error():
    with pytest.raises(ValueError, match="want lengths"):
        SpanOut()(torch.zeros(3, 5, 2, 2), torch.tensor([5, 6, 1]))
