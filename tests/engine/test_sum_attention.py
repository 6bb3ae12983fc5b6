"""Sums of what is looked at, by hand; systems that look at nothing."""

import numpy as np
import pytest
import torch

from wespeaker_lap.config import load_config
from wespeaker_lap.engine.attention import check_chooses_layers, look_at, sum_attention
from wespeaker_lap.models.layer_pool import LAP, WeightedSum
from wespeaker_lap.models.mhfa import TwoStreams


def plant(*logits: float) -> LAP:
    """A `LAP` of one head that gives every frame these scores, and wants 2 numbers a layer."""
    pool = LAP(len(logits), 2, out_dim=3, num_heads=1).eval()
    with torch.no_grad():
        for parameter in (pool.squeeze_weight, pool.squeeze_bias, pool.expand_weight):
            parameter.zero_()
        pool.expand_bias.copy_(torch.tensor([logits]) / 2)
    return pool


# Equal scores of 1/2, so the larger value wins.
FEATS = {"a1": [[[1, 0], [0, 1]]],  # one frame: a value each
         "a2": [[[2, 2], [1, 1]], [[2, 1], [1, 2]]],  # both to layer 0, then a value each
         "b1": [[[0, 0], [1, 1]]] * 3}


def read(utt: str) -> np.ndarray:
    return np.array(FEATS[utt], np.float32)


def test_sums_of_every_speaker():
    found = sum_attention(plant(0, 0), read, {"b1": "b", "a2": "a", "a1": "a"})
    assert found.num_frames == 6 and list(found.sums) == ["layers"]
    np.testing.assert_allclose(found.sums["layers"]["mass"], [[1.5, 1.5], [1.5, 1.5]], rtol=1e-6)
    np.testing.assert_allclose(found.sums["layers"]["wins"], [[2, 1], [0, 3]], rtol=1e-6)


def test_streams_are_summed_apart():
    pool = TwoStreams(plant(0, -50), plant(-50, 0)).eval()
    found = sum_attention(pool, read, {"a1": "a", "b1": "b"})
    np.testing.assert_allclose(found.sums["keys"]["mass"], [[0.5, 0], [1.5, 0]], atol=1e-6)
    np.testing.assert_allclose(found.sums["values"]["mass"], [[0, 0.5], [0, 1.5]], atol=1e-6)


def test_one_utterance():
    looks = look_at(plant(0, 0), read, "a2")
    assert looks["layers"].num_frames == 2
    np.testing.assert_allclose(looks["layers"].shares["wins"], [[1, 0], [0.5, 0.5]])
    assert looks["layers"].shares["mass"].dtype == np.float64
    assert look_at(WeightedSum(2, 2), read, "a2")["layers"].shares.keys() == {"mass"}


def test_nothing_to_look_at():
    with pytest.raises(ValueError, match="no utterances to look at"):
        sum_attention(plant(0, 0), read, {})


@pytest.mark.parametrize(("feats", "message"), [
    ([[[np.nan, 0], [0, 1]]], "u7: layer scores that are not finite; look at its audio"),
    ([[[1, 0, 0], [0, 1, 0]]], r"u7: want \(B, T, 2, 2\), got \(1, 1, 2, 3\)"),
])
def test_an_utterance_that_fails_is_named(feats, message):
    pool = LAP(2, 2, out_dim=3, num_heads=1).eval()
    with pytest.raises(ValueError, match=message):
        look_at(pool, lambda utt: np.array(feats, np.float32), "u7")


def test_systems_of_one_layer():
    lap, single = load_config(), load_config(overrides=["model.layer_pool.name=single"])
    check_chooses_layers("exp/a", lap, {"num_layers": 2, "encoder": "e"})
    with pytest.raises(ValueError, match="exp/a: trained on fbank features of one layer, so there"):
        check_chooses_layers("exp/a", lap, {"num_layers": 1, "encoder": "fbank"})
    with pytest.raises(ValueError, match="exp/a: its layer pool is 'single', which looks at one"):
        check_chooses_layers("exp/a", single, {"num_layers": 7, "encoder": "e"})
