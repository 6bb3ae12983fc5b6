"""make-data: a folder of recordings to data directories, and what forbids it."""

import shutil
import subprocess
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import soundfile
from checks import assert_refused, snapshot

from wespeaker_lap.data import convert
from wespeaker_lap.data.audit import audit_data_dir
from wespeaker_lap.data.datadir import load_data_dir
from wespeaker_lap.data.trials import read_trials
from wespeaker_lap.io.audio import write_wav
from wespeaker_lap.share import corpus_page


def speak(path: Path, seed: int, seconds: float = 0.3, rate: int = 16000) -> Path:
    samples = 0.1 * np.random.default_rng(seed).uniform(-1, 1, round(seconds * rate))
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".wav":
        write_wav(path, samples, rate)
    else:
        soundfile.write(path, samples, rate)
    return path


@pytest.fixture(autouse=True)
def without_plots(monkeypatch):
    """They take most of the time, and tests/share looks at them."""
    monkeypatch.setattr(corpus_page, "plot_corpus", lambda corpus: {})


@pytest.fixture
def voices(tmp_path):
    """Ten speakers with three recordings each, and a table of genders."""
    root = tmp_path / "my voices"
    for n in range(10):
        for k in range(3):
            speak(root / f"s {n}" / f"{k}.{'flac' if k else 'wav'}", 10 * n + k, 0.2 + 0.1 * k)
    (root / "g.csv").write_text("speaker,gender\n" + "".join(
        f"s {n},{'fm'[n % 2]}\n" for n in range(10)))
    return root


@pytest.fixture
def make(lap, tmp_path, voices):
    def run(*options):
        return lap("make-data", "--wav_dir", voices, "--out", tmp_path / "data", *options)
    return run


def rejects(tmp_path):
    lines = (tmp_path / "data" / "rejects.tsv").read_text().splitlines()
    return {utt: (Path(path).name, reason) for utt, path, reason in
            (line.split("\t") for line in lines)}


def test_three_sets_and_their_trials(make, tmp_path, voices):
    before = snapshot(voices)
    done = make("--csv", voices / "g.csv", "--test", "4", "--nj", "2")
    assert (done.code, done.err) == (0, ""), done.err
    sets = {name: load_data_dir(tmp_path / "data" / name) for name in ("train", "valid", "test")}
    assert {name: len(data.speakers) for name, data in sets.items()} == {
        "train": 4, "valid": 2, "test": 4}
    assert not any(set(a.speakers) & set(b.speakers) for a, b in combinations(sets.values(), 2))
    every = {utt: path for data in sets.values() for utt, path in data.wavs.items()}
    assert len(every) == 30
    assert every["s_3-1"] == str(voices.resolve() / "s 3" / "1.flac")
    for data in sets.values():
        assert data.durations == pytest.approx(
            {utt: 0.2 + 0.1 * int(utt[-1]) for utt in data.wavs}, abs=1e-4)
        assert data.utt2spk == {utt: utt[:3] for utt in data.wavs}
        assert data.spk2gender == {speaker: "fm"[int(speaker[-1]) % 2] for speaker in data.speakers}
    trials = read_trials(tmp_path / "data" / "test" / "trials" / "test.kaldi")
    # four speakers with three pairs each, two of each gender
    assert (trials.num_target, trials.num_nontarget) == (12, 12)
    for a, b, target in zip(trials.enroll, trials.test, trials.labels, strict=True):
        assert (a[:3] == b[:3]) == target and int(a[2]) % 2 == int(b[2]) % 2
    assert not (tmp_path / "data" / "rejects.tsv").exists()
    assert snapshot(voices) == before


def test_an_audit_finds_nothing_more(make, tmp_path):
    assert make().code == 0
    before = snapshot(tmp_path / "data" / "train")
    audit = audit_data_dir(tmp_path / "data" / "train")
    assert audit.rejects == {} and snapshot(tmp_path / "data" / "train") == before


