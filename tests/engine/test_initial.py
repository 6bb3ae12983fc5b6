"""Trainings that begin with the weights of another."""

import logging

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn
from trainings import read_steps, strip_times, weights_of

from wespeaker_lap.data.datadir import DataDir
from wespeaker_lap.engine import checkpoint, initial, train
from wespeaker_lap.io.audio import write_wav


@pytest.fixture(scope="module")
def first(wave_corpus, tmp_path_factory):
    """With speeds, so 18 speakers; averaged."""
    exp_dir = tmp_path_factory.mktemp("first") / "exp"
    wave_corpus.train(exp_dir, "data.speeds=[0.9, 1.0, 1.1]")
    checkpoint.average_epochs(exp_dir, 2)
    return exp_dir


LARGE_MARGIN = ("data.speeds=[1.0]", "train.crop_seconds=0.5", "train.batch_size=4",
                "train.accumulate=2", "loss.margin=0.2", "train.epochs=1")


def watch_start(monkeypatch) -> dict:
    """The weights before the first step."""
    seen, update = {}, train._update

    def watched(run, *rest):
        if not seen:
            seen["net"] = {k: v.clone() for k, v in run.net.state_dict().items()}
            seen["head"] = {k: v.clone() for k, v in run.objective.head.state_dict().items()}
            seen["speakers"] = run.material.source.speakers
        return update(run, *rest)

    monkeypatch.setattr(train, "_update", watched)
    return seen


def read_average(exp_dir) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(exp_dir / "models" / "avg_model.safetensors")


@pytest.mark.parametrize("place", ["", "models/avg_model.safetensors"])
def test_the_network_and_the_speakers_rows_are_taken(wave_corpus, first, tmp_path, monkeypatch,
                                                     caplog, place):
    seen = watch_start(monkeypatch)
    with caplog.at_level(logging.INFO):
        wave_corpus.train(tmp_path / "exp", *LARGE_MARGIN, init=first / place)
    want = read_average(first)
    for name, value in seen["net"].items():
        assert torch.equal(value, want[f"net.{name}"]), name
    names = (first / "speakers.txt").read_text().split()
    assert seen["speakers"] == list("abcdef") and len(names) == 18
    rows = [names.index(name) for name in "abcdef"]
    assert torch.equal(seen["head"]["centers"], want["head.centers"][rows])
    said = (tmp_path / "exp" / "train.log").read_text()
    assert "safetensors: 6 speakers kept, 12 left out, 0 new\n" in said
    assert len(read_steps(tmp_path / "exp")) == 3


def test_new_speakers_begin_at_random(wave_corpus, first, tmp_path, monkeypatch, caplog):
    """One between the others and one less, so that rows move both ways."""
    data = wave_corpus.data
    write_wav(tmp_path / "b.wav", 0.1 * np.random.default_rng(0).standard_normal(9000))
    kept = {utt: spk for utt, spk in data.utt2spk.items() if spk != "a"}
    other = DataDir(data.path, {**{utt: data.wavs[utt] for utt in kept},
                                "bb-1": str(tmp_path / "b.wav")}, {**kept, "bb-1": "bb"}, {}, {})
    seen = watch_start(monkeypatch)
    with caplog.at_level(logging.INFO):
        wave_corpus.train(tmp_path / "exp", *LARGE_MARGIN, data=other, init=first)
    assert seen["speakers"] == ["b", "bb", "c", "d", "e", "f"]
    names, want = (first / "speakers.txt").read_text().split(), read_average(first)["head.centers"]
    for row, name in enumerate(seen["speakers"]):
        found = seen["head"]["centers"][row]
        if name == "bb":
            assert found.abs().sum() > 0 and not any(torch.equal(found, one) for one in want)
        else:
            assert torch.equal(found, want[names.index(name)])
    assert "5 speakers kept, 13 left out, 1 new: bb" in caplog.text


