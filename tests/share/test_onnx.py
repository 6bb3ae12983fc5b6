"""Exported graphs give PyTorch's embeddings under onnxruntime, whatever the batch and length."""

import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
import yaml
from checks import assert_refused, snapshot
from torch import nn
from torchaudio.models import wav2vec2_model, wavlm_model

from wespeaker_lap import build
from wespeaker_lap.config import load_config
from wespeaker_lap.frontends.fbank import Fbank, FbankLayer
from wespeaker_lap.frontends.ssl import FrozenSSL
from wespeaker_lap.io.audio import read_audio
from wespeaker_lap.models import campplus, resnet
from wespeaker_lap.share import onnx as exporting
from wespeaker_lap.share import onnx_check
from wespeaker_lap.share.speaker import SpeakerModel, load_model

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

ASTP = {"name": "astp", "reduction": 0.5}
# Every part of the recipes' models once, small; the exporter takes seconds for each graph.
BACK_ENDS = {
    "lap, x-vector": {
        "layer_pool": {"name": "lap", "out_dim": 12, "num_heads": 4}, "hidden_dim": 10,
        "frame_net": {"name": "xvector", "channels": 8, "out_dim": 14},
        "time_pool": {"name": "stats"}},
    "lap of means, ecapa": {
        "layer_pool": {"name": "lap", "out_dim": 12, "num_heads": 1, "combine": "mean"},
        "frame_net": {"name": "ecapa", "channels": 8, "out_dim": 14, "squeeze_dim": 4,
                      "res2_scale": 2}, "time_pool": ASTP},
    "unipool, mhfa": {
        "layer_pool": {"name": "unipool", "out_dim": 8, "channels": 4, "num_heads": 2},
        "time_pool": {"name": "mhfa", "num_heads": 3, "compression": 5}},
    "sum, conformer": {
        "layer_pool": {"name": "weighted_sum"}, "time_pool": ASTP,
        "frame_net": {"name": "mfa_conformer", "num_blocks": 1, "block_dim": 8, "num_heads": 2,
                      "ffn_dim": 8, "kernel_size": 3}},
    "single, resnet": {
        "layer_pool": {"name": "single"}, "frame_net": {"name": "resnet34", "channels": 4},
        "time_pool": {"name": "stats"}},
    "single, cam++": {
        "layer_pool": {"name": "single"}, "time_pool": {"name": "stats"},
        "frame_net": {"name": "campplus", "growth": 4, "bottleneck": 4, "init_channels": 8,
                      "segment_frames": 20}},
}
NUM_LAYERS, DIM = 3, 16


@pytest.fixture(scope="module")
def model(tiny_system):
    return load_model(tiny_system.exp_dir)


@pytest.fixture(scope="module")
def whole(tiny_system, tmp_path_factory):
    """The tiny system, waveforms in."""
    return exporting.export_onnx(tiny_system.exp_dir, tmp_path_factory.mktemp("onnx") / "wé.onnx",
                                 "whole").path


