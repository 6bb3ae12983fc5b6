"""The inference interface gives the numbers that the stages write, on what training wrote."""

import json

import kaldiio
import numpy as np
import pytest
import soundfile
import torch

import wespeaker_lap
from wespeaker_lap.data.datadir import load_data_dir
from wespeaker_lap.io.audio import AudioError, read_audio, write_wav
from wespeaker_lap.io.weights import note_weights
from wespeaker_lap.score.scorefile import read_scores
from wespeaker_lap.share.speaker import SpeakerModel, load_model


@pytest.fixture(scope="module")
def model(tiny_system):
    return load_model(tiny_system.exp_dir)


@pytest.fixture(scope="module")
def wavs(tiny_system):
    return load_data_dir(tiny_system.data("test")).wavs


def test_an_embedding_is_the_one_that_stage_4_wrote(tiny_system, model, wavs):
    stored = kaldiio.load_scp(str(tiny_system.exp_dir / "embeddings" / "test" / "xvector.scp"))
    assert stored.keys() == wavs.keys()
    for utt, path in wavs.items():
        embedding = model.embed(path)
        assert embedding.shape == (16,) and embedding.dtype == np.float32
        error = np.linalg.norm(embedding - stored[utt]) / np.linalg.norm(stored[utt])
        assert error < 1e-3, utt


def test_a_similarity_is_the_score_that_stage_5_wrote(tiny_system, model, wavs):
    trials, scores = read_scores(tiny_system.exp_dir / "scores" / "pairs.score")
    assert len(trials) == 36 and scores.std() > 0.01
    for enroll, test, score in list(zip(trials.enroll, trials.test, scores, strict=True))[::5]:
        assert model.similarity(wavs[enroll], wavs[test]) == pytest.approx(score, abs=1e-4)


def test_similarity_by_hand(tiny_system, model, wavs):
    a, b = list(wavs.values())[:2]
    mean = np.load(tiny_system.exp_dir / "embeddings" / "train" / "mean_vec.npy")
    left, right = model.embed(a) - mean, model.embed(b) - mean
    expected = sum(left * right) / (sum(left ** 2) * sum(right ** 2)) ** 0.5
    assert model.similarity(a, b) == pytest.approx(float(expected), abs=1e-5)
    assert model.similarity(a, a) == pytest.approx(1, abs=1e-6)
    plain = SpeakerModel(model.frontend, model.net, model.codec, None)
    left, right = model.embed(a), model.embed(b)
    expected = sum(left * right) / (sum(left ** 2) * sum(right ** 2)) ** 0.5
    assert plain.similarity(a, b) == pytest.approx(float(expected), abs=1e-5)


def test_files_samples_and_lists(model, wavs):
    paths = list(wavs.values())[:3]
    alone = np.stack([model.embed(path) for path in paths])
    np.testing.assert_allclose(model.embed(paths), alone, rtol=1e-5, atol=1e-6)
    mixed = model.embed((read_audio(paths[0]), torch.from_numpy(read_audio(paths[1])), paths[2]))
    assert mixed.shape == (3, 16)
    np.testing.assert_allclose(mixed, alone, rtol=1e-5, atol=1e-6)


def test_any_rate_and_any_number_of_channels(model, wavs, tmp_path):
    samples = read_audio(next(iter(wavs.values())))
    soundfile.write(tmp_path / "stereo.wav", np.stack([samples, samples], axis=1), 16000, "FLOAT")
    np.testing.assert_allclose(model.embed(tmp_path / "stereo.wav"), model.embed(samples),
                               rtol=1e-3, atol=1e-4)
    soundfile.write(tmp_path / "slow.wav", samples[::2], 8000)
    assert np.isfinite(model.embed(tmp_path / "slow.wav")).all()


