"""Plain and additive-margin softmax against loops in float64."""

import math

import numpy as np
import pytest
import torch

from wespeaker_lap.losses.margin import AAMSoftmax, AMSoftmax
from wespeaker_lap.losses.softmax import Softmax

HEADS = [Softmax, AMSoftmax, AAMSoftmax]


def make_batch(kind, **options):
    torch.manual_seed(0)
    head = kind(4, 7, **options).double()
    return head, 3 * torch.randn(6, 4, dtype=torch.float64), torch.randint(7, (6,))


def mean_cross_entropy(logits, speakers) -> float:
    return sum(math.log(sum(math.exp(v) for v in row)) - row[n]
               for row, n in zip(logits, speakers, strict=True)) / len(speakers)


def test_plain_softmax_equals_a_loop():
    head, emb, speakers = make_batch(Softmax)
    head.bias.data.copy_(torch.linspace(-1, 1, 7))
    weight, bias = head.centers.detach().numpy()[:, 0], head.bias.detach().numpy()
    want = [[sum(e * w) + b for w, b in zip(weight, bias, strict=True)] for e in emb.numpy()]
    for margin in (None, 0.0):
        loss, logits = head(emb, speakers, margin=margin)
        np.testing.assert_allclose(logits.detach(), want, rtol=1e-12)
        np.testing.assert_allclose(loss.item(), mean_cross_entropy(want, speakers), rtol=1e-12)


@pytest.mark.parametrize("num_subcenters", [1, 3])
@pytest.mark.parametrize("current", [None, 0.0, 0.1, 0.5])
def test_additive_margin_equals_a_loop(num_subcenters, current):
    head, emb, speakers = make_batch(AMSoftmax, scale=8.0, margin=0.3,
                                     num_subcenters=num_subcenters)
    centers = head.centers.detach().numpy()
    want = np.empty((6, 7))
    for i, e in enumerate(emb.numpy()):
        for n, own in enumerate(centers):
            want[i, n] = 8 * max(sum(e * c) / math.sqrt(sum(e * e) * sum(c * c)) for c in own)
        want[i, speakers[i]] -= 8 * (0.3 if current is None else current)
    loss, logits = head(emb, speakers, margin=current)
    np.testing.assert_allclose(logits.detach(), want, rtol=1e-10)
    np.testing.assert_allclose(loss.item(), mean_cross_entropy(want, speakers), rtol=1e-10)


def test_additive_margin_by_hand():
    """At 60 degrees from its speaker and 30 from the other, less a margin of 0.25."""
    head = AMSoftmax(2, 2, scale=10.0, margin=0.25)
    head.centers.data.copy_(torch.tensor([[[2.0, 0.0]], [[0.0, 5.0]]]))
    loss, logits = head(torch.tensor([[1.0, math.sqrt(3.0)]]), torch.tensor([0]))
    torch.testing.assert_close(logits, torch.tensor([[2.5, 10 * math.sqrt(0.75)]]))
    want = math.log1p(math.exp(10 * math.sqrt(0.75) - 2.5))
    torch.testing.assert_close(loss.item(), want, rtol=1e-5, atol=0)


@pytest.mark.parametrize("kind", [AMSoftmax, AAMSoftmax])
def test_without_margin_both_are_scaled_cosines(kind):
    head, emb, speakers = make_batch(kind)
    torch.testing.assert_close(head(emb, speakers, margin=0.0)[1], 30 * head.cosines(emb))


@pytest.mark.parametrize("kind", HEADS)
def test_the_prediction_is_made_without_the_margin(kind):
    head = kind(2, 3)
    head.centers.data.copy_(torch.tensor([[[1.0, 0.0]], [[-1.0, 0.0]], [[0.0, 1.0]]]))
    emb = torch.tensor([[0.8, 0.6], [-1.0, 0.1], [0.6, 0.8]])  # 0.8 - 0.6 = 0.2 = margin
    assert head.predict(emb).tolist() == [0, 1, 2]
    if kind is not Softmax:
        assert head(emb, torch.tensor([0, 1, 2]), margin=0.5)[1].argmax(dim=1).tolist() != [0, 1, 2]


@pytest.mark.parametrize("kind", [Softmax, AMSoftmax])
def test_gradients(kind):
    head, emb, speakers = make_batch(kind)
    names, values = zip(*head.named_parameters(), strict=True)

    def run(emb, *values):
        named = dict(zip(names, values, strict=True))
        return torch.func.functional_call(head, named, (emb, speakers))

    values = [value.detach().requires_grad_() for value in values]
    assert torch.autograd.gradcheck(run, (emb.requires_grad_(), *values))


@pytest.mark.parametrize("kind", HEADS)
def test_autocast_does_not_reach_the_loss(kind):
    torch.manual_seed(0)
    head = kind(16, 20)
    emb, speakers = torch.randn(8, 16).to(torch.bfloat16), torch.randint(20, (8,))
    want_loss, want_logits = head(emb.float(), speakers)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, logits = head(emb, speakers)
    assert loss.dtype == logits.dtype == torch.float32
    assert torch.equal(logits, want_logits) and torch.equal(loss, want_loss)


@pytest.mark.parametrize("kind", HEADS)
def test_what_does_not_fit_is_an_error(kind):
    head = kind(4, 7)
    with pytest.raises(ValueError, match="want speaker labels from 0 to 6, got -1 to 7"):
        head(torch.randn(2, 4), torch.tensor([-1, 7]))
    with pytest.raises(ValueError, match=r"want speakers as \(2,\) integers"):
        head(torch.randn(2, 4), torch.tensor([0.0, 1.0]))
    for shape in ((2, 5), (4,), (0, 4)):
        with pytest.raises(ValueError, match=r"want \(B, 4\)"):
            head(torch.zeros(shape), torch.zeros(shape[0], dtype=torch.long))
    for sizes in ((0, 7), (4, 0)):
        with pytest.raises(ValueError, match="want embed_dim, num_speakers"):
            kind(*sizes)


def test_plain_softmax_refuses_a_margin():
    with pytest.raises(ValueError, match=r"no margin, got 0\.2; set it to 0 or choose AMSoftmax"):
        Softmax(4, 7)(torch.randn(2, 4), torch.tensor([0, 1]), margin=0.2)


@pytest.mark.parametrize("options", [{"margin": -0.1}, {"margin": 2.0}, {"margin": math.nan},
                                     {"scale": 0.0}, {"num_subcenters": 0}])
def test_impossible_options_are_an_error(options):
    with pytest.raises(ValueError, match="want"):
        AMSoftmax(4, 7, **options)
    if "margin" in options:
        with pytest.raises(ValueError, match="want margin in"):
            AMSoftmax(4, 7)(torch.randn(2, 4), torch.tensor([0, 1]), **options)
