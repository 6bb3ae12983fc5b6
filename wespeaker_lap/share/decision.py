"""From a score to a decision that says what it rests on."""

from collections.abc import Sequence
from dataclasses import dataclass

from wespeaker_lap.score.operating import OperatingPoint
from wespeaker_lap.share.recording import Recording

MIN_FALSE_ACCEPTS = 30  # Doddington's rule of 30: then a rate is within 30 % of the true one


@dataclass(frozen=True)
class Threshold:
    """What a score is compared with: the number, where it comes from, the kind of scores."""

    value: float
    source: str
    norm: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Decision:
    """Whether two voices are one, or whose a voice is.

    Args:
        decision: "accepted" or "rejected"; None where a recording cannot be used.
        score: of the pair, or of the nearest enrolled speaker; None without a decision.
        threshold: scores at or above it are accepted.
        threshold_source: where it was measured, and on which scores.
        norm: of the score: "none" (cosine), "asnorm" or "snorm".
        status: "ok", or that of the first recording that cannot be used; see
            `recording.STATUSES`.
        warnings: what makes the decision less reliable, or why there is none.
        speaker: of an identification, the accepted speaker's name.
        ranking: of an identification, the nearest enrolled speakers with their scores.
    """

    decision: str | None
    score: float | None
    threshold: float
    threshold_source: str
    norm: str
    status: str
    warnings: tuple[str, ...]
    speaker: str | None = None
    ranking: tuple[tuple[str, float], ...] = ()


def take_threshold(point: OperatingPoint) -> Threshold:
    """The threshold of an operating point, with a warning where few errors were counted there."""
    count, warnings = point.num_false_accepts, ()
    if count < MIN_FALSE_ACCEPTS:
        warnings = (f"the threshold rests on {count} false acceptances among "
                    f"{point.num_nontarget} trials; it is reliable from {MIN_FALSE_ACCEPTS}",)
    return Threshold(point.threshold, point.describe(), point.norm, warnings)


def decline(recordings: Sequence[Recording], threshold: Threshold) -> Decision | None:
    """No decision, with the reasons, where a recording cannot be used; None where all can."""
    bad = [one for one in recordings if one.status != "ok"]
    if not bad:
        return None
    reasons = tuple(f"{one.name}: {one.reason}" for one in bad)
    return Decision(None, None, threshold.value, threshold.source, threshold.norm, bad[0].status,
                    reasons)


def decide(score: float, threshold: Threshold, recordings: Sequence[Recording],
           name: str | None = None, ranking: tuple[tuple[str, float], ...] = ()) -> Decision:
    """Compare a score with a threshold.

    Args:
        score: of the pair, or of the nearest speaker.
        threshold: at or above it is accepted.
        recordings: that were compared; their warnings are passed on.
        name, ranking: of an identification, the nearest speaker and all of the nearest.
    """
    is_accepted = score >= threshold.value
    warnings = tuple(text for one in recordings for text in one.warnings) + threshold.warnings
    return Decision("accepted" if is_accepted else "rejected", score, threshold.value,
                    threshold.source, threshold.norm, "ok", warnings,
                    name if is_accepted else None, ranking)
