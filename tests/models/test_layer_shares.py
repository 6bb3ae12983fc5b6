"""What poolings look at: planted scores by hand, random networks against loops in numpy."""

import numpy as np
import pytest
import torch
from torch import nn

from wespeaker_lap.models.layer_pool import LAP, SingleLayer, WeightedSum
from wespeaker_lap.models.layer_shares import drops_first_layer, has_fixed_weights, layer_shares
from wespeaker_lap.models.mhfa import TwoStreams
from wespeaker_lap.models.unipool import UniPool


def plant(scores: list[list[float]], **options) -> LAP:
    """A `LAP` that gives these scores `(H, L)` to every frame, and leaves the values alone."""
    wanted = torch.tensor(scores, dtype=torch.float64)
    pool = LAP(wanted.shape[1], 4, out_dim=3, num_heads=len(scores), **options).double().eval()
    with torch.no_grad():
        for parameter in (pool.squeeze_weight, pool.squeeze_bias, pool.expand_weight):
            parameter.zero_()
        pool.expand_bias.copy_(wanted.logit() / 2)  # of both views
        pool.in_linear.weight.copy_(torch.eye(4))
        pool.in_linear.bias.zero_()
    return pool


def randomise(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    module.double().eval()
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            low, high = (0.5, 1.5) if "running_var" in name else (-1.0, 1.0)
            value.uniform_(low, high, generator=generator)
    return module


def random_feats(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_planted_scores_and_winners():
    pool = plant([[0.5, 0.25, 0.75], [0.1, 0.3, 0.2]])
    feats = torch.tensor([
        # Head 1 is the first two numbers, scored 0.5, 0.25, 0.75; head 2 the others.
        [[4.0, 1.0, 9.0, 1.0],
         [9.0, 1.0, 1.0, 1.0],
         [2.0, 1.0, 1.0, 2.0]],  # (2, .25, .9, .1) (2.25, .25, .3, .3) (1.5, .75, .2, .4)
        [[-1.0, 1.0, 0.0, 1.0],
         [-1.0, 2.0, -3.0, 1.0],
         [-1.0, 1.0, -1.0, 2.0]],  # (-.5, .5, 0, .1) (-.25, .5, -.9, .3) (-.75, .75, -.2, .4)
    ], dtype=torch.float64)
    shares = layer_shares(pool, feats)["layers"]
    expected = [[0.3, 0.275, 0.475]] * 2
    np.testing.assert_allclose(shares.scores, expected, rtol=1e-12)
    # Won by layers 1, 2, 0, 2 and by 1, 2, 0, 2.
    np.testing.assert_allclose(shares.wins, [[0.25, 0.25, 0.5]] * 2, rtol=1e-12)


def test_a_mean_of_layers_has_scores_and_no_winners():
    shares = layer_shares(plant([[0.5, 0.25], [0.1, 0.3]], combine="mean"), random_feats(7, 2, 4))
    np.testing.assert_allclose(shares["layers"].scores, [[0.3, 0.275]] * 7, rtol=1e-12)
    assert shares["layers"].wins is None


def count_winners(products: np.ndarray) -> np.ndarray:
    """`(T, L, H, d)` -> the part of a frame's values that each layer wins, `(T, L)`."""
    wins = np.zeros(products.shape[:2])
    for t, frame in enumerate(products):
        for column in frame.reshape(len(frame), -1).T:
            wins[t, list(column).index(max(column))] += 1 / (frame.size / len(frame))
    return wins


@pytest.mark.parametrize("num_heads", [1, 3])
def test_lap_against_its_forward(num_heads):
    pool, feats = randomise(LAP(5, 12, 6, num_heads)), random_feats(9, 5, 12)
    with torch.no_grad():
        pooled, scores = pool(feats[None], return_scores=True)
        rows = pool.in_linear(pool.in_norm(feats.flatten(0, 1)))
    products = (rows.view(9, 5, num_heads, -1)
                * scores[0].transpose(1, 2)[..., None])  # (T, L, H, d)
    shares = layer_shares(pool, feats)["layers"]
    np.testing.assert_allclose(shares.scores, scores[0].mean(dim=1), rtol=1e-12)
    np.testing.assert_allclose(shares.wins, count_winners(products.numpy()), rtol=1e-12)
    assert shares.wins.std(dim=0).min() > 0  # it differs from frame to frame
    # What wins is what is pooled.
    best = products.amax(dim=1).flatten(1)
    with torch.no_grad():
        np.testing.assert_allclose(pool.out_norm(pool.out_linear(best)), pooled[0], rtol=1e-9)


def test_unipool_against_its_forward():
    pool = randomise(UniPool(5, 6, out_dim=6, channels=2, num_heads=3))
    feats, seen = random_feats(9, 5, 6), []
    pool.pool.in_linear.register_forward_hook(lambda *args: seen.append(args[2]))
    with torch.no_grad():
        _, scores = pool(feats[None], return_scores=True)
    products = (seen[0].view(9, 4, 3, 2) * scores[0, :, :, 1:].transpose(1, 2)[..., None]).numpy()
    shares = layer_shares(pool, feats)["layers"]
    np.testing.assert_allclose(shares.scores, scores[0].mean(dim=1), rtol=1e-12)
    np.testing.assert_allclose(shares.wins[:, 1:], count_winners(products), rtol=1e-12)
    assert not shares.scores[:, 0].any() and not shares.wins[:, 0].any()


def test_a_weighted_sum_is_its_softmax():
    pool = WeightedSum(3, 4)
    with torch.no_grad():
        pool.layer_logits.copy_(torch.tensor([0.2, 0.5, 0.3]).log() + 7)
    shares = layer_shares(pool, torch.randn(6, 3, 4))["layers"]
    np.testing.assert_allclose(shares.scores, [[0.2, 0.5, 0.3]] * 6, rtol=1e-5)
    assert shares.wins is None


def test_two_streams_stay_apart():
    pool = TwoStreams(plant([[0.5, 0.25], [0.5, 0.25]]), plant([[0.1, 0.9], [0.3, 0.9]]))
    shares = layer_shares(pool, random_feats(4, 2, 4))
    assert list(shares) == ["keys", "values"]
    np.testing.assert_allclose(shares["keys"].scores, [[0.5, 0.25]] * 4, rtol=1e-12)
    np.testing.assert_allclose(shares["values"].scores, [[0.2, 0.9]] * 4, rtol=1e-12)


def test_kinds_of_poolings():
    sums, unipools = ([make() for _ in range(2)] for make in (
        lambda: WeightedSum(3, 4), lambda: UniPool(3, 4, out_dim=4, channels=2)))
    for pool, fixed, dropped in [
            (sums[0], True, False), (TwoStreams(*sums), True, False), (LAP(3, 16), False, False),
            (unipools[0], False, True), (TwoStreams(*unipools), False, True)]:
        assert (has_fixed_weights(pool), drops_first_layer(pool)) == (fixed, dropped)


@pytest.mark.parametrize("pool", [LAP(3, 4, 4, 2), UniPool(3, 4, out_dim=4, channels=2)])
def test_features_of_another_shape(pool):
    with pytest.raises(ValueError, match=r"want \(B, T, 3, 4\), got \(1, 5, 2, 4\)"):
        layer_shares(pool.eval(), torch.zeros(5, 2, 4))


def test_a_single_layer_chooses_nothing():
    with pytest.raises(ValueError, match="SingleLayer does not choose among layers"):
        layer_shares(SingleLayer(3, 4), torch.zeros(5, 3, 4))
