"""Augmentation copies of a set: what they are called, and what their ids and speakers are.

Features of frozen encoders are computed once, so a set is augmented as a fixed number of copies of
every utterance, as in Kaldi's recipes. Names of copies: `clean`, `noise`, `reverb`, `babble`, and
`speed<factor>` such as `speed0.9`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wespeaker_lap.io.table import name_some

NAMED_COPIES = ("clean", "noise", "reverb", "babble")
SPEED = re.compile(r"speed([0-9](?:\.[0-9]{1,4})?)")
MIN_SPEED, MAX_SPEED = 0.5, 2.0


@dataclass(frozen=True)
class Copy:
    """One copy of a set.

    Attributes:
        kind: one of the named copies, or `speed`.
        factor: of the speed; 1.1 is ten percent faster.

    Raises:
        ValueError: another kind, a speed that is 1 or out of range.
    """

    kind: str
    factor: float = 1.0

    def __post_init__(self):
        if self.kind not in (*NAMED_COPIES, "speed"):
            raise ValueError(f"unknown kind of copy {self.kind!r}; known: "
                             f"{', '.join(NAMED_COPIES)}, speed")
        if self.kind == "speed" and (self.factor == 1
                                     or not MIN_SPEED <= self.factor <= MAX_SPEED):
            raise ValueError(f"want speed factors from {MIN_SPEED:g} to {MAX_SPEED:g} and not 1, "
                             f"got {self.factor:g}")

    @property
    def name(self) -> str:
        """As users write it: `noise`, `speed0.9`."""
        return f"speed{self.factor:g}" if self.kind == "speed" else self.kind

    @property
    def tag(self) -> str:
        """What ids begin with, without the hyphen: `noise`, `sp0.9`; empty for `clean`."""
        return {"clean": "", "speed": f"sp{self.factor:g}"}.get(self.kind, self.kind)

    def utt_id(self, utt: str) -> str:
        """The copy's utterance id.

        >>> Copy("speed", 0.9).utt_id("a1"), Copy("noise").utt_id("a1"), Copy("clean").utt_id("a1")
        ('sp0.9-a1', 'noise-a1', 'a1')
        """
        return f"{self.tag}-{utt}" if self.tag else utt

    def speaker(self, speaker: str) -> str:
        """The copy's speaker: another one where the speed is another, since the voice is.

        >>> Copy("speed", 0.9).speaker("a"), Copy("noise").speaker("a")
        ('sp0.9-a', 'a')
        """
        return f"{self.tag}-{speaker}" if self.kind == "speed" else speaker


CLEAN = Copy("clean")


def parse_copies(names: Sequence[str]) -> tuple[Copy, ...]:
    """Read the names of copies.

    Args:
        names: such as `("clean", "noise", "speed0.9")`.

    Returns:
        The copies, in that order.

    Raises:
        ValueError: no name, an unknown one, one that stands twice, a speed out of range.
    """
    copies: list[Copy] = []
    for name in names:
        copy = _parse_copy(name)
        if copy in copies:
            raise ValueError(f"the copy {copy.name!r} stands twice; remove {name!r}")
        copies.append(copy)
    if not copies:
        raise ValueError(f"want at least one copy; known: {', '.join(NAMED_COPIES)}, and speed "
                         f"with a factor, such as speed0.9")
    return tuple(copies)


def _parse_copy(name: str) -> Copy:
    if name in NAMED_COPIES:
        return Copy(name)
    match = SPEED.fullmatch(name)
    if match is None:
        raise ValueError(f"unknown copy {name!r}; known: {', '.join(NAMED_COPIES)}, and speed with "
                         f"a factor, such as speed0.9")
    return Copy("speed", float(match[1]))


def read_copies(identity: Mapping) -> tuple[Copy, ...]:
    """The copies that a store has of every utterance, see `augmenter.Augmenter.identity`."""
    found = identity.get("augmentation", CLEAN.name)
    return parse_copies(found["copies"]) if isinstance(found, Mapping) else (CLEAN,)


def check_ids(utt2spk: Mapping[str, str], copies: Iterable[Copy]) -> None:
    """Refuse copies whose utterances or speakers would be called as others of the set are.

    Args:
        utt2spk: the set.
        copies: to be made of it.

    Raises:
        ValueError: names them.
    """
    speakers = set(utt2spk.values())
    for copy in copies:
        if not copy.tag:
            continue
        taken = [copy.utt_id(utt) for utt in utt2spk if copy.utt_id(utt) in utt2spk]
        if copy.kind == "speed":
            taken += sorted({copy.speaker(one) for one in speakers} & speakers)
        if taken:
            raise ValueError(f"the copy {copy.name!r} would be called as what is in the set "
                             f"already: {name_some(taken)}; rename these, or leave the copy out")


def check_copies(directory: str | Path, identity: Mapping, names: Sequence[str]) -> None:
    """Refuse a store that has other copies than were asked for.

    Args:
        directory: of the store, for the message.
        identity: of the store.
        names: of the copies wanted, in any order.

    Raises:
        ValueError: says which it has.
    """
    stored = [copy.name for copy in read_copies(identity)]
    if set(stored) != {copy.name for copy in parse_copies(names)}:
        raise ValueError(f"{directory}: its copies are {', '.join(stored)}, the configuration "
                         f"wants {', '.join(names)} (features.copies). Run stage 2 into another "
                         f"folder, or train with the store's copies")


def weigh_copies(copies: Sequence[Copy], weights: Mapping[str, float]) -> dict[Copy, float]:
    """Choose which copies are trained on, and how often.

    Args:
        copies: that there are.
        weights: name -> weight, 0 or more; 1 where none is given. A copy at another speed is no
            variant of an utterance but another one: its weight, 1 at most, is the share of its
            utterances that are in an epoch.

    Returns:
        Copy -> weight, without those of weight 0.

    Raises:
        ValueError: a name that is none of the copies, a speed's weight above 1, or nothing left
            of the original voices.
    """
    known = [copy.name for copy in copies]
    strangers = [name for name in weights if name not in known]
    if strangers:
        raise ValueError(f"train.copy_weights: {name_some(strangers)}: not among the copies, which "
                         f"are {', '.join(known)}")
    chosen = {copy: float(weights.get(copy.name, 1.0)) for copy in copies}
    for copy, weight in chosen.items():
        if copy.kind == "speed" and weight > 1:
            raise ValueError(f"train.copy_weights: {copy.name}: want the share of its utterances "
                             f"that are in an epoch, at most 1, got {weight:g}: they are of "
                             f"speakers of their own. For 1:3:1 give both speeds 0.3333")
    if not any(weight for copy, weight in chosen.items() if copy.kind != "speed"):
        raise ValueError("train.copy_weights: nothing is left of the original voices; give one of "
                         "their copies a weight above 0")
    return {copy: weight for copy, weight in chosen.items() if weight}


def list_speakers(utt2spk: Mapping[str, str], copies: Iterable[Copy]) -> list[str]:
    """All speakers of a set and its copies, sorted; those at another speed are new ones.

    >>> list_speakers({"a1": "a", "b1": "b"}, [Copy("noise"), Copy("speed", 0.9)])
    ['a', 'b', 'sp0.9-a', 'sp0.9-b']
    """
    speakers = set(utt2spk.values())
    return sorted({copy.speaker(speaker) for copy in copies for speaker in speakers})
