"""Which epochs are averaged, which stay on disk for it, and what is refused."""

import json

import pytest
import safetensors.torch
import torch
from trainings import read_metrics, weights_of

from wespeaker_lap.cli import training as verbs
from wespeaker_lap.config import load_config
from wespeaker_lap.engine import checkpoint, choice

NAN = float("nan")


def write_epochs(exp_dir, eers, on_disk=None):
    """Epoch n has the weight 2 ** n, so that a mean tells which were averaged."""
    lines = []
    for epoch, eer in enumerate(eers, 1):
        lines.append({"step": 10 * epoch, "loss": 1.0})
        lines.append({"step": 10 * epoch, "epoch": epoch, "loss": 1.0}
                     | ({} if eer is None else {"valid_eer": eer}))
        path = checkpoint.epoch_path(exp_dir, epoch)
        path.parent.mkdir(parents=True, exist_ok=True)
        if on_disk is None or epoch in on_disk:
            safetensors.torch.save_file({"net.w": torch.tensor([2.0 ** epoch]),
                                         "net.count": torch.tensor(7 * epoch)}, path)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (exp_dir / "metrics.jsonl").write_text(text + '{"step": 99, "epo')  # cut off by a kill
    return exp_dir


def average(exp_dir, num_avg, select="best"):
    paths = checkpoint.average_epochs(exp_dir, num_avg, select)
    mean = checkpoint.load_tensors(exp_dir / "models" / "avg_model.safetensors")
    return [path.name[6:9] for path in paths], mean["net.w"].item(), mean["net.count"].item()


@pytest.mark.parametrize(("eers", "num_avg", "chosen"), [
    ((5.0, 2.0, 4.0, 3.0), 2, (2, 4)),
    ((5.0, 2.0, 4.0, 3.0), 1, (2,)),
    ((2.0, 5.0, 3.0, 3.0, 3.0, 9.0), 3, (1, 4, 5)),  # of equal ones the later
    ((4.0, 4.0, 4.0), 2, (2, 3)),
    ((0.0, 1.0), 1, (1,)),
    ((5.0, 2.0, 4.0), 9, (1, 2, 3)),
    ((NAN, 2.0, float("inf"), 3.0), 3, (2, 4)),
    ((None, None, 6.0), 2, (3,)),
])
def test_the_best_by_hand(tmp_path, eers, num_avg, chosen):
    names, weight, count = average(write_epochs(tmp_path, eers), num_avg)
    assert names == [f"{epoch:03d}" for epoch in chosen]
    assert weight == pytest.approx(sum(2.0 ** epoch for epoch in chosen) / len(chosen))
    assert count == 7 * max(chosen)


def test_what_was_left_out_is_said(tmp_path, caplog):
    names, *_ = average(write_epochs(tmp_path, (1.0, 3.0, NAN, 4.0, 5.0), {3, 4, 5}), 2)
    assert names == ["004", "005"]
    assert "validation EER is not a number: 3" in caplog.text
    assert "epochs 1 2 were better, but their weights are gone" in caplog.text


def test_an_epoch_that_was_trained_again_counts_as_it_is_now(tmp_path):
    exp_dir = write_epochs(tmp_path, (3.0, 4.0))
    path = exp_dir / "metrics.jsonl"
    path.write_text(path.read_text().replace('{"step": 99, "epo', "")
                    + '{"step": 20, "epoch": 2, "valid_eer": 1.5}\n')
    assert choice.read_eers(exp_dir) == {1: 3.0, 2: 1.5}
    assert average(exp_dir, 1)[0] == ["002"]


def test_a_broken_eer_is_named(tmp_path):
    exp_dir = write_epochs(tmp_path, (3.0, "many"))
    with pytest.raises(ValueError, match=r"metrics\.jsonl:4: an epoch or valid_eer that is no num"):
        average(exp_dir, 1)


