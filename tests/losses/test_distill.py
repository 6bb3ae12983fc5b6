"""Distillation losses against loops over probabilities in float64."""

import math

import numpy as np
import pytest
import torch

from wespeaker_lap.losses.distill import (
    embedding_distillation,
    label_distillation,
    map_speakers,
    non_target_distillation,
    warm_up,
)

SPEAKERS = torch.tensor([0, 2, 4, 2])


def make_logits(num_speakers=5, scale=3.0):
    generator = torch.Generator().manual_seed(0)
    return scale * torch.randn(2, 4, num_speakers, generator=generator, dtype=torch.float64)


def softmax(row, temperature) -> list[float]:
    powers = [math.exp(v / temperature) for v in row]
    return [power / sum(powers) for power in powers]


def kl(p, q) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def reference(student, teacher, speakers, gamma, temperature) -> float:
    total = 0.0
    for s, t, n in zip(student.tolist(), teacher.tolist(), speakers.tolist(), strict=True):
        p, q = softmax(t, temperature)[n], softmax(s, temperature)[n]
        total += kl([p, 1 - p], [q, 1 - q])
        rest_t, rest_s = t[:n] + t[n + 1:], s[:n] + s[n + 1:]
        total += gamma * kl(softmax(rest_t, temperature), softmax(rest_s, temperature))
    return temperature**2 * total / len(student)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
def test_non_target_distillation_equals_a_loop(gamma, temperature):
    student, teacher = make_logits()
    loss = non_target_distillation(student, teacher, SPEAKERS, gamma, temperature)
    want = reference(student, teacher, SPEAKERS, gamma, temperature)
    np.testing.assert_allclose(loss, want, rtol=1e-10)


def test_the_defaults_are_the_papers():
    student, teacher = make_logits()
    loss = non_target_distillation(student, teacher, SPEAKERS)
    np.testing.assert_allclose(loss, reference(student, teacher, SPEAKERS, 2.0, 1.0), rtol=1e-10)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_label_distillation_equals_a_loop(temperature):
    student, teacher = make_logits()
    divergences = [kl(softmax(t, temperature), softmax(s, temperature))
                   for s, t in zip(student.tolist(), teacher.tolist(), strict=True)]
    loss = label_distillation(student, teacher, temperature)
    np.testing.assert_allclose(loss, temperature**2 * sum(divergences) / 4, rtol=1e-10)


def test_by_hand():
    """Teacher [1/2, 1/4, 1/4], student [1/4, 1/2, 1/4], target 0."""
    teacher = torch.tensor([[0.5, 0.25, 0.25]]).log() + 7.0
    student = torch.tensor([[0.25, 0.5, 0.25]]).log()
    target = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    others = 0.5 * math.log(0.5 / (2 / 3)) + 0.5 * math.log(0.5 / (1 / 3))
    loss = non_target_distillation(student, teacher, torch.tensor([0]), gamma=3.0)
    assert loss.item() == pytest.approx(target + 3 * others, rel=1e-5)
    assert label_distillation(student, teacher).item() == pytest.approx(0.25 * math.log(2))


def test_two_speakers_have_only_a_target_part():
    student, teacher = make_logits(num_speakers=2)
    speakers = torch.tensor([0, 1, 1, 0])
    losses = [non_target_distillation(student, teacher, speakers, gamma) for gamma in (0.0, 9.0)]
    assert losses[0] == losses[1]
    torch.testing.assert_close(losses[0], label_distillation(student, teacher))


@pytest.mark.parametrize("num_speakers", [2, 5])
def test_gradients(num_speakers):
    student, teacher = make_logits(num_speakers)
    speakers = SPEAKERS % num_speakers
    student.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda s: non_target_distillation(s, teacher, speakers, temperature=2.0), (student,))
    assert torch.autograd.gradcheck(lambda s: label_distillation(s, teacher, 2.0), (student,))
    assert torch.autograd.gradcheck(lambda s: embedding_distillation(s, teacher), (student,))


def test_no_gradient_reaches_the_teacher():
    for loss_fn in (embedding_distillation, label_distillation,
                    lambda s, t: non_target_distillation(s, t, SPEAKERS)):
        student, teacher = (part.requires_grad_() for part in make_logits())
        loss_fn(student, teacher).backward()
        assert teacher.grad is None and student.grad.abs().sum() > 0


def test_logits_far_apart():
    """Distances where every probability but one underflows, by the distances themselves."""
    student = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]], requires_grad=True)
    teacher = torch.tensor([[1e4, -1e4, 0.0], [1e4, 0.0, -1e4]])
    # The first pair agrees. In the second the teacher is sure of the target 0, where the student
    # has 2e4 less than elsewhere; of the others the teacher chooses 1, and so does the student.
    loss = non_target_distillation(student, teacher, torch.tensor([0, 0]))
    assert loss.item() == 1e4  # (0 + 2e4) / 2
    loss.backward()
    want = torch.tensor([[0.0, 0.0, 0.0], [-0.5, 0.5, 0.0]])
    torch.testing.assert_close(student.grad, want)
    # Now the others disagree: the teacher's choice 2 lies 1e4 below the student's, gamma times.
    swapped = torch.tensor([[1e4, -1e4, 0.0], [1e4, -1e4, 0.0]])
    loss = non_target_distillation(student, swapped, torch.tensor([0, 0]), gamma=2.0)
    assert loss.item() == (2e4 + 2 * 1e4) / 2
    assert label_distillation(student, teacher).item() == 1e4


