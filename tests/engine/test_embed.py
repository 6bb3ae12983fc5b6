"""Embeddings: the same alone, in a batch and on two processes; refusals by name."""

import shutil

import numpy as np
import programs
import pytest
import torch
from trainings import write_store

from wespeaker_lap.engine import embed
from wespeaker_lap.io.facts import load_facts
from wespeaker_lap.io.feats import FeatureStore
from wespeaker_lap.io.vectors import read_vectors


@pytest.fixture(scope="module")
def net(corpus, whole_training):
    return embed.load_net(whole_training, corpus.config(), load_facts(whole_training), "epoch_003")


@pytest.fixture(scope="module")
def store(corpus):
    return FeatureStore(corpus.root / "feats")


@torch.no_grad()
def embed_alone(net, store, utts) -> np.ndarray:
    """Each utterance on its own, without padding or lengths."""
    return np.stack([net(torch.from_numpy(store[utt])[None])[0].numpy() for utt in utts])


@pytest.mark.parametrize("batch_frames", [1, 70, 10_000])
def test_a_batch_changes_nothing_and_the_order_is_kept(net, store, monkeypatch, batch_frames):
    monkeypatch.setattr(embed, "BATCH_FRAMES", batch_frames)
    utts = [*store][::-1]
    utts = utts[1::2] + utts[::2] + utts[:1]  # one of them twice
    vectors = embed.embed_store(net, store, utts, programs.ALONE)
    assert vectors.shape == (49, 8)
    np.testing.assert_allclose(vectors, embed_alone(net, store, utts), rtol=1e-4, atol=1e-5)


def test_the_mode_of_the_network_stays(net, store):
    for mode in (True, False):
        net.train(mode)
        embed.embed_store(net, store, ["train00-0"], programs.ALONE)
        assert net.training == mode


def test_a_set_on_disk(corpus, whole_training, net, store, tmp_path):
    shutil.copytree(whole_training, tmp_path / "exp")
    utts = [*store][:20]
    scp = embed.embed_set(tmp_path / "exp", corpus.root / "feats", utts, "some", programs.ALONE,
                          "epoch_003")
    assert scp == tmp_path / "exp" / "embeddings" / "some" / "xvector.scp"
    found, vectors = read_vectors(scp)
    assert found == sorted(utts)
    want = embed_alone(net, store, found)
    np.testing.assert_allclose(vectors, want, rtol=1e-4, atol=1e-5)
    mean = np.load(scp.parent / "mean_vec.npy")
    assert mean.dtype == np.float32
    np.testing.assert_allclose(mean, want.astype(np.float64).mean(0), rtol=1e-4, atol=1e-5)


def test_two_processes_write_one_set(launcher, corpus, whole_training, store, tmp_path):
    shutil.copytree(whole_training, tmp_path / "exp")
    utts = [*store][:7]
    done = launcher.function_by_two("embed_half", tmp_path / "exp", corpus.root / "feats", utts,
                                    tmp_path)
    assert [code for code, _ in done] == [0, 0], done
    scp = embed.embed_set(tmp_path / "exp", corpus.root / "feats", utts, "alone", programs.ALONE,
                          "epoch_001")
    joint = tmp_path / "exp" / "embeddings" / "joint" / "xvector.scp"
    assert [(tmp_path / f"{rank}.txt").read_text() for rank in (0, 1)] == [str(joint), "None"]
    assert read_vectors(joint)[0] == read_vectors(scp)[0] == sorted(utts)
    np.testing.assert_allclose(read_vectors(joint)[1], read_vectors(scp)[1], rtol=1e-4, atol=1e-5)


def test_other_features_are_refused_by_field(corpus, whole_training, tmp_path):
    utt2spk = {"a-1": "a"}
    write_store(tmp_path / "feats", utt2spk, 0, encoder="another", last_state="before_norm")
    with pytest.raises(ValueError, match="not the features this model was trained on") as caught:
        embed.embed_set(whole_training, tmp_path / "feats", ["a-1"], "x", programs.ALONE)
    assert "encoder is 'another', expected 'made_up'" in str(caught.value)
    assert "last_state is 'before_norm', expected None" in str(caught.value)
    # Of other data, but with numbers of the same meaning: fine.
    write_store(tmp_path / "other", utt2spk, 0, data_hash="1", toolkit_version="9")
    with pytest.raises(FileNotFoundError, match=r"avg_model\.safetensors"):
        embed.embed_set(whole_training, tmp_path / "other", ["a-1"], "x", programs.ALONE)


def test_missing_utterances_are_named(net, store):
    with pytest.raises(ValueError, match="no features for nobody-1, nobody-2; run stage 2"):
        embed.embed_store(net, store, ["nobody-1", "train00-0", "nobody-2"], programs.ALONE)


def test_embeddings_that_are_not_finite_are_named(net, store, monkeypatch):
    read = FeatureStore.read
    monkeypatch.setattr(FeatureStore, "read", lambda own, utt, *place: read(own, utt, *place) * (
        np.inf if utt == "train03-1" else 1.0))
    with pytest.raises(ValueError, match=r"not finite numbers: train03-1$"):
        embed.embed_store(net, store, ["train03-0", "train03-1", "train03-2"], programs.ALONE)


def test_batches_hold_all_once_and_little_padding():
    rng = np.random.default_rng(0)
    for _ in range(20):
        lengths = {f"u{n}": int(rng.integers(1, 6000)) for n in range(rng.integers(1, 60))}
        batches = list(embed.length_batches(lengths))
        assert sorted(utt for batch in batches for utt in batch) == sorted(lengths)
        for batch in batches:
            padded = len(batch) * max(lengths[utt] for utt in batch)
            assert len(batch) == 1 or padded <= embed.BATCH_FRAMES
    assert list(embed.length_batches({})) == []


def test_weights_of_another_architecture_are_refused(corpus, whole_training):
    config = corpus.config("model.embed_dim=9")
    facts = load_facts(whole_training)
    with pytest.raises(ValueError, match=r"linear.weight is \(8, 32\), the model wants \(9, 32\)"):
        embed.load_net(whole_training, config, facts, "epoch_003")
