"""Stages 5 and 6 on a small system: score files and metrics against loops over the trials."""

import gzip
import json
import shutil

import numpy as np
import pytest

from wespeaker_lap.data.datadir import load_data_dir
from wespeaker_lap.data.trials import read_trials, trials_hash
from wespeaker_lap.io.table import write_text
from wespeaker_lap.io.vectors import read_vectors
from wespeaker_lap.io.weights import note_weights
from wespeaker_lap.score.metrics import eer, min_dcf
from wespeaker_lap.score.scorefile import read_scores
from wespeaker_lap.score.stages import ScoringJob, normalise_trials, score_trials


@pytest.fixture
def exp_dir(tiny_system, tmp_path):
    copied = shutil.copytree(tiny_system.exp_dir, tmp_path / "exp")
    shutil.rmtree(copied / "scores")
    return copied


def make_job(tiny_system, exp_dir, mean_set="train", **changes):
    return ScoringJob(exp_dir, tiny_system.data("test"), tiny_system.trials, mean_set, **changes)


def cosine(a, b):
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def load(exp_dir, name, mean=True):
    """Utterance -> embedding in float64."""
    utts, vectors = read_vectors(exp_dir / "embeddings" / name / "xvector.scp")
    train = read_vectors(exp_dir / "embeddings" / "train" / "xvector.scp")[1].astype(np.float64)
    return dict(zip(utts, vectors.astype(np.float64) - mean * train.mean(axis=0), strict=True))


@pytest.mark.parametrize("mean_set", ["train", None])
def test_cosine_scores_by_hand(tiny_system, exp_dir, mean_set):
    row = score_trials(make_job(tiny_system, exp_dir, mean_set))
    trials, scores = read_scores(exp_dir / "scores" / "pairs.score")
    emb = load(exp_dir, "test", mean=mean_set is not None)
    expected = [cosine(emb[a], emb[b]) for a, b in zip(trials.enroll, trials.test, strict=True)]
    np.testing.assert_allclose(scores, expected, atol=2e-5)  # five decimals
    assert trials.enroll == read_trials(tiny_system.trials).enroll
    # The metrics are those of the numbers in the file, so that anyone gets them from it.
    assert row.eer == 100 * eer(scores, trials.labels)
    assert row.min_dcf == min_dcf(scores, trials.labels, 0.01)
    assert (row.norm, row.trials, row.cohort, row.coverage) == ("none", "pairs", None, 1)
    assert row.trials_sha256 == trials_hash(tiny_system.trials)
    facts = json.loads((exp_dir / "scores" / "pairs.json").read_text())
    assert facts["eer"] == row.eer and facts["mean_set"] == mean_set
    assert facts["score_file"] == "pairs.score"


@pytest.mark.parametrize("stage", [
    score_trials, lambda job: normalise_trials(job, job.data_dir.parent / "train", "asnorm", 3)])
def test_repeated_trials_and_those_of_one_utterance_are_told(tiny_system, exp_dir, tmp_path,
                                                             caplog, stage):
    path = tmp_path / "odd.kaldi"
    lines = tiny_system.trials.read_text(encoding="utf-8").splitlines()
    first, second, label = lines[0].split()
    # three repetitions, of which one is of an utterance with itself, as is the one it repeats
    odd = [lines[0], lines[1], f"{first} {first} target", f"{first} {first} target"]
    turned = f"{second} {first} {label}"
    assert turned not in lines  # the other way round it is no repetition
    write_text(path, "".join(f"{line}\n" for line in [*lines, *odd, turned]))
    job = ScoringJob(exp_dir, tiny_system.data("test"), path, "train")
    assert stage(job).num_trials == len(lines) + 5
    warning, = (record for record in caplog.records if record.levelname == "WARNING")
    assert warning.getMessage() == (f"{path}: 3 repeated trials, 2 of an utterance with itself; "
                                    f"all are scored, and count in the error rates")
    caplog.clear()
    stage(make_job(tiny_system, exp_dir))
    assert not caplog.records


@pytest.mark.parametrize(("method", "top_n"), [("asnorm", 3), ("asnorm", 2), ("snorm", 3)])
def test_normalised_scores_by_hand(tiny_system, exp_dir, method, top_n):
    job = make_job(tiny_system, exp_dir)
    row = normalise_trials(job, tiny_system.data("train"), method, top_n)
    used = 4 if method == "snorm" else top_n  # S-norm takes the whole cohort
    trials, scores = read_scores(exp_dir / "scores" / f"train_{method}{used}_pairs.score")
    assert (row.cohort, row.cohort_size, row.top_n, row.norm) == ("train", 4, used, method)
    emb, train = load(exp_dir, "test"), load(exp_dir, "train")
    utt2spk = load_data_dir(tiny_system.data("train")).utt2spk
    cohort = [np.mean([train[utt] for utt in train if utt2spk[utt] == spk], axis=0)
              for spk in "abcé"]

    def normalise(score, utt):
        best = sorted((cosine(emb[utt], mean) for mean in cohort), reverse=True)[:used]
        return (score - np.mean(best)) / np.std(best)

    for a, b, score in zip(trials.enroll, trials.test, scores, strict=True):
        raw = cosine(emb[a], emb[b])
        assert score == pytest.approx((normalise(raw, a) + normalise(raw, b)) / 2, rel=1e-3,
                                      abs=1e-3)
    assert row.eer == 100 * eer(scores, trials.labels)


