"""Stage 7 on a small system: what is embedded, trained, refused and applied."""

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import programs
import pytest
import torch

from wespeaker_lap.config import load_config
from wespeaker_lap.data.datadir import load_data_dir
from wespeaker_lap.data.trials import Trials, write_trials
from wespeaker_lap.engine import calibrate, embed
from wespeaker_lap.engine.calibrate import CalibrationJob, train_calibration
from wespeaker_lap.io.facts import load_facts
from wespeaker_lap.io.feats import FeatureStore
from wespeaker_lap.io.table import write_text
from wespeaker_lap.io.vectors import read_vectors
from wespeaker_lap.score.asnorm import as_norm, speaker_means
from wespeaker_lap.score.calibration import load_calibration
from wespeaker_lap.score.cllr import cllr, min_cllr
from wespeaker_lap.score.scorefile import read_scores
from wespeaker_lap.score.stages import ScoringJob, calibrate_trials


@pytest.fixture(scope="module")
def system(tiny_system, tmp_path_factory):
    """The tiny system with a calibrated copy of its experiment."""
    copied = tmp_path_factory.mktemp("calibrated") / "exp"
    system = replace(tiny_system, exp_dir=shutil.copytree(tiny_system.exp_dir, copied))
    train(system)
    return system


def train(system, exp_dir=None, **changes):
    options = {"data_dir": system.data("train"), "feats": system.feats("train"),
               "cohort_dir": system.data("train"), "top_n": 2, "mean_set": "train",
               "crop_seconds": (0.2, 0.4), **changes}
    return train_calibration(exp_dir or system.exp_dir, CalibrationJob(**options), programs.ALONE)


@pytest.fixture
def exp_dir(system, tmp_path):
    """A copy, to be changed."""
    return shutil.copytree(system.exp_dir, tmp_path / "exp")


def make_job(system, exp_dir, **changes):
    return ScoringJob(**{"exp_dir": exp_dir, "data_dir": system.data("test"),
                         "trials_path": system.trials, "mean_set": "train", **changes})


def test_the_file_tells_what_it_was_trained_on(system, exp_dir):
    path = system.exp_dir / "calibration" / "train_asnorm2.json"
    facts = json.loads(path.read_text())["facts"]
    # 4 speakers of 4: 4 * 6 target pairs, and as many others.
    assert facts == {"set": "train", "cohort": "train", "top_n": 2, "mean_set": "train",
                     "weights": "avg_model", "num_trials": 48, "num_target": 24,
                     "crop_seconds": [0.2, 0.4], "seed": 0}
    before = path.read_bytes()
    assert train(system, exp_dir).read_bytes() == before  # the same every time
    assert train(system, exp_dir, seed=1).read_bytes() != before


@torch.no_grad()
def test_training_by_hand(system, exp_dir, monkeypatch):
    """The features that reach the regression, from the stored features on, trial by trial."""
    seen = {}

    def keep(plan, *args, **kwargs):
        seen["plan"] = plan
        return fit(plan, *args, **kwargs)

    def look(values, labels, names, **kwargs):
        seen.update(values=values, labels=labels)
        return regress(values, labels, names, **kwargs)

    fit, regress = calibrate._fit, calibrate.fit_calibration
    monkeypatch.setattr(calibrate, "_fit", keep)
    monkeypatch.setattr(calibrate, "fit_calibration", look)
    train(system, exp_dir)
    plan, store = seen["plan"], FeatureStore(system.feats("train"))
    config, facts = load_config(exp_dir / "config.yaml"), load_facts(exp_dir)
    net = embed.load_net(exp_dir, config, facts, "avg_model")
    assert {count for _, count in plan.spans.values()} >= {10, 20}  # of 50 frames a second
    raw = {utt: net(torch.from_numpy(store.read(utt)[start:start + count])[None])[0].numpy()
           for utt, (start, count) in plan.spans.items()}
    utts, whole = read_vectors(exp_dir / "embeddings" / "train" / "xvector.scp")
    mean = whole.astype(np.float64).mean(axis=0)
    utt2spk = load_data_dir(system.data("train")).utt2spk
    speakers, cohort = speaker_means(utts, whole - mean, utt2spk)
    assert np.array_equal(seen["labels"], plan.trials.labels)
    for a, b, row in zip(plan.trials.enroll, plan.trials.test, seen["values"], strict=True):
        x, y = raw[a] - mean, raw[b] - mean
        others = cohort[[speaker not in (utt2spk[a], utt2spk[b]) for speaker in speakers]]
        cosine = np.array([x @ y / np.sqrt((x @ x) * (y @ y))])
        zero, pair = np.array([0]), np.stack([x, y])
        normed = as_norm(cosine, pair, pair, zero, zero + 1, others, 2)[0]
        assert row[0] == pytest.approx(normed, rel=1e-2, abs=1e-2)  # deviations are small here
        sides = [(math.log(plan.spans[utt][1] / 50), np.abs(raw[utt]).sum(),
                  np.linalg.norm(raw[utt]), raw[utt].std()) for utt in (a, b)]
        want = [end(pair) for pair in zip(*sides, strict=True) for end in (min, max)]
        np.testing.assert_allclose(row[1:], want, rtol=1e-4, atol=1e-4)


