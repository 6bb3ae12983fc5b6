"""Batch norms of averaged weights: measured on the training's crops, with nothing dropped."""

import shutil

import numpy as np
import pytest
import safetensors.torch
import torch
from programs import ALONE
from torch import nn
from trainings import write_store

from wespeaker_lap import build
from wespeaker_lap.cli import training as verbs
from wespeaker_lap.data.wave_source import WaveSource
from wespeaker_lap.engine import averaging
from wespeaker_lap.engine.norms import measure_norms
from wespeaker_lap.frontends.ssl import FrozenSSL
from wespeaker_lap.io.feats import FeatureStore, FeatureWriter

PLAIN = ("model={layer_pool: {name: weighted_sum}, time_pool: {name: stats}, embed_dim: 8}",
         "train.epochs=1")
SEED, CROP = 7, 10  # of SETTINGS: 0.2 s at 50 frames a second


def averaged_of(exp_dir) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(exp_dir / "models" / "avg_model.safetensors")


@pytest.fixture(scope="module")
def plain(corpus, tmp_path_factory):
    """A training whose forward is a few lines of numpy."""
    exp_dir = tmp_path_factory.mktemp("plain_norms") / "exp"
    corpus.train(exp_dir, *PLAIN)
    return exp_dir


def list_keys(num_utts, batch_size, epoch, num_batches):
    """The keys of the batches after so many epochs, by what the sampler's docstring promises."""
    keys = []
    while len(keys) < num_batches:
        order = np.random.default_rng([SEED, epoch]).permutation(num_utts)
        keys += [[(epoch, int(index)) for index in order[first:first + batch_size]]
                 for first in range(0, num_utts - batch_size + 1, batch_size)]
        epoch += 1
    return keys[:num_batches]


def read_crop(store, utts, key):
    feats = store[utts[key[1]]]
    if len(feats) <= CROP:
        return np.resize(feats, (CROP, *feats.shape[1:]))
    first = np.random.default_rng([SEED, *key]).integers(len(feats) - CROP + 1)
    return feats[first:first + CROP]


def normalise(rows, weights, name):
    scale = weights[f"{name}.weight"] / np.sqrt(rows.var(axis=0) + 1e-5)
    return (rows - rows.mean(axis=0)) * scale + weights[f"{name}.bias"]


def test_the_statistics_by_numpy(corpus, plain, tmp_path):
    """Seven batches: one epoch has six of them. Everything else stays as it was averaged."""
    exp_dir = shutil.copytree(plain, tmp_path / "exp")
    verbs.average_model(exp_dir, device="cpu")
    before = averaged_of(exp_dir)
    verbs.average_model(exp_dir, bn_batches=7, device="cpu")
    after = averaged_of(exp_dir)
    net = {name.removeprefix("net."): value.double().numpy() for name, value in before.items()}
    store, utts = FeatureStore(corpus.root / "feats"), sorted(corpus.data.utt2spk)
    shares = np.exp(net["layer_pool.layer_logits"])
    moments = {"pool_norm": [], "embed_norm": []}
    for keys in list_keys(len(utts), 8, 1, 7):
        crops = np.stack([read_crop(store, utts, key) for key in keys]).astype(np.float64)
        frames = np.einsum("btld,l->btd", crops, shares / shares.sum())
        pooled = np.concatenate([frames.mean(axis=1), frames.std(axis=1)], axis=1)
        vectors = (normalise(pooled, net, "pool_norm") @ net["linear.weight"].T
                   + net["linear.bias"])
        for name, rows in (("pool_norm", pooled), ("embed_norm", vectors)):
            moments[name].append((rows.mean(axis=0), rows.var(axis=0, ddof=1)))
    for name, parts in moments.items():
        for field, want in zip(("running_mean", "running_var"), np.mean(parts, axis=0),
                               strict=True):
            found = after.pop(f"net.{name}.{field}")
            np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5, err_msg=name + field)
            assert (found - before[f"net.{name}.{field}"]).abs().max() > 1e-3
        assert after.pop(f"net.{name}.num_batches_tracked") == 7
    assert after and all(torch.equal(value, before[name]) for name, value in after.items())



def test_nothing_is_dropped_and_every_kind_of_norm_is_measured(corpus):
    """LAP folds its first norm into a linear; its mean is of all frames and layers."""
    torch.manual_seed(3)
    config = corpus.config("model.span_out={utt_prob: 1.0}", "model.layer_pool.dropout=0.5",
                           "model.time_pool.dropout=0.5")
    clean = corpus.config("model.layer_pool.dropout=0", "model.time_pool.dropout=0")
    batches = [3 + 2 * torch.randn(8, CROP, 3, 8) for _ in range(3)]
    nets = [build.build_net(one.model, 3, 8) for one in (config, clean)]
    nets[1].load_state_dict(nets[0].state_dict())
    assert [measure_norms(net, net, iter(batches)) for net in nets] == [3, 3]
    states = [net.state_dict() for net in nets]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    rows = [batch.double().numpy().reshape(-1, 8) for batch in batches]
    np.testing.assert_allclose(states[0]["layer_pool.in_norm.running_mean"],
                               np.mean([part.mean(axis=0) for part in rows], axis=0), rtol=1e-5)
    np.testing.assert_allclose(states[0]["layer_pool.in_norm.running_var"],
                               np.mean([part.var(axis=0, ddof=1) for part in rows], axis=0),
                               rtol=1e-5)
    counts = [value for name, value in states[0].items() if name.endswith("num_batches_tracked")]
    assert len(counts) == 5 and all(count == 3 for count in counts)
    assert not any(module.training for module in nets[0].modules())
    assert {module.momentum for module in nets[0].modules()
            if isinstance(module, nn.BatchNorm1d)} == {0.1}


