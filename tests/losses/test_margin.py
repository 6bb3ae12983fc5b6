"""AAM-softmax against loops over angles in float64."""

import math

import numpy as np
import pytest
import torch

from wespeaker_lap.losses.margin import AAMSoftmax


def make_batch(num_speakers=7, batch_size=6, dim=4, **options):
    torch.manual_seed(0)
    head = AAMSoftmax(dim, num_speakers, **options).double()
    emb = 3 * torch.randn(batch_size, dim, dtype=torch.float64)
    return head, emb, torch.randint(num_speakers, (batch_size,))


def reference_cosines(head, emb) -> np.ndarray:
    def cosine(a, b):
        return sum(a * b) / math.sqrt(sum(a * a)) / math.sqrt(sum(b * b))

    centers = head.centers.detach().numpy()
    return np.array([[max(cosine(e, c) for c in own) for own in centers] for e in emb.numpy()])


def reference_loss(cosines, speakers, scale, margin, top_k=0, penalty=0.0):
    """`penalty` is m' itself. Returns the loss and the logits."""
    logits = np.empty_like(cosines)
    losses = []
    for i, speaker in enumerate(speakers):
        others = sorted((n for n in range(len(cosines[i])) if n != speaker),
                        key=lambda n: -cosines[i, n])
        for n, cosine in enumerate(cosines[i]):
            theta = math.acos(cosine)
            if n == speaker:
                if cosine > math.cos(math.pi - margin):
                    logit = math.cos(theta + margin)
                else:
                    logit = cosine - margin * math.sin(math.pi - margin)
            else:
                logit = math.cos(theta - penalty) if n in others[:top_k] else cosine
            logits[i, n] = scale * logit
        total = sum(math.exp(v) for v in logits[i])
        losses.append(math.log(total) - logits[i, speaker])
    return sum(losses) / len(losses), logits


@pytest.mark.parametrize("num_subcenters", [1, 3])
@pytest.mark.parametrize(("top_k", "penalty"), [(0, 0.0), (2, 0.06), (6, 0.06), (50, 0.06)])
@pytest.mark.parametrize("current", [None, 0.3, 0.1, 0.0, 0.5])
def test_loss_and_logits_equal_a_loop(num_subcenters, top_k, penalty, current):
    head, emb, speakers = make_batch(
        scale=8.0, margin=0.3, num_subcenters=num_subcenters, top_k=top_k, top_k_penalty=penalty
    )
    cosines = reference_cosines(head, emb)
    margin = 0.3 if current is None else current
    want_loss, _ = reference_loss(
        cosines, speakers.tolist(), 8.0, margin, min(top_k, 6), penalty * margin / 0.3
    )
    _, want_logits = reference_loss(cosines, speakers.tolist(), 8.0, margin)  # margin alone
    loss, logits = head(emb, speakers, margin=current)
    np.testing.assert_allclose(head.cosines(emb).detach(), cosines, rtol=1e-10)
    np.testing.assert_allclose(logits.detach(), want_logits, rtol=1e-9)
    np.testing.assert_allclose(loss.item(), want_loss, rtol=1e-9)


def test_by_hand():
    """Two speakers on the axes, an embedding at 60 degrees from one and 30 from the other."""
    head = AAMSoftmax(2, 2, scale=10.0, margin=math.pi / 6, top_k=1, top_k_penalty=math.pi / 6)
    head.centers.data.copy_(torch.tensor([[[2.0, 0.0]], [[0.0, 5.0]]]))
    emb = torch.tensor([[1.0, math.sqrt(3.0)]])
    torch.testing.assert_close(head.cosines(emb), torch.tensor([[0.5, math.sqrt(0.75)]]))
    loss, logits = head(emb, torch.tensor([0]))
    # The target moves from 60 to 90 degrees; in the loss the other too, from 30 to 0: 10 * (0, 1).
    want = torch.tensor([[0.0, 10 * math.sqrt(0.75)]])
    torch.testing.assert_close(logits, want, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(loss.item(), 10 + math.log1p(math.exp(-10)), atol=1e-4, rtol=1e-5)


def test_opposite_embeddings_take_the_fallback():
    head = AAMSoftmax(2, 2, scale=1.0, margin=0.5).double()
    angles = torch.linspace(0.0, math.pi, 201, dtype=torch.float64)
    head.centers.data.copy_(torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]))
    emb = torch.stack((angles.cos(), angles.sin()), dim=1)
    target = head(emb, torch.zeros(201, dtype=torch.long))[1][:, 0].detach()
    for angle, got in zip(angles.tolist(), target.tolist(), strict=True):
        if angle < math.pi - 0.5:
            want = math.cos(angle + 0.5)
        else:
            want = math.cos(angle) - 0.5 * math.sin(math.pi - 0.5)
        assert got == pytest.approx(want, abs=2e-8)
    within = target[angles < math.pi - 0.5]
    beyond = target[angles > math.pi - 0.5]
    assert (within.diff() < 0).all() and (beyond.diff() < 0).all()


