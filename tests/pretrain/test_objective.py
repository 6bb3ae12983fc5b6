"""Every term of the loss against loops over plain numbers, and the masks against their odds."""

import math

import numpy as np
import pytest
import torch
from tiny_pretraining import ALONE, make_config

from wespeaker_lap.pretrain.encoder import build_encoder
from wespeaker_lap.pretrain.objective import Pretraining, draw_mask

NUM_CODEBOOKS, CODEBOOK_SIZE, NUM_MELS = 2, 5, 7
UTTS = [3, 3, 8, 8, 3, 3, 1, 1]  # the third pair is of the first one's recording
HAS_PAIR = [True, True, False, False, True, True, True, True]


def make_net(**changes) -> Pretraining:
    config = make_config(**changes)
    torch.manual_seed(0)
    net = Pretraining(build_encoder(config.encoder, 16000), config, NUM_CODEBOOKS, CODEBOOK_SIZE,
                      NUM_MELS, ALONE)
    return net.eval()


def make_inputs(masked: float = 0.4) -> dict[str, torch.Tensor]:
    """Eight crops of six frames: the arguments of `forward` by name."""
    rng = torch.Generator().manual_seed(1)
    size, frames = 5 * 320 + 720, 6
    return {"wav": torch.randn(8, size, generator=rng),
            "mask": torch.rand(8, frames, generator=rng) < masked,
            "codes": torch.randint(CODEBOOK_SIZE, (8, frames, NUM_CODEBOOKS), generator=rng),
            "mel": 2 * torch.randn(8, frames, NUM_MELS, generator=rng),
            "own_mel": 2 * torch.randn(8, frames, NUM_MELS, generator=rng),
            "utts": torch.tensor(UTTS), "has_pair": torch.tensor(HAS_PAIR)}


def linear(layer: torch.nn.Linear, x: np.ndarray) -> np.ndarray:
    weight, bias = (p.detach().double().numpy() for p in (layer.weight, layer.bias))
    return np.array([sum(weight[i, j] * x[j] for j in range(len(x))) + bias[i]
                     for i in range(len(bias))])


def frame_weights(mask: np.ndarray, unmasked: float) -> np.ndarray:
    return np.where(mask, 1.0, unmasked)


def smooth_l1(difference: float) -> float:
    size = abs(difference)
    return size * size / 2 if size < 1 else size - 0.5


def run(net: Pretraining, inputs: dict) -> tuple[float, dict[str, float], np.ndarray, list]:
    """The loss, its terms, and the front end's output and states in float64."""
    with torch.no_grad():
        front, states = net.encode(inputs["wav"], inputs["mask"])
        loss, terms = net(**inputs)
    return (loss.item(), {name: term.item() for name, term in terms.items()},
            front.double().numpy(), [state.double().numpy() for state in states])


@pytest.mark.parametrize("unmasked", [0.0, 0.3, 1.0])
def test_the_codes_by_hand(unmasked):
    """Mean over frames and codebooks, masked frames weighing 1; accuracy on these alone."""
    net, inputs = make_net(masked__unmasked_weight=unmasked), make_inputs()
    _, terms, _, states = run(net, inputs)
    mask, codes = inputs["mask"].numpy(), inputs["codes"].numpy()
    weights = frame_weights(mask, unmasked)
    total, hits, num_masked = 0.0, 0.0, 0
    for b, t in np.ndindex(mask.shape):
        logits = linear(net.code_head, states[-1][b, t])
        for c in range(NUM_CODEBOOKS):
            row = logits[c * CODEBOOK_SIZE:(c + 1) * CODEBOOK_SIZE]
            entropy = -(row[codes[b, t, c]] - math.log(sum(math.exp(v) for v in row)))
            total += weights[b, t] * entropy / NUM_CODEBOOKS
            hits += mask[b, t] * (int(np.argmax(row)) == codes[b, t, c]) / NUM_CODEBOOKS
        num_masked += mask[b, t]
    assert terms["code"] == pytest.approx(total / weights.sum(), rel=1e-5)
    assert terms["code_acc"] == pytest.approx(hits / num_masked, rel=1e-5)


def test_the_spectrum_by_hand():
    """Smooth L1 of the last state's prediction, weighted; of the front end's, every frame alike."""
    net, inputs = make_net(), make_inputs()
    _, terms, front, states = run(net, inputs)
    mask, mel = inputs["mask"].numpy(), inputs["mel"].double().numpy()
    own_mel, weights = inputs["own_mel"].double().numpy(), frame_weights(mask, 0.3)
    last, first = 0.0, 0.0
    for b, t in np.ndindex(mask.shape):
        errors = [np.mean([smooth_l1(d) for d in linear(head, x[b, t]) - want[b, t]])
                  for head, x, want in ((net.mel_head, states[-1], mel),
                                        (net.front_head, front, own_mel))]
        last += weights[b, t] * errors[0]
        first += errors[1]
    assert terms["mel"] == pytest.approx(last / weights.sum(), rel=1e-5)
    assert terms["front"] == pytest.approx(first / mask.size, rel=1e-5)


