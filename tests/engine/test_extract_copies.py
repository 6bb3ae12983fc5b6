"""Copies in the pass that makes the clean features: what is stored, of what, in any order."""

import shutil
import signal
from collections import Counter
from types import SimpleNamespace

import numpy as np
import programs
import pytest
import soxr
import torch
from checks import assert_refused, snapshot
from tiny import write_voices

from wespeaker_lap.data.audit import audit_data_dir
from wespeaker_lap.data.augmenter import Augmenter
from wespeaker_lap.data.copies import parse_copies
from wespeaker_lap.data.copy_sources import CopySources, load_augmenter
from wespeaker_lap.data.datadir import DataDir, load_data_dir, write_data_dir
from wespeaker_lap.engine import entries, extract, repair
from wespeaker_lap.engine.entries import Entries
from wespeaker_lap.frontends.ssl import FrozenSSL
from wespeaker_lap.io.audio import read_audio, write_wav
from wespeaker_lap.io.feats import FeatureStore
from wespeaker_lap.io.table import read_table, write_table

SHARD_BYTES = 1_500_000  # the copies of two or three utterances
COPIES = parse_copies(programs.ALL_COPIES)


@pytest.fixture(scope="module")
def frontend():
    return FrozenSSL.load("wavlm_tiny")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = write_voices(tmp_path_factory.mktemp("data") / "set", "abé语", 2)
    audit_data_dir(path)
    return load_data_dir(path)


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Three noises and two rooms; paths relative to the folder."""
    folder, rng = tmp_path_factory.mktemp("tables"), np.random.default_rng(0)
    for n in range(3):
        write_wav(folder / f"noise{n}.wav", 0.1 * rng.standard_normal(16000))
    for n in range(2):
        write_wav(folder / f"rir{n}.wav", rng.standard_normal(800) * 0.99 ** np.arange(800) / 5)
    write_table(folder / "noise.scp", {f"n{n}": f"noise{n}.wav" for n in range(3)})
    write_table(folder / "rir.scp", {f"r{n}": f"rir{n}.wav" for n in range(2)})
    return folder


@pytest.fixture(scope="module")
def augmenter(data, tables):
    return load_augmenter(COPIES, 3, data, programs.find_sources(tables))


@pytest.fixture(scope="module")
def whole(launcher, data, tables, tmp_path_factory):
    """Written by one process that nothing disturbed."""
    directory = tmp_path_factory.mktemp("whole") / "feats"
    code, log = launcher.function("extract_set", data.path, directory, SHARD_BYTES, tables)
    assert code == 0, log
    return directory


def files_as(directory, whole):
    """The files of the whole store as they must be in another folder."""
    return {name: content.replace(str(whole).encode(), str(directory).encode())
            for name, content in snapshot(whole).items()}


def assert_near(feats, expected):
    """Equal but for float16 and the batch."""
    np.testing.assert_allclose(feats, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_every_copy_is_stored_beside_the_clean_one(frontend, data, tables, whole):
    """Each is that of an augmenter whose tables are written out by hand, encoded alone."""
    by_hand = Augmenter(COPIES, 3, {f"n{n}": str(tables / f"noise{n}.wav") for n in range(3)},
                        {f"r{n}": str(tables / f"rir{n}.wav") for n in range(2)}, data.wavs,
                        data.utt2spk)
    store, expected = FeatureStore(whole), {}
    for utt, path in data.wavs.items():
        wave = read_audio(path)
        waves = {utt: wave, f"sp0.9-{utt}": soxr.resample(wave, 0.9, 1, quality="HQ"),
                 f"sp1.1-{utt}": soxr.resample(wave, 1.1, 1, quality="HQ")}
        for copy in COPIES[1:4]:
            waves[f"{copy.name}-{utt}"] = by_hand.apply(copy, utt, wave)
        expected |= waves
    assert sorted(store) == sorted(expected)
    for name, wave in expected.items():
        assert_near(store[name], frontend.encode(torch.from_numpy(wave)).numpy())
    utt = min(data.wavs)
    for name in ("noise", "reverb", "babble"):  # and they differ by more than rounding
        assert np.abs(store[f"{name}-{utt}"] - store[utt]).max() > 0.1


def test_a_recording_is_decoded_once(frontend, data, augmenter, tmp_path, monkeypatch):
    count = Counter()

    def read(path, rate):
        count[path] += 1
        return read_audio(path, rate)

    monkeypatch.setattr(entries, "read_audio", read)
    extract.extract_feats(frontend, data, tmp_path / "feats", "float16", programs.ALONE, None,
                          augmenter)
    assert count == dict.fromkeys(data.wavs.values(), 1)


def test_all_copies_of_an_utterance_are_in_one_shard(data, whole):
    shards = [{utt.split("-", 1)[1] if utt not in data.wavs else utt for utt in read_table(path)}
              for path in sorted(whole.glob("feats.0*.scp"))]
    assert len(shards) >= 3
    assert sorted(utt for shard in shards for utt in shard) == sorted(data.wavs)


def test_two_processes_write_the_same_files(launcher, data, tables, whole, tmp_path):
    directory = tmp_path / "feats"
    done = launcher.function_by_two("extract_set", data.path, directory, SHARD_BYTES, tables)
    assert [code for code, _ in done] == [0, 0], done
    assert snapshot(directory) == files_as(directory, whole)


def test_killed_and_finished_by_two(launcher, data, tables, whole, tmp_path):
    arguments = "extract_set", data.path, tmp_path / "feats", SHARD_BYTES, tables
    died = {"module": "wespeaker_lap.io.feats", "function": "FeatureWriter.write", "call": 23,
            "what": "SIGKILL"}
    code, _ = launcher.function(*arguments, accident=died)
    assert code == -signal.SIGKILL
    assert 0 < len(list(arguments[2].glob("feats.0*.scp"))) < 3
    launcher.function_by_two(*arguments)
    assert snapshot(arguments[2]) == files_as(arguments[2], whole)


def test_a_repair_writes_the_same_bytes(frontend, data, tables, whole, tmp_path, monkeypatch,
                                        caplog):
    """Of a shard one pass is computed again, of another, whose index is gone, all."""
    monkeypatch.setattr(extract, "MIN_SHARD_BYTES", SHARD_BYTES)
    directory = shutil.copytree(whole, tmp_path / "feats")
    for path in directory.glob("*.scp"):
        path.write_bytes(files_as(directory, whole)[path.name])
    (directory / "feats.00001.idx").unlink()
    ark = bytearray((directory / "feats.00000.ark").read_bytes())
    ark[ark.index(b"babble-") + 5000] ^= 1
    (directory / "feats.00000.ark").write_bytes(ark)
    made, encode = [], entries.encode_batch
    monkeypatch.setattr(entries, "encode_batch",
                        lambda frontend, names, *rest: made.append(names) or encode(
                            frontend, names, *rest))
    assert len(repair.check_feats(directory)[0]) == 3
    with pytest.raises(ValueError, match=r"'noise' needs recordings .*--noise_scp"):
        repair.check_feats(directory, frontend, data, programs.ALONE)
    assert repair.check_feats(directory, frontend, data, programs.ALONE,
                              programs.find_sources(tables))[1] == 0
    assert snapshot(directory) == files_as(directory, whole)
    assert made[0][0].startswith("babble-") and len({name[:6] for name in made[0]}) == 1
    assert sum(map(len, made[1:])) == len(read_table(directory / "feats.00001.scp"))
    with pytest.raises(ValueError, match="another identity: augmentation is"):
        (tables / "more").mkdir(exist_ok=True)
        write_table(tables / "more" / "noise.scp", {"n0": "../noise0.wav"})
        repair.repair_feats(frontend, data, directory, programs.ALONE, CopySources(
            tables / "more" / "noise.scp", tables / "rir.scp"))


def test_batches_are_of_one_copy_and_of_bounded_length(frontend, augmenter):
    rng = np.random.default_rng(0)
    durations = {f"u{n:03d}": float(rng.uniform(0.5, 40.0)) for n in range(100)}
    data = DataDir("set", durations, dict.fromkeys(durations, "s"), {}, durations)
    made = Entries(frontend, data, None, augmenter)
    names = []
    for group in made.plan_groups(sorted(durations)):
        for part in made.plan_passes(group):
            names += part.ids
            assert set(part.utts) <= set(group)
            longest = max(durations[utt] for utt in part.utts) / part.copy.factor
            assert len(part.utts) == 1 or len(part.utts) * longest <= 30.0
    assert sorted(names) == made.ids(sorted(durations)) and len(names) == 600
    clean = Entries(frontend, data)
    assert [part.utts for part in clean.plan_all_passes(sorted(durations))] == clean.plan_groups(
        sorted(durations))


def test_the_estimate_is_what_is_written(frontend, data, whole):
    """To a frame for a speed copy, whose samples are as many as the resampler gives."""
    sizes = extract.estimate_bytes(frontend, data, "float16", None, COPIES)
    store, frame = FeatureStore(whole), 7 * 192 * 2
    for utt, seconds in data.durations.items():
        frames = [sum(store.num_frames(f"{tag}{utt}") for tag in tags) for tags in (
            ("", "noise-", "reverb-", "babble-"), ("sp0.9-", "sp1.1-"))]
        assert frames[0] == 4 * frontend.num_frames(round(16000 * seconds))
        assert abs(sizes[utt] - sum(frames) * frame) < 6 * 256 + 2 * frame
    assert sum(sizes.values()) > 5.9 * sum(extract.estimate_bytes(frontend, data,
                                                                  "float16").values())


def test_the_disk_must_hold_the_copies(frontend, data, augmenter, tmp_path, monkeypatch):
    clean = sum(extract.estimate_bytes(frontend, data, "float16").values())
    monkeypatch.setattr(extract.shutil, "disk_usage", lambda path: SimpleNamespace(free=5 * clean))
    with pytest.raises(OSError, match=r"or store less: .*copies"):
        extract.extract_feats(frontend, data, tmp_path, "float16", programs.ALONE, None, augmenter)


def test_the_identity_says_which_copies(frontend, data, augmenter, whole):
    assert Entries(frontend, data).identity()["augmentation"] == "clean"
    assert FeatureStore(whole).identity["augmentation"] == augmenter.identity()
    assert augmenter.identity()["copies"] == list(programs.ALL_COPIES)
    with pytest.raises(ValueError, match="another identity: augmentation is"):
        extract.extract_feats(frontend, data, whole, "float16", programs.ALONE)


def test_a_copy_that_is_too_short_is_named(frontend, tmp_path):
    write_wav(tmp_path / "a.wav", 0.1 * np.random.default_rng(0).standard_normal(750))
    write_data_dir(tmp_path / "set", {"a": str(tmp_path / "a.wav")}, {"a": "s"})
    write_table(tmp_path / "set" / "utt2dur", {"a": "0.0469"})
    data = load_data_dir(tmp_path / "set")
    copies = load_augmenter(parse_copies(["clean", "speed1.1"]), 0, data, CopySources())
    with pytest.raises(ValueError, match=r"^sp1\.1-a: 682 samples are too few"):
        extract.extract_feats(frontend, data, tmp_path / "feats", "float16", programs.ALONE, None,
                              copies)


def test_the_verb_makes_copies_of_a_training_set(lap, data, tables, tmp_path):
    words = ["--device", "cpu", "--set", "features.copies=[clean, noise, babble]", "--set",
             "features.copies_seed=4"]
    trained = [*words, "--training", "--noise_scp", tables / "noise.scp"]
    assert lap("extract-feats", data.path, "--out", tmp_path / "train", *trained).code == 0
    assert lap("extract-feats", data.path, "--out", tmp_path / "test", *words).code == 0
    store = FeatureStore(tmp_path / "train")
    assert len(store) == 3 * len(data.wavs) and store.identity["augmentation"]["seed"] == 4
    assert sorted(FeatureStore(tmp_path / "test")) == sorted(data.wavs)
    assert_refused(lap("extract-feats", data.path, "--out", tmp_path / "none", *words,
                       "--training"), "the copy 'noise' needs recordings", "--noise_scp")
    (tmp_path / "train" / "feats.00000.ark").write_bytes(b"")
    done = lap("verify-feats", tmp_path / "train", "--repair", "--data", data.path, "--device",
               "cpu", "--noise_scp", tables / "noise.scp")
    assert done.code == 0 and "repaired" in done.out
    done = lap("plan", data.path, "--training", data.path, *words[2:])
    assert done.code == 0 and "(of 3 copies)" in done.out