def make_model(options, frontend=None):
    """A model whose parameters and statistics are all random."""
    torch.manual_seed(0)
    frontend = frontend or nn.Module()
    if not isinstance(frontend, FrozenSSL | FbankLayer):
        frontend.num_frames, frontend.sample_rate = (lambda size: size // 320), 16000
        frontend.num_layers, frontend.dim = NUM_LAYERS, DIM
    config = load_config(overrides=[f"model={json.dumps({**options, 'embed_dim': 6})}"])
    net = build.build_net(config.model, frontend.num_layers, frontend.dim).eval()
    for name, value in net.state_dict().items():
        if "running" in name:
            value.uniform_(0.5, 1.5)
    return SpeakerModel(frontend, net, "float32", None)


def run(session, name, inputs):
    return session.run(["embeddings"], {name: np.asarray(inputs, np.float32)})[0]


@pytest.mark.parametrize("name", BACK_ENDS)
def test_a_back_end_for_any_batch_and_length(name, monkeypatch, tmp_path):
    monkeypatch.setattr(resnet, "NUM_BLOCKS", (1, 1, 1, 1))
    monkeypatch.setattr(campplus, "NUM_LAYERS", (1, 1, 1))
    model = make_model(BACK_ENDS[name])
    exporting.make_program("tiny", model, "backend").save(tmp_path / "net.onnx")
    session = onnx_check.open_session(tmp_path / "net.onnx", 1)
    assert session.get_inputs()[0].shape == ["batch", "frames", NUM_LAYERS, DIM]
    exact = model.net.double()
    for batch, frames in ((1, 49), (2, 3), (3, 4), (1, 41), (2, 333)):
        feats = np.random.default_rng(frames).normal(size=(batch, frames, NUM_LAYERS, DIM))
        wanted = exact(torch.from_numpy(feats)).numpy()
        assert wanted.std() > 0.1
        np.testing.assert_allclose(run(session, "feats", feats), wanted, rtol=1e-4, atol=1e-4)


def test_every_part_of_the_recipes_is_among_them(repo):
    tested = {(part, options[part]["name"]) for options in BACK_ENDS.values()
              for part in ("layer_pool", "frame_net", "time_pool") if part in options}
    found = set()
    for path in repo.glob("egs/*/*/conf/*.yaml"):
        section = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("model", {})
        found |= {(part, section[part]["name"]) for part in ("layer_pool", "frame_net", "time_pool")
                  if isinstance(section.get(part), dict) and "name" in section[part]}
    assert ("frame_net", "resnet34") in found and found <= tested


def test_filter_banks_from_waveforms(tmp_path):
    options = {"layer_pool": {"name": "single"}, "time_pool": {"name": "stats"}}
    model = make_model(options, FbankLayer(Fbank(num_mels=20)))
    exporting.make_program("tiny", model, "whole").save(tmp_path / "net.onnx")
    session = onnx_check.open_session(tmp_path / "net.onnx", 1)
    for batch, size in ((1, 400), (2, 8123), (1, 40000)):
        waves = 0.1 * np.random.default_rng(size).normal(size=(batch, size)).astype(np.float32)
        wanted = model.embed(list(waves))
        np.testing.assert_allclose(run(session, "wav", waves), wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["wav2vec 2.0", "WavLM"])
def test_encoders_of_base_style(kind, tmp_path):
    """A group norm in front, norms after the blocks: the packaged encoder has neither."""
    torch.manual_seed(0)
    sizes = ["group_norm", [(16, 10, 5), (16, 8, 4)], False, 24, 0.0, 16, 4, 2, 4]
    rest = [0.0, 32, 0.0, 0.0, False, 0.0, None]
    buckets = [32, 40] if kind == "WavLM" else []
    build_encoder = wavlm_model if kind == "WavLM" else wav2vec2_model
    encoder = FrozenSSL(build_encoder(*sizes, *buckets, *rest), kind, normalize_waveform=True)
    options = {"layer_pool": {"name": "weighted_sum"}, "time_pool": {"name": "stats"}}
    model = make_model(options, encoder)
    exporting.make_program("tiny", model, "whole").save(tmp_path / "net.onnx")
    session = onnx_check.open_session(tmp_path / "net.onnx", 1)
    for batch, size in ((1, 800), (2, 16000), (1, 33333)):
        waves = 0.1 * np.random.default_rng(size).normal(size=(batch, size)).astype(np.float32)
        wanted = model.embed(list(waves))
        np.testing.assert_allclose(run(session, "wav", waves), wanted, rtol=1e-3, atol=1e-3)


def test_waveforms_give_what_embed_gives(whole, model, test_wavs):
    session = onnx_check.open_session(whole, 1)
    for path in list(test_wavs.values())[:4]:
        wav = read_audio(path)
        np.testing.assert_allclose(run(session, "wav", wav[None])[0], model.embed(path), atol=1e-3)
    shortest = np.sin(np.arange(float(model.frontend.min_samples)))
    pair = np.stack([shortest, shortest[::-1]]).astype(np.float32)
    np.testing.assert_allclose(run(session, "wav", pair), model.embed(list(pair)), atol=1e-3)


def test_the_metadata(whole, model, tiny_system):
    facts = onnx_check.open_session(whole, 1).get_modelmeta().custom_metadata_map
    mean = np.load(tiny_system.exp_dir / "embeddings" / "train" / "mean_vec.npy")
    np.testing.assert_array_equal(np.float32(json.loads(facts["mean"])), np.float32(mean))
    expected = {"part": "whole", "model": tiny_system.exp_dir.name, "encoder": "wavlm_tiny",
                "sample_rate": "16000", "embed_dim": "16", "num_layers": "7", "layer_dim": "192",
                "max_seconds": "30.0", "mean_of": "train",
                "encoder_sha256": model.frontend.weights_sha256}
    assert expected.items() <= facts.items()
    assert float(facts["max_difference"]) < 1e-3 and float(facts["max_cosine_distance"]) < 1e-4
    assert len(facts["net_sha256"]) == 64 and facts["compared_seconds"].endswith(" 10 20")


def test_the_example_runs_without_torch(repo, whole, model, test_wavs, tmp_path):
    paths = [test_wavs[utt] for utt in sorted(test_wavs)[:2]]
    blocked = ("import sys, runpy; sys.modules['torch'] = sys.modules['wespeaker_lap'] = None; "
               "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')")

    def call(*recordings):
        command = [sys.executable, "-c", blocked, repo / "tools" / "onnx_example.py", whole,
                   *recordings]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = call(*paths)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(model.similarity(*paths), abs=2e-4)
    soundfile.write(tmp_path / "slow.wav", np.zeros(8000), 8000)
    done = call(tmp_path / "slow.wav", paths[1])
    assert done.returncode == 1 and "8000 Hz, the model wants 16000 Hz" in done.stderr


def test_the_command_and_a_graph_that_is_replaced(lap, tiny_system, model, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_check, "SECONDS", (0.5, 2.0))  # the fixture above takes them all
    out = tmp_path / "new" / "net.onnx"
    done = lap("export-onnx", tiny_system.exp_dir, "-o", out, "--opset", 19)
    assert done.code == 0, done.err
    assert done.out.startswith(f"{out}: backend, opset 19, ") and "0.5 to 2 s: " in done.out
    assert done.err == "" and list(out.parent.iterdir()) == [out]
    feats = np.random.default_rng(0).normal(size=(2, 31, 7, 192)).astype(np.float32)
    found = run(onnx_check.open_session(out, 1), "feats", feats)
    np.testing.assert_allclose(found, model.net(torch.from_numpy(feats)).detach(), atol=1e-4)
    # The same command again, with a graph that seems wrong: the older file stays.
    before = snapshot(tmp_path)
    monkeypatch.setattr(onnx_check, "TOLERANCE", -1.0)
    done = lap("export-onnx", tiny_system.exp_dir, "-o", out)
    assert_refused(done, f"{tiny_system.exp_dir}: onnxruntime's embeddings of 0.5 s (batch of 1)",
                   "the graph was not kept")
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("tolerance", ["TOLERANCE", "COSINE_TOLERANCE"])
def test_other_weights_are_noticed(whole, tiny_system, monkeypatch, tolerance):
    other = load_model(tiny_system.exp_dir)
    with torch.no_grad():
        other.net.embed_norm.weight[0] *= -1
    monkeypatch.setattr(onnx_check, tolerance, 100.0)
    with pytest.raises(ValueError, match=r"tiny: onnxruntime's embeddings of 0.5 s .* differ"):
        onnx_check.compare_outputs("tiny", whole, other, "whole")


def test_int8_features_are_not_rounded_in_a_graph(whole, tiny_system):
    other = load_model(tiny_system.exp_dir)
    other.codec = "int8"
    with pytest.raises(ValueError, match=r"features rounded to int8.*--part backend$"):
        onnx_check.compare_outputs("tiny", whole, other, "whole")


def test_gaps_by_hand():
    found, wanted = np.array([[3.0, 4.0], [1.0, 0.0]]), np.array([[6.0, 8.0], [0.6, 0.8]])
    gap, distance = onnx_check.measure_gap(found, wanted)
    assert gap == pytest.approx(4.0) and distance == pytest.approx(0.4)


def test_a_frontend_that_no_graph_holds(tiny_system, monkeypatch, tmp_path):
    class Counting(nn.Module):
        def forward(self, wav):
            if wav.sum() > 0:  # depends on the numbers
                wav = wav + 1
            return wav[:, :1, None, None].expand(-1, 50, 7, 192)

    monkeypatch.setattr(exporting, "make_unpadded", lambda frontend: Counting())
    with pytest.raises(ValueError, match=r"tiny: cannot be written as an ONNX graph \(.*\); export "
                                         r"its back end, --part backend$"):
        exporting.export_onnx(tiny_system.exp_dir, tmp_path / "a.onnx", "whole")
    assert not list(tmp_path.iterdir())


def test_too_many_weights(tiny_system, monkeypatch, tmp_path):
    monkeypatch.setattr(exporting, "MOST_BYTES", 1_000_000)
    with pytest.raises(ValueError, match=r"GB of weights, and an ONNX .*--part backend$"):
        exporting.export_onnx(tiny_system.exp_dir, tmp_path / "a.onnx", "whole")


@pytest.mark.parametrize(("words", "message"), [
    (("--part", "encoder"), "want the part backend or whole, got 'encoder'"),
    (("--opset", "9"), "want an opset from 18 to 23, got 9"),
])
def test_options_that_are_refused(lap, tiny_system, tmp_path, words, message):
    done = lap("export-onnx", tiny_system.exp_dir, "-o", tmp_path / "a.onnx", *words)
    assert_refused(done, message)
    assert not list(tmp_path.iterdir())


def test_no_trained_model(lap, tmp_path):
    (tmp_path / "exp").mkdir()
    assert_refused(lap("export-onnx", tmp_path / "exp", "-o", tmp_path / "a.onnx"),
                   "is no trained model; give the folder that stage 3 wrote")


@pytest.mark.parametrize("content", [b"notes", b"", None])
def test_something_else_is_not_overwritten(lap, tiny_system, tmp_path, content):
    out = tmp_path / "a.onnx"
    out.mkdir() if content is None else out.write_bytes(content)
    done = lap("export-onnx", tiny_system.exp_dir, "-o", out)
    assert_refused(done, f"{out}: is there and no exported model; choose another name (-o)")
    assert content is None or out.read_bytes() == content


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named(lap, tiny_system, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    done = lap("export-onnx", tiny_system.exp_dir, "-o", tmp_path / "a.onnx")
    assert_refused(done, package, "pip install 'wespeaker-lap[onnx]'")
