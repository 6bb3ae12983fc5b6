"""An exported encoder gives the same numbers, whatever it came from."""

import json

import pytest
import safetensors.torch
import torch
from torchaudio.models.wav2vec2.utils import import_huggingface_model

from wespeaker_lap.frontends.export import export_frontend
from wespeaker_lap.frontends.sources import load_checkpoint
from wespeaker_lap.frontends.ssl import FrozenSSL

WAV = 0.1 * torch.randn(2, 8000, generator=torch.Generator().manual_seed(0))


def load(directory, name):
    found = load_checkpoint(directory, name)
    return FrozenSSL(found.model, found.name, found.sample_rate, found.normalize_waveform,
                     found.normalize_eps)


@pytest.mark.parametrize("style", ["base", "large"])
@pytest.mark.parametrize("kind", ["WavLM", "Hubert", "Wav2Vec2"])
def test_every_architecture_in_both_styles(hf_model, tmp_path, kind, style):
    model = import_huggingface_model(hf_model(kind, style))
    frontend = FrozenSSL(model, "mine", 16000, style == "large", 1e-7)
    export_frontend(frontend, tmp_path / "encoder")
    again = load(tmp_path / "encoder", "mine")
    assert again.identity() == frontend.identity()
    torch.testing.assert_close(again(WAV)[0], frontend(WAV)[0], rtol=0, atol=0)
    stored = safetensors.torch.load_file(tmp_path / "encoder" / "model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float32}  # random: no halves


def test_the_packaged_encoder_stays_as_small_as_it_is(tmp_path):
    frontend = FrozenSSL.load("wavlm_tiny")
    export_frontend(frontend, tmp_path)
    assert load(tmp_path, "wavlm_tiny").identity() == frontend.identity()
    stored = safetensors.torch.load_file(tmp_path / "model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float16}
    config = json.loads((tmp_path / "config.json").read_text())
    arguments = config["torchaudio.models.wavlm_model"]
    assert arguments["extractor_conv_layer_config"] == [[256, 400, 160], [192, 3, 2]]
    assert (arguments["encoder_num_heads"], arguments["encoder_num_buckets"]) == (4, 320)


def test_an_encoder_of_another_build_is_refused(tmp_path):
    frontend = FrozenSSL.load("wavlm_tiny")
    frontend.model.encoder.transformer.layers[1].feed_forward.intermediate_dense = (
        torch.nn.Linear(192, 7))
    with pytest.raises(ValueError, match="wavlm_tiny: built in another way than torchaudio's"):
        export_frontend(frontend, tmp_path / "encoder")
    assert not (tmp_path / "encoder").exists()