def test_a_gzipped_list_has_the_same_name(tiny_system, exp_dir, tmp_path):
    path = tmp_path / "vox.kaldi.gz"
    path.write_bytes(gzip.compress(tiny_system.trials.read_bytes()))
    job = ScoringJob(exp_dir, tiny_system.data("test"), path, "train")
    assert score_trials(job).trials == "vox" and (exp_dir / "scores" / "vox.score").is_file()


def test_a_list_of_the_same_name_in_another_set_is_refused(tiny_system, exp_dir, tmp_path):
    score_trials(make_job(tiny_system, exp_dir))
    before = {path.name: path.read_bytes() for path in (exp_dir / "scores").iterdir()}
    other = shutil.copytree(tiny_system.data("test"), tmp_path / "other")
    shutil.copytree(exp_dir / "embeddings" / "test", exp_dir / "embeddings" / "other")
    message = r"pairs\.json: scores of a list of test, which has the same name as this one of other"
    with pytest.raises(ValueError, match=message):
        score_trials(ScoringJob(exp_dir, other, tiny_system.trials, "train"))
    assert {path.name: path.read_bytes() for path in (exp_dir / "scores").iterdir()} == before
    score_trials(make_job(tiny_system, exp_dir))


def test_a_rerun_overwrites(tiny_system, exp_dir):
    job = make_job(tiny_system, exp_dir)
    score_trials(job)
    before = {path.name: path.read_bytes() for path in (exp_dir / "scores").iterdir()}
    score_trials(job)
    assert {path.name: path.read_bytes() for path in (exp_dir / "scores").iterdir()} == before


def test_embeddings_of_different_weights_are_not_mixed(tiny_system, exp_dir):
    weights = exp_dir / "models" / "epoch_001.safetensors"
    weights.write_bytes(b"others")
    note_weights(exp_dir / "embeddings" / "train", weights)
    message = r"train: embedded with epoch_001 .*cannot be compared with .*test: avg_model"
    with pytest.raises(ValueError, match=message):
        score_trials(make_job(tiny_system, exp_dir))
    with pytest.raises(ValueError, match=message):
        normalise_trials(make_job(tiny_system, exp_dir, None), tiny_system.data("train"), "asnorm",
                         3)
    assert not (exp_dir / "scores").exists()
    score_trials(make_job(tiny_system, exp_dir, None))


@pytest.mark.parametrize(("method", "top_n", "message"), [
    ("znorm", 3, "unknown normalisation 'znorm'; choose asnorm or snorm"),
    ("asnorm", 5, r"score\.top_n is 5 and the cohort .*train has 4 speakers; lower top_n"),
])
def test_what_cannot_be_normalised(tiny_system, exp_dir, method, top_n, message):
    with pytest.raises(ValueError, match=message):
        normalise_trials(make_job(tiny_system, exp_dir), tiny_system.data("train"), method, top_n)
    assert not (exp_dir / "scores").exists()


def test_a_cohort_must_not_hold_speakers_of_the_trials(tiny_system, exp_dir):
    with pytest.raises(ValueError, match="speakers of the trials are in the cohort: x, y, 语; cho"):
        normalise_trials(make_job(tiny_system, exp_dir), tiny_system.data("test"), "asnorm", 3)


def test_a_missing_mean_is_named(tiny_system, exp_dir):
    (exp_dir / "embeddings" / "train" / "mean_vec.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"mean_vec\.npy: no such file; embed train \(stage "
                                                r"4\), or set score\.subtract_mean=false"):
        score_trials(make_job(tiny_system, exp_dir))
    with pytest.raises(FileNotFoundError, match=r"embeddings/test/xvector\.scp: no such file"):
        shutil.rmtree(exp_dir / "embeddings" / "test")
        score_trials(make_job(tiny_system, exp_dir, mean_set=None))


def test_skipping_is_only_done_when_asked_for(tiny_system, exp_dir, tmp_path):
    write_text(tmp_path / "new.kaldi", tiny_system.trials.read_text() + "x/录音-0 ж target\n")
    job = ScoringJob(exp_dir, tiny_system.data("test"), tmp_path / "new.kaldi", "train", "skip")
    row = score_trials(job)
    assert (row.num_trials, row.coverage) == (36, 36 / 37)
    with pytest.raises(ValueError, match="want missing 'error' or 'skip', got 'maybe'"):
        score_trials(ScoringJob(exp_dir, job.data_dir, job.trials_path, "train", "maybe"))
