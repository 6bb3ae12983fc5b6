"""Less than all features: what a store holds, what it says of itself, and a system on top of it."""

import json
from pathlib import Path

import numpy as np
import programs
import pytest
import torch
from tiny import TINY_CONFIG, write_voices

import wespeaker_lap
from wespeaker_lap import build
from wespeaker_lap.config import load_config
from wespeaker_lap.data.audit import audit_data_dir
from wespeaker_lap.data.datadir import DataDir, load_data_dir
from wespeaker_lap.data.segments import Segments
from wespeaker_lap.engine import checkpoint, embed, extract, train
from wespeaker_lap.engine.entries import Entries
from wespeaker_lap.frontends.ssl import FrozenSSL
from wespeaker_lap.io.audio import read_audio
from wespeaker_lap.io.feats import FeatureStore
from wespeaker_lap.io.vectors import read_vectors

KNOBS = ("features.layers=[0, 3, 5]", "features.frame_stride=2")
SEGMENTS = "features.segments={num: 2, seconds: 0.32}"  # 8 frames of 40 ms each


@pytest.fixture(scope="module")
def encoder() -> FrozenSSL:
    return FrozenSSL.load("wavlm_tiny")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> DataDir:
    """Eight utterances of 0.5 to 0.95 s: 24 to 46 frames, of which 12 to 23 are kept."""
    path = write_voices(tmp_path_factory.mktemp("knobs") / "train", "ab")
    audit_data_dir(path)
    return load_data_dir(path)


def extract_by(overrides, data, directory, is_training=False):
    """Extract as the verb does; returns the frontend and the segments."""
    config = load_config(overrides=[*TINY_CONFIG, *overrides])
    frontend = build.build_frontend(config.frontend, config.features)
    segments = build.build_segments(config.features, frontend, is_training)
    extract.extract_feats(frontend, data, directory, config.features.codec, programs.ALONE,
                          segments)
    return frontend, segments


def encode_kept(encoder, path):
    """Layers 0, 3, 5 and every second frame of a recording, from all of its states."""
    states = encoder.encode(torch.from_numpy(read_audio(path))).numpy()  # (T, 7, D)
    return np.stack([states[::2, layer] for layer in (0, 3, 5)], axis=1)


