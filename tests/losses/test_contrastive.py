"""The contrastive loss against loops in float64 and against pytorch-metric-learning."""

import math

import numpy as np
import pytest
import torch
from pytorch_metric_learning.losses import SupConLoss
from two_processes import Net, run_by_two

from wespeaker_lap.losses.contrastive import MultiScaleContrastive, sup_con

LABELS = [[0, 0, 1, 1, 2, 2], [5, 5, 5, 1, 2, 1], [3, 3, 3, 3, 3, 3], [9, 1, 7, 1, 8, 6]]


def reference(z, speakers, temperature) -> float:
    z = [row / math.sqrt(sum(row * row)) for row in np.asarray(z, dtype=np.float64)]
    anchors = []
    for i in range(len(z)):
        others = [j for j in range(len(z)) if j != i]
        positives = [j for j in others if speakers[j] == speakers[i]]
        total = sum(math.exp(sum(z[i] * z[a]) / temperature) for a in others)
        terms = [math.log(math.exp(sum(z[i] * z[p]) / temperature) / total) for p in positives]
        if terms:
            anchors.append(-sum(terms) / len(terms))
    return sum(anchors) / len(anchors)


def embed(seed=0, shape=(6, 5)):
    return 4 * torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_loss_equals_a_loop_and_another_library(labels, temperature):
    z, speakers = embed(), torch.tensor(labels)
    loss = sup_con(z, speakers, temperature)
    np.testing.assert_allclose(loss, reference(z, labels, temperature), rtol=1e-10)
    if len(set(labels)) > 1:  # without any other speaker the library returns 0
        theirs = SupConLoss(temperature=temperature)(z, speakers)
        np.testing.assert_allclose(loss, theirs, rtol=1e-6)


def test_by_hand():
    """Two of one speaker at 90 degrees, a third opposite to the first, temperature 1/2."""
    z = torch.tensor([[2.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    first = -math.log(1 / (1 + math.exp(-2)))
    second = -math.log(1 / 2)
    want = torch.tensor((first + second) / 2)
    torch.testing.assert_close(sup_con(z, torch.tensor([0, 0, 1]), 0.5), want)


@pytest.mark.parametrize("labels", LABELS)
def test_gradients(labels):
    speakers = torch.tensor(labels)
    z = embed().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: sup_con(z, speakers, 0.3), (z,))


def test_equal_and_opposite_embeddings_stay_finite():
    z = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]], requires_grad=True)
    loss = sup_con(z, torch.tensor([0, 1, 0, 1]), temperature=0.01)
    loss.backward()
    assert loss.isfinite() and z.grad.isfinite().all()


def test_autocast_does_not_reach_the_loss():
    z, speakers = embed(shape=(8, 16)).to(torch.bfloat16), torch.tensor([0, 1, 2, 3] * 2)
    want = sup_con(z.float(), speakers)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = sup_con(z, speakers)
    assert loss.dtype == torch.float32 and torch.equal(loss, want)


@pytest.mark.parametrize("labels", [[1, 2, 3, 4], [0]])
def test_no_positive_at_all_is_an_error_that_names_the_sampler(labels):
    message = f"its {len(labels)} utterances are of as many speakers; take batches of P speakers"
    with pytest.raises(ValueError, match=message):
        sup_con(torch.randn(len(labels), 3), torch.tensor(labels))
    with pytest.raises(ValueError, match=message):
        MultiScaleContrastive([3])([torch.randn(len(labels), 5, 3)], torch.tensor(labels))


def test_a_batch_without_a_positive_may_be_allowed():
    loss_fn = MultiScaleContrastive([3], allow_empty=True)
    frames = torch.randn(4, 5, 3, requires_grad=True)
    loss = loss_fn([frames], torch.tensor([1, 2, 3, 4]))
    loss.backward()
    assert loss == 0 and not frames.grad.any()
    assert all(p.grad is not None and not p.grad.any() for p in loss_fn.parameters())
    paired = torch.tensor([1, 2, 2, 4])  # and where there is one it is the loss as it was
    plain = MultiScaleContrastive([3])
    plain.load_state_dict(loss_fn.state_dict())
    assert torch.equal(loss_fn([frames], paired), plain([frames], paired))


def make_frames(dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(6, 7, dim, generator=generator).to(dtype) for dim in (4, 6)]


def test_each_scale_has_a_head_and_the_mean_is_taken():
    torch.manual_seed(0)
    loss_fn = MultiScaleContrastive([4, 6], embed_dim=5, temperature=0.2).double().train()
    scales, labels = make_frames(), [0, 0, 1, 1, 1, 2]
    losses = []
    for head, x in zip(loss_fn.heads, scales, strict=True):
        centred = x - x.mean(dim=2, keepdim=True)
        normed = centred / (x.var(dim=2, keepdim=True, correction=0) + 1e-5).sqrt()
        pooled = head.pool(normed)  # (6, 2F), tested in tests/models
        pooled = (pooled - pooled.mean(dim=0)) / (pooled.var(dim=0, correction=0) + 1e-5).sqrt()
        z = pooled.detach() @ head.linear.weight.T + head.linear.bias
        losses.append(reference(z.detach(), labels, 0.2))
    loss = loss_fn(scales, torch.tensor(labels))
    np.testing.assert_allclose(loss.item(), sum(losses) / 2, rtol=1e-9)


