"""What a set was embedded with: noted, compared, and refused where it differs."""

import hashlib
import json

import pytest

from wespeaker_lap.io.weights import check_weights, forget_weights, note_weights


@pytest.fixture
def exp_dir(tmp_path):
    """Two sets of one network, a third of another."""
    (tmp_path / "models").mkdir()
    for stem in ("avg_model", "epoch_002"):
        (tmp_path / "models" / f"{stem}.safetensors").write_bytes(stem.encode())
    for name, stem in (("train", "avg_model"), ("test", "avg_model"), ("other", "epoch_002")):
        (tmp_path / "embeddings" / name).mkdir(parents=True)
        note_weights(tmp_path / "embeddings" / name, tmp_path / "models" / f"{stem}.safetensors")
    return tmp_path


def test_name_and_hash_are_noted(exp_dir):
    facts = json.loads((exp_dir / "embeddings" / "other" / "weights.json").read_text())
    assert facts == {"weights": "epoch_002", "sha256": hashlib.sha256(b"epoch_002").hexdigest()}


def test_sets_of_one_network_pass(exp_dir):
    check_weights(exp_dir, ["train", "test", "train"])
    check_weights(exp_dir, ["other"])
    check_weights(exp_dir, ["train"], exp_dir / "models" / "avg_model.safetensors")


def test_others_are_named(exp_dir):
    with pytest.raises(ValueError, match=r"other: embedded with epoch_002 \(\w{8}\), which cannot "
                                         r"be compared with .*embeddings/train: avg_model \(\w{8}\)"
                                         r"; embed the set again"):
        check_weights(exp_dir, ["train", "other"])
    weights = exp_dir / "models" / "avg_model.safetensors"
    weights.write_bytes(b"trained further")
    with pytest.raises(ValueError, match="train: embedded with avg_model"):
        check_weights(exp_dir, ["train"], weights)


def test_sets_without_a_note_pass(exp_dir):
    forget_weights(exp_dir / "embeddings" / "other")
    forget_weights(exp_dir / "embeddings" / "other")
    check_weights(exp_dir, ["other", "train", "never embedded"])


def test_a_broken_note_is_an_error(exp_dir):
    path = exp_dir / "embeddings" / "test" / "weights.json"
    path.write_text('{"weights": "avg_model"}')
    with pytest.raises(ValueError, match=r"test/weights\.json: not as stage 4 writes it"):
        check_weights(exp_dir, ["test"])
