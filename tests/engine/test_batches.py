"""Reading ahead: in order, by threads, within bounds, and errors where the batch is due."""

import threading

import pytest

from wespeaker_lap.engine import batches

BATCHES = [[f"u{n}"] for n in range(12)]
SHORT = {f"u{n}": 1.0 for n in range(12)}


@pytest.mark.parametrize("num_threads", [1, 3])
def test_batches_come_in_order(num_threads):
    found = list(batches.read_ahead(BATCHES, SHORT, lambda batch: batch[0] * 2, num_threads))
    assert found == [(batch, batch[0] * 2) for batch in BATCHES]
    assert list(batches.read_ahead([], {}, None)) == []


def test_threads_read_at_the_same_time_and_not_further_than_needed():
    """Three must be inside of `read` together, or the barrier breaks."""
    barrier, begun = threading.Barrier(3, timeout=30), []

    def read(batch):
        begun.append(batch[0])
        if int(batch[0][1:]) < 3:
            barrier.wait()

    reading = batches.read_ahead(BATCHES, SHORT, read, 3)
    next(reading)
    assert set(begun) <= {"u0", "u1", "u2", "u3"}
    reading.close()
    assert len(begun) <= 4


def test_little_is_held_of_long_recordings(monkeypatch):
    monkeypatch.setattr(batches, "AHEAD_SECONDS", 100.0)
    begun = []
    durations = {**SHORT, "u2": 90.0, "u3": 500.0, "u4": 9.0}
    reading = batches.read_ahead(BATCHES, durations, lambda batch: begun.append(batch[0]), 4)
    for last in (2, 2, 2, 3, 8):
        next(reading)
        assert max(int(utt[1:]) for utt in begun) <= last
    assert [batch for batch, _ in reading] == BATCHES[5:]


def test_an_error_comes_up_where_its_batch_is_due():
    def read(batch):
        if batch == ["u5"]:
            raise ValueError("broken")

    reading, found = batches.read_ahead(BATCHES, SHORT, read, 4), []
    with pytest.raises(ValueError, match="broken"):
        for batch, _ in reading:
            found.append(batch)
    assert found == BATCHES[:5]
    assert not [thread for thread in threading.enumerate() if "reader" in thread.name]
