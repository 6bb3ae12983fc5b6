"""Bad input, item by item, through the command line: one clear message that names the file, line or
id and says what to do, a failing exit code or a listed reject, and nothing half-written."""

import json
import os
import shutil

import kaldiio
import numpy as np
import pytest
import soundfile
from checks import assert_refused, snapshot

from wespeaker_lap.data.datadir import load_data_dir, write_data_dir
from wespeaker_lap.data.trials import read_trials
from wespeaker_lap.io.audio import read_audio, write_wav
from wespeaker_lap.io.feats import FeatureStore
from wespeaker_lap.io.table import read_table, write_text
from wespeaker_lap.io.vectors import read_vectors
from wespeaker_lap.score.scorefile import read_scores

UTT = "б/1"  # the bad one


def add(data, make, utt=UTT, speaker="б"):
    """Add an utterance to a set; `make` writes its file."""
    path = data / "wav" / "bad.wav"
    make(path)
    loaded = load_data_dir(data, with_durations=False)
    write_data_dir(data, {**loaded.wavs, utt: str(path)}, {**loaded.utt2spk, utt: speaker})
    return str(path)


def noise(seconds=0.6, rate=16000):
    return 0.1 * np.random.default_rng(1).standard_normal(round(seconds * rate)).clip(-3, 3)


@pytest.mark.parametrize(("make", "reason"), [
    (lambda path: path.touch(), "not readable as audio"),
    (lambda path: soundfile.write(path, np.zeros(0), 16000), "the file has a header and no sa"),
    (lambda path: write_wav(path, np.zeros(16000)), "silent (no sample above -80 dBFS)"),
    (lambda path: write_wav(path, noise(0.04)), "too short (0.040 s, want at least 0.1 s)"),
    (lambda path: soundfile.write(path, 1e30 * np.ones(8000), 16000, subtype="FLOAT"),
     "far too loud (its peak is 1e+30 times full scale; "),
    (lambda path: None, "no such file"),
], ids=["empty file", "header only", "silence", "shorter than a window", "absurd", "missing"])
def test_a_recording_that_cannot_be_used_is_a_listed_reject(lap, data, make, reason):
    path = add(data, make)
    before = snapshot(data)
    # One of nine is more than the 5 % that are put up with.
    done = lap("audit-data", data)
    assert_refused(done, f"{data}: 1 of 9 recordings cannot be used, more than 5%",
                   f"see {data}/rejects.tsv", "mend them or raise --max_reject_share")
    rejects = (data / "rejects.tsv").read_text(encoding="utf-8")
    assert rejects.startswith(f"{UTT}\t{path}\t{reason}") and rejects.count("\n") == 1
    assert snapshot(data) == {**before, "rejects.tsv": rejects.encode()}
    # Put up with, it is left out of all that follows.
    done = lap("audit-data", data, "--max_reject_share", "0.2")
    assert done.code == 0 and "8 utterances" in done.log and "1 rejected" in done.log
    loaded = load_data_dir(data)
    assert UTT not in loaded.wavs and len(loaded.wavs) == 8 == len(loaded.durations)
    assert (data / "rejects.tsv").read_text(encoding="utf-8") == rejects


@pytest.mark.parametrize(("make", "note"), [
    (lambda path: soundfile.write(path, noise(0.6, 44100), 44100), "resampled from 44100 Hz"),
    (lambda path: soundfile.write(path, np.stack([noise(), 0 * noise()], 1), 16000),
     "2 channels averaged to one"),
], ids=["wrong sample rate", "stereo"])
def test_a_recording_of_another_form_is_converted_and_noted(lap, data, make, note):
    path = add(data, make)
    done = lap("audit-data", data)
    assert done.code == 0 and f"note: 1 x {note}" in done.log
    assert load_data_dir(data).durations[UTT] == pytest.approx(0.6, abs=1e-3)
    if note.startswith("2 channels"):
        np.testing.assert_allclose(read_audio(path), noise() / 2, atol=1e-4)
    done = lap("extract-feats", data, "--out", data / "feats", "--device", "cpu")
    assert done.code == 0 and FeatureStore(data / "feats").num_frames(UTT) == 28


def test_an_utterance_shorter_than_a_window_is_named_when_no_audit_has_rejected_it(lap, data):
    add(data, lambda path: write_wav(path, noise(0.02)))
    assert lap("audit-data", data, "--min_seconds", "0.001").code == 0
    done = lap("extract-feats", data, "--out", data / "feats", "--device", "cpu")
    assert_refused(done, f"{UTT}: 320 samples are too few for the encoder",
                   "audit the data with a larger --min_seconds")
    assert [path.name for path in (data / "feats").iterdir()] == ["feats.json"]


