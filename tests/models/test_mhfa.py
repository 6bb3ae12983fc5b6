"""Multi-head factorised attentive pooling against loops in numpy, float64."""

import numpy as np
import pytest
import torch
from torch import nn

from wespeaker_lap.models.layer_pool import LAP, WeightedSum
from wespeaker_lap.models.mhfa import MHFA, TwoStreams
from wespeaker_lap.models.speaker_net import SpeakerNet


def random_input(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_pool() -> MHFA:
    pool = MHFA(4, num_heads=3, compression=2).double()
    generator = torch.Generator().manual_seed(0)
    for parameter in pool.parameters():
        nn.init.uniform_(parameter, -1.0, 1.0, generator=generator)
    return pool


def linear(x: np.ndarray, layer: nn.Linear) -> np.ndarray:
    return layer.weight.detach().numpy() @ x + layer.bias.detach().numpy()


def reference_mhfa(pool: MHFA, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """One utterance, keys and values `(n, F)` -> `(H * C,)`."""
    logits = [linear(linear(k, pool.compress_keys), pool.attend) for k in keys]
    compressed = [linear(v, pool.compress_values) for v in values]
    heads = []
    for h in range(3):
        weights = [np.exp(logit[h]) for logit in logits]
        heads.append(sum(w * v for w, v in zip(weights, compressed, strict=True)) / sum(weights))
    return np.concatenate(heads)


@pytest.mark.parametrize("lengths", [None, [6, 3, 1]])
def test_mhfa_equals_a_loop(lengths):
    pool, keys, values = random_pool(), random_input(3, 6, 4), random_input(3, 6, 4, seed=2)
    want = [reference_mhfa(pool, k[:n].numpy(), v[:n].numpy())
            for k, v, n in zip(keys, values, lengths or [6] * 3, strict=True)]
    got = pool((keys, values), None if lengths is None else torch.tensor(lengths))
    np.testing.assert_allclose(got.detach(), want, rtol=1e-12)


def test_one_stream_is_both():
    pool, frames = random_pool(), random_input(2, 5, 4)
    torch.testing.assert_close(pool(frames), pool((frames, frames)), rtol=0, atol=0)


@pytest.mark.parametrize("make", [lambda: WeightedSum(3, 4),
                                  lambda: LAP(3, 4, out_dim=6, num_heads=2)])
def test_each_stream_has_its_own_layer_pooling(make):
    streams = TwoStreams(make(), make()).double().eval()
    for parameter in streams.parameters():
        nn.init.normal_(parameter)
    x, lengths = random_input(2, 5, 3, 4), torch.tensor([5, 2])
    keys, values = streams(x, lengths)
    torch.testing.assert_close(keys, streams.keys(x, lengths))
    torch.testing.assert_close(values, streams.values(x, lengths))
    assert keys.shape[2] == streams.out_dim and not torch.allclose(keys, values)


def test_parameter_count_of_the_paper():
    """13 x 768, static weights, embeddings of 256, counted piece by piece; no batch norms."""
    net = SpeakerNet(TwoStreams(WeightedSum(13, 768), WeightedSum(13, 768)), MHFA(768), 256)
    norms = (net.pool_norm, net.embed_norm)
    count = sum(p.numel() for p in net.parameters())
    count -= sum(p.numel() for norm in norms for p in norm.parameters())
    layers, compression, attention = 2 * 13, 2 * (768 + 1) * 128, (128 + 1) * 64
    assert count == layers + compression + attention + (64 * 128 + 1) * 256


def test_padding_changes_nothing():
    pool, keys, values = random_pool(), random_input(3, 6, 4), random_input(3, 6, 4, seed=2)
    lengths = torch.tensor([2, 6, 1])
    padded = torch.stack((keys, values))
    for i, n in enumerate(lengths):
        padded[:, i, n:] = torch.tensor([torch.nan, torch.inf, -torch.inf, 1e300])
    padded.requires_grad_()
    got = pool(tuple(padded), lengths)
    got.square().sum().backward()
    for i, n in enumerate(lengths):
        alone = torch.stack((keys[i : i + 1, :n], values[i : i + 1, :n])).requires_grad_()
        want = pool(tuple(alone))
        want.square().sum().backward()
        torch.testing.assert_close(got[i], want[0])
        torch.testing.assert_close(padded.grad[:, i, :n], alone.grad[:, 0])
        assert not padded.grad[:, i, n:].any()


def test_parameters_get_no_gradient_from_padding():
    pool, frames = MHFA(4, num_heads=3, compression=2), torch.randn(2, 5, 4)
    frames[0, 2:] = torch.nan
    pool(frames, torch.tensor([2, 5])).square().sum().backward()
    assert all(p.grad.isfinite().all() for p in pool.parameters())


@pytest.mark.parametrize("make", [lambda: WeightedSum(7, 24),
                                  lambda: LAP(7, 24, out_dim=24, num_heads=4)])
def test_in_a_speaker_net(make):
    torch.manual_seed(0)
    net = SpeakerNet(TwoStreams(make(), make()), MHFA(24, 3, 8), embed_dim=8)
    for _ in range(3):  # running statistics away from 0 and 1
        net(3 * torch.randn(8, 10, 7, 24) + 1)
    net(torch.randn(8, 10, 7, 24)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert all(p.grad.any() for n, p in net.named_parameters() if n.endswith(("weight", "logits")))
    net.eval().double()
    lengths = torch.tensor([4, 9, 1])
    feats = torch.full((3, 9, 7, 24), torch.nan, dtype=torch.float64)
    utts = [torch.randn(n, 7, 24, dtype=torch.float64) for n in lengths]
    for i, utt in enumerate(utts):
        feats[i, : len(utt)] = utt
    alone = torch.cat([net(utt.unsqueeze(0)) for utt in utts])
    torch.testing.assert_close(net(feats, lengths), alone, rtol=1e-10, atol=1e-12)


def test_half_precision_frames_are_pooled_in_float32():
    pool, frames = MHFA(4, num_heads=3, compression=2), 100 + torch.randn(2, 3000, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = pool(frames.to(torch.bfloat16))
        compressed = pool.compress_values(frames.to(torch.bfloat16)).double()
        logits = pool.attend(pool.compress_keys(frames.to(torch.bfloat16))).double()
    assert out.dtype == torch.float32
    want = torch.einsum("bth,btc->bhc", logits.softmax(dim=1), compressed).flatten(1)
    torch.testing.assert_close(out.double(), want, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("shape", [(2, 4), (2, 4, 3), (2, 0, 4), (2, 3, 5, 4)])
def test_wrong_shapes_are_an_error(shape):
    with pytest.raises(ValueError, match=r"want keys \(B, T, 4\)"):
        MHFA(4)(torch.zeros(shape))
    with pytest.raises(ValueError, match=r"want values of the keys' shape \(2, 3, 4\)"):
        MHFA(4)((torch.zeros(2, 3, 4), torch.zeros(shape)))


def test_streams_of_two_sizes_are_an_error():
    with pytest.raises(ValueError, match="got 4 and 5"):
        TwoStreams(WeightedSum(3, 4), WeightedSum(3, 5))
    shared = WeightedSum(3, 4)
    with pytest.raises(ValueError, match="got one"):
        TwoStreams(shared, shared)


@pytest.mark.parametrize("options", [{"in_dim": 0}, {"num_heads": 0}, {"compression": 0}])
def test_impossible_options_are_an_error(options):
    with pytest.raises(ValueError, match=">= 1"):
        MHFA(**{"in_dim": 4, **options})
