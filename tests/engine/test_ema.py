"""The moving average of the weights: its numbers, its file, and a restart."""

import json

import numpy as np
import pytest
import safetensors.torch
import torch
from programs import ALONE
from trainings import NO_DROPOUT, NUM_STEPS, load_last, weights_of

from wespeaker_lap.cli import training as verbs
from wespeaker_lap.data.datadir import load_data_dir
from wespeaker_lap.engine import embed, train
from wespeaker_lap.frontends.ssl import FrozenSSL
from wespeaker_lap.io.vectors import read_vectors

TUNED = ("frontend={name: wavlm_tiny}", "features.layers=[0, 2]", "train.crop_seconds=0.2",
         "train.encoder={lr: 0.001}", "model.layer_pool={name: weighted_sum}")
FAST = ("train.lr=0.02", "train.final_lr=0.02")  # to the end, so that no two weights are alike


def moving_of(exp_dir):
    return safetensors.torch.load_file(exp_dir / "models" / "ema_model.safetensors")


@pytest.fixture
def recorded(monkeypatch):
    """The weights after every step of the optimizer, as arrays by name."""
    steps, step = [], train._step

    def watched(run, lr):
        step(run, lr)
        steps.append({name: value.detach().numpy().copy()
                      for name, value in run.weights.state_dict().items()})

    monkeypatch.setattr(train, "_step", watched)
    return steps


def average_by_loop(steps, decay):
    mean = {name: value.astype(np.float64) for name, value in steps[0].items()}
    for count, weights in enumerate(steps[1:], 1):
        now = min(decay, (1 + count) / (10 + count))
        mean = {name: now * mean[name] + (1 - now) * weights[name] for name in mean}
    return mean


@pytest.mark.parametrize(("decay", "others"), [
    (0.4, ()), (0.999, ("train.accumulate=2", "train.batch_size=4", "train.precision=bf16"))])
def test_the_numbers_by_a_loop(corpus, tmp_path, recorded, decay, others):
    """Over the optimizer's steps; 0.4 is reached after five of them, 0.999 never."""
    corpus.train(tmp_path, f"train.ema_decay={decay}", "train.epochs=2", *FAST, *others)
    found, want = moving_of(tmp_path), average_by_loop(recorded, decay)
    assert len(recorded) == 12 and found.keys() == want.keys()
    assert {name.split(".")[0] for name in found} == {"net", "head"}
    for name, value in found.items():
        if name.endswith("num_batches_tracked"):
            assert value.item() == recorded[-1][name] and value.dtype == torch.int64
            continue
        assert value.dtype == torch.float32
        np.testing.assert_allclose(value, want[name], rtol=1e-5, atol=1e-6, err_msg=name)
    last = safetensors.torch.load(weights_of(tmp_path, 2))["net.linear.weight"]
    assert (found["net.linear.weight"] - last).abs().max() > 1e-3
    assert load_last(tmp_path)["ema"]["n_averaged"] == 12


def test_the_training_itself_is_the_same_with_one(corpus, tmp_path):
    for name, decay in (("with", 0.9), ("without", "null")):
        corpus.train(tmp_path / name, f"train.ema_decay={decay}", "train.epochs=1")
    assert weights_of(tmp_path / "with", 1) == weights_of(tmp_path / "without", 1)
    assert not (tmp_path / "without" / "models" / "ema_model.safetensors").exists()
    assert "ema" not in load_last(tmp_path / "without")


def test_a_killed_training_ends_with_the_same_average(corpus, launcher, tmp_path):
    whole, exp_dir = tmp_path / "whole", tmp_path / "exp"
    changes = ("train.ema_decay=0.9", "train.epochs=2")
    assert launcher.verb(corpus.command(whole, *changes))[0] == 0
    code, _ = launcher.verb(corpus.command(exp_dir, *changes), {
        "module": "wespeaker_lap.engine.journal", "function": "Journal.log_step", "call": 10,
        "what": "SIGKILL", "after": True})
    assert code != 0 and load_last(exp_dir)["step"] == 8
    assert launcher.verb(corpus.command(exp_dir, *changes))[0] == 0
    assert weights_of(exp_dir, 2) == weights_of(whole, 2)
    paths = [folder / "models" / "ema_model.safetensors" for folder in (exp_dir, whole)]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert "of the weights goes along, decay 0.9" in (whole / "train.log").read_text()
    with pytest.raises(ValueError, match=r"another training: train\.ema_decay"):
        corpus.train(whole, "train.ema_decay=0.99", "train.epochs=2")


def test_two_processes_average_what_one_does(corpus, launcher, tmp_path):
    command = (*NO_DROPOUT, "train.ema_decay=0.9")
    done = launcher.verb_by_two(corpus.command(tmp_path / "two", *command))
    assert [code for code, _ in done] == [0, 0], done
    corpus.train(tmp_path / "one", *command)
    one, two = moving_of(tmp_path / "one"), moving_of(tmp_path / "two")
    for name in ("net.linear.weight", "net.pool_norm.running_mean", "head.centers"):
        torch.testing.assert_close(two[name], one[name], rtol=1e-3, atol=1e-3)
    assert load_last(tmp_path / "two")["ema"]["n_averaged"] == NUM_STEPS


def test_one_can_embed_with_it_and_make_it_the_average(corpus, launcher, tmp_path):
    corpus.train(tmp_path, "train.ema_decay=0.5", "train.epochs=1", "score.average=ema")
    code, log = launcher.verb(["extract-embeddings", tmp_path, corpus.root / "valid", "--feats",
                               corpus.root / "feats_valid", "--checkpoint", "ema_model",
                               "--device", "cpu"])
    assert code == 0, log
    verbs.average_model(tmp_path)
    assert json.loads((tmp_path / "models" / "avg_model.json").read_text()) == {
        "average": "ema", "weights": ["ema_model"], "bn_batches": 0}
    utts = sorted(load_data_dir(corpus.root / "valid").wavs)
    for weights in ("avg_model", "epoch_001"):
        embed.embed_set(tmp_path, corpus.root / "feats_valid", utts, weights, ALONE, weights)
    moving, average, last = (read_vectors(tmp_path / "embeddings" / name / "xvector.scp")[1]
                             for name in ("valid", "avg_model", "epoch_001"))
    np.testing.assert_array_equal(average, moving)
    assert np.abs(last - moving).max() > 1e-2


def test_a_tuned_encoder_is_averaged_too(wave_corpus, tmp_path, recorded):
    wave_corpus.train(tmp_path, *TUNED, *FAST, "train.ema_decay=0.5", "score.average=ema")
    found, want = moving_of(tmp_path), average_by_loop(recorded, 0.5)
    assert found.keys() == want.keys()
    name = "encoder.encoder.transformer.layers.0.feed_forward.output_dense.weight"
    np.testing.assert_allclose(found[name], want[name], rtol=1e-5, atol=1e-7)
    last = safetensors.torch.load(weights_of(tmp_path, 2))
    assert (found[name] - last[name]).abs().max() > 1e-5
    verbs.average_model(tmp_path)
    exported = FrozenSSL.load(tmp_path / "encoder").model.state_dict()
    torch.testing.assert_close(exported[name.removeprefix("encoder.")], found[name])
