"""FrozenSSL: shapes, frozenness, windows, identity."""

import json
from itertools import pairwise

import pytest
import torch
from torchaudio.models.wav2vec2.utils import import_huggingface_model

from wespeaker_lap.frontends.ssl import FrozenSSL, plan_windows


@pytest.fixture(scope="module")
def tiny():
    return FrozenSSL.load("wavlm_tiny")


def noise(*shape, seed=0):
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def assert_near(states, expected):
    """Equal but for rounding: this encoder's states reach 10,000, so 1e-4 would be absurd."""
    assert states.shape == expected.shape
    assert (states - expected).abs().max() < 1e-6 * expected.abs().max()


def test_facts_of_the_packaged_encoder(tiny):
    assert (tiny.num_layers, tiny.dim, tiny.sample_rate) == (7, 192, 16000)
    # a 400-sample window every 160 samples, then 3 of those every 2nd: (3 - 1) * 160 + 400
    assert (tiny.frame_shift, tiny.min_samples) == (320, 720)
    assert [tiny.num_frames(n) for n in (719, 720, 1039, 1040, 16000)] == [0, 1, 1, 2, 48]


def test_packaged_encoder_alone_and_in_a_batch(tiny):
    lengths = torch.tensor([24000, 9999, 720])
    wav = noise(3, 24000)
    feats, frames = tiny(wav, lengths)
    assert feats.shape == (3, 73, 7, 192)
    assert feats.dtype == torch.float32
    assert frames.tolist() == [73, 29, 1]
    for i, (num_samples, num_frames) in enumerate(zip(lengths, frames, strict=True)):
        alone, _ = tiny(wav[i : i + 1, :num_samples])
        assert_near(feats[i, :num_frames], alone[0])
        assert not feats[i, num_frames:].any()


def test_level_and_offset_do_not_matter_to_a_normalising_encoder(tiny):
    wav = noise(1, 16000)
    difference = tiny(0.1 * wav + 0.3)[0] - tiny(wav)[0]
    assert difference.norm() < 1e-4 * tiny(wav)[0].norm()


def test_real_speech_moves_every_layer(tiny, shared):
    from wespeaker_lap.io.audio import read_audio

    path = next((shared / "corpora" / "speechocean762" / "WAVE").rglob("*.*"))
    feats = tiny.encode(torch.from_numpy(read_audio(path)))  # (T, L, D)
    assert feats.isfinite().all()
    assert feats.std(dim=0).mean(dim=-1).min() > 0.05


@pytest.mark.parametrize("lengths", [None, [5000, 719]])
def test_too_short_is_refused(tiny, lengths):
    wav = noise(2, 5000) if lengths else noise(1, 719)
    with pytest.raises(ValueError, match="719 samples; wavlm_tiny needs at least 720 samples"):
        tiny(wav, lengths)


def test_too_short_for_encode_is_refused(tiny):
    with pytest.raises(ValueError, match="0 samples; wavlm_tiny needs at least 720 samples"):
        tiny.encode(torch.zeros(0))


@pytest.mark.parametrize("lengths", [[5000], [5000, 5001], [5000, 5000, 5000]])
def test_wrong_lengths_are_refused(tiny, lengths):
    with pytest.raises(ValueError, match="want 2 lengths of at most 5000 samples"):
        tiny(noise(2, 5000), lengths)


def test_wrong_shapes_are_refused(tiny):
    with pytest.raises(ValueError, match=r"want \(B, S\), got \(5000,\)"):
        tiny(noise(5000))
    with pytest.raises(ValueError, match=r"want \(S,\), got \(1, 5000\)"):
        tiny.encode(noise(1, 5000))


def test_frozen_and_always_in_evaluation_mode(tiny, hf_model):
    assert not any(p.requires_grad for p in tiny.parameters())
    torch.nn.Sequential(tiny).train()
    assert not any(module.training for module in tiny.modules())
    ours = FrozenSSL(import_huggingface_model(hf_model("WavLM", "base")), "x").train()
    wav = noise(1, 4000)  # its configuration has dropout
    assert torch.equal(ours(wav)[0], ours(wav)[0])


@pytest.mark.parametrize("style", ["base", "large"])
def test_gradient_for_who_asks(hf_model, style):
    ours = FrozenSSL(import_huggingface_model(hf_model("WavLM", style)), "x", 16000, True)
    wav = noise(2, 4000)
    assert not ours(wav, [4000, 2000])[0].requires_grad
    ours.requires_grad_(True)
    ours(wav, [4000, 2000])[0].square().mean().backward()
    first = ours.model.feature_extractor.conv_layers[0].conv.weight
    assert first.grad.abs().max() > 0
    assert not ours.encode(wav[0]).requires_grad