def assert_near(feats, expected):
    """Equal but for float16 and the batch."""
    np.testing.assert_allclose(feats, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def count_bytes(directory: Path, utts) -> int:
    """Bytes of all entries, without the names in front of them."""
    written = sum(ark.stat().st_size for ark in directory.glob("*.ark"))
    return written - sum(len(f"{utt} ".encode()) for utt in utts)


def test_a_store_of_some_layers_and_frames(encoder, data, tmp_path):
    extract_by([*KNOBS, SEGMENTS], data, tmp_path / "feats")  # of no training set: no segments
    store = FeatureStore(tmp_path / "feats")
    for utt, path in data.wavs.items():
        assert_near(store[utt], encode_kept(encoder, path))
    told = json.loads((tmp_path / "feats" / "feats.json").read_text())
    assert (told["layers"], told["frame_stride"], told["num_layers"]) == ([0, 3, 5], 2, 3)
    assert told["frame_shift"] == 640 and "segments" not in told


def test_a_store_of_segments(encoder, data, tmp_path):
    _, segments = extract_by([*KNOBS, SEGMENTS], data, tmp_path / "feats", is_training=True)
    assert segments == Segments(2, 8, 0)
    store = FeatureStore(tmp_path / "feats")
    assert store.identity["segments"] == {"num": 2, "num_frames": 8, "seed": 0}
    lengths = set()
    for utt, path in data.wavs.items():
        whole = encode_kept(encoder, path)
        lengths.add(min(len(whole), 17))
        if len(whole) <= 16:
            assert_near(store[utt], whole)
            continue
        first, second = segments.starts(utt, len(whole))
        assert_near(store[utt], np.concatenate([whole[first:first + 8], whole[second:second + 8]]))
    assert 17 in lengths and len(lengths) > 1  # of both kinds


@pytest.mark.parametrize("codec", ["float16", "float32"])
@pytest.mark.parametrize("is_training", [True, False])
def test_the_estimate_is_what_is_written(data, tmp_path, codec, is_training):
    frontend, segments = extract_by([*KNOBS, SEGMENTS, f"features.codec={codec}"], data,
                                    tmp_path / "feats", is_training)
    sizes = extract.estimate_bytes(frontend, data, codec, segments)
    assert sizes.keys() == data.wavs.keys()
    assert sum(sizes.values()) == count_bytes(tmp_path / "feats", data.wavs)


def test_a_store_of_all_says_what_it_always_said(encoder, data):
    identity = Entries(encoder, data).identity()
    assert identity["layers"] == "all"
    assert not {"frame_stride", "segments"} & identity.keys()


@pytest.mark.parametrize(("overrides", "field"), [
    ((KNOBS[0],), "frame_stride is 2, expected 1"),
    ((KNOBS[1], "features.layers=[0, 3]"), r"layers is \[0, 3, 5\], expected \[0, 3\]"),
    ((KNOBS[1],), r"layers is \[0, 3, 5\], expected 'all'"),
    ((*KNOBS, SEGMENTS), "segments is None, expected {'num': 2"),
])
def test_another_choice_in_the_same_folder_is_refused_by_field(data, tmp_path, overrides, field):
    extract_by(KNOBS, data, tmp_path / "feats")
    with pytest.raises(ValueError, match=rf"holds features of another identity: .*{field}"):
        extract_by(overrides, data, tmp_path / "feats", is_training=True)


@pytest.fixture(scope="module")
def system(data, tmp_path_factory):
    """Trained on segments of some layers and frames; a test set that is stored whole."""
    root = tmp_path_factory.mktemp("system")
    config = load_config(overrides=[*TINY_CONFIG, *KNOBS, SEGMENTS])
    test_path = write_voices(root / "test", "xy")
    audit_data_dir(test_path)
    test = load_data_dir(test_path)
    extract_by([*KNOBS, SEGMENTS], data, root / "feats" / "train", is_training=True)
    extract_by([*KNOBS, SEGMENTS], test, root / "feats" / "test")
    train.train(config, data, root / "feats" / "train", root / "exp", programs.ALONE)
    checkpoint.average_epochs(root / "exp", 1)
    for name, one in (("train", data), ("test", test)):
        embed.embed_set(root / "exp", root / "feats" / name, sorted(one.wavs), name,
                        programs.ALONE)
    return root


def test_a_new_recording_gets_the_embedding_of_its_stored_features(system):
    model, test = wespeaker_lap.load_model(system / "exp"), load_data_dir(system / "test")
    vectors = dict(zip(*read_vectors(system / "exp/embeddings/test/xvector.scp"), strict=True))
    assert vectors.keys() == test.wavs.keys()
    for utt, path in test.wavs.items():
        error = np.linalg.norm(model.embed(path) - vectors[utt]) / np.linalg.norm(vectors[utt])
        assert error < 1e-3, utt
    a, b = list(vectors)[:2]
    mean = np.load(system / "exp/embeddings/train/mean_vec.npy")
    left, right = vectors[a] - mean, vectors[b] - mean
    cosine = left @ right / np.sqrt(left @ left) / np.sqrt(right @ right)
    assert model.similarity(test.wavs[a], test.wavs[b]) == pytest.approx(float(cosine), abs=1e-3)


def test_features_of_another_choice_are_refused_by_field(system, tmp_path):
    test = load_data_dir(system / "test")
    extract_by((), test, tmp_path / "feats")
    with pytest.raises(ValueError, match="not the features this model was trained on") as caught:
        embed.embed_set(system / "exp", tmp_path / "feats", sorted(test.wavs), "x", programs.ALONE)
    for field in ("frame_stride is 1, expected 2", "layers is 'all', expected [0, 3, 5]"):
        assert field in str(caught.value)


def test_training_refuses_a_store_of_another_choice(system, data, tmp_path):
    for overrides, complaint in (((), r"its layers are \[0, 3, 5\], the configuration wants all"),
                                 (KNOBS[:1], "its frame_stride is 2, the configuration's 1")):
        with pytest.raises(ValueError, match=complaint):
            train.train(load_config(overrides=[*TINY_CONFIG, *overrides]), data,
                        system / "feats" / "train", tmp_path / "exp", programs.ALONE)
    assert not (tmp_path / "exp").exists()


def test_the_verb_knows_a_training_set(lap, data, tmp_path):
    words = [word for item in (*KNOBS, SEGMENTS) for word in ("--set", item)]
    for name, flags in (("train", ["--training"]), ("test", [])):
        done = lap("extract-feats", data.path, "--out", tmp_path / name, "--device", "cpu", *words,
                   *flags)
        assert done.code == 0, done.err
        assert ("segments" in FeatureStore(tmp_path / name).identity) == (name == "train")
    done = lap("plan", data.path, "--training", data.path, *words)
    assert done.code == 0 and "(of 2 segments of each utterance)" in done.out
    done = lap("extract-feats", data.path, "--out", tmp_path / "none", "--device", "cpu", "--set",
               "features.layers=[0, 12]")
    assert done.code == 1 and "wavlm_tiny has layers 0 to 6" in done.err