@pytest.mark.parametrize("rest", [-torch.inf, -1e4])
def test_one_hot_teachers(rest):
    """Nothing is left for the others: TSKD is the cross entropy; NSKD of equal others by hand."""
    student = torch.tensor([[1.0, 2.0, 4.0]], requires_grad=True)
    teacher = torch.tensor([[0.0, rest, rest]])
    loss = non_target_distillation(student, teacher, torch.tensor([0]), gamma=2.0)
    want = math.log(math.exp(1) + math.exp(2) + math.exp(4)) - 1.0
    if rest == -1e4:  # equal others, against the student's two that are 2 apart
        q = 1 / (1 + math.exp(2))
        want += 2 * kl([0.5, 0.5], [q, 1 - q])
    assert loss.item() == pytest.approx(want, rel=1e-6)
    loss.backward()
    assert student.grad.isfinite().all() and student.grad.abs().sum() > 0
    assert label_distillation(student, teacher).item() == pytest.approx(
        math.log(math.exp(1) + math.exp(2) + math.exp(4)) - 1.0, rel=1e-6)


def test_a_sure_student_is_measured_where_one_minus_p_rounds_to_zero():
    """1 - p is e^-40 / (1 + e^-40), which float32 only has as a logarithm."""
    student = torch.tensor([[40.0, 0.0, -300.0]])
    teacher = torch.tensor([[0.0, 0.0, -300.0]])
    loss = non_target_distillation(student, teacher, torch.tensor([0]), gamma=0.0)
    assert loss.item() == pytest.approx(0.5 * math.log(0.5) + 0.5 * (math.log(0.5) + 40), rel=1e-5)


def test_autocast_and_bf16_do_not_reach_the_losses():
    student, teacher = (part.to(torch.bfloat16) for part in make_logits(scale=30.0))
    for loss_fn in (embedding_distillation, label_distillation,
                    lambda s, t: non_target_distillation(s, t, SPEAKERS)):
        want = loss_fn(student.float(), teacher.float())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = loss_fn(student, teacher)
        assert got.dtype == torch.float32 and torch.equal(got, want)


def test_embedding_distillation_is_a_mean_of_cosines():
    student = torch.tensor([[3.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    teacher = torch.tensor([[5.0, 0.0], [0.0, -1.0], [1.0, 0.0]])
    want = (0.0 + 2.0 + 1.0 - math.sqrt(0.5)) / 3
    assert embedding_distillation(student, teacher).item() == pytest.approx(want)


def test_what_does_not_fit_is_an_error():
    a, b, speakers = torch.zeros(2, 3), torch.zeros(2, 4), torch.tensor([0, 1])
    with pytest.raises(ValueError, match=r"\(2, 3\) from the student and \(2, 4\).*linear layer"):
        embedding_distillation(a, b)
    for loss_fn in (label_distillation, lambda s, t: non_target_distillation(s, t, speakers)):
        with pytest.raises(ValueError, match=r"\(2, 3\) from the student.*see map_speakers"):
            loss_fn(a, b)
    with pytest.raises(ValueError, match="wants 2 speakers or more, got 1"):
        non_target_distillation(a[:, :1], a[:, :1], speakers)
    with pytest.raises(ValueError, match="want speaker labels from 0 to 2, got 0 to 3"):
        non_target_distillation(a, a, torch.tensor([0, 3]))
    for temperature in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="want a positive temperature"):
            label_distillation(a, a, temperature)
    with pytest.raises(ValueError, match="want gamma >= 0, got -1"):
        non_target_distillation(a, a, speakers, gamma=-1.0)


def test_warm_up():
    assert [warm_up(epoch) for epoch in (0.0, 5.0, 10.5, 20.0, 21.0)] == [0, 0.25, 0.525, 1, 1]
    assert [warm_up(epoch, epochs=4) for epoch in (1, 5)] == [0.25, 1.0]
    assert warm_up(0, epochs=0) == 1.0
    for bad in ((-1, 20), (1, -2), (math.nan, 20)):
        with pytest.raises(ValueError, match="want epoch and epochs >= 0"):
            warm_up(*bad)


def test_speakers_are_found_among_the_teachers():
    index = map_speakers(["a", "b", "c", "d"], ["d", "a", "d"])
    assert index.tolist() == [3, 0, 3]
    logits = torch.arange(8.0).view(2, 4)
    assert logits[:, index].tolist() == [[3, 0, 3], [7, 4, 7]]


def test_speakers_that_the_teacher_lacks_are_listed():
    students = [f"s{n:02d}" for n in range(13)]
    with pytest.raises(ValueError, match=r"12 of the student's 13 speakers are unknown to the "
                                         r"teacher: s00, .*, s10 and 2 more") as error:
        map_speakers(["s03"], students)
    assert "s03" not in str(error.value) and "s11" not in str(error.value)
    with pytest.raises(ValueError, match=r"1 of the student's 2 .* teacher: x; distil"):
        map_speakers(["a"], ["a", "x"])
    with pytest.raises(ValueError, match="b among the teacher's speakers more than once"):
        map_speakers(["b", "a", "b"], ["a"])