@pytest.mark.parametrize("kind", ["WavLM", "Hubert"])
def test_inference_mode_and_autocast(hf_model, kind):
    ours = FrozenSSL(import_huggingface_model(hf_model(kind, "base")), "x", 16000, True)
    wav = noise(2, 4000)
    with torch.inference_mode():
        exact, _ = ours(wav, [4000, 2000])
        with torch.autocast("cpu", torch.bfloat16):
            rough, _ = ours(wav, [4000, 2000])
    assert rough.dtype == torch.float32
    assert (rough - exact).norm() < 0.05 * exact.norm()


# Windows


@pytest.mark.parametrize(("size", "overlap"), [(7, 0), (7, 1), (7, 4), (7, 6), (20, 5)])
def test_windows_cover_every_frame_once(size, overlap):
    for num_frames in range(size, 60):
        plan = plan_windows(num_frames, size, overlap)
        kept = [frame for _, first, last in plan for frame in range(first, last)]
        assert kept == list(range(num_frames))
        for start, first, last in plan:
            assert 0 <= start <= first < last <= start + size <= num_frames
        for (start, _, _), (following, _, _) in pairwise(plan):
            assert start + size - following >= overlap


def test_kept_frames_have_half_the_overlap_on_either_side():
    assert plan_windows(100, 48, 10) == [(0, 0, 43), (38, 43, 69), (52, 69, 100)]


def test_long_recording_in_windows():
    # 1 s windows are 48 frames (15,760 samples), 0.2 s are 10 frames; 100 frames in all
    encoder = FrozenSSL.load(
        "wavlm_tiny", max_seconds=1.0, overlap_seconds=0.2, normalize_waveform=False
    )
    wav = noise(99 * 320 + 720 + 319)
    feats = encoder.encode(wav)
    assert feats.shape == (100, 7, 192)
    for start, first, last in [(0, 0, 43), (38, 43, 69), (52, 69, 100)]:
        piece, _ = encoder(wav[None, start * 320 : start * 320 + 15760])
        assert_near(feats[first:last], piece[0, first - start : last - start])


def test_recording_is_normalised_as_a_whole(tiny):
    # 198 frames in windows 0-148 and 50-198, cut at 99. Layer 0 sees 32 frames to either side,
    # so it is that of one pass; with each window's own level it would not be.
    wav = noise(64000) * torch.linspace(0.1, 1.0, 64000)
    encoder = FrozenSSL.load("wavlm_tiny", max_seconds=3.0, overlap_seconds=1.0)
    states = encoder.encode(wav)
    assert_near(states[:, 0], tiny.encode(wav)[:, 0])
    assert not torch.equal(states, tiny.encode(wav))


def test_no_pass_is_longer_than_a_window():
    encoder = FrozenSSL.load("wavlm_tiny", max_seconds=1.0, overlap_seconds=0.2)
    seen = []
    conv = encoder.model.feature_extractor.conv_layers[0].conv
    conv.register_forward_hook(lambda module, args, out: seen.append(args[0].shape[-1]))
    encoder.encode(noise(80000))
    assert len(seen) > 5
    assert max(seen) <= 16000


def test_short_recording_goes_through_in_one_pass(tiny):
    wav = noise(16000)
    assert torch.equal(tiny.encode(wav), tiny(wav[None])[0][0])


@pytest.mark.parametrize(("longest", "overlap"), [(1.0, 1.0), (1.0, -0.1), (0.01, 0.0)])
def test_impossible_windows_are_refused(longest, overlap):
    with pytest.raises(ValueError, match="want 0 <= overlap_seconds < max_seconds"):
        FrozenSSL.load("wavlm_tiny", max_seconds=longest, overlap_seconds=overlap)


# Identity


def test_identity(tiny):
    identity = json.loads(json.dumps(tiny.identity()))
    assert len(identity.pop("weights_sha256")) == 64
    assert identity == {
        "encoder": "wavlm_tiny",
        "num_layers": 7,
        "dim": 192,
        "sample_rate": 16000,
        "normalize_waveform": True,
        "normalize_eps": 1e-7,
        "last_state": "after_norm",
        "max_seconds": 30.0,
        "overlap_seconds": 2.0,
    }


def test_identity_says_what_was_chosen():
    encoder = FrozenSSL.load(
        "wavlm_tiny", last_state="before_norm", max_seconds=5.0, overlap_seconds=1.0
    )
    identity = encoder.identity()
    assert identity["last_state"] == "before_norm"
    assert (identity["max_seconds"], identity["overlap_seconds"]) == (5.0, 1.0)


def test_hash_follows_the_weights():
    encoder = FrozenSSL.load("wavlm_tiny")
    before = encoder.weights_sha256
    assert before == FrozenSSL.load("wavlm_tiny").weights_sha256
    encoder.model.encoder.transformer.layer_norm.bias.data[3] += 1.0
    assert encoder.weights_sha256 != before


def test_unknown_last_state_is_refused():
    with pytest.raises(ValueError, match="last_state must be one of"):
        FrozenSSL.load("wavlm_tiny", last_state="middle")