def test_parts_of_utterances_are_embedded(system):
    store = FeatureStore(system.feats("train"))
    net = embed.open_examples(system.exp_dir, store.directory, programs.ALONE).net
    utts = [*store][:5]
    spans = {utt: (2 + n, 8 + n) for n, utt in enumerate(utts)}
    found = embed.embed_store(net, store, utts, programs.ALONE, spans=spans)
    with torch.no_grad():
        want = [net(torch.from_numpy(store[utt][start:start + count])[None])[0].numpy()
                for utt, (start, count) in spans.items()]
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)


def test_parts_of_recordings_are_those_of_their_features(system):
    """Utterances are computed whole and cut then, so a part is what a store has there."""
    data = load_data_dir(system.data("train"))
    stored, recorded = (embed.open_examples(system.exp_dir, examples, programs.ALONE)
                        for examples in (system.feats("train"), data))
    utts = sorted(data.wavs)
    assert [recorded.num_frames(utt) for utt in utts] == [stored.num_frames(utt) for utt in utts]
    spans = {utt: (2 + n, 8 + n) for n, utt in enumerate(utts[:5])}
    found, want = (one.embed([*spans], spans=spans) for one in (recorded, stored))
    np.testing.assert_allclose(found, want, rtol=1e-3, atol=1e-4)
    assert np.abs(found - recorded.embed([*spans])).max() > 1e-2


def test_calibration_from_recordings(system, exp_dir):
    """The same trials, the same parts, and nearly the same weights."""
    path = system.exp_dir / "calibration" / "train_asnorm2.json"
    from_store, from_waves = (json.loads(one.read_text())
                              for one in (path, train(system, exp_dir, feats=None)))
    assert from_waves["facts"] == from_store["facts"]
    assert from_waves["weights"] == pytest.approx(from_store["weights"], rel=0.05, abs=0.05)


def test_calibrated_scores_by_hand(system, exp_dir):
    row = calibrate_trials(make_job(system, exp_dir), system.data("train"), 2)
    trials, llrs = read_scores(exp_dir / "scores" / "train_asnorm2_qmf_pairs.score")
    assert (row.norm, row.cohort, row.cohort_size, row.top_n) == ("qmf", "train", 4, 2)
    assert row.cllr == cllr(llrs, trials.labels) and row.min_cllr == min_cllr(llrs, trials.labels)
    calibration = load_calibration(exp_dir / "calibration" / "train_asnorm2.json")
    weights = calibration.weights
    utts, raw = read_vectors(exp_dir / "embeddings" / "test" / "xvector.scp")
    mean = np.load(exp_dir / "embeddings" / "train" / "mean_vec.npy")
    names, whole = read_vectors(exp_dir / "embeddings" / "train" / "xvector.scp")
    _, cohort = speaker_means(names, whole - mean, load_data_dir(system.data("train")).utt2spk)
    seconds = load_data_dir(system.data("test")).durations
    rows, emb = {utt: n for n, utt in enumerate(utts)}, raw - mean
    for a, b, llr in zip(trials.enroll, trials.test, llrs, strict=True):
        x, y = rows[a], rows[b]
        cosine = np.array([emb[x] @ emb[y] / np.linalg.norm(emb[x]) / np.linalg.norm(emb[y])])
        normed = as_norm(cosine, emb, emb, np.array([x]), np.array([y]), cohort, 2)[0]
        want = calibration.bias + weights["asnorm"] * normed
        for name, (one, other) in {
                "log_seconds": (math.log(seconds[a]), math.log(seconds[b])),
                "l1_norm": (np.abs(raw[x]).sum(), np.abs(raw[y]).sum()),
                "l2_norm": (np.linalg.norm(raw[x]), np.linalg.norm(raw[y])),
                "std": (raw[x].std(), raw[y].std())}.items():
            want += weights[f"min_{name}"] * min(one, other)
            want += weights[f"max_{name}"] * max(one, other)
        assert llr == pytest.approx(want, rel=1e-3, abs=1e-3)
    facts = json.loads((exp_dir / "scores" / "train_asnorm2_qmf_pairs.json").read_text())
    assert facts["cllr"] == row.cllr and facts["score_file"] == "train_asnorm2_qmf_pairs.score"
    assert f"\nCllr = {row.cllr:.3f}\n" in (
        exp_dir / "scores" / "train_asnorm2_qmf_pairs.metrics").read_text()


