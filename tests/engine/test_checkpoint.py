"""What is written is read again, averages by hand, and broken files are named."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from wespeaker_lap.engine import checkpoint
from wespeaker_lap.io.facts import load_facts, save_facts


def write_epoch(exp_dir, epoch, **tensors):
    path = checkpoint.epoch_path(exp_dir, epoch)
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(tensors, path)
    return path


def numbered(value: float, steps: int) -> dict[str, torch.Tensor]:
    return {"net.weight": torch.tensor([[value, 2 * value]]), "head.centers": torch.tensor([value]),
            "net.norm.num_batches_tracked": torch.tensor(steps)}


def test_the_mean_of_the_last_epochs_by_hand(tmp_path):
    """Of 1, 2, 4, 9 the last three: 5. Counts are of the newest."""
    for epoch, value in enumerate((1.0, 2.0, 4.0, 9.0), 1):
        write_epoch(tmp_path, epoch, **numbered(value, 10 * epoch))
    paths = checkpoint.average_epochs(tmp_path, 3)
    assert [path.name for path in paths] == [f"epoch_00{n}.safetensors" for n in (2, 3, 4)]
    mean = checkpoint.load_tensors(tmp_path / "models" / "avg_model.safetensors")
    assert mean["net.weight"].tolist() == [[5.0, 10.0]]
    assert mean["head.centers"].tolist() == [5.0]
    assert mean["net.norm.num_batches_tracked"].item() == 40
    assert mean["net.norm.num_batches_tracked"].dtype == torch.int64


def test_means_of_many_random_tensors_against_float64(tmp_path, caplog):
    rng = np.random.default_rng(0)
    arrays = rng.normal(size=(5, 4, 3)).astype(np.float32)
    for epoch, array in enumerate(arrays, 1):
        write_epoch(tmp_path, epoch, weight=torch.from_numpy(array))
    assert len(checkpoint.average_epochs(tmp_path, 99)) == 5
    assert "averaging all 5 epochs on disk, for want of 99; train.keep_epochs says" in caplog.text
    mean = checkpoint.load_tensors(tmp_path / "models" / "avg_model.safetensors")
    np.testing.assert_allclose(mean["weight"], arrays.astype(np.float64).mean(0), rtol=1e-6,
                               atol=1e-7)


def test_epochs_are_counted_beyond_999(tmp_path):
    for epoch in (998, 999, 1000, 1001):
        write_epoch(tmp_path, epoch, weight=torch.tensor([float(epoch)]))
    checkpoint.average_epochs(tmp_path, 2)
    mean = checkpoint.load_tensors(tmp_path / "models" / "avg_model.safetensors")
    assert mean["weight"].item() == 1000.5
    checkpoint.drop_later_epochs(tmp_path, 999)
    assert [path.name for path in checkpoint.epoch_paths(tmp_path)] == [
        "epoch_998.safetensors", "epoch_999.safetensors"]


def test_nothing_to_average_and_different_models(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"models: no epoch_.*run stage 3"):
        checkpoint.average_epochs(tmp_path, 5)
    write_epoch(tmp_path, 1, weight=torch.zeros(2))
    write_epoch(tmp_path, 2, weight=torch.zeros(3))
    with pytest.raises(ValueError, match=r"epoch_001.*of another model than .*epoch_002"):
        checkpoint.average_epochs(tmp_path, 5)
    assert not (tmp_path / "models" / "avg_model.safetensors").exists()


def test_weights_come_back(tmp_path):
    net, head = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)), nn.Linear(2, 4)
    net(torch.randn(5, 3))
    checkpoint.save_weights(tmp_path / "w.safetensors", net, head)
    fresh = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    checkpoint.load_net(tmp_path / "w.safetensors", fresh)
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(),
                                                 fresh.state_dict().values(), strict=True))
    kept = checkpoint.load_tensors(tmp_path / "w.safetensors")
    assert torch.equal(kept["head.weight"], head.weight)


def test_weights_of_another_model_are_an_error_that_lists_everything(tmp_path):
    checkpoint.save_weights(tmp_path / "w.safetensors",
                            nn.ModuleDict({"a": nn.Linear(3, 2), "b": nn.Linear(1, 1)}),
                            nn.Linear(1, 1))
    other = nn.ModuleDict({"a": nn.Linear(4, 2), "c": nn.Linear(1, 1, bias=False)})
    with pytest.raises(ValueError, match="not the weights of this model") as caught:
        checkpoint.load_net(tmp_path / "w.safetensors", other)
    for part in ("missing c.weight", "unexpected b.bias", "unexpected b.weight",
                 "a.weight is (2, 3), the model wants (2, 4)"):
        assert part in str(caught.value)


def test_weights_that_lie_channels_last_are_saved(tmp_path):
    """As a ResNet's do once it is loaded."""
    wanted = torch.arange(24.0).view(2, 3, 2, 2)
    path = tmp_path / "a.safetensors"
    checkpoint.save_tensors(path, {"w": wanted.to(memory_format=torch.channels_last)})
    assert torch.equal(checkpoint.load_tensors(path)["w"], wanted)


def test_missing_and_broken_weights(tmp_path):
    with pytest.raises(FileNotFoundError, match="has the training finished an epoch"):
        checkpoint.load_tensors(tmp_path / "w.safetensors")
    path = write_epoch(tmp_path, 1, weight=torch.zeros(100))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"epoch_001.* not a whole safetensors file"):
        checkpoint.load_tensors(path)


def test_a_state_comes_back(tmp_path):
    state = {"step": 3, "net": {"w": torch.arange(3)}, "optimizer": {"lr": 0.1, "betas": (0.9, 1)}}
    checkpoint.save_state(tmp_path / "models" / "last.pt", state)
    back = checkpoint.load_state(tmp_path / "models" / "last.pt")
    assert back["net"]["w"].tolist() == [0, 1, 2]
    assert (back["step"], back["optimizer"]) == (3, state["optimizer"])


class Payload:
    """Would run a program when unpickled carelessly."""

    def __reduce__(self):
        return (print, ("unpickled",))


def test_a_state_that_would_run_code_is_refused(tmp_path, capsys):
    torch.save(Payload(), tmp_path / "last.pt")
    with pytest.raises(ValueError, match=r"last\.pt: not readable"):
        checkpoint.load_state(tmp_path / "last.pt")
    assert "unpickled" not in capsys.readouterr().out


def test_a_full_disk_leaves_the_old_state(tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    checkpoint.save_state(path, {"step": 1})

    def fill_up(path, data):
        with open(path, "wb") as file:
            file.write(data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fill_up)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save_state(path, {"step": 2})
    assert checkpoint.load_state(path) == {"step": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.pt"]


def test_facts_come_back_and_their_absence_is_explained(tmp_path):
    save_facts(tmp_path, {"dim": 4}, ["ä", "b"], "train", 123)
    assert load_facts(tmp_path) == {
        "features": {"dim": 4}, "num_speakers": 2, "train_set": "train", "num_params": 123}
    assert (tmp_path / "speakers.txt").read_text(encoding="utf-8") == "ä\nb\n"
    with pytest.raises(FileNotFoundError, match="is no trained model"):
        load_facts(tmp_path / "elsewhere")
    (tmp_path / "model.json").write_text(json.dumps({})[:1])
    with pytest.raises(ValueError, match=r"model\.json: not JSON"):
        load_facts(tmp_path)
