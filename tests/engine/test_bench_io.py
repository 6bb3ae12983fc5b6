"""The measurement before training: of the loader's own bytes, and what follows from it."""

import os
import re
from itertools import islice

import numpy as np
import pytest
import torch
from trainings import IDENTITY, write_store

from wespeaker_lap.config import load_config
from wespeaker_lap.engine import bench_io
from wespeaker_lap.engine.bench_io import Pace, Speed, advise, draw_batches, list_spans, time_raw
from wespeaker_lap.engine.dist import World
from wespeaker_lap.engine.loading import make_loader, make_source
from wespeaker_lap.io.codecs import CODECS
from wespeaker_lap.io.feats import FeatureStore, FeatureWriter
from wespeaker_lap.io.open_files import OpenFiles

ALONE = World(0, 1, torch.device("cpu"))
SETTINGS = ("train.batch_size=8", "train.crop_seconds=0.2", "train.num_workers=2")
UTT2SPK = {f"u{number:02d}": "s" for number in range(21)}
PACE = Pace(num_batches=10, num_bytes=50_000_000, loader_seconds=2.0, raw_seconds=1.0)


@pytest.fixture
def feats(tmp_path):
    write_store(tmp_path / "feats", UTT2SPK, 0)
    return tmp_path / "feats"


def prepare(feats, *overrides):
    store, config = FeatureStore(feats), load_config(overrides=[*SETTINGS, *overrides])
    source = make_source(config, store, dict.fromkeys(store, ""), [""])
    return source, *make_loader(config, source, ALONE)


@pytest.mark.parametrize("codec", CODECS)
def test_bare_reads_are_of_the_loaders_bytes(tmp_path, monkeypatch, codec):
    """Spans by `os.pread` are the bytes of the crops that the loader reads, and no others."""
    with FeatureWriter(tmp_path, {**IDENTITY, "num_layers": 3, "dim": 64}, codec) as writer:
        for number in range(9):
            writer.write(f"u{number}", np.random.default_rng(number).normal(size=(25, 3, 64)))
    (tmp_path / "feats.00000.idx").unlink()  # so that nothing is read to be checked
    source, sampler, loader = prepare(tmp_path)
    keys = next(iter(sampler))
    spans = [list_spans(source, [key]) for key in keys]
    asked, preadv, pread = [], os.preadv, os.pread
    monkeypatch.setattr(os, "preadv", lambda file, buffers, at: asked.append(
        (at, len(buffers[0]))) or preadv(file, buffers, at))
    loader.batches = [keys]
    batch, = loader
    by_loader = {(at, size) for at, size in asked if size != 256}  # 256: to look at the header
    assert by_loader == {(first, size) for example in spans for _, first, size in example}
    assert batch.num_bytes == sum(size for example in spans for _, _, size in example
                                  if size != 8)  # int8's range is no frame's
    asked.clear()
    monkeypatch.setattr(os, "pread", lambda file, size, at: asked.append(
        (at, size)) or pread(file, size, at))
    assert time_raw([spans, spans], 3, OpenFiles()) > 0
    assert sorted(asked) == sorted(2 * [(first, size) for example in spans
                                        for _, first, size in example])


def test_batches_are_those_of_training(feats):
    source, sampler, _ = prepare(feats)
    drawn = draw_batches(sampler)
    first = [next(drawn) for _ in range(5)]
    wanted = []
    for epoch in range(3):
        sampler.start_at(epoch)
        wanted += list(sampler)
    assert first == wanted[:5] and len(list_spans(source, first[0])) == 8


@pytest.mark.parametrize(("shares", "name"), [
    ([1.0, 1.0], "memory"), ([0.0, 0.1], "disk"), ([1.0, 0.2], "disk"), ([None, None], "unknown")])
def test_a_pass_counts_where_its_bytes_were(feats, monkeypatch, shares, name):
    """Both halves of a round: after dropping, and again."""
    answers = iter(shares * 2)
    monkeypatch.setattr(bench_io, "measure_cached", lambda *_: next(answers))
    monkeypatch.setattr(bench_io, "drop_pages", lambda *_: None)
    source, sampler, loader = prepare(feats)
    speed = bench_io.measure_loader(source, sampler, loader, 1e-9)
    pace = getattr(speed, name)
    assert pace.num_batches == 2 and pace.loader_seconds > 0 < pace.raw_seconds
    # Two batches to begin with, one to see its size; then the one that counts.
    *_, keys = islice(draw_batches(sampler), 4)
    assert pace.num_bytes == 2 * sum(size for _, _, size in list_spans(source, keys))
    assert [other.num_batches for other in (speed.disk, speed.memory, speed.unknown)
            if other is not pace] == [0, 0]