def test_the_nearest_centre_of_a_speaker_counts():
    head = AAMSoftmax(2, 2, num_subcenters=2)
    centers = [[[1.0, 0.0], [-1.0, 0.0]], [[0.0, -1.0], [0.6, 0.8]]]
    head.centers.data.copy_(torch.tensor(centers))
    got = head.cosines(torch.tensor([[-2.0, 0.0], [0.0, 3.0]]))
    torch.testing.assert_close(got, torch.tensor([[1.0, 0.0], [0.0, 0.8]]))


def test_without_margin_there_is_no_penalty():
    head, emb, speakers = make_batch(margin=0.0, top_k=3, top_k_penalty=0.06)
    for margin in (None, 0.0, 0.2):
        loss, logits = head(emb, speakers, margin=margin)
        others = torch.ones_like(logits, dtype=torch.bool).scatter(1, speakers[:, None], False)
        torch.testing.assert_close(logits[others], 30 * head.cosines(emb)[others])
        torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits, speakers))


def test_a_single_speaker_has_no_rivals():
    head, emb, _ = make_batch(num_speakers=1, top_k=5, top_k_penalty=0.06)
    loss, logits = head(emb, torch.zeros(6, dtype=torch.long))
    assert loss.item() == 0.0
    assert logits.shape == (6, 1)


@pytest.mark.parametrize("top_k", [0, 2])
@pytest.mark.parametrize("margin", [0.3, 2.0], ids=["usual", "all in the fallback or near"])
def test_gradients(top_k, margin):
    head, emb, speakers = make_batch(
        scale=4.0, margin=margin, num_subcenters=3, top_k=top_k, top_k_penalty=0.06
    )

    def run(emb, centers):
        return torch.func.functional_call(head, {"centers": centers}, (emb, speakers))

    centers = head.centers.detach().requires_grad_()
    loss, logits = run(emb, centers)
    assert loss.dtype == logits.dtype == torch.float64
    assert torch.autograd.gradcheck(run, (emb.requires_grad_(), centers))


def test_an_embedding_on_its_centre_or_opposite_has_a_finite_gradient():
    head = AAMSoftmax(2, 3, top_k=2, top_k_penalty=0.06)
    head.centers.data.copy_(torch.tensor([[[1.0, 0.0]], [[-1.0, 0.0]], [[0.0, 1.0]]]))
    emb = torch.tensor([[2.0, 0.0], [-1.0, 0.0], [0.0, 0.0]], requires_grad=True)
    loss, _ = head(emb, torch.tensor([0, 0, 1]))
    loss.backward()
    assert loss.isfinite()
    assert emb.grad.isfinite().all() and head.centers.grad.isfinite().all()


def test_autocast_does_not_reach_the_loss():
    torch.manual_seed(0)
    head = AAMSoftmax(16, 20, num_subcenters=3, top_k=5, top_k_penalty=0.06)
    emb, speakers = torch.randn(8, 16).to(torch.bfloat16), torch.randint(20, (8,))
    want_loss, want_logits = head(emb.float(), speakers)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, logits = head(emb, speakers)
    assert loss.dtype == logits.dtype == torch.float32
    assert torch.equal(logits, want_logits) and torch.equal(loss, want_loss)


def test_centers_begin_xavier_uniform():
    head = AAMSoftmax(192, 100, num_subcenters=3)
    bound = math.sqrt(6 / (300 + 192))
    assert 0.99 * bound < head.centers.abs().max() <= bound


@pytest.mark.parametrize("labels", [[0, 7], [-1, 2]])
def test_a_label_that_is_no_speaker_is_an_error(labels):
    head = AAMSoftmax(4, 7)
    with pytest.raises(ValueError, match="want speaker labels from 0 to 6"):
        head(torch.randn(2, 4), torch.tensor(labels))


@pytest.mark.parametrize("labels", [[0.0, 1.0], [0], [[0], [1]]])
def test_labels_of_another_shape_or_type_are_an_error(labels):
    with pytest.raises(ValueError, match=r"want speakers as \(2,\) integers"):
        AAMSoftmax(4, 7)(torch.randn(2, 4), torch.tensor(labels))


@pytest.mark.parametrize("shape", [(2, 5), (4,), (0, 4), (1, 2, 4)])
def test_embeddings_of_another_shape_are_an_error(shape):
    with pytest.raises(ValueError, match=r"want \(B, 4\)"):
        AAMSoftmax(4, 7)(torch.zeros(shape), torch.zeros(shape[0], dtype=torch.long))


@pytest.mark.parametrize(
    "options",
    [
        {"num_speakers": 0}, {"num_subcenters": 0}, {"top_k": -1}, {"scale": 0.0},
        {"scale": math.nan}, {"margin": -0.1}, {"margin": math.pi}, {"margin": math.nan},
        {"top_k_penalty": -0.1},
    ],
)
def test_impossible_options_are_an_error(options):
    with pytest.raises(ValueError, match="want"):
        AAMSoftmax(**{"embed_dim": 4, "num_speakers": 7, **options})


@pytest.mark.parametrize("margin", [-0.1, math.nan, 4.0])
def test_an_impossible_current_margin_is_an_error(margin):
    with pytest.raises(ValueError, match="want margin in"):
        AAMSoftmax(4, 7)(torch.randn(2, 4), torch.tensor([0, 1]), margin=margin)