def test_ids_that_are_not_ascii_work_throughout(tiny_system):
    utts = list(load_data_dir(tiny_system.data("test")).wavs)
    assert "语/录音-0" in utts
    assert read_table(tiny_system.data("test") / "utt2spk")["语/录音-0"] == "语"
    spk2utt = read_table(tiny_system.data("test") / "spk2utt")
    assert spk2utt["语"].split() == [utt for utt in utts if utt.startswith("语")]
    assert list(FeatureStore(tiny_system.feats("test"))) == utts
    embeddings = tiny_system.exp_dir / "embeddings" / "test" / "xvector.scp"
    assert read_vectors(embeddings)[0] == utts
    for table in (tiny_system.feats("test") / "feats.scp", embeddings):
        assert list(kaldiio.load_scp(str(table))) == utts
    trials, _ = read_scores(tiny_system.exp_dir / "scores" / "pairs.score")
    assert {*trials.enroll, *trials.test} == set(utts)
    assert (tiny_system.exp_dir / "speakers.txt").read_text(encoding="utf-8") == "a\nb\nc\né\n"


@pytest.mark.parametrize("table", ["wav.scp", "utt2spk"])
def test_duplicate_ids(lap, data, table):
    first = (data / table).read_text(encoding="utf-8").splitlines()[0]
    with open(data / table, "a", encoding="utf-8") as file:
        file.write(f"{first}\n")
    before = snapshot(data)
    assert_refused(lap("audit-data", data), f"{data}/{table}:9: 'a/录音-0' stands twice",
                   "remove one of the lines")
    assert snapshot(data) == before


def test_tables_that_begin_with_a_byte_order_mark(lap, data):
    utts = set(load_data_dir(data).wavs)
    for table in ("wav.scp", "utt2spk", "spk2utt"):
        (data / table).write_bytes(b"\xef\xbb\xbf" + (data / table).read_bytes())
    assert lap("audit-data", data).code == 0
    loaded = load_data_dir(data)
    assert loaded.wavs.keys() == loaded.utt2spk.keys() == loaded.durations.keys() == utts


def test_a_recording_given_twice(lap, tiny_system, tmp_path):
    path = next(iter(load_data_dir(tiny_system.data("test")).wavs.values()))
    done = lap("embed", tiny_system.exp_dir, path, path, "--out", tmp_path / "new")
    assert_refused(done, f"recordings that stand twice: {path}; give each once")
    assert not (tmp_path / "new").exists()


def test_an_utterance_without_a_speaker(lap, data):
    with open(data / "wav.scp", "a", encoding="utf-8") as file:
        file.write(f"{UTT} x.wav\n")
    before = snapshot(data)
    for verb in (("audit-data",), ("make-trials", "--out", data / "x"),
                 ("extract-feats", "--out", data / "feats")):
        assert_refused(lap(*verb, data), f"{data}/utt2spk: no speaker for {UTT}")
    assert snapshot(data) == before


def test_a_speaker_with_one_utterance_is_noted_and_trials_are_made(lap, data):
    add(data, lambda path: write_wav(path, noise()))
    done = lap("audit-data", data)
    assert "1 speakers with a single utterance, so without a target trial (б)" in done.log
    assert lap("make-trials", data, "--out", data / "list").code == 0
    trials = read_trials(data / "list")
    assert trials.num_target == 12 == trials.num_nontarget
    rows = zip(trials.enroll, trials.test, trials.labels, strict=True)
    assert any(UTT in row for row in rows)
    assert not any(label and UTT in pair for *pair, label in
                   zip(trials.enroll, trials.test, trials.labels, strict=True))


def test_only_speakers_with_one_utterance(lap, data):
    loaded = load_data_dir(data)
    wavs = {utt: path for utt, path in loaded.wavs.items() if utt.endswith("-0")}
    write_data_dir(data, wavs, {utt: loaded.utt2spk[utt] for utt in wavs})
    assert_refused(lap("make-trials", data, "--out", data / "list"),
                   "no target pair: every speaker has one utterance; add utterances")
    assert not (data / "list").exists()


def test_a_trial_with_an_unknown_id(lap, tiny_system, copied, tmp_path):
    trials = tiny_system.trials.read_text(encoding="utf-8") + f"x/录音-0 {UTT} nontarget\n"
    write_text(tmp_path / "new.kaldi", trials)
    before = snapshot(copied)
    score = ("score", copied, tiny_system.data("test"), "--trials", tmp_path / "new.kaldi")
    done = lap(*score)
    assert_refused(done, f"1 utterances in 1 of 37 trials have no embedding: {UTT}; extract them")
    assert snapshot(copied) == before
    done = lap(*score, "--missing", "skip")
    assert done.code == 0 and "36 trials (18 target), coverage 97.30 %" in done.log
    row = json.loads((copied / "scores" / "new.json").read_text())
    assert row["num_trials"] == 36 and row["coverage"] == pytest.approx(36 / 37)


