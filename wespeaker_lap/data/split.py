"""Split speakers into training, validation and test: no speaker is in two sets."""

from collections.abc import Mapping

import numpy as np

from wespeaker_lap.io.table import invert

MIN_HELD_OUT = 2  # speakers, which non-target trials need


def parse_amount(text: str, option: str) -> float:
    """Read how many speakers to hold back: `13`, or `0.1` for a tenth; 0 for none.

    Raises:
        ValueError: neither a whole number nor a share.
    """
    try:
        amount = float(text)
    except ValueError:
        amount = -1.0
    if not (0 <= amount < 1 or (amount >= MIN_HELD_OUT and amount.is_integer())):
        raise ValueError(f"{option} {text}: want a number of speakers from {MIN_HELD_OUT} on, a "
                         f"share of them below 1, or 0 for none")
    return amount


def split_speakers(utt2spk: Mapping[str, str], held_out: Mapping[str, float], seed: int,
                   spk2gender: Mapping[str, str] | None = None) -> dict[str, list[str]]:
    """Draw the speakers of held-out sets, each gender in proportion; the rest is for training.

    Speakers with a single utterance stay in training, because they make no target trial.

    Args:
        utt2spk: utterance -> speaker.
        held_out: set -> how many speakers, a share where below 1 (at least two), 0 for none.
        seed: of the draw, which nothing else changes.
        spk2gender: speaker -> gender, where known.

    Returns:
        `train` and every held-out set that was asked for -> its speakers, sorted.

    Raises:
        ValueError: too few speakers.
    """
    spk2utt = invert(utt2spk)
    able = [speaker for speaker, own in spk2utt.items() if len(own) > 1]
    sizes = {name: max(MIN_HELD_OUT, round(amount * len(spk2utt))) if amount < 1 else int(amount)
             for name, amount in held_out.items() if amount}
    total = sum(sizes.values())
    if total > len(able) or total > len(spk2utt) - 2:
        raise ValueError(
            f"{len(spk2utt)} speakers, {len(able)} of them with two utterances or more, are too "
            f"few to hold {' and '.join(f'{n} ({s})' for s, n in sizes.items())} back and to train "
            f"on 2 at least; hold fewer back, or add speakers")
    order = _mix_genders([able[i] for i in np.random.default_rng(seed).permutation(len(able))],
                         spk2gender or {})
    sets, start = {}, 0
    for name, size in sizes.items():
        sets[name] = sorted(order[start:start + size])
        start += size
    taken = set(order[:total])
    return {"train": [speaker for speaker in spk2utt if speaker not in taken], **sets}


def _mix_genders(speakers: list[str], spk2gender: Mapping[str, str]) -> list[str]:
    """Order speakers so that every run of them has the genders in about the same proportion."""
    groups: dict[str, list[str]] = {}
    for speaker in speakers:
        groups.setdefault(spk2gender.get(speaker, ""), []).append(speaker)
    places = {speaker: (number + 0.5) / len(own) for own in groups.values()
              for number, speaker in enumerate(own)}
    return sorted(speakers, key=places.__getitem__)  # ties keep the order of the draw