def test_without_norms_or_batches():
    linear = nn.Linear(2, 2)
    before = linear.weight.clone()
    assert measure_norms(linear, linear, iter(lambda: pytest.fail("a batch was taken"), 0)) == 0
    assert torch.equal(linear.weight, before)
    norm = nn.BatchNorm1d(2)
    with pytest.raises(ValueError, match="one batch or more"):
        measure_norms(norm, norm, [])


def test_the_same_again_however_it_is_read(corpus, plain, tmp_path):
    """By threads, from a store of another place, from stored bytes made floats on the device."""
    feats = FeatureStore(corpus.root / "feats")
    with FeatureWriter(tmp_path / "half", dict(feats.identity), "float16") as writer:
        for utt in feats:
            writer.write(utt, feats[utt])
    corpus.train(tmp_path / "exp", *PLAIN, "train.num_workers=1", "train.dequantize=device",
                 feats=tmp_path / "half", validation=None)
    shutil.copy(plain / "models" / "epoch_001.safetensors", tmp_path / "exp" / "models")
    found = []
    for exp_dir, given in ((plain, {}), (plain, {"feats": corpus.root / "feats"}),
                           (tmp_path / "exp", {})):
        verbs.average_model(exp_dir, bn_batches=2, device="cpu", **given)
        found.append(averaged_of(exp_dir))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    torch.testing.assert_close(found[2], found[0], rtol=1e-2, atol=1e-2)
    moved = found[2]["net.pool_norm.running_mean"] - found[0]["net.pool_norm.running_mean"]
    assert moved.abs().max() < 1e-3


def test_from_waveforms_with_a_tuned_encoder(wave_corpus, tmp_path):
    """With the averaged encoder's features of the training's crops."""
    changes = ("frontend={name: wavlm_tiny}", "train.crop_seconds=0.2", "train.epochs=2",
               "train.encoder={lr: 0.02}", "model.layer_pool={name: single, layer: 2}",
               "model.time_pool={name: stats}", "train.lr=0.02", "score.bn_batches=2")
    wave_corpus.train(tmp_path, *changes)
    verbs.average_model(tmp_path, device="cpu")
    source = WaveSource(wave_corpus.data, 3200, SEED)
    encoder, means = FrozenSSL.load(tmp_path / "encoder"), []
    untuned = FrozenSSL.load("wavlm_tiny")
    for keys in list_keys(24, 8, 2, 2):
        waves = np.zeros((8, 3200), np.float32)
        for key, wave in zip(keys, waves, strict=True):
            source.fill(key, wave)
        with torch.no_grad():
            means.append([front(torch.from_numpy(waves))[0][:, :, 2].double().mean(dim=(0, 1))
                          for front in (encoder, untuned)])
    found = averaged_of(tmp_path)["net.pool_norm.running_mean"][:192]
    want, other = (torch.stack(part).mean(dim=0).float() for part in zip(*means, strict=True))
    torch.testing.assert_close(found, want, rtol=1e-3, atol=1e-4)
    assert (found - other).abs().max() > 1e-2


def test_augmented_waveforms_find_their_tables(wave_corpus, tmp_path):
    changes = ("data.augment={prob: 0.8}", "data.speeds=[0.9, 1.0, 1.1]", "train.epochs=1",
               "score.bn_batches=2")
    wave_corpus.train(tmp_path / "exp", *changes)
    found = []
    for _ in range(2):
        verbs.average_model(tmp_path / "exp", device="cpu")
        found.append(averaged_of(tmp_path / "exp"))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert found[0]["net.pool_norm.num_batches_tracked"] == 2
    with pytest.raises(FileNotFoundError, match=r"elsewhere\.scp.*with --noise_scp"):
        verbs.average_model(tmp_path / "exp", noise_scp=tmp_path / "elsewhere.scp", device="cpu")


def test_examples_that_are_not_there_or_others(corpus, plain, tmp_path):
    """Refused before anything is written."""
    exp_dir = shutil.copytree(plain, tmp_path / "exp")
    (exp_dir / "models" / "avg_model.safetensors").unlink(missing_ok=True)
    write_store(tmp_path / "other", corpus.data.utt2spk, 0, encoder="another")
    cases = [({"feats": tmp_path / "other"}, ValueError, "encoder is 'another'"),
             ({"data": tmp_path / "gone"}, FileNotFoundError, "gone.*say where it is now.*--data")]
    for paths, kind, complaint in cases:
        with pytest.raises(kind, match=complaint):
            averaging.average_model(exp_dir, ALONE, bn_batches=2, paths=paths)
    (exp_dir / "origin.json").unlink()
    with pytest.raises(ValueError, match=r"origin\.json: does not say.*give --data, and --feats"):
        averaging.average_model(exp_dir, ALONE, bn_batches=2)
    (exp_dir / "origin.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"origin\.json: not as training writes it"):
        averaging.average_model(exp_dir, ALONE, bn_batches=2)
    assert not (exp_dir / "models" / "avg_model.safetensors").exists()
    (exp_dir / "origin.json").unlink()
    averaging.average_model(exp_dir, ALONE, bn_batches=2, paths={
        "data": corpus.root / "train", "feats": corpus.root / "feats"})
    assert averaged_of(exp_dir)["net.pool_norm.num_batches_tracked"] == 2
