"""Batches of P speakers with K utterances each: the same for every number of processes."""

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

# Added to the epoch in a key for each time that its utterance was there before in the epoch, so
# that its crop is another one: two equal examples would be a positive pair that teaches nothing.
REPEAT = 2**32


class BalancedBatchSampler(Sampler):
    """Batches of one epoch, each of P different speakers with K utterances, cut for the ranks.

    An epoch is a random order of every speaker's utterances, taken K at a time: a speaker with n
    utterances comes into ceil(n / K) batches, and every utterance once. What then lacks to full
    batches is filled with utterances that come again: within a speaker's last K from its own
    others (of a speaker with n < K, all again), and to P speakers a batch from further rounds of
    speakers drawn at random. The K of a batch are K different utterances where n >= K.

    The number of batches is a function of the labels alone, `max(ceil(G / P), largest g)`, g the
    speakers' ceil(n / K) and G their sum. It is the second where one speaker has more than a P-th
    of the corpus; the others then come several times.

    The global batch `step` of epoch `epoch` is a function of (seed, epoch, step) alone. Rank r of
    W takes its r-th P/W speakers, whole, so W processes see what one process would see. Starting
    within an epoch draws the batches before anew, a fraction of a millisecond each.

    Args:
        labels: the speaker of each utterance of the set, by index.
        num_speakers: P, over all ranks.
        num_utts: K, of each speaker.
        seed: of the training.
        rank, world_size: this process among how many.

    Raises:
        ValueError: an empty set, fewer than P speakers, or P not to be shared equally by the
            ranks.

    >>> sampler = BalancedBatchSampler([0, 0, 0, 1, 1, 2, 2], num_speakers=2, num_utts=2, seed=1)
    >>> sampler.start_at(epoch=3)
    >>> [len(batch) for batch in sampler]  # keys (3, index)
    [4, 4]
    """

    def __init__(self, labels: Sequence[int], num_speakers: int, num_utts: int, seed: int,
                 rank: int = 0, world_size: int = 1):
        if not len(labels):
            raise ValueError("the training set is empty")
        if num_speakers < 1 or num_utts < 1:
            raise ValueError(f"want one speaker and one utterance a batch or more, got "
                             f"{num_speakers} x {num_utts}")
        if num_speakers % world_size:
            raise ValueError(f"{num_speakers} speakers a batch are over all processes and must be "
                             f"a multiple of their number, {world_size}")
        _, self.speakers, self.sizes = np.unique(labels, return_inverse=True, return_counts=True)
        if len(self.sizes) < num_speakers:
            raise ValueError(f"want batches of {num_speakers} speakers, but the training set has "
                             f"{len(self.sizes)}; take fewer speakers and more utterances of each")
        self.num_speakers, self.utts_per_speaker, self.seed = num_speakers, num_utts, seed
        self.num_utts = len(labels)  # of the set, as in `ShuffledBatches`
        self.batch_size = num_speakers * num_utts
        self.rank, self.world_size = rank, world_size
        self.rounds = -(-self.sizes // num_utts)  # batches that a speaker fills
        self.epoch, self.first_step = 0, 0

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""
        return int(max(-(-self.rounds.sum() // self.num_speakers), self.rounds.max()))

    def start_at(self, epoch: int, first_step: int = 0) -> None:
        """Choose the epoch to be iterated next, and how many of its batches to pass over."""
        self.epoch, self.first_step = epoch, first_step

    def __len__(self) -> int:
        return self.steps_per_epoch - self.first_step

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(len(self.speakers))
        order = order[np.argsort(self.speakers[order], kind="stable")]  # speaker after speaker
        firsts = np.cumsum(self.sizes) - self.sizes
        total = self._fill_rounds(rng)
        left, part = total.copy(), self.num_speakers // self.world_size
        num_batches = self.steps_per_epoch
        for step in range(num_batches):
            chosen = _draw_speakers(left, num_batches - step, self.num_speakers, rng)
            own = chosen[self.rank * part:(self.rank + 1) * part, None]  # (P / W, 1)
            turns = (total - left)[own] * self.utts_per_speaker
            turns = turns + np.arange(self.utts_per_speaker)  # (P / W, K)
            left[chosen] -= 1
            if step < self.first_step:
                continue
            repeats, places = np.divmod(turns, self.sizes[own])
            indices = order[firsts[own] + places]
            yield [(self.epoch + REPEAT * repeat, index) for repeat, index
                   in zip(repeats.ravel().tolist(), indices.ravel().tolist(), strict=True)]

    def _fill_rounds(self, rng: np.random.Generator) -> np.ndarray:
        """In how many batches each speaker is, `(N,)`: enough for full batches."""
        rounds = self.rounds.copy()
        lacking = self.steps_per_epoch * self.num_speakers - rounds.sum()
        while lacking:
            # One more for each before two more for any, and nobody twice in a batch.
            more = rng.permutation(np.flatnonzero(rounds < self.steps_per_epoch))[:lacking]
            rounds[more] += 1
            lacking -= len(more)
        return rounds


def expected_pairs(labels: Sequence[int], batch_size: int) -> float:
    """Pairs of one speaker that a batch has on average if it is drawn without regard to speakers.

    A speaker's n utterances are n (n - 1) / 2 of the corpus's N (N - 1) / 2 pairs, and a batch has
    B (B - 1) / 2 of these. The share of batches without any is about exp(-result).

    Args:
        labels: the speaker of each utterance of the set.
        batch_size: B, over all processes.

    >>> round(expected_pairs([0, 0, 1, 1], batch_size=3), 6)  # always one of the two
    1.0
    """
    _, sizes = np.unique(labels, return_counts=True)
    num_pairs = (sizes * (sizes - 1)).sum() / 2
    share = batch_size * (batch_size - 1) / max(len(labels) * (len(labels) - 1), 1)
    return float(num_pairs * share)


def _draw_speakers(left: np.ndarray, num_batches: int, num_speakers: int,
                   rng: np.random.Generator) -> np.ndarray:
    """Draw the speakers of the next batch, `(P,)`.

    Args:
        left: `(N,)`, in how many of the coming batches each speaker is to be: none in more than
            there are, and in all together `num_batches * num_speakers`. A draw keeps it so.
        num_batches: batches to come.
        num_speakers: P.
        rng: of the epoch.
    """
    # The P first of exponential clocks with rates `left`: a draw without replacement with these
    # weights. Whoever must be in every batch to come is in this one.
    clocks = np.full(len(left), np.inf)
    np.divide(rng.standard_exponential(len(left)), left, out=clocks, where=left > 0)
    clocks[left == num_batches] = 0.0
    # In the order of partition, which numpy may change, ranks would depend on its version.
    return rng.permutation(np.sort(np.argpartition(clocks, num_speakers - 1)[:num_speakers]))