def test_a_second_call_gives_the_same_and_another_seed_another_split(make, tmp_path):
    assert make().code == 0
    first = snapshot(tmp_path / "data")
    assert make().code == 0
    assert snapshot(tmp_path / "data") == first
    assert make("--seed", "1").code == 0
    assert snapshot(tmp_path / "data")["test/utt2spk"] != first["test/utt2spk"]


def test_the_number_of_trials_has_a_limit(make, tmp_path):
    assert make("--max_target", "2").code == 0
    trials = read_trials(tmp_path / "data" / "test" / "trials" / "test.kaldi")
    assert (trials.num_target, trials.num_nontarget) == (2, 2)


def test_one_speaker_of_each_gender_is_paired_all_the_same(make, tmp_path, voices):
    (voices / "g.csv").write_text("speaker,gender\n" + "".join(
        f"s {n},{'f' if n < 5 else 'm'}\n" for n in range(10)))
    done = make("--csv", voices / "g.csv", "--test", "2", "--valid", "0")
    assert done.code == 0
    genders = load_data_dir(tmp_path / "data" / "test").spk2gender
    assert sorted(genders.values()) == ["f", "m"]  # in proportion
    assert "test: no two speakers of one gender" in done.log
    assert not (tmp_path / "data" / "valid").exists()


def test_copies_of_one_speaker_are_left_out(make, tmp_path, voices):
    shutil.copy(voices / "s 1" / "0.wav", voices / "s 1" / "again.wav")
    sound, _ = soundfile.read(voices / "s 1" / "0.wav", dtype="int16")
    soundfile.write(voices / "s 1" / "b.flac", sound, 16000)
    assert make().code == 0
    reason = "the same sound as one that is kept (s 1/0.wav)"
    assert rejects(tmp_path) == {"s_1-again": ("again.wav", reason), "s_1-b": ("b.flac", reason)}
    kept = {utt for name in ("train", "valid", "test")
            for utt in load_data_dir(tmp_path / "data" / name).wavs}
    assert len(kept) == 30 and "s_1-0" in kept


def test_one_sound_under_two_speakers_is_an_error(make, tmp_path, voices):
    shutil.copy(voices / "s 1" / "0.wav", voices / "s 2" / "stolen.wav")
    assert_refused(make(), "2 recordings with the same sound under several speakers: s 1/0.wav, "
                           "s 2/stolen.wav", "--shared_sound drop")
    assert {path.name for path in (tmp_path / "data").iterdir()} == {
        "audit.html", "audit.md", "measured.jsonl", "rejects.tsv"}
    assert "**error**: 2 recordings with the same" in (tmp_path / "data/audit.md").read_text()
    done = make("--shared_sound", "drop")
    assert done.code == 0 and "warning: 2 recordings with the same sound" in done.log
    reason = "the same sound under several speakers (s_1, s_2)"
    assert rejects(tmp_path) == {"s_1-0": ("0.wav", reason),
                                 "s_2-stolen": ("stolen.wav", reason)}


def test_what_cannot_be_used(make, tmp_path, voices):
    (voices / "s 1" / "broken.wav").write_bytes(b"RIFF")
    write_wav(voices / "s 1" / "silent.wav", np.zeros(8000))
    speak(voices / "short.wav", 1, 0.01)
    speak(voices / "alone.wav", 1)
    speak(voices / "s 1" / "two\n\tlines.wav", 1)
    assert_refused(make(), "2 of 32 recordings cannot be used, more than 5%", "rejects.tsv",
                   "--max_reject_share")
    done = make("--max_reject_share", "0.1")
    assert done.code == 0
    found = rejects(tmp_path)
    assert {utt: reason.split(" (")[0] for utt, (_, reason) in found.items()} == {
        "s_1-broken": "not readable as audio", "s_1-silent": "silent",
        "short": "lies in no speaker's folder", "alone": "lies in no speaker's folder",
        "-": "a line break in the file name; rename it"}
    assert found["-"][0] == r"two\n\tlines.wav"
    assert "warning: 2 recordings left out: lies in no speaker's folder" in done.log


