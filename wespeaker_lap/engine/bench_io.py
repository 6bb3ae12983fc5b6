"""How fast the loader of a training makes batches, against bare reads of the same bytes.

The system keeps in memory what was read of late. What it can be made to forget is read from the
disk first; then everything is read once more, from memory.
"""

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

from wespeaker_lap.config import Config
from wespeaker_lap.data.dequantize import CODECS as DEQUANTIZED
from wespeaker_lap.data.loader import BatchLoader, Key, choose_num_threads
from wespeaker_lap.data.sampler import ShuffledBatches
from wespeaker_lap.data.source import FeatureSource
from wespeaker_lap.engine.dist import World
from wespeaker_lap.engine.loading import make_loader, make_source
from wespeaker_lap.io.feats import FeatureStore
from wespeaker_lap.io.open_files import OpenFiles
from wespeaker_lap.io.page_cache import Span, drop_pages, measure_cached

KEEPS_UP = 0.6  # share of the speed of bare reads from which on these are the limit
IN_MEMORY = 0.9  # share of what was asked for from which on it was read from memory
MAX_ROUND_BYTES = 1 << 30  # of a round, so that the system still has them at its second half
_PASSES = 4  # of a round


@dataclass
class Pace:
    """Seconds for the same batches: made by the loader, and read with `os.pread`."""

    num_batches: int = 0
    num_bytes: int = 0
    loader_seconds: float = 0.0
    raw_seconds: float = 0.0

    @property
    def batches_per_s(self) -> float:
        """Batches that the loader makes in a second."""
        return self.num_batches / self.loader_seconds

    @property
    def ratio(self) -> float:
        """The loader's share of the speed of bare reads."""
        return self.raw_seconds / self.loader_seconds


@dataclass
class Speed:
    """What was measured.

    Attributes:
        disk: of batches that were not in memory.
        memory: of batches that were.
        unknown: of batches that the system does not tell where they were.
    """

    disk: Pace = field(default_factory=Pace)
    memory: Pace = field(default_factory=Pace)
    unknown: Pace = field(default_factory=Pace)


def describe_loader(config: Config, feats: str | Path, seconds: float, world: World) -> list[str]:
    """Measure the loader that a training on a store would have.

    Args:
        config: of the training.
        feats: the store; all its utterances are taken for the training set.
        seconds: about how long to measure.
        world: this process, and the device that batches are made for.

    Returns:
        Lines for a person.

    Raises:
        FileNotFoundError: there is no whole store.
        ValueError: it is empty or damaged, does not fit the configuration, or crops are longer
            than all its utterances; no time to measure in.
    """
    if not seconds > 0:
        raise ValueError(f"--seconds {seconds:g}: want more than 0")
    store = FeatureStore(feats)
    if not len(store):
        raise ValueError(f"{feats}: the store is empty; run stage 2 for a set with utterances")
    source = make_source(config, store, dict.fromkeys(store, ""), [""])
    longest = max(map(store.num_frames, store))
    if source.crop_frames > longest:
        raise ValueError(f"train.crop_seconds {config.train.crop_seconds:g} is {source.crop_frames}"
                         f" frames, longer than every utterance of {feats} (at most {longest}); "
                         f"make crops shorter")
    # Speakers are unknown here; how they are mixed makes no difference to reading.
    train = config.train.model_copy(update={"utts_per_speaker": None})
    sampler, loader = make_loader(config.model_copy(update={"train": train}), source, world)
    speed = measure_loader(source, sampler, loader, seconds)
    return _describe(config, source, sampler, max(1, loader.num_threads), speed)


def _describe(config: Config, source: FeatureSource, sampler: ShuffledBatches, num_threads: int,
              speed: Speed) -> list[str]:
    store = source.store
    paces = {"the disk": speed.disk, "the page cache": speed.memory,
             "disk or page cache (not to be told here)": speed.unknown}
    return [f"{store.directory}: {len(store)} utterances, {store.num_layers} x {store.dim}, "
            f"{store.codec}; crops of {source.crop_frames} frames, batches of "
            f"{sampler.batch_size}, {num_threads} thread{'s' * (num_threads > 1)}",
            *(_describe_pace(name, pace, sampler) for name, pace in paces.items()
              if pace.num_batches),
            advise(config, store.codec, num_threads, speed)]


def _describe_pace(name: str, pace: Pace, sampler: ShuffledBatches) -> str:
    rate = pace.num_bytes / 1e6 / pace.loader_seconds
    return (f"from {name}: {pace.batches_per_s * sampler.batch_size:.0f} utterances/s, "
            f"{pace.batches_per_s:.2f} batches/s, {rate:.0f} MB/s; os.pread of the same bytes "
            f"{rate / pace.ratio:.0f} MB/s, ratio {pace.ratio:.2f}; an epoch of "
            f"{sampler.steps_per_epoch} batches takes at least "
            f"{sampler.steps_per_epoch / pace.batches_per_s:.1f} s")


