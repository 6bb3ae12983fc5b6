"""The trials that a system gets most wrong, to be looked at and listened to."""

from dataclasses import dataclass

import numpy as np

from wespeaker_lap.data.trials import Trials

NUM_WORST = 10


@dataclass(frozen=True)
class WorstTrial:
    """A trial far on the wrong side: utterance ids and score."""

    enroll: str
    test: str
    score: float


def find_worst(trials: Trials, scores: np.ndarray,
               num: int = NUM_WORST) -> tuple[list[WorstTrial], list[WorstTrial]]:
    """Find the non-targets of highest and the targets of lowest score, the worst one first.

    Args:
        trials: n trials.
        scores: (n,) their scores.
        num: how many of either kind.

    Returns:
        Non-targets and targets; equal scores in the order of the list.

    >>> trials = Trials(["a", "a", "b", "b"], ["x", "y", "x", "y"], np.array([1, 0, 0, 1], bool))
    >>> nontargets, targets = find_worst(trials, np.array([0.9, 0.1, 0.3, 0.2]), num=1)
    >>> nontargets[0], targets[0]
    (WorstTrial(enroll='b', test='x', score=0.3), WorstTrial(enroll='b', test='y', score=0.2))
    """
    kinds = []
    for is_target, sign in ((False, -1), (True, 1)):
        index = np.flatnonzero(trials.labels == is_target)
        index = index[np.argsort(sign * scores[index], kind="stable")[:num]]
        kinds.append([WorstTrial(trials.enroll[i], trials.test[i], float(scores[i]))
                      for i in index])
    return kinds[0], kinds[1]