def test_what_an_interrupted_conversion_left_does_not_stand_in_the_way(make, tmp_path, voices):
    (voices / "s 1" / "1.wav").touch()  # beside 1.flac
    assert make().code == 0
    (utt, (name, reason)), = rejects(tmp_path).items()
    assert (utt, name) == ("-", "1.wav") and reason.startswith("not readable as audio")
    kept = {utt: path for name in ("train", "valid", "test")
            for utt, path in load_data_dir(tmp_path / "data" / name).wavs.items()}
    assert len(kept) == 30 and kept["s_1-1"] == str(voices.resolve() / "s 1" / "1.flac")


def test_what_sounds_odd_is_told(make, voices):
    write_wav(voices / "s 1" / "loud.wav", np.sign(np.sin(np.arange(16000) / 9)))
    half = 0.1 * np.random.default_rng(5).uniform(-1, 1, 16000)
    half[4000:] = 0
    write_wav(voices / "s 1" / "half.wav", half)
    speak(voices / "s 1" / "phone.wav", 77, rate=8000)
    soundfile.write(voices / "s 1" / "two.wav", np.random.default_rng(6).uniform(
        -0.1, 0.1, (8000, 2)), 16000)
    speak(voices / "lonely" / "1.wav", 99)
    done = make()
    assert done.code == 0
    for text in ("1 recording with more than 0.1% of the samples clipped: s_1-loud",
                 "1 recording of more than half silence: s_1-half",
                 "1 recording made at less than 16000 Hz, so with nothing above half their rate: "
                 "s_1-phone", "different sample rates (34 x 16000 Hz, 1 x 8000 Hz)",
                 "1 speaker with a single utterance, used for training alone: lonely",
                 "note: 1 recording of several channels", "in place of blanks in 34 paths",
                 "passed over: 1 x .csv"):
        assert text in done.log, text


def test_formats_that_are_converted(make, tmp_path, voices, monkeypatch):
    ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    for n in range(3):
        wav, m4a = voices / f"s {n}" / "0.wav", voices / f"s {n}" / "0.m4a"
        subprocess.run([ffmpeg, "-v", "error", "-i", wav, m4a], check=True)
        wav.unlink()
    with monkeypatch.context() as patch:
        def nowhere():
            raise FileNotFoundError("ffmpeg is not there")
        patch.setattr(convert, "find_ffmpeg", nowhere)
        assert_refused(make(), "3 of 30 recordings cannot be used")
        assert rejects(tmp_path)["s_0-0"] == ("0.m4a", "not converted (ffmpeg is not there)")
    done = make("--valid", "0", "--test", "0")
    assert done.code == 0 and "3 recordings converted to wav with ffmpeg" in done.log
    data = load_data_dir(tmp_path / "data" / "train")
    path = Path(data.wavs["s_0-0"])
    assert path.parent == (tmp_path / "data" / "converted").resolve()
    assert soundfile.info(path).samplerate == 16000
    assert data.durations["s_0-0"] == pytest.approx(0.2, abs=0.1)  # m4a pads
    assert not (tmp_path / "data" / "rejects.tsv").exists()


@pytest.mark.parametrize(("options", "parts"), [
    (("--valid", "5", "--test", "5"), ("10 speakers", "too few to hold 5 (valid) and 5 (test)")),
    (("--test", "1"), ("--test 1: want a number",)),
    (("--spk_from", "csv"), ("needs --csv FILE",)),
    (("--shared_sound", "ignore"), ("--shared_sound ignore: want error or drop",)),
])
def test_wrong_wishes(make, tmp_path, options, parts):
    assert_refused(make(*options), *parts)
    assert not (tmp_path / "data" / "train").exists()


def test_folders_that_would_be_mixed(lap, make, tmp_path, voices):
    before = snapshot(voices)
    assert_refused(lap("make-data", "--wav_dir", voices, "--out", voices / "data"),
                   "lies in --wav_dir, where nothing is written")
    assert snapshot(voices) == before
    shutil.copytree(voices, tmp_path / "out" / "train" / "wav")
    assert_refused(lap("make-data", "--wav_dir", tmp_path / "out" / "train" / "wav", "--out",
                       tmp_path / "out"), "which is written; choose another --out")
    assert make().code == 0
    assert_refused(make("--valid", "0"), "data/valid is of an earlier call")
