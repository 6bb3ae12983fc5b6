"""A pre-training: that it learns, stops and goes on, is the same on two processes, and is used."""

import json
import os
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from tiny_pretraining import (
    SETTINGS,
    load_last,
    make_config,
    read_metrics,
    read_valid,
    run_alone_or_joined,
    run_tiny,
    write_pack,
)

from wespeaker_lap.data.packed import PackedAudio
from wespeaker_lap.frontends.hidden_states import compute_states, normalize
from wespeaker_lap.frontends.ssl import FrozenSSL
from wespeaker_lap.pretrain import resume, train
from wespeaker_lap.pretrain.config import PretrainConfig
from wespeaker_lap.pretrain.encoder import build_encoder

pytestmark = pytest.mark.filterwarnings("ignore:At least one mel filterbank has all zero")
NUM_STEPS = SETTINGS["train"]["front_steps"] + SETTINGS["train"]["steps"]
DROPOUT = {"encoder__dropout": 0.1}


@pytest.fixture(autouse=True)
def few_crops_to_fit(monkeypatch):
    """In this process, that is."""
    monkeypatch.setattr(train, "FIT_CROPS", 64)


@pytest.fixture(scope="module")
def whole(pack, tmp_path_factory) -> Path:
    """A training with dropout that nothing interrupted."""
    exp_dir = tmp_path_factory.mktemp("whole") / "exp"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "FIT_CROPS", 64)
        run_tiny(exp_dir, pack, **DROPOUT)
    return exp_dir


def assert_same_training(one: Path, two: Path) -> None:
    """Bit by bit: weights, targets, the optimiser, the validations and the encoder."""
    states = [load_last(exp_dir) for exp_dir in (one, two)]
    assert_equal(*states)
    assert read_valid(one) == read_valid(two)
    for name in ("model.safetensors", "config.json"):
        assert (one / "encoder" / name).read_bytes() == (two / "encoder" / name).read_bytes()


