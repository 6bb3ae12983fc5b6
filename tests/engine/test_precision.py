"""Mixed precision in stage 2: near float32, recorded, and no obstacle to a model."""

import numpy as np
import programs
import pytest
from checks import snapshot
from tiny import TINY_CONFIG, write_voices

from wespeaker_lap import build
from wespeaker_lap.config import load_config
from wespeaker_lap.data.audit import audit_data_dir
from wespeaker_lap.data.datadir import load_data_dir
from wespeaker_lap.engine import checkpoint, embed, extract, repair, train
from wespeaker_lap.frontends.fbank import FbankLayer
from wespeaker_lap.frontends.ssl import FrozenSSL
from wespeaker_lap.io.feats import FeatureStore


@pytest.fixture(scope="module")
def frontend():
    return FrozenSSL.load("wavlm_tiny")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = write_voices(tmp_path_factory.mktemp("data") / "set", "ab")
    audit_data_dir(path)
    return load_data_dir(path)


@pytest.fixture(scope="module")
def stores(frontend, data, tmp_path_factory):
    root = tmp_path_factory.mktemp("stores")
    for name in ("float32", "bf16"):
        extract.extract_feats(frontend, data, root / name, "float32", programs.ALONE,
                              precision=name)
    return root


def test_bf16_is_near_float32_and_not_it(data, stores):
    """States err by a few parts in a hundred of their deviation: bf16 has 8 bits."""
    exact, rounded = FeatureStore(stores / "float32"), FeatureStore(stores / "bf16")
    errors = [np.sqrt(np.mean((exact[utt] - rounded[utt]) ** 2, axis=(0, 2))
                      / exact[utt].var(axis=(0, 2))) for utt in data.wavs]
    assert 0.001 < np.max(errors) < 0.1


def test_it_is_recorded_and_a_store_goes_on_in_its_own(frontend, data, stores):
    for name in ("float32", "bf16"):
        assert FeatureStore(stores / name).identity["precision"] == name
    with pytest.raises(ValueError, match="another identity: precision is 'bf16', expected 'float"):
        extract.extract_feats(frontend, data, stores / "bf16", "float32", programs.ALONE)


def test_auto_is_what_the_main_process_chooses(frontend, data, launcher, tmp_path, monkeypatch):
    """Though the other process would compute in float32, the files are those of bf16 alone."""
    arguments = data.path, tmp_path / "two", 250_000
    done = launcher.function_by_two("extract_by_unlike_machines", *arguments)
    assert [code for code, _ in done] == [0, 0], done
    monkeypatch.setattr(extract, "MIN_SHARD_BYTES", 250_000)
    extract.extract_feats(frontend, data, tmp_path / "one", "float16", programs.ALONE,
                          precision="bf16")
    two, one = FeatureStore(tmp_path / "two"), FeatureStore(tmp_path / "one")
    assert two.identity == one.identity and two.identity["precision"] == "bf16"
    assert len(list((tmp_path / "two").glob("feats.0*.ark"))) > 1
    for utt in data.wavs:
        assert np.mean(two[utt] == one[utt]) > 0.9  # in float32 hardly any number would be


def test_a_repair_is_in_the_stores_precision(frontend, data, tmp_path):
    extract.extract_feats(frontend, data, tmp_path, "float16", programs.ALONE, precision="bf16")
    before = snapshot(tmp_path)
    (tmp_path / "feats.00000.ark").write_bytes(b"")
    assert repair.check_feats(tmp_path, frontend, data, programs.ALONE)[1] == 0
    assert snapshot(tmp_path) == before


def test_a_model_takes_features_of_both(data, stores, tmp_path):
    config = load_config(overrides=[*TINY_CONFIG, "features.codec=float32"])
    train.train(config, data, stores / "bf16", tmp_path / "exp", programs.ALONE)
    checkpoint.average_epochs(tmp_path / "exp", 1)
    for name in ("bf16", "float32"):
        assert embed.embed_set(tmp_path / "exp", stores / name, sorted(data.wavs), name,
                               programs.ALONE).is_file()


def test_filter_banks_stay_in_float32(lap, data, tmp_path):
    config = load_config(overrides=["frontend={name: fbank}", "features.precision=bf16"])
    assert build.choose_precision_name(config) == "float32"
    done = lap("extract-feats", data.path, "--out", tmp_path / "fbank", "--device", "cpu", "--set",
               "frontend={name: fbank}", "--set", "features.precision=bf16")
    assert done.code == 0
    assert FeatureStore(tmp_path / "fbank").identity["precision"] == "float32"
    assert isinstance(build.build_frontend(config.frontend), FbankLayer)


def test_the_verb_takes_the_configurations_precision(lap, data, tmp_path):
    for name, words in (("float32", []), ("bf16", ["--set", "features.precision=bf16"])):
        done = lap("extract-feats", data.path, "--out", tmp_path / name, "--device", "cpu", *words)
        assert done.code == 0, done.err
        assert FeatureStore(tmp_path / name).identity["precision"] == name
