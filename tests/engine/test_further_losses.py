"""Trainings with more than one loss: what is minimised, and that it goes on as it stopped."""

import shutil

import numpy as np
import pytest
import torch
from torch import nn
from trainings import load_last, read_steps, strip_times, weights_of

from wespeaker_lap.data.balanced import BalancedBatchSampler
from wespeaker_lap.data.datadir import load_data_dir, write_data_dir
from wespeaker_lap.engine.objective import PARTS, Objective
from wespeaker_lap.losses.contrastive import MultiScaleContrastive
from wespeaker_lap.losses.margin import AAMSoftmax

ECAPA = ("model.layer_pool={name: single, layer: 1}",
         "model.frame_net={name: ecapa, channels: 16, out_dim: 16, res2_scale: 2, squeeze_dim: 4}")
CONTRAST = (*ECAPA, "contrastive={weight: 0.5, embed_dim: 6, temperature: 0.2}",
            "train.utts_per_speaker=2")


class Scales(nn.Module):
    """Mean over frames and layers; the frames of the first two layers as scales."""

    def forward(self, feats, lengths=None, return_scales=False):
        embeddings = feats.mean(dim=(1, 2))
        return (embeddings, [feats[:, :, 0], feats[:, :, 1]], None) if return_scales else embeddings


class OneOff(nn.Module):
    """A teacher that finds the student two off in epoch 3, and wants the entries' names."""

    def forward(self, entries, embeddings, logits, speakers, epoch, spans):
        assert spans == [(0.5, 1.0)] * 4
        assert entries == ["a", "b", "c", "d"] and logits.shape == (4, 3)
        return embeddings.new_tensor(2.0 if epoch == 3 else 0.0)


def test_the_parts_are_those_of_each_loss():
    torch.manual_seed(0)
    head = AAMSoftmax(8, 3, margin=0.2)
    contrastive = MultiScaleContrastive([8, 8], embed_dim=4).eval()
    objective = Objective(Scales(), head, None, contrastive, 0.25, OneOff())
    feats, speakers = torch.randn(4, 5, 3, 8), torch.tensor([0, 2, 0, 1])
    losses, correct = objective(feats, speakers, ["a", "b", "c", "d"], 0.1, 3, [(0.5, 1.0)] * 4)
    embeddings = feats.mean(dim=(1, 2))
    assert PARTS == ("classification", "contrast", "distillation")
    torch.testing.assert_close(losses[0], head(embeddings, speakers, 0.1)[0])
    contrast = contrastive([feats[:, :, 0], feats[:, :, 1]], speakers)
    torch.testing.assert_close(losses[1], 0.25 * contrast)
    assert losses[2] == 2.0
    assert correct == (head.predict(embeddings) == speakers).sum()


def test_the_contrastive_heads_run_in_the_networks_precision():
    """A network under autocast gives its scales in bf16; the loss is float32 all the same."""

    class Rounded(Scales):
        def forward(self, feats, lengths=None, return_scales=False):
            embeddings, scales, lengths = super().forward(feats, lengths, return_scales=True)
            return embeddings, [scale.bfloat16() for scale in scales], lengths

    torch.manual_seed(0)
    head, contrastive = AAMSoftmax(8, 3), MultiScaleContrastive([8, 8], embed_dim=4).eval()
    batch = (torch.randn(4, 5, 3, 8), torch.tensor([0, 2, 0, 1]), ["a", "b", "c", "d"], 0.1, 0)
    exact, _ = Objective(Scales(), head, None, contrastive, 0.25)(*batch)
    rounded, _ = Objective(Rounded(), head, torch.bfloat16, contrastive, 0.25)(*batch)
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded[1], exact[1], rtol=0.05, atol=0)
    rounded[1].backward()
    assert all(p.grad.isfinite().all() for p in contrastive.parameters())


def test_a_loss_that_is_not_used_is_zero():
    head = AAMSoftmax(8, 3)
    losses, _ = Objective(Scales(), head, None)(torch.randn(2, 5, 3, 8), torch.tensor([0, 2]),
                                                ["a", "b"], 0.0, 0)
    assert losses[0] > 0 and losses[1:].tolist() == [0, 0]


@pytest.fixture(scope="module")
def contrast_training(corpus, tmp_path_factory):
    exp_dir = tmp_path_factory.mktemp("contrast") / "exp"
    corpus.train(exp_dir, *CONTRAST)
    return exp_dir