def assert_equal(one: object, two: object, name: str = "state") -> None:
    if isinstance(one, dict):
        assert one.keys() == two.keys(), name
        for key in one:
            assert_equal(one[key], two[key], f"{name}.{key}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, two), name
    else:
        assert one == two, name


def test_it_learns(pack, tmp_path):
    """Held-out loss, and that of every term, before and after more steps."""
    run_tiny(tmp_path / "exp", pack, train__front_steps=0, train__steps=60,
             train__valid_steps=5)
    valid = read_valid(tmp_path / "exp")
    assert [step for step, _ in valid] == [*range(5, 61, 5)]
    first, last = valid[0][1], valid[-1][1]
    for name in ("loss", "code", "mel", "front", "contrast"):
        assert last[name] < first[name], name
    assert last["loss"] < 0.95 * first["loss"]
    assert all(np.isfinite(value) for _, terms in valid for value in terms.values())


def test_what_it_leaves(whole):
    left = {str(path.relative_to(whole)) for path in whole.rglob("*") if path.is_file()}
    assert {name for name in left if not name.startswith("tb/")} == {
        "config.yaml", "train.log", "metrics.jsonl", "models/last.pt", "encoder/config.json",
        "encoder/model.safetensors"}
    state = load_last(whole)
    assert set(state) == {"step", "facts", "net", "targets", "optimizer"}
    assert state["step"] == NUM_STEPS
    written = yaml.safe_load((whole / "config.yaml").read_text())
    assert PretrainConfig.model_validate(written) == make_config(**DROPOUT)
    assert written == state["facts"]["config"]
    record = next(r for r in read_metrics(whole) if "lr" in r)
    assert record["step"] == NUM_STEPS
    assert record["lr"] == pytest.approx(make_config().train.final_lr)


def stop_at(step: int, exp_dir: Path, pack: Path, monkeypatch, **changes) -> None:
    """Pre-train until a signal comes in a step, in this process."""
    update = train._update

    def signalled(run, *rest):
        if run.step + 1 == step:
            os.kill(os.getpid(), signal.SIGINT)
        return update(run, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(train, "_update", signalled)
        with pytest.raises(KeyboardInterrupt, match=f"stopped after step {step} of {NUM_STEPS}"):
            run_tiny(exp_dir, pack, **changes)
    assert load_last(exp_dir)["step"] == step


@pytest.mark.parametrize("step", [3, 5])
def test_a_stopped_training_goes_on_as_if_nothing_had_been(pack, whole, tmp_path, monkeypatch,
                                                           step):
    """With dropout; 5 is the step of a validation."""
    stop_at(step, tmp_path / "exp", pack, monkeypatch, **DROPOUT)
    assert not (tmp_path / "exp" / "encoder").exists()
    run_tiny(tmp_path / "exp", pack, **DROPOUT)
    assert_same_training(tmp_path / "exp", whole)


def test_a_killed_training_goes_on_from_its_last_state(pack, launcher, tmp_path):
    """Killed after step 7, gone on from 4; the validation of step 5 is redone, not doubled."""
    def run(exp_dir: Path, accident: dict | None = None) -> tuple[int, str]:
        return launcher.finish(launcher.start(run_alone_or_joined, (exp_dir, pack, DROPOUT),
                                              accident=accident))[0]

    accident = {"module": "wespeaker_lap.pretrain.journal", "function": "Journal.log_step",
                "call": 7, "what": "SIGKILL"}
    code, log = run(tmp_path / "exp", accident)
    assert code == -signal.SIGKILL, log
    assert load_last(tmp_path / "exp")["step"] == 4
    assert [step for step, _ in read_valid(tmp_path / "exp")] == [5]
    for exp_dir in (tmp_path / "exp", tmp_path / "whole"):
        code, log = run(exp_dir)
        assert code == 0, log
    assert_same_training(tmp_path / "exp", tmp_path / "whole")


def test_two_processes_are_one(pack, launcher, tmp_path):
    """Every term, the contrast over all crops of both included, and the weights, to rounding."""
    from launcher import make_places

    # Nothing that rounding may turn over: codes of the targets are the same, the rates are small.
    changes = {"train__front_steps": 1, "train__steps": 3, "train__valid_steps": 2,
               "train__lr": 1e-3, "train__front_lr": 1e-3}
    one, two = tmp_path / "one", tmp_path / "two"
    started = [launcher.start(run_alone_or_joined, (one, pack, changes))]
    started += [launcher.start(run_alone_or_joined, (two, pack, changes), environment=place)
                for place in make_places()]
    for code, log in launcher.finish(*started):
        assert code == 0, log
    for (step, terms), (other_step, others) in zip(read_valid(one), read_valid(two), strict=True):
        assert step == other_step
        assert others == pytest.approx(terms, rel=1e-4, abs=2e-5)
    means = [next(r for r in read_metrics(exp_dir) if "lr" in r) for exp_dir in (one, two)]
    for name in ("loss", "code", "mel", "front", "contrast", "grad_norm", "lr"):
        assert means[1][name] == pytest.approx(means[0][name], rel=1e-4, abs=2e-5), name
    states = [load_last(exp_dir) for exp_dir in (one, two)]
    assert_equal(states[0]["targets"], states[1]["targets"])
    for name, value in states[0]["net"].items():
        # The keys' biases have no effect: Adam makes steps of their gradients' rounding.
        if not name.endswith("attention.in_proj_bias"):
            assert (value - states[1]["net"][name]).abs().mean() < 2e-5, name


def test_two_processes_stop_together_and_refuse_with_the_same_words(pack, launcher, tmp_path):
    from launcher import make_places

    def run(changes: dict, accident: dict | None = None) -> list[tuple[int, str]]:
        return launcher.finish(*(
            launcher.start(run_alone_or_joined, (tmp_path / "exp", pack, changes),
                           environment=place, accident=accident) for place in make_places()))

    accident = {"module": "wespeaker_lap.pretrain.train", "function": "_update", "call": 3,
                "what": "SIGTERM", "rank": 1}
    for code, log in run({}, accident):
        assert code != 0
        assert "stopped after step 3 of 10" in log
    assert load_last(tmp_path / "exp")["step"] == 3
    for code, log in run({"seed": 6}):
        assert code == 1
        assert "seed is 5, expected 6" in log


def test_another_configuration_is_refused_by_field(pack, whole, tmp_path):
    exp_dir = shutil.copytree(whole, tmp_path / "exp")
    before = {path: path.read_bytes() for path in exp_dir.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match="holds another training") as caught:
        run_tiny(exp_dir, pack, train__lr=0.02, masked__span=4, seed=6, **DROPOUT)
    for part in ("train.lr is 0.005, expected 0.02", "masked.span is 3, expected 4",
                 "seed is 5, expected 6", "Choose another --exp_dir"):
        assert part in str(caught.value)
    assert {path: path.read_bytes() for path in exp_dir.rglob("*") if path.is_file()} == before


def test_other_recordings_are_refused(pack, whole, tmp_path):
    exp_dir = shutil.copytree(whole, tmp_path / "exp")
    samples = [np.random.default_rng(n).standard_normal(8000) / 9 for n in range(4)]
    other = write_pack(tmp_path / "other", samples, name="1")
    with pytest.raises(ValueError, match="the hash of audio is '0', expected '1'"):
        run_tiny(exp_dir, other, **DROPOUT)
    with pytest.raises(ValueError, match="the hash of noises is None, expected '1'"):
        train.pretrain(make_config(**DROPOUT), PackedAudio(pack), exp_dir,
                       train.World(0, 1, torch.device("cpu")), noises=PackedAudio(other))


def test_what_does_not_change_the_result_may_change(pack, whole, tmp_path, monkeypatch):
    stop_at(3, tmp_path / "exp", pack, monkeypatch, train__checkpoint_steps=2, **DROPOUT)
    run_tiny(tmp_path / "exp", pack, train__valid_steps=10, train__checkpoint_steps=9, **DROPOUT)
    for part in ("net", "targets", "optimizer"):
        assert_equal(load_last(tmp_path / "exp")[part], load_last(whole)[part])
    assert read_valid(tmp_path / "exp") == read_valid(whole)[-1:]
    assert "valid_steps: 10" in (tmp_path / "exp" / "config.yaml").read_text()


def test_processes_that_find_different_states_are_refused(whole, tmp_path):
    world = SimpleNamespace(gather=lambda step: [step, None])
    with pytest.raises(ValueError, match="must be on a disk that all machines share"):
        resume.load_same_training(whole, load_last(whole)["facts"], world)
    alone = SimpleNamespace(gather=lambda step: [step])
    assert resume.load_same_training(tmp_path, {"config": {}}, alone) is None


def test_a_finished_training_only_exports(pack, whole, tmp_path, monkeypatch):
    """As when it was killed between its last state and its encoder."""
    exp_dir = shutil.copytree(whole, tmp_path / "exp")
    shutil.rmtree(exp_dir / "encoder")
    before = {path: path.read_bytes() for path in exp_dir.rglob("*") if path.is_file()}
    monkeypatch.setattr(train, "_update", lambda *_: pytest.fail("it trains"))
    run_tiny(exp_dir, pack, **DROPOUT)
    assert {path: path.read_bytes() for path in before} == before
    assert_same_training(exp_dir, whole)


def test_the_exported_encoder_gives_the_states_that_were_trained(whole):
    """Those of the float32 weights in the last state, up to the float16 of the file."""
    encoder = FrozenSSL.load(whole / "encoder")
    config = make_config(**DROPOUT)
    trained = build_encoder(config.encoder, 16000).eval()
    weights = load_last(whole)["net"]
    trained.load_state_dict({name.removeprefix("encoder."): value
                             for name, value in weights.items() if name.startswith("encoder.")})
    wav = 0.1 * torch.randn(2, 6000, generator=torch.Generator().manual_seed(0)) + 0.02
    with torch.no_grad():
        want = compute_states(trained, normalize(wav, [6000] * 2, 1e-7), [6000] * 2)
        found, lengths = encoder(wav)
    assert found.shape == want.shape == (2, (6000 - 720) // 320 + 1, 3, 16)
    assert lengths.tolist() == [found.shape[1]] * 2
    np.testing.assert_allclose(found, want, atol=0.01)
    assert want.std() > 0.5
    facts = json.loads((whole / "encoder" / "config.json").read_text())
    assert (facts["sample_rate"], facts["normalize_waveform"]) == (16000, True)


def test_a_loss_that_is_not_finite_ends_it_and_leaves_the_state(pack, tmp_path, monkeypatch):
    forward = train._forward

    def spoil(run, batch):
        return {name: term * (float("nan") if run.step == 6 else 1)
                for name, term in forward(run, batch).items()}

    monkeypatch.setattr(train, "_forward", spoil)
    with pytest.raises(ValueError, match=r"not finite at step 7; lower train\.lr"):
        run_tiny(tmp_path / "exp", pack)
    state = load_last(tmp_path / "exp")
    assert state["step"] == 4
    assert all(torch.isfinite(value).all() for value in state["net"].values())
    assert "ERROR ValueError: the loss" in (tmp_path / "exp" / "train.log").read_text()


def test_batches_that_do_not_fit_the_processes_or_too_few_recordings(pack, tmp_path):
    world = train.World(0, 3, torch.device("cpu"))
    config, sources = make_config(), (SimpleNamespace(audio=PackedAudio(pack)),) * 2
    with pytest.raises(ValueError, match="must be a multiple of twice their number, 3"):
        train._set_up(config, world, tmp_path, {}, *sources, is_new=False)
    lone = write_pack(tmp_path / "lone", [np.zeros(8000)])
    with pytest.raises(ValueError, match="nothing is left to train on"):
        run_tiny(tmp_path / "exp", lone)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_pretraining_on_a_gpu(pack, tmp_path):
    world = train.World(0, 1, torch.device("cuda", 0))
    train.pretrain(make_config(train__precision="auto"), PackedAudio(pack), tmp_path / "exp", world)
    record = next(r for r in read_metrics(tmp_path / "exp") if "lr" in r)
    assert np.isfinite(record["loss"])
    assert record["gpu_gib"] > 0
