"""A packed model as the beginning of a training on other speakers."""

import shutil

import numpy as np
import pytest
import safetensors.numpy
import yaml

from wespeaker_lap.data.datadir import load_data_dir, write_data_dir
from wespeaker_lap.share import bundle

STILL = ("train.lr=1e-12", "train.final_lr=0", "train.weight_decay=0", "train.epochs=1")


@pytest.fixture
def other_data(tiny_system, tmp_path):
    """The test set, one of whose three speakers is called as one that the model knows."""
    data = load_data_dir(tiny_system.data("test"))
    known = data.speakers[0]
    utt2spk = {utt: "a" if speaker == known else speaker for utt, speaker in data.utt2spk.items()}
    write_data_dir(tmp_path / "data", data.wavs, utt2spk)
    return tmp_path / "data"


def fine_tune(lap, tiny_system, packed, data, exp_dir, init):
    settings = [f"--set={item}" for item in STILL]
    return lap("train", "--data", data, "--feats", tiny_system.feats("test"), "--exp-dir", exp_dir,
               "--config", packed / "config.yaml", "--init", init, "--device", "cpu", *settings)


@pytest.mark.parametrize("form", ["folder", "tar"])
def test_known_speakers_keep_their_rows(lap, tiny_system, packed, other_data, tmp_path, form):
    init = packed
    if form == "tar":
        init = tmp_path / "m.tar"
        bundle.write_tar(packed, init, "m")
    done = fine_tune(lap, tiny_system, packed, other_data, tmp_path / "exp", init)
    assert done.code == 0, done.err
    assert "1 speakers kept, 3 left out, 2 new: " in done.log
    before = safetensors.numpy.load_file(packed / "model.safetensors")
    after = safetensors.numpy.load_file(tmp_path / "exp" / "models" / "epoch_001.safetensors")
    names = [(folder / "speakers.txt").read_text(encoding="utf-8").split()
             for folder in (packed, tmp_path / "exp")]
    rows = [own.index("a") for own in names]
    np.testing.assert_allclose(after["head.centers"][rows[1]], before["head.centers"][rows[0]],
                               atol=1e-6)
    weights = [name for name in before if name.endswith("weight") and name.startswith("net.")]
    assert weights
    for name in weights:
        np.testing.assert_allclose(after[name], before[name], atol=1e-6, err_msg=name)


def test_a_changed_model_is_refused(lap, tiny_system, packed, other_data, tmp_path):
    copy = shutil.copytree(packed, tmp_path / "copy")
    config = yaml.safe_load((copy / "config.yaml").read_text(encoding="utf-8"))
    (copy / "config.yaml").write_text(yaml.safe_dump({**config, "seed": 99}), encoding="utf-8")
    done = fine_tune(lap, tiny_system, packed, other_data, tmp_path / "exp", copy)
    assert done.code == 1
    assert "config.yaml changed after packing" in done.err
    assert not (tmp_path / "exp").exists()