def test_the_heads_of_the_contrastive_loss_learn(corpus, contrast_training):
    """Batches of 4 speakers with 2 utterances; the journal has the loss's own part."""
    records = read_steps(contrast_training)
    assert all(0 < record["contrast"] < record["loss"] for record in records)
    assert "distillation" not in records[0]
    labels = [int(spk[-2:]) for _, spk in sorted(corpus.data.utt2spk.items())]
    assert len(records) == 3 * BalancedBatchSampler(labels, 4, 2, seed=7).steps_per_epoch
    state = load_last(contrast_training)["contrastive"]
    assert len([name for name in state if name.endswith("linear.weight")]) == 3
    # Only what DDP wraps is optimised: the heads moved away from where they began.
    norms = [value for name, value in state.items() if name.endswith("pool_norm.weight")]
    assert all((value != 1).any() for value in norms)


def test_a_killed_training_with_heads_ends_with_the_same_weights(corpus, launcher,
                                                                 contrast_training, tmp_path):
    command = corpus.command(tmp_path / "exp", *CONTRAST)
    launcher.verb(command, {"module": "wespeaker_lap.engine.journal", "call": 11, "after": True,
                            "function": "Journal.log_step", "what": "SIGKILL"})
    assert launcher.verb(command)[0] == 0
    assert weights_of(tmp_path / "exp") == weights_of(contrast_training)
    assert strip_times(read_steps(tmp_path / "exp")) == strip_times(read_steps(contrast_training))


def test_two_processes_have_the_contrast_of_one(corpus, launcher, contrast_training, tmp_path):
    done = launcher.verb_by_two(corpus.command(tmp_path / "exp", *CONTRAST, "train.epochs=1"))
    assert [code for code, _ in done] == [0, 0], done
    two = read_steps(tmp_path / "exp")
    one = read_steps(contrast_training)[:len(two)]
    # One epoch of a longer training differs in its learning rate, so the first step alone.
    np.testing.assert_allclose(two[0]["contrast"], one[0]["contrast"], rtol=1e-3)


def test_batches_that_hardly_have_a_positive_are_named(corpus, tmp_path):
    """Of 12 speakers with 4 utterances each: 72 of 1,128 pairs are one speaker's."""
    with pytest.raises(ValueError, match=r"batches of 2 have 0\.064 pairs .* \(train.utts_per_sp"):
        corpus.train(tmp_path / "exp", *ECAPA, "contrastive.weight=0.1", "train.batch_size=2")
    assert not (tmp_path / "exp" / "config.yaml").exists()


def test_a_plain_batch_without_a_positive_goes_without_contrast(corpus, tmp_path, caplog):
    """Batches of 6 have 15 * 72 / 1,128 pairs on average, and about exp(-0.96) of them none."""
    caplog.set_level("INFO")
    corpus.train(tmp_path / "exp", *ECAPA, "contrastive.weight=0.1", "train.batch_size=6")
    parts = [record.get("contrast") for record in read_steps(tmp_path / "exp")]
    assert len(parts) == 3 * 8 and 3 < parts.count(None) < 18
    assert all(part > 0 for part in parts if part is not None)
    assert "1.0 pairs of one speaker in a batch on average; 38 % of the batches" in caplog.text


@pytest.mark.parametrize("loss", ["{name: softmax}", "{name: am, margin: 0.1}"])
def test_other_classifiers_train(corpus, tmp_path, loss):
    corpus.train(tmp_path / "exp", f"loss={loss}", "train.epochs=1")
    margins = [record["margin"] for record in read_steps(tmp_path / "exp")]
    assert (max(margins) > 0) == ("margin" in loss)


def test_a_smaller_set_is_refused_with_balanced_batches_too(corpus, contrast_training, tmp_path):
    shutil.copytree(contrast_training, tmp_path / "exp")
    write_data_dir(tmp_path / "fewer", dict(list(corpus.data.wavs.items())[:-1]),
                   dict(list(corpus.data.utt2spk.items())[:-1]))
    with pytest.raises(ValueError, match="trained on 48 utterances, the set has 47 now"):
        corpus.train(tmp_path / "exp", *CONTRAST, data=load_data_dir(tmp_path / "fewer"))
