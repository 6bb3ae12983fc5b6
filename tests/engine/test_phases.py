"""What a phase takes over from the one before, and that it trains with what its log says."""

import logging

import numpy as np
import pytest
import safetensors.torch
import torch
from trainings import read_steps

from wespeaker_lap.engine import checkpoint, train
from wespeaker_lap.engine.journal import describe_loss
from wespeaker_lap.io.facts import load_facts, name_encoder

# Phase 1 has speeds and so 18 speakers, a ramp and inter-top-K; phase 3 other crops and batches.
FIRST = ("data.speeds=[0.9, 1.0, 1.1]", "train.epochs=1")
MARGIN, SCALE = 0.5, 30.0
LARGE_MARGIN = ("train.crop_seconds=0.6", "train.batch_size=4", "train.accumulate=2",
                "train.epochs=1", f"loss.margin={MARGIN}", "loss.top_k=0", "train.final_lr=0.01",
                "train.warmup_share=0", "loss.schedule={start_epoch: 0, end_epoch: 0}")


@pytest.fixture(scope="module", autouse=True)
def logged():
    """As from the command line."""
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.INFO)
    yield
    logging.getLogger().setLevel(level)


@pytest.fixture(scope="module")
def first(wave_corpus, tmp_path_factory):
    exp_dir = tmp_path_factory.mktemp("first") / "exp"
    wave_corpus.train(exp_dir, *FIRST)
    checkpoint.average_epochs(exp_dir, 1)
    return exp_dir


@pytest.fixture(scope="module")
def fine_tuned(wave_corpus, first, tmp_path_factory):
    """Its folder, and what its classifier was given and found, batch by batch."""
    seen, set_up = [], train.set_up

    def watched(*arguments):
        run = set_up(*arguments)

        def note(head, given, found):
            emb, speakers, margin = given
            seen.append({"emb": emb.detach().numpy(), "speakers": speakers.numpy(),
                         "margin": margin, "centers": head.centers.detach().numpy().copy(),
                         "loss": found[0].item(), "classes": run.material.source.speakers})

        run.objective.head.register_forward_hook(note)
        return run

    exp_dir = tmp_path_factory.mktemp("large margin") / "exp"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "set_up", watched)
        wave_corpus.train(exp_dir, *LARGE_MARGIN, init=first)
    return exp_dir, seen


def find_loss(batch: dict) -> float:
    """AAM-softmax with the whole margin and nothing on the other speakers, in float64."""
    emb, centers = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (
        batch["emb"].astype(float), batch["centers"].reshape(6, 8).astype(float)))
    cosines = emb @ centers.T
    losses = []
    for row, speaker in zip(cosines, batch["speakers"], strict=True):
        logits, own = row.copy(), row[speaker]
        logits[speaker] = (np.cos(np.arccos(own) + MARGIN) if own > np.cos(np.pi - MARGIN)
                           else own - MARGIN * np.sin(np.pi - MARGIN))
        logits *= SCALE
        losses.append(np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[speaker])
    return float(np.mean(losses))


def test_the_whole_margin_acts_from_the_first_step_and_no_top_k(fine_tuned):
    exp_dir, seen = fine_tuned
    assert [batch["margin"] for batch in seen] == [MARGIN] * 6  # 3 steps of 2 batches
    for batch in seen:
        assert batch["loss"] == pytest.approx(find_loss(batch), rel=1e-4)
    assert [(step["margin"], step["lr"]) for step in read_steps(exp_dir)] == [(MARGIN, 0.01)] * 3


def test_the_classes_are_the_true_speakers_with_their_rows(fine_tuned, first):
    _, seen = fine_tuned
    assert seen[0]["classes"] == list("abcdef")
    names = (first / "speakers.txt").read_text().split()
    assert len(names) == 18
    before = safetensors.torch.load_file(first / "models" / "avg_model.safetensors")["head.centers"]
    rows = before[[names.index(name) for name in "abcdef"]].numpy()
    assert np.array_equal(seen[0]["centers"], rows)
    assert not np.array_equal(seen[-1]["centers"], rows)


def test_the_log_says_what_is_done(fine_tuned, first):
    exp_dir, _ = fine_tuned
    said = (exp_dir / "train.log").read_text()
    assert ("loss aam: scale 30, margin 0.5 from the first step, 1 sub-centre, no inter-top-K\n"
            in said)
    assert "avg_model.safetensors: 6 speakers kept, 12 left out, 0 new\n" in said
    assert "batch 2 x 4 over all" in said
    assert ("margin 0 to 0.1 from epoch 0 to 1 (log), 1 sub-centre, inter-top-K of 2 with 0.06"
            in (first / "train.log").read_text())


@pytest.mark.parametrize(("changes", "text"), [
    ("loss={name: softmax}", "loss softmax: no margin"),
    ("loss={name: am, num_subcenters: 2}", "loss am: scale 30, margin 0 to 0.2 from epoch 0 to 20 "
                                           "(log), 2 sub-centres")])
def test_other_losses_are_described(wave_corpus, changes, text):
    assert describe_loss(wave_corpus.config(changes).loss) == text


def test_what_it_began_with_is_on_record(wave_corpus, fine_tuned, first):
    """Also after another start."""
    exp_dir, _ = fine_tuned
    for _ in range(2):
        facts = load_facts(exp_dir)
        assert facts["init"] == {"system": "exp", "margin": 0.1, "encoder": "fbank"}
        assert name_encoder(facts) == "fbank"
        wave_corpus.train(exp_dir, *LARGE_MARGIN, init=first)
    assert "init" not in load_facts(first)


def test_an_encoder_keeps_its_first_name(wave_corpus, tmp_path):
    """Tuned and gone on with from the folder `encoder`, like the third phase from the second."""
    tuned = ("train.epochs=1", "train.encoder={}", "train.crop_seconds=0.1",
             "features.layers=[0, 1]", "model.layer_pool={name: weighted_sum}")
    for name, frontend, init in (("joint", "wavlm_tiny", None),
                                 ("lm", tmp_path / "joint" / "encoder", tmp_path / "joint")):
        wave_corpus.train(tmp_path / name, *tuned, f"frontend={{name: {frontend}}}", init=init)
    facts = load_facts(tmp_path / "lm")
    assert facts["features"]["encoder"] == "encoder"
    assert name_encoder(facts) == name_encoder(load_facts(tmp_path / "joint")) == "wavlm_tiny"
    assert facts["init"]["system"] == "joint"


def test_weights_alone_have_no_past(wave_corpus, first, tmp_path, caplog):
    tensors = safetensors.torch.load_file(first / "models" / "avg_model.safetensors")
    net = {name: value for name, value in tensors.items() if name.startswith("net.")}
    safetensors.torch.save_file(net, tmp_path / "shared.safetensors")
    with caplog.at_level(logging.INFO):
        wave_corpus.train(tmp_path / "exp", *LARGE_MARGIN, init=tmp_path / "shared.safetensors")
    assert load_facts(tmp_path / "exp")["init"] == {"system": "shared"}
    assert name_encoder(load_facts(tmp_path / "exp")) == "fbank"
    assert all(torch.isfinite(value).all() for value in net.values())