@pytest.mark.parametrize("eers", [(None, None), (NAN, NAN), ()])
def test_no_validation_no_best(tmp_path, eers):
    exp_dir = write_epochs(tmp_path, eers or (1.0,))
    if not eers:
        (exp_dir / "metrics.jsonl").unlink()
    with pytest.raises(ValueError, match=r"no validation EER.*--select last.*--valid_trials"):
        average(exp_dir, 2)
    assert not (exp_dir / "models" / "avg_model.safetensors").exists()
    assert average(exp_dir, 1, "last")[0]


def test_a_moving_average_that_was_not_made(tmp_path):
    exp_dir = write_epochs(tmp_path, (1.0,))
    with pytest.raises(FileNotFoundError, match=r"ema_model.*set train\.ema_decay before"):
        average(exp_dir, 1, "ema")
    with pytest.raises(ValueError, match="want an average of last, best, ema, got 'first'"):
        average(exp_dir, 1, "first")


@pytest.mark.parametrize(("select", "kept"), [("last", {4, 5, 6}), ("ema", {4, 5, 6}),
                                              ("best", {2, 4, 1, 6})])
def test_the_epochs_that_stay_on_disk(tmp_path, select, kept):
    """Of the best three the tie goes to the later; the newest stays besides them."""
    exp_dir = write_epochs(tmp_path, (4.0, 2.0, NAN, 3.0, 5.0, 9.0))
    checkpoint.drop_old_epochs(exp_dir, 3, select)
    assert {checkpoint.epoch_of(path) for path in checkpoint.epoch_paths(exp_dir)} == kept


def test_the_best_epoch_of_all_is_there_at_the_end(corpus, tmp_path):
    """Though but one is kept besides the newest, and the best one is long past."""
    changes = ("score.average=best", "score.num_avg=1", "train.epochs=4", "train.lr=0.05")
    corpus.train(tmp_path / "all", *changes)
    exp_dir = tmp_path / "exp"
    corpus.train(exp_dir, *changes, "train.keep_epochs=1")
    eers = {record["epoch"]: record["valid_eer"] for record in read_metrics(exp_dir)
            if "epoch" in record}
    best = min(eers, key=lambda epoch: (eers[epoch], -epoch))
    assert best < 3
    assert [checkpoint.epoch_of(path) for path in checkpoint.epoch_paths(exp_dir)] == [best, 4]
    verbs.average_model(exp_dir)
    averaged, made = (exp_dir / "models" / f"avg_model.{end}" for end in ("safetensors", "json"))
    assert json.loads(made.read_text()) == {"average": "best", "weights": [f"epoch_{best:03d}"],
                                            "bn_batches": 0, "valid_eer": [eers[best]]}
    assert averaged.read_bytes() == weights_of(tmp_path / "all", best)
    verbs.average_model(exp_dir, 2, "last")  # what is asked for goes before the configuration
    assert json.loads(made.read_text())["weights"] == [f"epoch_{best:03d}", "epoch_004"]
    with pytest.raises(FileNotFoundError, match="is no trained model"):
        verbs.average_model(tmp_path / "nowhere")


def test_what_cannot_be_done_is_refused_before_training(corpus, tmp_path):
    with pytest.raises(ValueError, match=r"score\.average is best.*--valid_trials"):
        corpus.train(tmp_path / "exp", "score.average=best", validation=None)
    assert not (tmp_path / "exp").exists()
    with pytest.raises(ValueError, match=r"the best 5 epochs.*keep_epochs leaves 4 on disk"):
        load_config(overrides=["score.average=best", "train.keep_epochs=4"])
    with pytest.raises(ValueError, match=r"score\.average: ema wants a train\.ema_decay"):
        load_config(overrides=["score.average=ema"])
    for decay in (0, 1, 1.5):
        with pytest.raises(ValueError, match=r"train\.ema_decay"):
            load_config(overrides=[f"train.ema_decay={decay}"])