def test_a_training_on_features_is_gone_on_with_from_waves(wave_corpus, first, tmp_path):
    """How its features were stored does not matter, which they are does."""
    found = initial.find_initial(first)
    stored = {**found.features, "codec": "int8", "augmentation": "clean", "data_hash": "0",
              "toolkit_version": "1", "precision": "bf16"}
    net, head = nn.Linear(2, 2), nn.Linear(2, 2)
    with pytest.raises(ValueError, match="not the weights of this model"):  # no word of features
        initial.load_initial(found, net, head, ["a"], stored)
    with pytest.raises(ValueError, match=r"other features: num_layers is 1, expected 2.*encoder/"):
        initial.load_initial(found, net, head, ["a"], {**stored, "num_layers": 2})


def test_a_killed_one_goes_on_with_its_own_weights(wave_corpus, launcher, first, tmp_path):
    """Killed before its first state it begins anew with those of the other."""
    wave_corpus.train(tmp_path / "whole", *LARGE_MARGIN, init=first)
    command = [*wave_corpus.command(tmp_path / "exp", *LARGE_MARGIN), "--init", first]
    for call in (1, 3):  # the state is saved after step 2
        code, log = launcher.verb(command, {
            "module": "wespeaker_lap.engine.journal", "function": "Journal.log_step",
            "call": call, "what": "SIGKILL", "after": True})
        assert code < 0, log
    code, log = launcher.verb([*command[:-1], tmp_path / "gone"])
    assert code == 0, log
    assert weights_of(tmp_path / "exp", 1) == weights_of(tmp_path / "whole", 1)
    assert strip_times(read_steps(tmp_path / "exp")) == strip_times(read_steps(tmp_path / "whole"))


def test_two_processes_begin_alike(wave_corpus, launcher, first, tmp_path):
    changes = (*LARGE_MARGIN, "model.time_pool.dropout=0")
    done = launcher.verb_by_two([*wave_corpus.command(tmp_path / "two", *changes), "--init", first])
    assert [code for code, _ in done] == [0, 0], done
    wave_corpus.train(tmp_path / "one", *changes, init=first)
    one, two = (read_steps(tmp_path / name) for name in ("one", "two"))
    np.testing.assert_allclose([r["loss"] for r in two], [r["loss"] for r in one], rtol=1e-3)


def test_a_network_without_a_classifier(wave_corpus, first, tmp_path, caplog):
    """As others share it: all speakers are new."""
    tensors = {k: v for k, v in read_average(first).items() if k.startswith("net.")}
    safetensors.torch.save_file(tensors, tmp_path / "net.safetensors")
    with caplog.at_level(logging.INFO):
        wave_corpus.train(tmp_path / "exp", *LARGE_MARGIN, init=tmp_path / "net.safetensors")
    assert "no classifier in it; all 6 speakers are new" in caplog.text


def test_the_last_epoch_is_taken_where_nothing_was_averaged(wave_corpus, tmp_path):
    wave_corpus.train(tmp_path / "exp", "train.epochs=2", "train.crop_seconds=0.2")
    assert initial.find_initial(tmp_path / "exp").path.name == "epoch_002.safetensors"


@pytest.mark.parametrize(("changes", "complaint"), [
    (("loss.num_subcenters=2",), r"its classifier is another: .*keep loss\.name"),
    (("loss={name: softmax}",), r"its classifier is another"),
    (("model.embed_dim=16",), r"not the weights of this model: .*linear\.weight"),
    (("frontend.mean_norm=false",), r"trained on other features: mean_norm is True, expected Fal"),
])
def test_what_does_not_fit_is_refused(wave_corpus, first, tmp_path, changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        wave_corpus.train(tmp_path / "exp", *LARGE_MARGIN, *changes, init=first)
    assert not (tmp_path / "exp").exists()


def test_weights_that_are_not_there_are_refused(wave_corpus, first, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"--init .*nowhere: no weights"):
        wave_corpus.train(tmp_path / "exp", init=tmp_path / "nowhere")
    (tmp_path / "empty" / "models").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="that has finished an epoch"):
        wave_corpus.train(tmp_path / "exp", init=tmp_path / "empty")
    copy = tmp_path / "w.safetensors"
    copy.write_bytes((first / "models" / "avg_model.safetensors").read_bytes())
    with pytest.raises(ValueError, match=r"its classifier's speakers are not known"):
        wave_corpus.train(tmp_path / "exp", *LARGE_MARGIN, init=copy)
