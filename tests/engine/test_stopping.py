"""Asking a training to stop, and who may not hear it."""

import multiprocessing
import os
import signal
import time

import pytest

from wespeaker_lap.engine.stopping import StopRequest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_and_the_old_handlers_come_back(number):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        assert not stop.requested
        os.kill(os.getpid(), number)
        assert stop.requested
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_the_handlers_come_back_after_an_error():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(OSError), StopRequest():
        raise OSError
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_second_ctrl_c_ends_at_once(first):
    with StopRequest() as stop:
        os.kill(os.getpid(), first)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt, match="at once"):
            os.kill(os.getpid(), signal.SIGINT)


def test_the_same_sigterm_from_two_sides_is_one_request():
    with StopRequest() as stop:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested


def wait_in_worker(begin, ready) -> None:
    if begin:
        begin(0)
    ready.set()
    time.sleep(60)


@pytest.mark.parametrize("has_begun", [True, False])
def test_workers_live_until_the_parent_is_through(has_begun):
    """Also one that was forked but has not come to its first line."""
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    with StopRequest() as stop:
        begin = stop.make_worker_init() if has_begun else None
        worker = context.Process(target=wait_in_worker, args=(begin, ready))
        worker.start()
        assert ready.wait(20)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTERM):
            os.kill(worker.pid, number)
        worker.join(0.2)
        assert worker.is_alive()
        assert not stop.requested
    worker.terminate()
    worker.join(20)
    assert worker.exitcode == 0
