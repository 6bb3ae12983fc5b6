"""Random segments of training utterances, stored in place of the whole ones.

An entry of the store holds the segments one behind the other, in rising order. They are cut out of
the whole utterance's features, so that every frame has seen the utterance around it. Where they are
follows from the seed and the utterance's id alone.
"""

import hashlib
from dataclasses import asdict, dataclass

import numpy as np


@dataclass(frozen=True)
class Segments:
    """How many segments are kept of an utterance, and how long they are.

    Utterances with no more frames than all segments together are kept whole.

    Attributes:
        num: of an utterance.
        num_frames: of a segment.
        seed: of their places.

    Raises:
        ValueError: no segments, or segments without frames.
    """

    num: int
    num_frames: int
    seed: int = 0

    def __post_init__(self):
        if self.num < 1 or self.num_frames < 1:
            raise ValueError(f"want 1 or more segments of 1 or more frames, got {self.num} of "
                             f"{self.num_frames}")

    def count(self, num_frames: int) -> int:
        """Frames that are kept of an utterance.

        >>> Segments(3, 200).count(640), Segments(3, 200).count(599)
        (600, 599)
        """
        return min(num_frames, self.num * self.num_frames)

    def starts(self, utt: str, num_frames: int) -> list[int]:
        """First frames of an utterance's segments, in rising order.

        Segments do not overlap, and each way to lay them out is as likely as any other.

        Args:
            utt: its id.
            num_frames: T, at least that of all segments together.
        """
        digest = hashlib.sha256(f"{self.seed} {utt}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:16], "little"))
        # The segments and the frames that are left out, in a row: which of them are segments?
        free = num_frames - self.num * self.num_frames
        places = np.sort(rng.choice(free + self.num, self.num, replace=False))
        return [int(place) + n * (self.num_frames - 1) for n, place in enumerate(places)]

    def cut(self, utt: str, feats: np.ndarray) -> np.ndarray:
        """Keep an utterance's segments: (T, ...) -> (`count(T)`, ...)."""
        if len(feats) <= self.num * self.num_frames:
            return feats
        return np.concatenate([feats[start:start + self.num_frames]
                               for start in self.starts(utt, len(feats))])

    def pieces(self, num_frames: int) -> tuple[int, int]:
        """What an entry of so many frames consists of: number of pieces, frames of each."""
        if num_frames < self.num * self.num_frames:
            return 1, num_frames
        return self.num, self.num_frames

    def identity(self) -> dict:
        """As plain JSON values, for `feats.json`; `read_segments` reads it."""
        return asdict(self)


def read_segments(identity: dict) -> Segments | None:
    """The segments that a store's entries consist of; None: whole utterances."""
    found = identity.get("segments")
    return None if found is None else Segments(**found)
