"""Training: what each step does and says, the same on one process and on two."""

import functools
import os
import re
import shutil
import signal

import numpy as np
import pytest
import safetensors.torch
import torch
from trainings import (
    NO_DROPOUT,
    NUM_STEPS,
    STEPS_PER_EPOCH,
    load_last,
    read_metrics,
    read_steps,
    strip_times,
    weights_of,
    write_store,
)

from wespeaker_lap import build
from wespeaker_lap.engine import checkpoint, resume, train
from wespeaker_lap.engine import run as parts
from wespeaker_lap.engine.schedule import learning_rate, margin_at
from wespeaker_lap.io.facts import load_facts
from wespeaker_lap.io.feats import FeatureStore
from wespeaker_lap.losses.margin import AAMSoftmax
from wespeaker_lap.score.metrics import eer


def test_rate_and_margin_follow_their_schedules(whole_training):
    """18 steps, a fifth of them (3.6) warm-up; the margin rises from epoch 0.5 to 2."""
    steps = read_steps(whole_training)
    assert len(steps) == NUM_STEPS
    assert steps[0]["lr"] == pytest.approx(0.01 / 4)
    assert steps[-1]["lr"] == pytest.approx(1e-5)
    for n, record in enumerate(steps):
        assert record["lr"] == pytest.approx(learning_rate(n, NUM_STEPS, 0.01, 1e-5, 4))
        want = margin_at(n / STEPS_PER_EPOCH, 0.5, 2.0, 0.0, 0.2, "log")
        assert record["margin"] == pytest.approx(want, abs=1e-5)


def test_the_validation_eer_of_each_epoch_is_that_of_its_weights(corpus, whole_training):
    """Every utterance on its own through the weights on disk, cosines by hand."""
    epochs = [record for record in read_metrics(whole_training) if "epoch" in record]
    assert [record["epoch"] for record in epochs] == [1, 2, 3]
    store, trials = FeatureStore(corpus.root / "feats_valid"), corpus.trials
    for record in epochs:
        net = build.build_net(corpus.config().model, store.num_layers, store.dim)
        path = checkpoint.epoch_path(whole_training, record["epoch"])
        checkpoint.load_net(path, net)
        with torch.no_grad():
            rows = {utt: net.eval()(torch.from_numpy(store[utt])[None])[0].double().numpy()
                    for utt in store}
        scores = [np.dot(rows[a], rows[b]) / np.sqrt(np.dot(rows[a], rows[a])
                                                     * np.dot(rows[b], rows[b]))
                  for a, b in zip(trials.enroll, trials.test, strict=True)]
        assert record["valid_eer"] == pytest.approx(100 * eer(np.array(scores), trials.labels),
                                                    abs=1e-3)


def test_epoch_records_are_means_of_their_steps(whole_training):
    steps = read_steps(whole_training)
    for record in read_metrics(whole_training):
        if "epoch" in record:
            own = steps[record["step"] - STEPS_PER_EPOCH:record["step"]]
            assert record["loss"] == pytest.approx(np.mean([r["loss"] for r in own]), abs=2e-5)
            assert record["acc"] == pytest.approx(np.mean([r["acc"] for r in own]), abs=1e-5)


def test_it_learns(corpus, tmp_path):
    corpus.train(tmp_path / "exp", "train.epochs=12", "loss.margin=0", "train.batch_size=16",
                 "train.lr=0.05", *NO_DROPOUT)
    records = read_metrics(tmp_path / "exp")
    assert records[-1]["acc"] > 0.6 > 0.3 > records[0]["acc"]


def test_two_processes_compute_what_one_does(corpus, launcher, plain_training, tmp_path):
    """The same global batches: loss, accuracy and validation of every step and epoch."""
    done = launcher.verb_by_two(corpus.command(tmp_path / "exp", *NO_DROPOUT))
    assert [code for code, _ in done] == [0, 0], done
    one, two = read_metrics(plain_training), read_metrics(tmp_path / "exp")
    assert [(r["step"], r.get("epoch")) for r in one] == [(r["step"], r.get("epoch")) for r in two]
    np.testing.assert_allclose([r["loss"] for r in two], [r["loss"] for r in one], rtol=1e-4)
    assert [r["acc"] for r in two] == pytest.approx([r["acc"] for r in one], abs=1e-6)
    assert strip_times(two)[-1]["valid_eer"] == pytest.approx(one[-1]["valid_eer"], abs=1e-3)


def test_a_finished_training_is_left_alone(corpus, whole_training, tmp_path):
    shutil.copytree(whole_training, tmp_path / "exp")
    before = {path: path.read_bytes() for path in (tmp_path / "exp").rglob("*") if path.is_file()}
    corpus.train(tmp_path / "exp")
    after = {path: path.read_bytes() for path in (tmp_path / "exp").rglob("*") if path.is_file()}
    assert after == before


