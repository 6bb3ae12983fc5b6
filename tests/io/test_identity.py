"""The identity of a feature store: what differs is named."""

import json

import pytest

from wespeaker_lap.io.identity import check_compatible, compare_identity, read_identity

WHOLE = {"codec": "float16", "num_layers": 3, "dim": 4, "encoder": "é", "data_hash": "0" * 16}


def test_read_back(tmp_path):
    (tmp_path / "feats.json").write_text(json.dumps(WHOLE))
    assert read_identity(tmp_path) == WHOLE


@pytest.mark.parametrize(("text", "message"), [
    ("", "not JSON"),
    ('{"codec": "float16"', "not JSON"),
    ("[]", "no codec, num_layers, dim"),
    ('{"codec": "float16", "dim": 4}', "no num_layers;"),
])
def test_a_broken_identity_is_named(tmp_path, text, message):
    (tmp_path / "feats.json").write_text(text)
    with pytest.raises(ValueError, match=message) as info:
        read_identity(tmp_path)
    assert str(tmp_path / "feats.json") in str(info.value)
    assert "remove the folder and run stage 2" in str(info.value)


def test_no_store(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no feature store; run stage 2"):
        read_identity(tmp_path)


@pytest.mark.parametrize(("change", "phrases"), [
    ({}, []),
    ({"dim": 8}, ["dim is 4, expected 8"]),
    ({"dim": 8, "codec": "float32"}, ["codec is 'float16', expected 'float32'",
                                      "dim is 4, expected 8"]),
    ({"frame_shift": 320}, ["frame_shift is None, expected 320"]),
    # Absent is as good as the default.
    ({"layers": "all", "frame_stride": 1, "segments": None}, []),
    ({"layers": [0, 2]}, ["layers is 'all', expected [0, 2]"]),
    ({"frame_stride": 2}, ["frame_stride is 1, expected 2"]),
    ({"precision": "float32"}, []),
    ({"precision": "bf16"}, ["precision is 'float32', expected 'bf16'"]),
    ({"segments": {"num": 1}}, ["segments is None, expected {'num': 1}"]),
])
def test_every_difference_is_listed(change, phrases):
    assert compare_identity(WHOLE, {**WHOLE, **change}) == phrases


def test_other_data_of_the_same_kind_is_compatible():
    check_compatible("feats", WHOLE, {**WHOLE, "data_hash": "1" * 16, "toolkit_version": "9",
                                      "augmentation": "noise", "segments": {"num": 3},
                                      "precision": "bf16"})
    for field, value in (("layers", [0, 2]), ("frame_stride", 2)):
        with pytest.raises(ValueError, match=f"trained on: {field} is"):
            check_compatible("feats", {**WHOLE, field: value}, WHOLE)
    with pytest.raises(ValueError, match=r"^feats: not the features this model was trained on: "
                                         r"encoder is 'é', expected 'e'; .*. Extract them again"):
        check_compatible("feats", WHOLE, {**WHOLE, "encoder": "e", "num_layers": 4})
