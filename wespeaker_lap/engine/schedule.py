"""Learning rate and margin as pure functions of the step: nothing to save, nothing to resume."""

import math
from typing import Literal


def learning_rate(
    step: int, total_steps: int, peak: float, final: float, warmup_steps: int
) -> float:
    """Linear warm-up to a peak, then half a cosine down to the final rate.

    `rate = peak * (step + 1) / warmup_steps` in the warm-up, so that the first step already
    learns and the last warm-up step has the peak; then
    `rate = final + (peak - final) * (1 + cos(pi * p)) / 2`, p from 0 at the peak to 1 at the
    last step. Source: SGDR, arXiv 1608.03983, equation 5, one cycle.

    Args:
        step: which step, 0 to `total_steps - 1`.
        total_steps: steps of the whole training.
        peak: highest rate.
        final: rate of the last step, at most `peak`.
        warmup_steps: steps of the warm-up, 0 to `total_steps`; 0 begins at the peak.

    Returns:
        The learning rate of this step.

    Raises:
        ValueError: a number is out of its range.

    >>> [round(learning_rate(step, 7, 1.0, 0.0, 2), 3) for step in range(7)]
    [0.5, 1.0, 0.905, 0.655, 0.345, 0.095, 0.0]
    """
    if not 0 <= step < total_steps:
        raise ValueError(f"want step from 0 to total_steps - 1 = {total_steps - 1}, got {step}")
    if not 0 <= warmup_steps <= total_steps:
        raise ValueError(f"want warmup_steps from 0 to {total_steps}, got {warmup_steps}")
    if not 0.0 <= final <= peak < math.inf:
        raise ValueError(f"want 0 <= final <= peak, got final {final} and peak {peak}")
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    peak_step = max(warmup_steps - 1, 0)
    if step == peak_step:
        return peak
    progress = (step - peak_step) / (total_steps - 1 - peak_step)
    return final + (peak - final) * (1.0 + math.cos(math.pi * progress)) / 2.0


def margin_at(
    epoch_fraction: float,
    start_epoch: float,
    end_epoch: float,
    initial: float,
    final: float,
    shape: Literal["log", "linear"] = "log",
) -> float:
    """The margin of the loss: `initial` before a window of epochs, `final` after it.

    Inside, with p from 0 to 1, `initial + (final - initial) * r(p)`: "linear" is `r = p`; "log"
    is `r = (1 - 1000^-p) / (1 - 1000^-1)`, half way up after a tenth of the window: WeSpeaker's
    exponential increase, divided by its last value so that it ends exactly at `final`.

    Args:
        epoch_fraction: epochs trained so far (2.5: half of the third).
        start_epoch: where the ramp begins.
        end_epoch: where it ends; equal to `start_epoch` for a jump.
        initial: margin before, in radians.
        final: margin after, in radians, at least `initial`.
        shape: "log" or "linear".

    Returns:
        The margin in radians; it never falls as `epoch_fraction` grows.

    Raises:
        ValueError: a number is out of its range, or the shape is unknown.

    >>> [round(margin_at(epoch, 0, 20, 0.0, 0.3), 3) for epoch in (0, 2, 5, 10, 20, 30)]
    [0.0, 0.15, 0.247, 0.291, 0.3, 0.3]
    """
    _check_ramp(epoch_fraction, start_epoch, end_epoch, initial, final, shape)
    if epoch_fraction >= end_epoch:
        return final
    if epoch_fraction <= start_epoch:
        return initial
    progress = (epoch_fraction - start_epoch) / (end_epoch - start_epoch)
    risen = progress if shape == "linear" else (1.0 - 1000.0**-progress) / (1.0 - 1000.0**-1)
    return initial + (final - initial) * risen


def _check_ramp(
    epoch_fraction: float,
    start_epoch: float,
    end_epoch: float,
    initial: float,
    final: float,
    shape: str,
) -> None:
    if not 0.0 <= epoch_fraction < math.inf:
        raise ValueError(f"want epoch_fraction >= 0, got {epoch_fraction}")
    if not 0.0 <= start_epoch <= end_epoch < math.inf:
        raise ValueError(
            f"want 0 <= start_epoch <= end_epoch, got {start_epoch} and {end_epoch}"
        )
    if not 0.0 <= initial <= final < math.pi:
        raise ValueError(
            f"want 0 <= initial <= final < pi radians, got initial {initial} and final {final}"
        )
    if shape not in ("log", "linear"):
        raise ValueError(f"want shape 'log' or 'linear', got {shape!r}")