def test_the_figures_by_hand(feats, monkeypatch):
    """5 batches of 8 a second; 25 MB/s of 50; 2 batches an epoch."""
    monkeypatch.setattr(bench_io, "measure_loader", lambda *_: Speed(memory=PACE))
    lines = bench_io.describe_loader(load_config(overrides=SETTINGS), feats, 1.0, ALONE)
    assert lines[:2] == [
        f"{feats}: 21 utterances, 3 x 8, float32; crops of 10 frames, batches of 8, 2 threads",
        "from the page cache: 40 utterances/s, 5.00 batches/s, 25 MB/s; os.pread of the same "
        "bytes 50 MB/s, ratio 0.50; an epoch of 2 batches takes at least 0.4 s"]
    assert len(lines) == 3


@pytest.mark.parametrize(("codec", "threads", "speed", "words", "not_words"), [
    ("int8", 4, Speed(disk=PACE), ["int8 is the limit", "dequantize to device", "float16"],
     ["num_workers"]),
    ("int8", 2, Speed(disk=PACE), ["num_workers", "for 4"], []),
    ("float16", 4, Speed(memory=PACE), ["float16 is the limit", "to device"], ["num_workers"]),
    ("float32", 4, Speed(unknown=PACE), ["float32 is the limit", "faster processors"], ["device"]),
    ("int8", 4, Speed(disk=Pace(1, 1, 1.0, 0.9), memory=PACE), ["the disk is the limit"], ["int8"]),
    ("int8", 4, Speed(memory=Pace(1, 1, 1.0, 0.9)), ["nothing to change"], ["disk"]),
])
def test_advice(monkeypatch, codec, threads, speed, words, not_words):
    monkeypatch.setattr(bench_io, "choose_num_threads", lambda: 4)
    advice = advise(load_config(), codec, threads, speed)
    assert all(word in advice for word in words) and "\n" not in advice
    assert not any(word in advice for word in not_words)


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_the_verb(lap, feats, num_workers):
    done = lap("bench-io", feats, "--seconds", "0.01", "--num_workers", num_workers, "--device",
               "cpu", *(word for item in SETTINGS for word in ("--set", item)))
    assert done.code == 0, done.err
    first, *paces, _ = done.out.splitlines()
    assert first.endswith(f"batches of 8, {max(1, num_workers)} thread{'s' * (num_workers > 1)}")
    assert paces
    for pace in paces:
        utts, batches, epoch = map(float, re.fullmatch(
            r"from .*?: (\d+) utterances/s, ([\d.]+) batches/s, \d+ MB/s; os\.pread of the same "
            r"bytes \d+ MB/s, ratio [\d.]+; an epoch of 2 batches takes at least ([\d.]+) s",
            pace).groups())
        assert utts == pytest.approx(8 * batches, abs=1) and epoch == pytest.approx(
            2 / batches, abs=0.06)


@pytest.mark.parametrize(("options", "message"), [
    (("--set", "train.crop_seconds=9"), "train.crop_seconds 9 is 450 frames, longer than every "),
    (("--seconds", "0"), "--seconds 0: want more than 0"),
    (("--seconds", "nan"), "--seconds nan: want more than 0"),
    (("--set", "train.dequantize=device"), "stored as int8 or float16, these are float32"),
    (("--num_workers", "-1"), "train.num_workers"),
    (("--set", "train.batch_size=0"), "train.batch_size"),
])
def test_what_cannot_be_measured(lap, feats, options, message):
    done = lap("bench-io", feats, *options)
    assert (done.code, done.out) == (1, "") and message in done.err
    assert "Traceback" not in done.err


def test_no_store_and_stores_that_will_not_do(lap, feats, tmp_path):
    done = lap("bench-io", tmp_path / "nowhere")
    assert done.code == 1 and "feats.json: no such file, so" in done.err
    with FeatureWriter(tmp_path / "empty", IDENTITY, "int8"):
        pass
    done = lap("bench-io", tmp_path / "empty")
    assert done.code == 1 and "empty: the store is empty; run stage 2" in done.err
    with FeatureWriter(tmp_path / "bare", {"num_layers": 1, "dim": 2}, "int8") as writer:
        writer.write("a", np.ones((3, 1, 2)))
    done = lap("bench-io", tmp_path / "bare")
    assert done.code == 1 and "bare/feats.json: no sample_rate, so that seconds" in done.err
    ark = feats / "feats.00000.ark"
    ark.write_bytes(ark.read_bytes()[:-3000])
    done = lap("bench-io", feats, *(word for item in SETTINGS for word in ("--set", item)))
    assert done.code == 1 and "cut short in the middle of u" in done.err