# --- refusals -------------------------------------------------------------------------------------


def change_data(system, tmp_path, name, *, lacking):
    """A copy of a data directory without one of its files."""
    copied = shutil.copytree(system.data(name), tmp_path / name)
    (copied / lacking).unlink()
    return copied


def test_no_durations(system, exp_dir, tmp_path):
    job = make_job(system, exp_dir, data_dir=change_data(system, tmp_path, "test",
                                                         lacking="utt2dur"))
    with pytest.raises(ValueError, match="test: no utt2dur; run 'wespeaker-lap audit-data"):
        calibrate_trials(job, system.data("train"), 2)


def test_a_list_without_labels(system, exp_dir, tmp_path):
    write_text(tmp_path / "bare.kaldi", "a b\n")
    job = make_job(system, exp_dir, trials_path=tmp_path / "bare.kaldi")
    with pytest.raises(ValueError, match=r"bare\.kaldi:1: expected 'enroll test target|nontarget'"):
        calibrate_trials(job, system.data("train"), 2)


def test_a_missing_embedding(system, exp_dir, tmp_path):
    trials = Trials(["x/录音-0"] * 3, ["x/录音-1", "y/录音-0", "nobody"],
                    np.array([True, False, False]))
    write_trials(tmp_path / "more.kaldi", trials)
    job = make_job(system, exp_dir, trials_path=tmp_path / "more.kaldi")
    with pytest.raises(ValueError, match=r"1 utterances in 1 of 3 trials have no embedding: nobod"):
        calibrate_trials(job, system.data("train"), 2)
    job = make_job(system, exp_dir, trials_path=tmp_path / "more.kaldi", missing="skip")
    assert calibrate_trials(job, system.data("train"), 2).coverage == 2 / 3


def test_calibrations_for_something_else(system, exp_dir):
    job, cohort = make_job(system, exp_dir), system.data("train")
    with pytest.raises(FileNotFoundError, match=r"train_asnorm3\.json: no such file; run 'wespeake"
                                                r"r-lap train-calibration' \(stage 7\)"):
        calibrate_trials(job, cohort, 3)
    path = exp_dir / "calibration" / "train_asnorm2.json"
    written = json.loads(path.read_text())
    for change, message in [
            ({"facts": {**written["facts"], "mean_set": None}}, "with the mean of None subtracted"),
            ({"facts": {**written["facts"], "set": "test"}}, "trained on the speakers of test, wh"),
            ({"weights": {"asnorm": 1.0}}, "its features are asnorm, want asnorm, min_log_sec")]:
        path.write_text(json.dumps({**written, **change}))
        with pytest.raises(ValueError, match=message):
            calibrate_trials(job, cohort, 2)
    assert not (exp_dir / "scores" / "train_asnorm2_qmf_pairs.score").exists()


def test_what_cannot_be_trained_on(system, exp_dir):
    with pytest.raises(ValueError, match=r"wants two speakers or more: top_n is 1"):
        train(system, exp_dir, top_n=1)
    with pytest.raises(ValueError, match=r"test: no features for a/录音-0, .*; run stage 2"):
        train(system, exp_dir, feats=system.feats("test"))
    shutil.rmtree(exp_dir / "embeddings" / "train")
    with pytest.raises(FileNotFoundError, match=r"embeddings/train/xvector\.scp: no such file"):
        train(system, exp_dir)


def test_trials_that_are_told_apart_are_told_of(caplog):
    plan = calibrate.CalibrationPlan(dict.fromkeys("abcd", (0, 1)), Trials(
        ["a", "a"], ["b", "c"], np.array([True, False])))
    data = type("Data", (), {"utt2spk": {"a": "x", "b": "x", "c": "y", "d": "z"}})
    rng = np.random.default_rng(0)
    raw = np.array([[1, 0.1, 0], [1, 0, 0.1], [-1, 1, 0], [0, 0, 1]])
    calibrate._fit(plan, data, raw, raw, np.ones(4), rng.standard_normal((6, 3)),
                   [f"s{n}" for n in range(6)], {"top_n": 4})
    assert "told apart without an error, so how large the ratios are is a guess" in caplog.text
