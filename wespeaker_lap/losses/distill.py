"""Losses that take a student to a teacher: by embeddings, by labels, by the non-target speakers.

All compute in float32 (float64 stays) even under autocast, and send no gradient to the teacher.
Logits that lie far apart, down to -inf in the teacher, give finite losses: probabilities are only
ever seen as logarithms.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from wespeaker_lap.losses.centers import target_index, widen


def embedding_distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """One minus the cosine of student and teacher, the mean over the batch.

    Source: arXiv 2309.14838, the embedding-level baseline.

    Args:
        student: `(B, E)`.
        teacher: `(B, E)`. A teacher with another dimension needs a linear layer on the student
            that is trained along and left out afterwards.

    Returns:
        `()`, from 0 to 2.

    Raises:
        ValueError: the shapes differ.

    >>> embedding_distillation(torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
    tensor(1.)
    """
    if student.dim() != 2 or student.shape != teacher.shape:
        raise ValueError(
            f"want embeddings (B, E) of one shape, got {tuple(student.shape)} from the student "
            f"and {tuple(teacher.shape)} from the teacher; where E differs, put a linear layer "
            "on the student"
        )
    student, teacher = widen(student), widen(teacher.detach())
    with torch.autocast(student.device.type, enabled=False):
        return (1.0 - F.cosine_similarity(student, teacher, dim=1)).mean()


def label_distillation(student_logits: Tensor, teacher_logits: Tensor,
                       temperature: float = 1.0) -> Tensor:
    """`T^2 KL(teacher || student)` of the speakers' probabilities, the mean over the batch.

    Source: Hinton et al. 2015, arXiv 1503.02531; in arXiv 2309.14838 the label-level baseline.

    Args:
        student_logits, teacher_logits: `(B, N)`, of the same speakers in the same order.
        temperature: T, what the logits are divided by.

    Returns:
        `()`.

    Raises:
        ValueError: the shapes differ, or the temperature is not positive.
    """
    student, teacher = _prepare(student_logits, teacher_logits, temperature)
    divergence = _divergence(teacher.log_softmax(dim=1), student.log_softmax(dim=1))  # (B,)
    return temperature**2 * divergence.mean()


def non_target_distillation(student_logits: Tensor, teacher_logits: Tensor, speakers: Tensor,
                            gamma: float = 2.0, temperature: float = 1.0) -> Tensor:
    """Label distillation in two parts, the target and the others, with emphasis on the others.

    `TSKD + gamma * NSKD`, both the mean over the batch:
    `TSKD = T^2 KL([p_t, 1 - p_t] of the teacher || of the student)`, p_t the probability of the
    target speaker; `NSKD = T^2 KL` of the softmax over the logits of all other speakers. (With
    NSKD weighted by the teacher's 1 - p_t in place of gamma, the sum is `label_distillation`.)

    Source: arXiv 2309.14838, where both sets of logits carry the margin on the target.

    Args:
        student_logits, teacher_logits: `(B, N)`, of the same speakers in the same order.
        speakers: `(B,)` integer labels from 0 to N - 1, the targets.
        gamma: weight of NSKD.
        temperature: T, what the logits are divided by.

    Returns:
        `()`.

    Raises:
        ValueError: the shapes differ, fewer than 2 speakers, a label that is no speaker, or a
            number is out of its range.
    """
    if not 0.0 <= gamma < math.inf:
        raise ValueError(f"want gamma >= 0, got {gamma}")
    student, teacher = _prepare(student_logits, teacher_logits, temperature)
    if student.shape[1] < 2:
        raise ValueError("non-target distillation wants 2 speakers or more, got 1: there is no "
                         "non-target")
    target = target_index(speakers, student)  # (B, 1)
    (target_teacher, rest_teacher), (target_student, rest_student) = (
        _split_target(logits, target) for logits in (teacher, student))
    divergence = _divergence(target_teacher, target_student)  # (B,)
    divergence = divergence + gamma * _divergence(rest_teacher, rest_student)
    return temperature**2 * divergence.mean()


def warm_up(epoch: float, epochs: float = 20.0) -> float:
    """Weight of the distillation: `min(epoch / epochs, 1)`.

    Source: arXiv 2309.14838.

    Args:
        epoch: epochs done, with fractions.
        epochs: until the full weight; 0 begins with it.

    Raises:
        ValueError: a number is negative.

    >>> [warm_up(epoch) for epoch in (0, 2.5, 20, 150)]
    [0.0, 0.125, 1.0, 1.0]
    """
    if not (epoch >= 0.0 and epochs >= 0.0):
        raise ValueError(f"want epoch and epochs >= 0, got {epoch} and {epochs}")
    return epoch / epochs if epoch < epochs else 1.0


def map_speakers(teacher_names: Sequence[str], student_names: Sequence[str]) -> Tensor:
    """Find the student's speakers among the teacher's.

    Args:
        teacher_names, student_names: names of the classes, in class order.

    Returns:
        `(number of student_names,)` int64, for `teacher_logits[:, index]`.

    Raises:
        ValueError: speakers of the student that the teacher does not know (lists them), or a
            name that the teacher has twice.

    >>> map_speakers(["ann", "bob", "cyd"], ["cyd", "ann"])
    tensor([2, 0])
    """
    places = {name: number for number, name in enumerate(teacher_names)}
    if len(places) < len(teacher_names):
        twice = sorted({name for name in teacher_names if list(teacher_names).count(name) > 1})
        raise ValueError(f"{_name_some(twice)} among the teacher's speakers more than once")
    missing = [name for name in student_names if name not in places]
    if missing:
        raise ValueError(
            f"{len(missing)} of the student's {len(student_names)} speakers are unknown to the "
            f"teacher: {_name_some(missing)}; distil on speakers that the teacher was trained on"
        )
    return torch.tensor([places[name] for name in student_names], dtype=torch.int64)


def _prepare(student_logits: Tensor, teacher_logits: Tensor,
             temperature: float) -> tuple[Tensor, Tensor]:
    """Checked logits over the temperature; the teacher's without gradient."""
    if student_logits.dim() != 2 or student_logits.shape != teacher_logits.shape:
        raise ValueError(
            f"want logits (B, N) of one shape, got {tuple(student_logits.shape)} from the student "
            f"and {tuple(teacher_logits.shape)} from the teacher; see map_speakers"
        )
    if not 0.0 < temperature < math.inf:
        raise ValueError(f"want a positive temperature, got {temperature}")
    return widen(student_logits) / temperature, widen(teacher_logits.detach()) / temperature


def _split_target(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Logits `(B, N)` -> `log [p_t, 1 - p_t]` `(B, 2)` and the others' log softmax `(B, N)`."""
    others = logits.scatter(1, target, -torch.inf)
    # 1 - p_t comes from the others' own sum: near p_t = 1 the difference would be rounding.
    pair = torch.cat((logits.gather(1, target), others.logsumexp(dim=1, keepdim=True)), dim=1)
    return pair.log_softmax(dim=1), others.log_softmax(dim=1)


def _divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """KL(teacher || student) of log probabilities `(B, n)`: `(B,)`."""
    # A teacher may leave nothing to one speaker (-inf) or to all of them but the target (NaN). Such
    # terms are left out by choice, for 0 times an infinite difference is no number.
    probs = torch.where(teacher > -torch.inf, teacher.exp(), 0.0)
    return torch.where(probs > 0.0, probs * (teacher - student), 0.0).sum(dim=1)


def _name_some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:10])
    return shown if len(names) <= 10 else f"{shown} and {len(names) - 10} more"