def test_all_parameters_learn():
    torch.manual_seed(0)
    loss_fn = MultiScaleContrastive([4, 6]).double()
    loss_fn(make_frames(), torch.tensor([0, 0, 1, 1, 1, 2])).backward()
    for name, parameter in loss_fn.named_parameters():
        assert parameter.grad.isfinite().all(), name
        if not name.endswith("pool.expand.bias"):  # the same for all frames of a softmax
            assert parameter.grad.abs().sum() > 0, name


def test_padding_changes_neither_loss_nor_gradients():
    torch.manual_seed(0)
    loss_fn = MultiScaleContrastive([4, 6]).double()
    speakers, lengths = torch.tensor([0, 0, 1, 1, 1, 2]), torch.tensor([5, 3, 5, 1, 4, 2])
    found = []
    for size, filler in ((5, 0.0), (7, math.nan)):
        scales = [x[:, :size].clone() for x in make_frames()]
        for x in scales:
            x[torch.arange(size) >= lengths[:, None]] = filler
        loss_fn.zero_grad()
        loss = loss_fn(scales, speakers, lengths)
        loss.backward()
        found.append([loss.detach(), *(p.grad.clone() for p in loss_fn.parameters())])
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-12)


def test_heads_may_run_under_autocast():
    torch.manual_seed(0)
    loss_fn = MultiScaleContrastive([4, 6])
    batch = (make_frames(torch.float32), torch.tensor([0, 0, 1, 1, 1, 2]),
             torch.tensor([5, 3, 7, 1, 4, 2]))
    want = loss_fn(*batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = loss_fn(*batch)
    loss.backward()
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, want, rtol=0.1, atol=0.0)
    assert all(p.grad.isfinite().all() for p in loss_fn.parameters())


def test_two_processes_have_the_loss_and_gradients_of_one(tmp_path):
    torch.manual_seed(0)
    net = Net().double()
    x = torch.randn(8, 6, 3).double()
    lengths = torch.tensor([6, 5, 2, 6, 3, 1, 6, 4])
    state = {name: value.clone() for name, value in net.state_dict().items()}
    # P x K in each half; every positive in the other half, some anchors without; none at all.
    labels = [[0, 0, 1, 1, 2, 2, 3, 3], [0, 1, 2, 3, 0, 1, 2, 5], [0, 1, 2, 3, 4, 5, 6, 7]]
    batches = [(x, torch.tensor(speakers), lengths) for speakers in labels]
    torch.save((state, batches), tmp_path / "inputs.pt")
    halves = run_by_two(tmp_path)
    for number, batch in enumerate(batches[:2]):
        net.load_state_dict(state)
        net.zero_grad()
        loss = net(*batch)
        loss.backward()
        for found, grads in (half[number] for half in halves):
            np.testing.assert_allclose(found, loss.item(), rtol=1e-12)
            for name, parameter in net.named_parameters():
                np.testing.assert_allclose(grads[name], parameter.grad, rtol=1e-9, atol=1e-11,
                                           err_msg=f"{number} {name}")
    for half in halves:
        assert "its 8 utterances are of as many speakers" in half[2]


@pytest.mark.parametrize("options", [{"dims": []}, {"dims": [4, 0]}, {"embed_dim": 0},
                                     {"temperature": 0.0}, {"temperature": math.nan}])
def test_impossible_options_are_an_error(options):
    with pytest.raises(ValueError, match="want"):
        MultiScaleContrastive(**{"dims": [4], **options})


def test_what_does_not_fit_is_an_error():
    loss_fn, frames, speakers = MultiScaleContrastive([4]), torch.randn(2, 5, 4), torch.zeros(2)
    with pytest.raises(ValueError, match=r"want speakers as \(2,\) integers"):
        loss_fn([frames], speakers)
    with pytest.raises(ValueError, match=r"want speakers as \(2,\) integers"):
        sup_con(frames[:, 0], torch.tensor([0, 0, 0]))
    with pytest.raises(ValueError, match="want frames of 1 scales, got 2"):
        loss_fn([frames, frames], speakers.long())
    with pytest.raises(ValueError, match=r"want \(B, T, 4\), got \(2, 5, 3\)"):
        loss_fn([frames[..., :3]], speakers.long())
    with pytest.raises(ValueError, match=r"want embeddings \(B, E\)"):
        sup_con(frames, speakers.long())
    with pytest.raises(ValueError, match="want a positive temperature"):
        sup_con(frames[:, 0], speakers.long(), -1.0)
