"""Training from waveforms through a frozen front end."""

import numpy as np
import pytest
import safetensors.torch
import torch
from trainings import load_last, read_metrics, read_steps, strip_times, weights_of
from waves import AUGMENTED

from wespeaker_lap import build
from wespeaker_lap.data.datadir import load_data_dir
from wespeaker_lap.engine import checkpoint, embed, extract, journal
from wespeaker_lap.engine.dist import World
from wespeaker_lap.engine.embed_waves import embed_waves
from wespeaker_lap.io.audio import read_audio
from wespeaker_lap.io.facts import load_facts
from wespeaker_lap.io.feats import as_stored
from wespeaker_lap.io.vectors import read_vectors
from wespeaker_lap.score.metrics import eer
from wespeaker_lap.share.speaker import load_model

ALONE = World(0, 1, torch.device("cpu"))
LAST = 18  # steps: 2 epochs of 9


@pytest.fixture(scope="module")
def trained(wave_corpus, tmp_path_factory):
    """With all augmentation; nothing interrupted it."""
    exp_dir = tmp_path_factory.mktemp("trained") / "exp"
    wave_corpus.train(exp_dir, *AUGMENTED)
    return exp_dir


def assert_same(exp_dir, whole):
    assert weights_of(exp_dir, 2) == weights_of(whole, 2)
    assert strip_times(read_steps(exp_dir)) == strip_times(read_steps(whole))
    eers = [[r["valid_eer"] for r in read_metrics(folder) if "epoch" in r]
            for folder in (exp_dir, whole)]
    assert eers[0] == eers[1] and len(eers[0]) == 2


def test_speeds_are_new_speakers_and_the_facts_are_of_the_front_end(wave_corpus, trained):
    assert len(read_steps(trained)) == LAST
    speakers = (trained / "speakers.txt").read_text().split()
    assert speakers == sorted(f"{tag}{name}" for tag in ("", "sp0.9-", "sp1.1-")
                              for name in "abcdef")
    facts = load_facts(trained)
    assert (facts["features"]["encoder"], facts["features"]["dim"]) == ("fbank", 8)
    assert facts["features"]["augmentation"]["copies"] == ["clean", "noise", "reverb", "babble"]
    tensors = safetensors.torch.load(weights_of(trained, 2))
    assert all(name.startswith(("net.", "head.")) for name in tensors)
    assert facts["num_params"] == sum(
        value.numel() for name, value in tensors.items() if name.startswith("net.")
        and "running" not in name and "tracked" not in name)


def test_the_validation_is_of_whole_recordings(wave_corpus, trained):
    """Every recording on its own through the front end, rounded as stored; cosines by hand."""
    config, validation = wave_corpus.config(), wave_corpus.validation
    frontend = build.build_frontend(config.frontend)
    net = build.build_net(config.model, 1, 8)
    checkpoint.load_net(checkpoint.epoch_path(trained, 2), net)
    rows = {}
    with torch.no_grad():
        for utt, path in validation.examples.wavs.items():
            feats = as_stored("float16", frontend.encode(torch.from_numpy(read_audio(path)))
                              .numpy())
            rows[utt] = net.eval()(torch.from_numpy(feats)[None])[0].double().numpy()
    trials = validation.trials
    scores = [np.dot(rows[a], rows[b]) / np.linalg.norm(rows[a]) / np.linalg.norm(rows[b])
              for a, b in zip(trials.enroll, trials.test, strict=True)]
    assert read_metrics(trained)[-1]["valid_eer"] == pytest.approx(
        100 * eer(np.array(scores), trials.labels), abs=1e-3)


def test_features_are_rounded_as_a_store_would(wave_corpus, trained):
    """As int8, where it shows; each recording alone by hand."""
    config, data = wave_corpus.config(), wave_corpus.validation.examples
    frontend, net = build.build_frontend(config.frontend), build.build_net(config.model, 1, 8)
    checkpoint.load_net(checkpoint.epoch_path(trained, 2), net)
    utts = sorted(data.wavs)
    rounded, exact = (embed_waves(net, frontend, data, utts, ALONE, codec)
                      for codec in ("int8", "float32"))
    for row, utt in zip(rounded, utts, strict=True):
        feats = as_stored("int8", frontend.encode(torch.from_numpy(read_audio(data.wavs[utt])))
                          .numpy())
        with torch.no_grad():
            want = net.eval()(torch.from_numpy(feats)[None])[0].numpy()
        np.testing.assert_allclose(row, want, rtol=1e-4, atol=1e-5)
    assert np.abs(rounded - exact).max() > 3e-4


@pytest.mark.parametrize("num_workers", [1, 4])
def test_threads_change_nothing(wave_corpus, trained, tmp_path, num_workers):
    wave_corpus.train(tmp_path / "exp", *AUGMENTED, f"train.num_workers={num_workers}")
    assert_same(tmp_path / "exp", trained)


def test_a_killed_training_ends_with_the_same_weights(wave_corpus, launcher, trained, tmp_path):
    command = wave_corpus.command(tmp_path / "exp", *AUGMENTED, "train.num_workers=1")
    code, _ = launcher.verb(command, {"module": "wespeaker_lap.engine.journal", "call": 13,
                                      "function": "Journal.log_step", "what": "SIGKILL",
                                      "after": True})
    assert code != 0 and load_last(tmp_path / "exp")["step"] == 12
    code, log = launcher.verb(command)
    assert code == 0, log
    assert_same(tmp_path / "exp", trained)