def advise(config: Config, codec: str, num_threads: int, speed: Speed) -> str:
    """What limits the loader, and what to change, in one line."""
    paces = [pace for pace in (speed.disk, speed.memory, speed.unknown) if pace.num_batches]
    if paces[0].ratio >= KEEPS_UP:
        if not speed.disk.num_batches:
            return "the loader keeps up with bare reads: nothing to change"
        return ("the disk is the limit: a faster one, or smaller features (features.codec, "
                "layers, frame_stride), where they do not fit into memory")
    changes = []
    if num_threads < choose_num_threads():
        changes.append(f"raise train.num_workers (this machine has processors for "
                       f"{choose_num_threads()})")
    if codec in DEQUANTIZED and config.train.dequantize == "host":
        changes.append("set train.dequantize to device, for a GPU")
        if codec == "int8":
            changes.append("or store float16, twice as large and several times as fast to decode")
    return (f"making batches of {codec} is the limit, not the disk: "
            f"{'; '.join(changes) or 'only more or faster processors help'}")


def measure_loader(source: FeatureSource, sampler: ShuffledBatches, loader: BatchLoader,
                   seconds: float) -> Speed:
    """Make batches as in training, and read the same bytes, in turn.

    Args:
        source, sampler, loader: see `loading.make_loader`.
        seconds: about how long; at least one round is made.

    Raises:
        OSError, ValueError: the features cannot be read.
    """
    files, speed = OpenFiles(), Speed()
    batches = draw_batches(sampler)
    begin = time.perf_counter()
    per_batch = time_loader(loader, list(islice(batches, 2))) / 2  # files open, memory in place
    rounds = 0
    while not rounds or time.perf_counter() - begin < seconds:
        size = max(1, sum(size for _, _, size in list_spans(source, next(batches))))
        count = int(min(MAX_ROUND_BYTES / size, seconds / per_batch / 2 / _PASSES))
        _measure_round(source, loader, list(islice(batches, max(1, count))), files, speed,
                       raw_first=rounds % 2 == 1)
        rounds += 1
    return speed


def draw_batches(sampler: ShuffledBatches) -> Iterator[list[Key]]:
    """Those of all epochs."""
    epoch = 0
    while True:
        sampler.start_at(epoch)
        yield from sampler
        epoch += 1


def list_spans(source: FeatureSource, keys: Sequence[Key]) -> list[Span]:
    """The pieces of files that a batch is in, in the order of its examples."""
    return list(chain.from_iterable(
        source.store.locate(*source.locate(key)) for key in keys))


def _measure_round(source: FeatureSource, loader: BatchLoader, batches: Sequence[list[Key]],
                   files: OpenFiles, speed: Speed, raw_first: bool) -> None:
    """Batches from where they are once they are dropped, and from memory."""
    spans = [[list_spans(source, [key]) for key in keys] for keys in batches]
    every = list(chain.from_iterable(chain.from_iterable(spans)))
    num_threads = max(1, loader.num_threads)
    calls = {"loader_seconds": lambda: time_loader(loader, batches),
             "raw_seconds": lambda: time_raw(spans, num_threads, files)}
    order = sorted(calls, reverse=raw_first)
    for drops in (True, False):
        taken, shares = {}, []
        for name in order:
            if drops:
                drop_pages(files, every)
            shares.append(measure_cached(files, every))
            taken[name] = calls[name]()
        _add(_choose(speed, shares), len(batches), sum(size for _, _, size in every), taken)


def _choose(speed: Speed, shares: Sequence[float | None]) -> Pace:
    """Where the reads count, from the shares that were in memory before each."""
    known = [share for share in shares if share is not None]
    if len(known) < len(shares):
        return speed.unknown
    return speed.memory if min(known) >= IN_MEMORY else speed.disk


def _add(pace: Pace, num_batches: int, num_bytes: int, taken: dict[str, float]) -> None:
    pace.num_batches += num_batches
    pace.num_bytes += num_bytes
    for name, seconds in taken.items():
        setattr(pace, name, getattr(pace, name) + seconds)


def time_loader(loader: BatchLoader, batches: Sequence[list[Key]]) -> float:
    loader.batches = batches
    begin = time.perf_counter()
    for _ in loader:
        pass
    return time.perf_counter() - begin


def time_raw(spans: Sequence[Sequence[Sequence[Span]]], num_threads: int,
             files: OpenFiles) -> float:
    """Seconds to read pieces of files with `os.pread`, shared out to threads as the loader does.

    Args:
        spans: of every batch, of every example, the pieces.
        num_threads: that read.
        files: of the process.
    """
    def read(examples: Iterable[Sequence[Span]]) -> None:
        for path, first, size in chain.from_iterable(examples):
            file = files.open(path)
            os.pread(file.number, size, first)

    begin = time.perf_counter()
    with ThreadPoolExecutor(num_threads) as pool:
        shares = [batch[number::num_threads] for batch in spans for number in range(num_threads)]
        for _ in pool.map(read, shares):
            pass
    return time.perf_counter() - begin
