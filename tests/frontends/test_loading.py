"""What a user may type, and what it is answered."""

import json

import pytest

from wespeaker_lap.frontends import loading
from wespeaker_lap.frontends.loading import find_bundle, load_encoder


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("WAVLM_BASE_PLUS", "WAVLM_BASE_PLUS"),
        ("wavlm_base_plus", "WAVLM_BASE_PLUS"),
        ("wavlm-base-plus", "WAVLM_BASE_PLUS"),
        ("WavLM-Base+", "WAVLM_BASE_PLUS"),
        ("WavLM Large", "WAVLM_LARGE"),
        ("hubert_base", "HUBERT_BASE"),
        ("wav2vec2-xlsr-300m", "WAV2VEC2_XLSR_300M"),
        ("wavlm", None),
        ("microsoft/wavlm-large", None),
        ("./wavlm_large", None),
    ],
)
def test_spellings(text, name):
    assert find_bundle(text) == name


def test_no_two_bundles_share_a_spelling():
    names = loading.bundle_names()
    assert len({loading._plain(name) for name in names}) == len(names)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("wavlm_bse_plus", "did you mean WAVLM_BASE_PLUS"),
        ("wavlm_tny", "did you mean wavlm_tiny"),
        ("microsoft/wavlm-large", "did you mean 'hf://microsoft/wavlm-large'"),
        ("zzz", "unknown encoder 'zzz'"),
    ],
)
def test_unknown_name(text, hint):
    with pytest.raises(ValueError, match=hint) as caught:
        load_encoder(text)
    assert "wavlm_tiny, HUBERT_ASR_LARGE" in str(caught.value)  # the whole list


def test_unknown_bundle():
    with pytest.raises(ValueError, match="unknown bundle 'wavlm_lrge'; did you mean WAVLM_LARGE"):
        load_encoder("x.pth", bundle="wavlm_lrge")


def test_missing_paths_are_named(tmp_path):
    for path in (tmp_path / "nothing", "./nothing", "nothing.pth"):
        with pytest.raises(FileNotFoundError, match=r"nothing.*: no such encoder file"):
            load_encoder(path)


def test_file_without_its_bundle(tmp_path):
    path = tmp_path / "x.pth"
    path.touch()
    with pytest.raises(ValueError, match=r"x\.pth: .*bundle='WAVLM_BASE_PLUS'"):
        load_encoder(path)


def test_bundle_with_something_else_than_weights(tmp_path):
    with pytest.raises(ValueError, match=r"the path must be a \.pt or \.pth file"):
        load_encoder(tmp_path, bundle="wavlm_large")


def test_directory_of_an_unknown_kind(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json: no such file"):
        load_encoder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 3}))
    with pytest.raises(ValueError, match=r"neither a local checkpoint .* nor Hugging Face"):
        load_encoder(tmp_path)


def test_packaged_name_goes_before_a_directory_of_that_name(tmp_path, monkeypatch):
    (tmp_path / "wavlm_tiny").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_encoder("wavlm_tiny").name == "wavlm_tiny"
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        load_encoder("./wavlm_tiny")


@pytest.mark.parametrize("name", list(loading.PACKAGED))
def test_packaged_encoder_has_a_model_card(name):
    card = (loading.PACKAGED[name] / "README.md").read_text(encoding="utf-8")
    for heading in ("Training data", "Objective", "Licence"):
        assert heading in card