@pytest.mark.parametrize("settings", [
    ["model.time_pool.dropout=0"],
    # Batch norms of maps. So deep and narrow a network makes much of the last digits, step by step.
    ["model.time_pool.dropout=0", "model.frame_net={name: resnet34, channels: 2}", "train.lr=1e-5"],
], ids=["frames", "maps"])
def test_two_processes_compute_what_one_does(wave_corpus, launcher, tmp_path, settings):
    changes = (*AUGMENTED, *settings)
    done = launcher.verb_by_two(wave_corpus.command(tmp_path / "two", *changes))
    assert [code for code, _ in done] == [0, 0], done
    wave_corpus.train(tmp_path / "one", *changes)
    one, two = (read_metrics(tmp_path / name) for name in ("one", "two"))
    np.testing.assert_allclose([r["loss"] for r in two], [r["loss"] for r in one], rtol=1e-3)
    assert two[-1]["valid_eer"] == pytest.approx(one[-1]["valid_eer"], abs=1e-3)


def test_embeddings_are_the_same_from_waves_a_store_and_the_interface(wave_corpus, trained,
                                                                      tmp_path):
    config, data = wave_corpus.config(), load_data_dir(wave_corpus.root / "train")
    checkpoint.average_epochs(trained, 2)
    utts = sorted(data.wavs)
    computed = read_vectors(embed.embed_set(trained, data, utts, "train", ALONE))
    frontend = build.build_frontend(config.frontend, config.features)
    durations = {utt: len(read_audio(path)) / 16000 for utt, path in data.wavs.items()}
    audited = type(data)(data.path, data.wavs, data.utt2spk, {}, durations)
    extract.extract_feats(frontend, audited, tmp_path / "feats", "float16", ALONE)
    stored = read_vectors(embed.embed_set(trained, tmp_path / "feats", utts, "stored", ALONE))
    assert computed[0] == stored[0] == utts
    np.testing.assert_allclose(computed[1], stored[1], rtol=1e-4, atol=1e-5)
    alone = load_model(trained).embed([data.wavs[utt] for utt in utts[:3]])
    np.testing.assert_allclose(alone, computed[1][:3], rtol=1e-4, atol=1e-5)


def test_a_frozen_encoder_is_trained_behind(wave_corpus, tmp_path):
    """The packaged encoder with some layers: its weights stay out of the model's files."""
    changes = ("frontend={name: wavlm_tiny}", "features.layers=[1, 3]", "train.epochs=1",
               "model.layer_pool={name: weighted_sum}")
    wave_corpus.train(tmp_path / "exp", *changes)
    features = load_facts(tmp_path / "exp")["features"]
    assert (features["num_layers"], features["layers"], features["dim"]) == (2, [1, 3], 192)
    names = safetensors.torch.load(weights_of(tmp_path / "exp", 1)).keys()
    assert all(name.startswith(("net.", "head.")) for name in names)
    assert len(read_steps(tmp_path / "exp")) == 3


def test_waiting_for_recordings_is_pointed_out(wave_corpus, tmp_path, monkeypatch, caplog):
    """Without a word of stored features."""
    monkeypatch.setattr(journal, "WAIT_ADVICE", -1.0)
    with caplog.at_level("INFO"):
        wave_corpus.train(tmp_path / "exp", "train.epochs=1", "train.batch_size=2")
    assert "training waits for data: recordings are read and augmented by train.num" in caplog.text
    assert "bench-io" not in caplog.text


@pytest.mark.parametrize(("changes", "others", "complaint"), [
    ((), {"feats": "somewhere"}, r"somewhere: stored features are not used"),
    (("data.source=features",), {}, r"give their store \(--feats\)"),
    (("train.crop_seconds=0.02",), {}, r"crop_seconds 0\.02 is 320 samples; fbank needs 400"),
    (("data.augment.prob=1",), {"tables": None}, r"'noise' needs recordings .*--noise_scp"),
])
def test_what_does_not_fit_is_refused(wave_corpus, tmp_path, changes, others, complaint):
    if "tables" in others:
        others = {"tables": type(wave_corpus.tables)()}
    with pytest.raises(ValueError, match=complaint):
        wave_corpus.train(tmp_path / "exp", *changes, **others)
    assert not (tmp_path / "exp").exists()


def test_other_noises_are_another_training(wave_corpus, trained, tmp_path):
    (tmp_path / "noise.scp").write_text(f"n0 {wave_corpus.root}/noise0.wav\n")
    tables = type(wave_corpus.tables)(tmp_path / "noise.scp", wave_corpus.tables.rir_scp)
    with pytest.raises(ValueError, match=r"another training: augmentation is"):
        wave_corpus.train(trained, *AUGMENTED, tables=tables)


def test_features_do_not_validate_a_training_on_waves(wave_corpus, corpus, tmp_path):
    with pytest.raises(ValueError, match="--valid_data"):
        wave_corpus.train(tmp_path / "exp", validation=corpus.validation)


def test_a_broken_recording_is_named(wave_corpus, tmp_path):
    data = wave_corpus.data
    (tmp_path / "a.wav").write_bytes(b"no audio")
    wavs = {**data.wavs, sorted(data.wavs)[0]: str(tmp_path / "a.wav")}
    with pytest.raises(ValueError, match=r"a\.wav: not readable as audio"):
        wave_corpus.train(tmp_path / "exp",
                          data=type(data)(data.path, wavs, data.utt2spk, {}, {}))
