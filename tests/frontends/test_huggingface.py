"""Encoders in Hugging Face's format."""

import json
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from wespeaker_lap.frontends.huggingface import load_huggingface
from wespeaker_lap.frontends.ssl import FrozenSSL

transformers = pytest.importorskip("transformers")


@pytest.fixture
def saved(hf_model, tmp_path):
    """Factory: (kind, style, do_normalize) -> a directory as `save_pretrained` leaves it."""

    def save(kind="WavLM", style="large", do_normalize=True):
        directory = tmp_path / f"{kind}-{style}"
        hf_model(kind, style).save_pretrained(directory)
        if do_normalize is not None:
            extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=do_normalize)
            extractor.save_pretrained(directory)
        return directory

    return save


def edit_config(directory, **changes):
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("kind", ["WavLM", "Hubert", "Wav2Vec2", "UniSpeechSat"])
@pytest.mark.parametrize("style", ["base", "large"])
def test_states_of_a_saved_model_with_its_preprocessor(saved, hf_model, kind, style):
    encoder = FrozenSSL.load(saved(kind, style))
    assert (encoder.name, encoder.normalize_waveform) == (f"{kind}-{style}", True)
    wav = 0.01 * torch.randn(4000) + 0.1
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
    values = extractor(wav.numpy(), sampling_rate=16000, return_tensors="pt").input_values
    with torch.no_grad():
        out = hf_model(kind, style)(values, output_hidden_states=True)
    expected = torch.stack([*out.hidden_states[:-1], out.last_hidden_state], dim=2)
    torch.testing.assert_close(encoder(wav[None])[0], expected, atol=1e-4, rtol=0)


def test_normalisation_follows_the_preprocessor(saved):
    found = load_huggingface(str(saved(do_normalize=False)))
    assert (found.normalize_waveform, found.normalize_eps, found.sample_rate) == (
        False,
        1e-7,
        16000,
    )


def test_half_precision_weights(saved):
    directory = saved()
    weights = directory / "model.safetensors"
    save_file({k: v.half() for k, v in load_file(weights).items()}, weights, {"format": "pt"})
    encoder = FrozenSSL.load(directory)
    assert all(p.dtype == torch.float32 for p in encoder.parameters())


def test_without_preprocessor_the_caller_decides(saved):
    directory = saved(do_normalize=None)
    with pytest.raises(FileNotFoundError, match=r"no preprocessor_config.*normalize_waveform"):
        FrozenSSL.load(directory)
    assert FrozenSSL.load(directory, normalize_waveform=True).normalize_waveform


def test_missing_weights(saved):
    directory = saved()
    (directory / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"WavLM-large: .*model\.safetensors"):
        FrozenSSL.load(directory)


def test_incomplete_weights_are_not_filled_with_random_numbers(saved):
    directory = saved()
    weights = directory / "model.safetensors"
    tensors = load_file(weights)
    del tensors["encoder.layers.1.final_layer_norm.weight"]
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(ValueError, match=r"lack 1 tensors, first encoder\.layers\.1\.final"):
        FrozenSSL.load(directory)


def test_weights_not_needed_may_be_missing(saved):
    directory = saved()
    weights = directory / "model.safetensors"
    tensors = {k: v for k, v in load_file(weights).items() if "masked_spec_embed" not in k}
    save_file(tensors, weights, {"format": "pt"})
    FrozenSSL.load(directory)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "bert"}, "model type 'bert' is not supported; want one of hubert"),
        ({"hidden_act": "relu"}, r"hidden_act='relu' \(only 'gelu' is supported\)"),
        ({"layer_norm_eps": 1e-6}, "layer_norm_eps=1e-06"),
    ],
)
def test_what_torchaudio_cannot_represent(saved, change, message):
    directory = saved()
    edit_config(directory, **change)
    with pytest.raises(ValueError, match=message):
        FrozenSSL.load(directory)


def test_hub_offline(monkeypatch):
    asked = []

    def refuse(repo, revision=None):
        asked.append((repo, revision))
        raise OSError("cannot connect\nand more")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", refuse)
    with pytest.raises(FileNotFoundError, match=r"hf://org/name@v1: .*cannot connect.*directory"):
        FrozenSSL.load("hf://org/name@v1")
    assert asked == [("org/name", "v1")]


def test_without_transformers(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"pip install 'wespeaker-lap\[hf\]'"):
        load_huggingface("hf://org/name")
