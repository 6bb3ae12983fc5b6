"""Worker processes that leave Ctrl-C to their parent, which ends them."""

import multiprocessing
import signal
from multiprocessing.pool import Pool


def open_pool(num_jobs: int) -> Pool:
    """Start `num_jobs` processes; to be used in a `with` block, whose end ends them."""
    return multiprocessing.Pool(num_jobs, signal.signal, (signal.SIGINT, signal.SIG_IGN))
