"""Local checkpoints and torchaudio bundles, offline."""

import dataclasses
import hashlib
import json
import pickle
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchaudio
from safetensors.torch import save_file
from torchaudio.models import wav2vec2_model, wavlm_model

from wespeaker_lap.frontends.loading import load_encoder
from wespeaker_lap.frontends.sources import (
    bundle_names,
    hash_weights,
    load_bundle,
    load_checkpoint,
)
from wespeaker_lap.frontends.ssl import FrozenSSL

SIZES = {
    "extractor_mode": "layer_norm",
    "extractor_conv_layer_config": [[8, 10, 5], [8, 4, 4]],
    "extractor_conv_bias": True,
    "encoder_embed_dim": 16,
    "encoder_projection_dropout": 0.1,
    "encoder_pos_conv_kernel": 8,
    "encoder_pos_conv_groups": 2,
    "encoder_num_layers": 2,
    "encoder_num_heads": 2,
    "encoder_attention_dropout": 0.1,
    "encoder_ff_interm_features": 16,
    "encoder_ff_interm_dropout": 0.1,
    "encoder_dropout": 0.1,
    "encoder_layer_norm_first": True,
    "encoder_layer_drop": 0.1,
    "aux_num_out": None,
}
WAVLM_SIZES = {**SIZES, "encoder_num_buckets": 16, "encoder_max_distance": 32}
CONFIG = {
    "torchaudio.models.wav2vec2_model": SIZES,
    "normalize_waveform": False,
    "sample_rate": 8000,
}


def write_checkpoint(directory, config=None, model=None, dtype=torch.float32):
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(CONFIG if config is None else config))
    model = model or wav2vec2_model(**SIZES)
    tensors = {name: tensor.to(dtype) for name, tensor in model.state_dict().items()}
    save_file(tensors, directory / "model.safetensors")
    return model


# Local checkpoints


def test_checkpoint_gives_the_states_of_its_model(tmp_path):
    model = write_checkpoint(tmp_path / "mine").eval()
    encoder = FrozenSSL.load(tmp_path / "mine")
    assert (encoder.name, encoder.sample_rate, encoder.dim) == ("mine", 8000, 16)
    assert (encoder.num_layers, encoder.frame_shift, encoder.min_samples) == (3, 20, 25)
    wav = torch.randn(2, 500)
    expected, _ = model.extract_features(wav)  # has neither layer 0 nor the last norm
    torch.testing.assert_close(encoder(wav)[0][:, :, 1], expected[0], atol=1e-5, rtol=0)


def test_wavlm_checkpoint(tmp_path):
    config = {**CONFIG, "torchaudio.models.wavlm_model": WAVLM_SIZES, "normalize_eps": 1e-3}
    del config["torchaudio.models.wav2vec2_model"]
    write_checkpoint(tmp_path, config, wavlm_model(**WAVLM_SIZES))
    found = load_checkpoint(tmp_path, name="other")
    assert (found.name, found.normalize_eps) == ("other", 1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sample_rate": None}, "'sample_rate' must be a positive number"),
        ({"normalize_waveform": "no"}, "'normalize_waveform' must be true or false"),
        ({"normalise_eps": 1e-5}, "unknown key 'normalise_eps'"),
        ({"torchaudio.models.wavlm_model": WAVLM_SIZES}, "exactly one of .* found 2"),
        ({"torchaudio.models.wav2vec2_model": 3}, "must be an object"),
        ({"torchaudio.models.wav2vec2_model": {"dim": 3}}, "cannot build .* 'dim'"),
    ],
)
def test_wrong_configuration(tmp_path, change, message):
    write_checkpoint(tmp_path, {**CONFIG, **change})
    with pytest.raises(ValueError, match=rf"config\.json: .*{message}"):
        load_checkpoint(tmp_path)


def test_all_complaints_at_once(tmp_path):
    write_checkpoint(tmp_path, {"torchaudio.models.wav2vec2_model": SIZES, "x": 1})
    with pytest.raises(ValueError, match=r"'normalize_waveform' is .*'sample_rate' is .*'x'"):
        load_checkpoint(tmp_path)


def test_broken_json_names_the_line(tmp_path):
    (tmp_path / "config.json").write_text('{"a": 1,\n"b" 2}')
    with pytest.raises(ValueError, match=r"config\.json:2: not valid JSON"):
        load_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"config\.json: expected a JSON object, got list"):
        load_checkpoint(tmp_path)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json: no such file"):
        load_checkpoint(tmp_path)
    write_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors: no such file; put"):
        load_checkpoint(tmp_path)