def embed_crop(net: Pretraining, state: np.ndarray) -> np.ndarray:
    """(T, D) -> the unit vector of a crop: mean and deviation, norm, linear, GELU, linear."""
    mean = state.mean(axis=0)
    deviation = np.sqrt(((state - mean) ** 2).sum(axis=0) / (len(state) - 1))
    x = np.concatenate([mean, deviation])
    x = (x - x.mean()) / np.sqrt(x.var() + 1e-5)  # the norm's weights are 1 and 0
    x = linear(net.crop_head[1], x)
    x = linear(net.crop_head[3], np.array([v * (1 + math.erf(v / math.sqrt(2))) / 2 for v in x]))
    return x / np.sqrt(np.sum(x ** 2))


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_the_contrast_by_hand(layer):
    """Each crop of a pair finds the other among all crops of other recordings."""
    net, inputs = make_net(contrastive__layer=layer, contrastive__temperature=0.2), make_inputs()
    _, terms, _, states = run(net, inputs)
    vectors = [embed_crop(net, state) for state in states[layer]]
    total, hits = 0.0, 0
    for i in (n for n in range(8) if HAS_PAIR[n]):
        partner = i + 1 if i % 2 == 0 else i - 1
        among = {n: np.dot(vectors[i], vectors[n]) / 0.2 for n in range(8)
                 if n == partner or UTTS[n] != UTTS[i]}
        total += math.log(sum(math.exp(v) for v in among.values())) - among[partner]
        hits += max(among, key=among.get) == partner
    assert terms["contrast"] == pytest.approx(total / sum(HAS_PAIR), rel=1e-4)
    assert terms["contrast_acc"] == pytest.approx(hits / sum(HAS_PAIR), rel=1e-5)


def test_the_loss_is_the_weighted_sum():
    weights = {"code": 0.7, "mel": 1.3, "front": 0.4, "contrast": 2.0}
    net = make_net(masked__code_weight=0.7, masked__mel_weight=1.3, masked__front_weight=0.4,
                   contrastive__weight=2.0)
    loss, terms, _, _ = run(net, make_inputs())
    assert loss == pytest.approx(sum(weight * terms[name] for name, weight in weights.items()),
                                 rel=1e-5)


def test_without_a_pair_there_is_no_contrast():
    net, inputs = make_net(), make_inputs()
    inputs["has_pair"][:] = False
    loss, terms = net(**inputs)
    assert terms["contrast"] == terms["contrast_acc"] == 0
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)
    assert not net.crop_head[1].weight.grad.any()


def test_a_recording_alone_in_its_batch_finds_its_partner():
    net, inputs = make_net(), make_inputs()
    inputs["utts"][:], inputs["has_pair"][:] = 4, True
    _, terms = net(**inputs)
    assert terms["contrast"] == pytest.approx(0, abs=1e-6)
    assert terms["contrast_acc"] == 1


def test_with_nothing_hidden_the_terms_are_finite():
    net, inputs = make_net(), make_inputs(masked=0.0)
    loss, terms = net(**inputs)
    assert math.isfinite(loss.item())
    assert terms["code_acc"] == 0


def test_what_is_hidden_is_not_seen():
    """Masked frames of every crop: the states do not depend on the waveform any more."""
    net, inputs = make_net(), make_inputs(masked=1.0)
    _, states = net.encode(inputs["wav"], inputs["mask"])
    for state in states:
        assert torch.equal(state, state[:1].expand_as(state))
    _, states = net.encode(inputs["wav"], ~inputs["mask"])
    assert not torch.equal(states[0][0], states[0][1])


def test_every_parameter_learns():
    """DDP waits for those without a gradient."""
    net = make_net()
    net.train()
    loss, _ = net(**make_inputs())
    loss.backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(("num_frames", "span", "share"), [
    (74, 8, 0.4), (20, 3, 0.6), (10, 8, 0.1)])
def test_masks_hide_what_their_odds_say(num_frames, span, share):
    """Frame t is in sight if none of the frames from t - span + 1 to t begins a span.

    p = 1 - (1 - share)^(1/span) begins one. Where none does, with odds (1 - p)^T, one is chosen.
    """
    rng, num_draws = np.random.default_rng(3), 4000
    masks = np.stack([draw_mask(num_frames, span, share, rng) for _ in range(num_draws)])
    p = 1 - (1 - share) ** (1 / span)
    reach = np.minimum(np.arange(num_frames) + 1, span)
    want = 1 - (1 - p) ** reach + (1 - p) ** num_frames * reach / num_frames
    assert np.abs(masks.mean(axis=0) - want).max() < 5 * 0.5 / math.sqrt(num_draws)
    assert masks.mean() == pytest.approx(want.mean(), abs=0.02)
    assert masks.any(axis=1).all()


def test_spans_are_whole_but_at_the_end():
    for seed in range(200):
        mask = draw_mask(40, 6, 0.2, np.random.default_rng(seed))
        edges = np.flatnonzero(np.diff(np.concatenate([[0], mask, [0]])))
        for first, end in edges.reshape(-1, 2):
            assert end - first >= 6 or end == 40


def test_the_front_end_alone():
    """With the first two arguments: its term and no other, and no gradient beyond it."""
    net, inputs = make_net(masked__front_weight=2.0), make_inputs()
    loss, terms = net(inputs["wav"], inputs["own_mel"])
    _, both = net(**inputs)
    assert list(terms) == ["front"]
    assert terms["front"] == both["front"]
    assert loss == 2 * terms["front"]
    loss.backward()
    touched = {name for name, p in net.named_parameters() if p.grad is not None}
    assert all("feature_extractor" in name or "feature_projection" in name or "front_head" in name
               for name in touched)
    assert "encoder.feature_extractor.conv_layers.0.conv.weight" in touched


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_front_end_gets_a_share_of_the_others_gradient(share):
    """Against its gradient of each weighted part alone, from runs with all of it and with none."""
    def gradient(front_weight: float, share: float) -> torch.Tensor:
        net = make_net(masked__front_weight=front_weight, masked__front_grad=share)
        net(**make_inputs())[0].backward()
        return net.encoder.feature_extractor.conv_layers[0].conv.weight.grad

    want = gradient(3.0, 0.0) + share * gradient(0.0, 1.0)
    assert torch.allclose(gradient(3.0, share), want, rtol=1e-4, atol=1e-6)