@pytest.mark.parametrize("level", [0.0, 1e-6])
def test_silence_has_a_status_and_no_embedding(model, level):
    noise = level * np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    assert model.inspect(noise).status == "silent"
    with pytest.raises(AudioError, match="the samples: silent "):
        model.embed(noise)


def test_the_shortest_recording(model, tmp_path):
    shortest = model.frontend.min_samples
    write_wav(tmp_path / "a.wav", np.sin(np.arange(float(shortest))), 16000)
    assert model.embed(tmp_path / "a.wav").shape == (16,)
    write_wav(tmp_path / "a.wav", np.sin(np.arange(shortest - 1.0)), 16000)
    with pytest.raises(ValueError, match=rf"a\.wav: {shortest - 1} samples are too few, "
                                         rf"the encoder needs {shortest}$"):
        model.embed(tmp_path / "a.wav")


@pytest.mark.parametrize(("audio", "message"), [
    (np.zeros((1, 16000), np.float32), r"want samples \(S,\) of floats .*, got \(1, 16000\) float"),
    (np.zeros(16000, np.int16), r"got \(16000,\) int16"),
    (np.full(16000, np.nan), "the samples: samples that are not finite"),
    (np.zeros(0), "0 samples are too few"),
])
def test_samples_that_cannot_be_used(model, audio, message):
    with pytest.raises(ValueError, match=message):
        model.embed(audio)


def test_files_that_cannot_be_used(model, tmp_path):
    with pytest.raises(AudioError, match=r"nowhere\.wav: no such file"):
        model.embed(tmp_path / "nowhere.wav")
    (tmp_path / "empty.wav").touch()
    with pytest.raises(AudioError, match=r"empty\.wav: not readable as audio"):
        model.similarity(tmp_path / "empty.wav", tmp_path / "empty.wav")


def test_the_package_offers_it(copied, model, wavs):
    path = next(iter(wavs.values()))
    moved = wespeaker_lap.load_model(str(copied), device="auto")
    np.testing.assert_allclose(moved.embed(path), model.embed(path), rtol=1e-2, atol=1e-3)


def test_no_trained_model(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no trained model; give the folder that stage"):
        load_model(tmp_path)


@pytest.mark.parametrize(("missing", "message"), [
    ("models/avg_model.safetensors", r"avg_model\.safetensors: no such file"),
    ("embeddings/train/mean_vec.npy", r"mean_vec\.npy: no such file; run stage 4"),
    ("config.yaml", r"config\.yaml: no such configuration file"),
])
def test_a_missing_part_is_named(copied, missing, message):
    (copied / missing).unlink()
    with pytest.raises(FileNotFoundError, match=message):
        load_model(copied)


def test_a_mean_of_other_weights_is_refused(copied):
    """As after `run.sh --stage 4 --checkpoint epoch_001`."""
    weights = copied / "models" / "avg_model.safetensors"
    note_weights(copied / "embeddings" / "train", weights.rename(weights.with_stem("epoch_001")))
    weights.write_bytes(b"others")
    with pytest.raises(ValueError, match=r"train: embedded with epoch_001 .*: avg_model"):
        load_model(copied)


def test_another_encoder_is_refused_by_field(copied):
    facts = json.loads((copied / "model.json").read_text())
    facts["features"]["weights_sha256"] = "0" * 64
    (copied / "model.json").write_text(json.dumps(facts))
    with pytest.raises(ValueError, match="this model was trained on: weights_sha256 is"):
        load_model(copied)


def test_weights_of_another_model_are_refused(copied):
    config = (copied / "config.yaml").read_text()
    (copied / "config.yaml").write_text(config.replace("embed_dim: 16", "embed_dim: 24"))
    with pytest.raises(ValueError, match=r"not the weights of this model: .*linear.weight is \(16"):
        load_model(copied)


def test_an_unknown_device(tiny_system):
    with pytest.raises(ValueError, match=r"device 'abacus' cannot be used here .*--device"):
        load_model(tiny_system.exp_dir, device="abacus")
