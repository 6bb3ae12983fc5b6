"""Writing a shard of a feature store behind the computing of it."""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from wespeaker_lap.io.feats_writer import FeatureWriter

MAX_BEHIND_BYTES = 512 << 20  # of features that wait to be written


class WriteBehind:
    """Encode and write by one thread, in the order of the calls, while the caller goes on.

    To be used inside the writer's own `with` block: when this block ends, all has been written, so
    the shard gets its final name no earlier than without a thread. An error of the thread comes up
    at a later call or at the end of the block; what was handed over after it does not matter, as a
    shard with an error is thrown away.

    Args:
        writer: of the shard, opened.
        max_bytes: that may wait; a larger utterance waits alone.
    """

    def __init__(self, writer: FeatureWriter, max_bytes: int = MAX_BEHIND_BYTES):
        self.writer, self.max_bytes = writer, max_bytes
        self._waiting: deque[tuple[int, Future]] = deque()
        self._num_bytes = 0

    def __enter__(self) -> "WriteBehind":
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="writer")
        return self

    def write(self, utt: str, feats: np.ndarray) -> None:
        """Hand over one utterance, see `FeatureWriter.write`; `feats` must stay as they are.

        Raises:
            ValueError, OSError: an utterance that was handed over before could not be written.
        """
        while self._waiting and (self._waiting[0][1].done()
                                 or self._num_bytes + feats.nbytes > self.max_bytes):
            self._finish_first()
        self._waiting.append((feats.nbytes, self._thread.submit(self.writer.write, utt, feats)))
        self._num_bytes += feats.nbytes

    def _finish_first(self) -> None:
        num_bytes, future = self._waiting.popleft()
        future.result()
        self._num_bytes -= num_bytes

    def __exit__(self, error_type, error, traceback) -> None:
        try:
            while self._waiting and error_type is None:
                self._finish_first()
        finally:
            self._thread.shutdown(cancel_futures=True)
