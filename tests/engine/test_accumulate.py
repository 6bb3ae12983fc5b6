"""Steps of several batches: what one large batch computes, as far as no batch norm is in it.

Batch norm takes its statistics from each batch, so with it 4 batches of 8 are not one of 32: the
means and variances are of 8 examples, and the running ones move four times a step.
"""

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn
from trainings import NO_DROPOUT, load_last, read_steps, strip_times, weights_of

from wespeaker_lap import build
from wespeaker_lap.engine import train
from wespeaker_lap.engine.memory import measure_peaks


class PlainNet(nn.Module):
    """Mean over frames and layers, linear: no example has to do with another."""

    def __init__(self, dim: int):
        super().__init__()
        self.linear = nn.Linear(dim, 8)

    def forward(self, feats, lengths=None):
        if lengths is None:
            return self.linear(feats.mean(dim=(1, 2)))
        mask = torch.arange(feats.shape[1]) < lengths[:, None]
        means = (feats.mean(dim=2) * mask[:, :, None]).sum(dim=1) / lengths[:, None]
        return self.linear(means)


@pytest.mark.parametrize("changes", [(), ("train.max_grad_norm=0.5",)])
def test_four_batches_are_one_of_four_times_the_size(corpus, tmp_path, monkeypatch, changes):
    monkeypatch.setattr(build, "build_net", lambda config, num_layers, dim: PlainNet(dim))
    corpus.train(tmp_path / "one", "train.batch_size=16", *changes)
    corpus.train(tmp_path / "four", "train.batch_size=4", "train.accumulate=4", *changes)
    one, four = (read_steps(tmp_path / name) for name in ("one", "four"))
    assert len(one) == len(four) == 9
    for key in ("loss", "acc", "lr", "margin"):
        np.testing.assert_allclose([r[key] for r in four], [r[key] for r in one], rtol=1e-4,
                                   atol=2e-5)
    weights = [safetensors.torch.load(weights_of(tmp_path / name)) for name in ("one", "four")]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-4, atol=1e-5)


def test_with_batch_norm_the_statistics_are_of_each_batch(corpus, tmp_path):
    """The running ones have moved four times a step."""
    corpus.train(tmp_path / "exp", "train.batch_size=4", "train.accumulate=4")
    tensors = safetensors.torch.load(weights_of(tmp_path / "exp"))
    assert tensors["net.pool_norm.num_batches_tracked"] == 4 * 9


def freeze_batch_norms(net: nn.Module) -> nn.Module:
    """They keep to their running statistics, whatever mode the network is in."""
    for norm in net.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            norm.running_mean.uniform_(-0.1, 0.1)
            norm.eval().train = lambda mode=True, norm=norm: norm
    return net


@pytest.mark.parametrize("frozen", [True, False])
def test_the_gradient_of_4_x_8_is_that_of_1_x_32_without_batch_statistics(corpus, tmp_path,
                                                                          monkeypatch, frozen):
    """LAP, ASTP and the classifier in float32; with batch statistics it is another one."""
    found, build_net, step = [], build.build_net, train._step

    def note(run, lr):
        if run.step == 0:
            found.append({name: p.grad.clone() for name, p in run.model.named_parameters()})
        step(run, lr)

    monkeypatch.setattr(train, "_step", note)
    if frozen:
        monkeypatch.setattr(build, "build_net", lambda *facts: freeze_batch_norms(
            build_net(*facts)))
    for size, parts in ((32, 1), (8, 4)):
        corpus.train(tmp_path / str(size), f"train.batch_size={size}", f"train.accumulate={parts}",
                     "train.epochs=1", *NO_DROPOUT)
    one, four = found
    assert one.keys() == four.keys() and len(one) > 20
    differences = {name: float((four[name] - one[name]).abs().max() / one[name].abs().max())
                   for name in one if one[name].abs().max() > 1e-6}
    assert len(differences) > 20 if frozen else differences
    assert (max(differences.values()) < 2e-4) == frozen, differences


@pytest.fixture(scope="module")
def plain(corpus, tmp_path_factory):
    exp_dir = tmp_path_factory.mktemp("accumulated") / "exp"
    corpus.train(exp_dir, "train.accumulate=2", "model.layer_pool.dropout=0",
                 "model.time_pool.dropout=0")
    return exp_dir


def test_two_processes_compute_what_one_does(corpus, launcher, plain, tmp_path):
    """With batch norm and gradients that are exchanged once a step."""
    command = corpus.command(tmp_path / "exp", "train.accumulate=2", "model.layer_pool.dropout=0",
                             "model.time_pool.dropout=0")
    done = launcher.verb_by_two(command)
    assert [code for code, _ in done] == [0, 0], done
    one, two = read_steps(plain), read_steps(tmp_path / "exp")
    np.testing.assert_allclose([r["loss"] for r in two], [r["loss"] for r in one], rtol=1e-3)
    assert "batch 2 x 8 over all" in done[0][1]
    assert "peak memory of a process: host 0." in done[0][1]


def test_a_killed_training_ends_with_the_same_weights(corpus, launcher, tmp_path):
    """With dropout; killed between the batches of a step."""
    corpus.train(tmp_path / "whole", "train.accumulate=2")
    command = corpus.command(tmp_path / "exp", "train.accumulate=2")
    code, _ = launcher.verb(command, {"module": "wespeaker_lap.engine.train", "call": 12,
                                      "function": "_update", "what": "SIGKILL"})
    assert code != 0 and load_last(tmp_path / "exp")["step"] == 4
    assert launcher.verb(command)[0] == 0
    assert weights_of(tmp_path / "exp") == weights_of(tmp_path / "whole")
    assert strip_times(read_steps(tmp_path / "exp")) == strip_times(read_steps(tmp_path / "whole"))


def test_no_step_is_made_of_a_broken_batch(corpus, tmp_path, monkeypatch):
    """The second of three batches: the weights stay as they were, and its utterances are named."""
    seen, update = [], train._update

    def spoilt(run, batch, *rest):
        seen.append((run, [p.detach().clone() for p in run.model.parameters()], batch.utts))
        if len(seen) == 5:
            batch.feats[0] = torch.nan
        return update(run, batch, *rest)

    monkeypatch.setattr(train, "_update", spoilt)
    with pytest.raises(ValueError, match="not finite at step 2: features that are") as caught:
        corpus.train(tmp_path / "exp", "train.accumulate=3", "train.batch_size=4")
    run, before, utts = seen[-1]
    assert str(caught.value).endswith(utts[0]) and len(seen) == 5
    assert all(torch.equal(p, old) for p, old in zip(run.model.parameters(), before, strict=True))


def test_the_peak_is_of_this_process():
    """At least what has just been held."""
    held = torch.ones(50_000_000)
    assert measure_peaks(torch.device("cpu")).keys() == {"host"}
    assert held.numel() * 4 / 1e9 < measure_peaks(torch.device("cpu"))["host"] < 1000