def spoil(monkeypatch, spoilt: str) -> None:
    read = FeatureStore.read

    def read_spoilt(store, utt, *place, **out):
        feats = read(store, utt, *place, **out)
        if utt == spoilt:
            feats[...] = np.nan
        return feats

    monkeypatch.setattr(FeatureStore, "read", read_spoilt)


def watch_weights(monkeypatch) -> list:
    """Before each step: the run, and a copy of its weights."""
    seen, update = [], train._update

    def watched(run, *rest):
        seen.append((run, [p.detach().clone() for p in run.model.parameters()]))
        return update(run, *rest)

    monkeypatch.setattr(train, "_update", watched)
    return seen


def test_a_loss_that_is_not_finite_names_the_utterance(corpus, tmp_path, monkeypatch):
    """The weights stay as they were before the step, and no state of it is saved."""
    spoil(monkeypatch, "train05-2")
    seen = watch_weights(monkeypatch)
    with pytest.raises(ValueError, match=r"not finite at step \d.*not finite: train05-2$"):
        corpus.train(tmp_path / "exp", "train.checkpoint_steps=1")
    run, before = seen[-1]
    for parameter, old in zip(run.model.parameters(), before, strict=True):
        assert torch.equal(parameter, old)
    if len(seen) > 1:
        assert load_last(tmp_path / "exp")["step"] == len(seen) - 1
    assert "train05-2" in (tmp_path / "exp" / "train.log").read_text()


def test_broken_numbers_of_one_process_are_named_by_all(corpus, launcher, tmp_path):
    """Though batch norm makes the loss of both NaN, none calls its own features innocent."""
    accident = {"module": "wespeaker_lap.io.feats", "function": "FeatureStore.read", "call": 6,
                "what": "spoil", "rank": 1}
    done = launcher.verb_by_two(corpus.command(tmp_path / "exp"), accident)
    named = []
    for code, log in done:
        assert code == 1
        named += re.findall(r"error: .* features that are not finite: (\S+)$", log, re.MULTILINE)
    assert len(named) == 2
    assert named[0] == named[1]


def test_a_diverging_training_names_the_batch(corpus, tmp_path, monkeypatch):
    seen = watch_weights(monkeypatch)
    monkeypatch.setattr(AAMSoftmax, "forward", lambda head, emb, speakers, margin: (
        emb.sum() * torch.inf, None))
    with pytest.raises(ValueError, match=r"features are finite; lower train\.lr") as caught:
        corpus.train(tmp_path / "exp")
    assert len(seen) == 1
    named = re.findall(r"train\d\d-\d", str(caught.value))
    assert len(named) == len(set(named)) == 8


def test_old_epochs_are_removed(corpus, tmp_path):
    corpus.train(tmp_path / "exp", "train.keep_epochs=2", "train.epochs=4")
    left = sorted(path.name for path in (tmp_path / "exp" / "models").iterdir())
    assert left == ["epoch_003.safetensors", "epoch_004.safetensors", "last.pt"]


def test_weights_on_disk_are_those_in_the_state(whole_training):
    tensors = safetensors.torch.load(weights_of(whole_training))
    state = load_last(whole_training)
    flat = {f"{part}.{key}": value for part in ("net", "head")
            for key, value in state[part].items()}
    assert tensors.keys() == flat.keys()
    assert all(torch.equal(tensors[key], flat[key]) for key in flat)
    assert tensors["net.pool_norm.num_batches_tracked"].item() == NUM_STEPS


def test_facts_are_written_before_the_first_step(corpus, whole_training):
    facts = load_facts(whole_training)
    tensors = safetensors.torch.load(weights_of(whole_training))
    num_params = sum(v.numel() for k, v in tensors.items() if k.startswith("net.")
                     and "running" not in k and "tracked" not in k)
    assert facts["num_params"] == num_params
    assert (facts["train_set"], facts["num_speakers"]) == ("train", 12)
    assert facts["features"] == FeatureStore(corpus.root / "feats").identity
    speakers = (whole_training / "speakers.txt").read_text().split()
    assert speakers == [f"train{n:02d}" for n in range(12)]


def test_bf16_computes_the_network_and_not_the_loss(corpus, tmp_path, monkeypatch):
    kinds, forward, linear = [], AAMSoftmax.forward, []
    monkeypatch.setattr(AAMSoftmax, "forward", lambda head, emb, *a, **k: (
        kinds.append(emb.dtype), forward(head, emb, *a, **k))[1])
    hooks = torch.nn.modules.module.register_module_forward_hook(
        lambda module, _, out: linear.append(out.dtype) if isinstance(module, torch.nn.Linear)
        and module.training else None)
    with hooks:
        corpus.train(tmp_path / "exp", "train.precision=bf16", "train.epochs=1")
    assert set(kinds) == {torch.float32}
    assert set(linear) == {torch.bfloat16}
    assert np.isfinite([record["loss"] for record in read_steps(tmp_path / "exp")]).all()