def test_truncated_weights(tmp_path):
    write_checkpoint(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model\.safetensors: not a safetensors file"):
        load_checkpoint(tmp_path)


def test_weights_of_another_model(tmp_path):
    write_checkpoint(tmp_path, model=wavlm_model(**WAVLM_SIZES))
    # per block: 4 weights and 4 biases against 2 + 2 + the 3 of the gate, once the distances
    with pytest.raises(ValueError, match=r"16 tensors are missing .*k_proj.*, 15 are unexpected"):
        load_checkpoint(tmp_path)
    write_checkpoint(tmp_path, model=wav2vec2_model(**{**SIZES, "encoder_embed_dim": 32}))
    with pytest.raises(ValueError, match=r"do not fit config\.json: size mismatch for encoder"):
        load_checkpoint(tmp_path)


# The hash


def test_hash_by_hand():
    tensors = {"b": torch.tensor([[1.0, -2.0]]), "a": torch.tensor(0.5)}
    digest = hashlib.sha256(b"a []\n" + np.float32(0.5).tobytes())
    digest.update(b"b [1, 2]\n" + np.array([1, -2], dtype="<f4").tobytes())
    assert hash_weights(tensors) == digest.hexdigest()


def test_hash_does_not_depend_on_the_type_on_disk(tmp_path):
    model = wav2vec2_model(**SIZES).half().float()
    write_checkpoint(tmp_path / "single", model=model)
    write_checkpoint(tmp_path / "half", model=model, dtype=torch.float16)
    single, half = (FrozenSSL.load(tmp_path / name) for name in ("single", "half"))
    assert single.weights_sha256 == half.weights_sha256
    assert next(half.parameters()).dtype == torch.float32


# Bundles


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """No network, an empty torch.hub cache, and two bundles in small."""

    def refuse(*args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    for name, sizes in {"WAVLM_LARGE": WAVLM_SIZES, "HUBERT_BASE": SIZES}.items():
        bundle = getattr(torchaudio.pipelines, name)
        small = dataclasses.replace(bundle, _params=sizes)
        monkeypatch.setattr(torchaudio.pipelines, name, small)
    return tmp_path / "home" / "hub" / "checkpoints"


def test_bundle_names_are_encoders_only():
    names = bundle_names()
    assert {"WAVLM_BASE", "WAVLM_LARGE", "HUBERT_LARGE", "WAV2VEC2_XLSR_300M"} <= set(names)
    assert not any("TACOTRON" in name or "HDEMUCS" in name for name in names)


URL = "https://download.pytorch.org/torchaudio/models/wavlm_large.pth"


def test_missing_weights_offline(offline):
    with pytest.raises(FileNotFoundError) as caught:
        load_encoder("wavlm_large")
    for part in (str(offline / "wavlm_large.pth"), URL, "no route to host", "bundle='WAVLM_LARGE'"):
        assert part in str(caught.value)


def test_missing_weights_file(offline):
    with pytest.raises(FileNotFoundError) as caught:
        load_encoder("hand.pth", bundle="wavlm_large")
    assert "hand.pth: no such file" in str(caught.value)
    assert URL in str(caught.value)


def test_weights_put_by_hand(offline, tmp_path):
    model = wavlm_model(**WAVLM_SIZES)
    offline.mkdir(parents=True)
    torch.save(model.state_dict(), offline / "wavlm_large.pth")
    torch.save(model.state_dict(), tmp_path / "any name.pt")
    cached = FrozenSSL.load("WavLM-Large")
    by_hand = FrozenSSL.load(tmp_path / "any name.pt", bundle="wavlm_large")
    assert cached.identity() == by_hand.identity()
    assert cached.weights_sha256 == hash_weights(model.state_dict())
    assert (cached.name, cached.normalize_waveform, cached.sample_rate) == (
        "WAVLM_LARGE",
        True,
        16000,
    )
    assert cached.normalize_eps == 1e-5
    assert not FrozenSSL.load(
        tmp_path / "any name.pt", bundle="wavlm_large", normalize_waveform=False
    ).normalize_waveform


def test_bundle_normalises_like_torchaudio(offline):
    offline.mkdir(parents=True)
    torch.save(wavlm_model(**WAVLM_SIZES).state_dict(), offline / "wavlm_large.pth")
    wav = 0.01 * torch.randn(1, 500) + 0.1
    expected, _ = torchaudio.pipelines.WAVLM_LARGE.get_model().extract_features(wav)
    states, _ = FrozenSSL.load("wavlm_large", last_state="before_norm")(wav)
    torch.testing.assert_close(states[:, :, 1:], torch.stack(expected, 2), atol=1e-5, rtol=0)


def test_old_weight_norm_names_load(offline, tmp_path):
    state = wav2vec2_model(**SIZES).state_dict()
    conv = "encoder.transformer.pos_conv_embed.conv."
    old = {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): tensor
        for name, tensor in state.items()
    }
    assert conv + "weight_g" in old
    torch.save(old, tmp_path / "old.pth")
    assert hash_weights(load_bundle("HUBERT_BASE", tmp_path / "old.pth").model.state_dict()) == (
        hash_weights(state)
    )


@pytest.mark.parametrize("content", ["truncated", "other", "empty"])
def test_file_that_is_not_the_bundle(offline, tmp_path, content):
    path = tmp_path / "x.pth"
    torch.save(wav2vec2_model(**SIZES).state_dict(), path)
    if content == "truncated":
        path.write_bytes(path.read_bytes()[:2000])
    if content == "empty":
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"x\.pth: not the weights of WAVLM_LARGE"):
        load_bundle("WAVLM_LARGE", path)


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_pickled_code_is_not_run(offline, tmp_path):
    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps(Malicious(tmp_path / "ran"), protocol=2))
    torch.save({"a": Malicious(tmp_path / "ran")}, tmp_path / "evil2.pth")
    for name in ("evil.pth", "evil2.pth"):
        with pytest.raises(ValueError, match="not the weights of HUBERT_BASE"):
            load_bundle("HUBERT_BASE", tmp_path / name)
    assert not (tmp_path / "ran").exists()