@pytest.mark.parametrize("line", ["x y", "x y maybe", "x y target z"])
def test_a_broken_line_of_a_trial_list(lap, tiny_system, copied, tmp_path, line):
    write_text(tmp_path / "new.kaldi", f"x/录音-0 x/录音-1 target\n{line}\n")
    done = lap("score", copied, tiny_system.data("test"), "--trials", tmp_path / "new.kaldi")
    assert_refused(done, f"{tmp_path}/new.kaldi:2: ", "expected", repr(line))


def test_an_empty_set(lap, tiny_system, copied, tmp_path):
    for name in ("wav.scp", "utt2spk", "list.kaldi"):
        write_text(tmp_path / "empty" / name, "")
    empty = tmp_path / "empty"
    before = snapshot(empty), snapshot(copied)
    for args in (("audit-data", empty), ("make-trials", empty, "--out", empty / "list"),
                 ("extract-feats", empty, "--out", empty / "feats"),
                 ("extract-embeddings", copied, empty, "--feats", tiny_system.feats("test")),
                 ("train", "--data", empty, "--feats", tiny_system.feats("train"), "--exp_dir",
                  empty / "exp")):
        assert_refused(lap(*args), f"{empty}/wav.scp: the set is empty")
    done = lap("score", copied, tiny_system.data("test"), "--trials", empty / "list.kaldi")
    assert_refused(done, f"{empty}/list.kaldi: the file is empty; expected lines of 'enroll test")
    done = lap("norm-scores", copied, tiny_system.data("test"), "--trials", tiny_system.trials,
               "--cohort", empty)
    assert_refused(done, f"{empty}/wav.scp: the set is empty")
    assert (snapshot(empty), snapshot(copied)) == before


def test_a_truncated_ark_of_features(lap, tiny_system, copied, tmp_path):
    feats = shutil.copytree(tiny_system.feats("test"), tmp_path / "feats")
    ark = feats / "feats.00000.ark"
    os.truncate(ark, ark.stat().st_size - 1)
    shutil.rmtree(copied / "embeddings" / "test")
    done = lap("extract-embeddings", copied, tiny_system.data("test"), "--feats", feats,
               "--device", "cpu")
    assert_refused(done, f"{ark}: cut short in the middle of ",
                   f"mend it with 'wespeaker-lap verify-feats {feats} --repair --data DATA'")
    assert not (copied / "embeddings" / "test").exists()
    done = lap("verify-feats", feats)
    assert done.code == 1 and "1 findings; mend it with" in done.out and str(ark) in done.out
    done = lap("verify-feats", feats, "--repair")
    assert_refused(done, "--repair and --data go together; give both or neither")
    done = lap("verify-feats", feats, "--repair", "--data", tiny_system.data("test"), "--device",
               "cpu")
    assert done.code == 0 and f"{feats}: 1 findings, repaired" in done.out
    assert ark.read_bytes() == (tiny_system.feats("test") / ark.name).read_bytes()
    done = lap("verify-feats", feats)
    assert (done.code, done.out) == (0, f"{feats}: all as it was written\n")


def test_a_truncated_ark_of_embeddings(lap, tiny_system, copied):
    ark = copied / "embeddings" / "test" / "xvector.ark"
    os.truncate(ark, ark.stat().st_size - 3)
    shutil.rmtree(copied / "scores")
    done = lap("score", copied, tiny_system.data("test"), "--trials", tiny_system.trials)
    assert_refused(done, f"{ark}: cut short in the middle of 语/录音-3; write it again")
    assert not (copied / "scores").exists()


@pytest.mark.parametrize("verb", ["show-config", "extract-feats", "train"])
def test_a_typo_in_the_configuration(lap, tiny_system, tmp_path, verb):
    write_text(tmp_path / "a.yaml", "train: {epoch: 3}\nfeaturs: {codec: float16}\n")
    args = {"show-config": (),
            "extract-feats": (tiny_system.data("test"), "--out", tmp_path / "new"),
            "train": ("--data", tiny_system.data("train"), "--feats", tiny_system.feats("train"),
                      "--exp_dir", tmp_path / "new")}[verb]
    done = lap(verb, *args, "--config", tmp_path / "a.yaml")
    assert (done.code, done.out) == (1, "")
    assert done.err == (f"error: {tmp_path}/a.yaml: 2 mistake(s)\n"
                        f"  train.epoch: unknown key; did you mean 'epochs'?\n"
                        f"  featurs: unknown key; did you mean 'features'?\n")
    assert not (tmp_path / "new").exists()