def train_and_stop_at(corpus, exp_dir, step, monkeypatch) -> None:
    """Train until a signal comes in a step, in this process."""
    update = train._update

    def signalled(run, *rest):
        if run.step + 1 == step:
            os.kill(os.getpid(), signal.SIGINT)
        return update(run, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(train, "_update", signalled)
        with pytest.raises(KeyboardInterrupt, match=f"stopped after step {step} of"):
            corpus.train(exp_dir)


def test_the_scaler_of_fp16_goes_on_too(corpus, tmp_path, monkeypatch):
    """fp16 with scaled gradients, here on the CPU, where the configuration does not allow it."""
    monkeypatch.setattr(parts, "choose_precision", lambda name, device: torch.float16)
    corpus.train(tmp_path / "whole")
    train_and_stop_at(corpus, tmp_path / "exp", 9, monkeypatch)
    state = load_last(tmp_path / "exp")
    assert state["scaler"]["scale"] > 1.0
    assert state["scaler"]["_growth_tracker"] > 0
    corpus.train(tmp_path / "exp")
    assert weights_of(tmp_path / "exp") == weights_of(tmp_path / "whole")
    assert load_last(tmp_path / "exp")["scaler"] == load_last(tmp_path / "whole")["scaler"]


def test_a_state_without_scaler_goes_on_with_one(corpus, tmp_path, monkeypatch):
    """As when a training moves from a CPU to an old GPU under precision auto."""
    train_and_stop_at(corpus, tmp_path / "exp", 9, monkeypatch)
    monkeypatch.setattr(parts, "choose_precision", lambda name, device: torch.float16)
    corpus.train(tmp_path / "exp")
    assert len(read_steps(tmp_path / "exp")) == NUM_STEPS


def test_overflowing_fp16_gradients_skip_the_step_and_lower_the_scale(corpus, tmp_path,
                                                                      monkeypatch):
    monkeypatch.setattr(parts, "choose_precision", lambda name, device: torch.float16)
    monkeypatch.setattr(resume, "save", lambda run: None)
    scaler = functools.partial(torch.amp.GradScaler, init_scale=2.0**60)
    monkeypatch.setattr(torch.amp, "GradScaler", scaler)
    seen = watch_weights(monkeypatch)
    corpus.train(tmp_path / "exp", "train.epochs=1")
    assert seen[0][0].scaler.get_scale() < 2.0**60
    assert all(torch.equal(a, b) for a, b in zip(seen[0][1], seen[1][1], strict=True))


def test_gradients_are_clipped_where_asked(corpus, tmp_path, monkeypatch):
    norms, step = [], torch.optim.Adam.step

    def watched(optimizer, *rest):
        grads = [p.grad.double().square().sum() for g in optimizer.param_groups
                 for p in g["params"]]
        norms.append(float(torch.stack(grads).sum().sqrt()))
        return step(optimizer, *rest)

    monkeypatch.setattr(torch.optim.Adam, "step", watched)
    corpus.train(tmp_path / "free", "train.epochs=1")
    assert min(norms) > 0.5
    norms.clear()
    corpus.train(tmp_path / "clipped", "train.epochs=1", "train.max_grad_norm=0.5")
    assert norms == pytest.approx([0.5] * STEPS_PER_EPOCH, rel=1e-4)


def test_a_set_that_does_not_fit_is_refused_before_anything_is_written(corpus, tmp_path):
    data = corpus.data
    extra = {**data.utt2spk, "nobody-0": "nobody"}
    with pytest.raises(ValueError, match="no features for nobody-0"):
        corpus.train(tmp_path / "exp", data=type(data)(data.path, extra, extra, {}, {}))
    write_store(tmp_path / "feats", {"a-1": "a"}, 0, encoder="another")
    validation = train.Validation(FeatureStore(tmp_path / "feats"), corpus.trials)
    with pytest.raises(ValueError, match="encoder is 'another', expected 'made_up'"):
        corpus.train(tmp_path / "exp", validation=validation)
    assert not (tmp_path / "exp").exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_training_on_a_gpu(corpus, tmp_path, precision):
    world = train.World(0, 1, torch.device("cuda", 0))
    corpus.train(tmp_path / "exp", f"train.precision={precision}", world=world)
    assert np.isfinite([record["loss"] for record in read_steps(tmp_path / "exp")]).all()
