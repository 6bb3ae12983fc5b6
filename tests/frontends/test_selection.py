"""Selected layers and frames: slices of the plain frontend's output, alone and in a batch."""

import json

import pytest
import torch
from torchaudio.models.wav2vec2.utils import import_huggingface_model

from wespeaker_lap.engine import probe
from wespeaker_lap.frontends.fbank import Fbank, FbankLayer
from wespeaker_lap.frontends.selection import Selection, check_stored, select, select_stored
from wespeaker_lap.frontends.ssl import FrozenSSL

LENGTHS = [24000, 9999, 720]  # 73, 29 and 1 frames of wavlm_tiny


@pytest.fixture(scope="module")
def tiny():
    return FrozenSSL.load("wavlm_tiny")


def noise(*shape, seed=0):
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def count_blocks(encoder):
    """How often each block runs, from here on."""
    counts = [0] * len(encoder.model.encoder.transformer.layers)

    def count(number):
        def hook(*_):
            counts[number] += 1
        return hook

    handles = [block.register_forward_hook(count(number))
               for number, block in enumerate(encoder.model.encoder.transformer.layers)]
    return counts, handles


@pytest.mark.parametrize("layers", [[0], [6], [3], [0, 2, 5], [1, 6], list(range(7))])
@pytest.mark.parametrize("stride", [1, 2, 5])
def test_a_batch_is_a_slice_of_the_plain_one(tiny, layers, stride):
    chosen, wav = Selection(tiny, layers, stride), noise(3, 24000)
    feats, frames = chosen(wav, torch.tensor(LENGTHS))
    plain, _ = tiny(wav, LENGTHS)
    want = torch.stack([plain[:, t] for t in range(0, 73, stride)], dim=1)
    want = torch.stack([want[:, :, layer] for layer in layers], dim=2)
    assert torch.equal(feats, want)
    assert frames.dtype == torch.int64
    assert frames.tolist() == [len(range(0, n, stride)) for n in (73, 29, 1)]
    assert (chosen.num_layers, chosen.dim) == (len(layers), 192)
    for row, count in zip(feats, frames.tolist(), strict=True):
        assert row[:count].any(dim=-1).all() and not row[count:].any()


def test_alone_and_in_a_batch(tiny):
    chosen, wav = Selection(tiny, [0, 2, 5], 2), noise(3, 24000)
    wav_padded = wav.clone()
    wav_padded[1, 9999:] = 0.7
    feats, frames = chosen(wav_padded, LENGTHS)
    for row, size, count in zip(range(3), LENGTHS, frames.tolist(), strict=True):
        alone = chosen.encode(wav[row, :size])
        assert alone.shape == (count, 3, 192) and chosen.num_frames(size) == count
        assert (feats[row, :count] - alone).abs().max() < 1e-6 * alone.abs().max()


def test_windows_are_those_of_the_plain_one():
    """Frames are counted from the recording's beginning, not from a window's."""
    encoder = FrozenSSL.load("wavlm_tiny", max_seconds=1.0, overlap_seconds=0.2)
    wav = noise(99 * 320 + 720)
    chosen = Selection(encoder, [1, 4], 3)
    assert chosen.max_seconds == 1.0
    assert torch.equal(chosen.encode(wav), encoder.encode(wav)[::3][:, [1, 4]])


def test_blocks_above_the_highest_layer_do_not_run(tiny):
    counts, handles = count_blocks(tiny)
    try:
        Selection(tiny, [0, 2])(noise(2, 4000), [4000, 2000])
        assert counts == [1, 1, 0, 0, 0, 0]
        Selection(tiny, [0]).encode(noise(4000))
        assert counts == [1, 1, 0, 0, 0, 0]
        Selection(tiny, [6]).encode(noise(4000))
        assert counts == [2, 2, 1, 1, 1, 1]
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize(("kind", "style"), [("WavLM", "large"), ("Hubert", "base")])
@pytest.mark.parametrize("last_state", ["after_norm", "before_norm"])
def test_every_layer_alone_in_both_styles(hf_model, kind, style, last_state):
    """The norm after the last block belongs to the last state only."""
    encoder = FrozenSSL(import_huggingface_model(hf_model(kind, style)), "x", last_state=last_state)
    wav = noise(2, 4000)
    plain, _ = encoder(wav, [4000, 2500])
    for layer in range(4):
        assert torch.equal(Selection(encoder, [layer])(wav, [4000, 2500])[0][:, :, 0],
                           plain[:, :, layer])


def test_frames_are_counted_as_they_come(tiny):
    for stride in (1, 2, 3):
        chosen = Selection(tiny, frame_stride=stride)
        assert chosen.frame_shift == 320 * stride and chosen.min_samples == 720
        assert chosen.num_frames(719) == 0
        for size in (720, 1039, 1040, 1360, 1680, 2000, 16000):
            assert chosen.num_frames(size) == len(chosen.encode(noise(size)))
            assert chosen.num_frames(size) == chosen(noise(1, size))[1].item()


def test_filter_banks():
    fbank, wav = FbankLayer(Fbank(num_mels=40)), noise(2, 8000)
    chosen = select(fbank, [0], frame_stride=3)
    feats, frames = chosen(wav, [8000, 720])  # 48 and 3 frames
    assert torch.equal(feats, fbank(wav, [8000, 720])[0][:, ::3]) and frames.tolist() == [16, 1]
    assert torch.equal(chosen.encode(wav[0]), fbank.encode(wav[0])[::3])
    with pytest.raises(ValueError, match=r"features\.layers: fbank has layers 0 to 0"):
        select(fbank, [0, 1])


def test_a_gradient_for_who_asks(hf_model):
    encoder = FrozenSSL(import_huggingface_model(hf_model("WavLM", "large")), "x", 16000, True)
    encoder.requires_grad_(True)
    Selection(encoder, [0, 2], 2)(noise(1, 4000))[0].square().mean().backward()
    blocks = encoder.model.encoder.transformer.layers
    grads = [[p.grad for p in block.parameters() if p.grad is not None] for block in blocks]
    assert [bool(found) for found in grads] == [True, True, False]


@pytest.mark.parametrize(("stride", "layers"), [
    (2, [0, 2, 4, 6]), (3, [0, 3, 6]), (4, [2, 6]), (7, [6]), (100, [6])])
def test_every_nth_layer_is_counted_from_the_last_one(tiny, stride, layers):
    assert select(tiny, layer_stride=stride).layers == layers


def test_the_plain_frontend_where_all_is_kept(tiny):
    assert select(tiny) is tiny
    assert select(tiny, None, 1, 1) is tiny


@pytest.mark.parametrize("layers", [[], [7], [0, 12], [2, 1], [1, 1], [-1]])
def test_impossible_layers_are_refused_with_those_there_are(tiny, layers):
    with pytest.raises(ValueError, match=r"features\.layers: wavlm_tiny has layers 0 to 6; want"):
        select(tiny, layers)


def test_impossible_strides_are_refused(tiny):
    with pytest.raises(ValueError, match="frame_stride: want 1 or more, got 0"):
        select(tiny, frame_stride=0)
    with pytest.raises(ValueError, match="layer_stride: want 1 or more, got 0"):
        select(tiny, layer_stride=0)
    with pytest.raises(ValueError, match="layers and layer_stride both choose layers"):
        select(tiny, [0], 2)


def test_errors_are_the_frontends(tiny):
    with pytest.raises(ValueError, match="719 samples; wavlm_tiny needs at least 720"):
        Selection(tiny, [0], 2).encode(torch.zeros(719))
    with pytest.raises(ValueError, match=r"want \(B, S\), got \(720,\)"):
        Selection(tiny, [0], 2)(torch.zeros(720))


# Identity


def test_identity(tiny):
    plain = tiny.identity()
    found = json.loads(json.dumps(Selection(tiny, (1, 4), 2).identity()))
    assert found == {**plain, "num_layers": 2, "layers": [1, 4], "frame_stride": 2}
    # All layers, named one by one, are all layers.
    assert Selection(tiny, range(7), 2).identity()["layers"] == "all"


@pytest.mark.parametrize(("layers", "stride"), [([1, 4], 2), ([0], 1), (None, 3), (None, 1)])
def test_a_store_tells_what_to_select(tiny, layers, stride):
    chosen = select(tiny, layers, frame_stride=stride)
    again = select_stored(tiny, json.loads(json.dumps(chosen.identity())))
    assert again.identity() == chosen.identity()
    wav = noise(4000)
    assert torch.equal(again.encode(wav), chosen.encode(wav))
    # Of a version that knew no such choice.
    assert select_stored(tiny, {"layers": "all"}) is select_stored(tiny, {}) is tiny


STORED = {"layers": [2, 4, 6], "num_layers": 3, "frame_stride": 2}


def test_a_store_that_is_what_was_asked_for():
    check_stored("feats", STORED, [2, 4, 6], 1, 2)
    check_stored("feats", {"num_layers": 3})
    check_stored("feats", {"num_layers": 3, "layers": "all"}, [0, 1, 2])
    check_stored("feats", {"num_layers": 3, "layers": [2, 5, 8]}, None, 3)


@pytest.mark.parametrize(("identity", "asked", "complaint"), [
    (STORED, (None, 1, 2), r"^feats: its layers are \[2, 4, 6\], the configuration wants all lay"),
    (STORED, (None, 2, 2), r"wants layer_stride 2 \(section features\)"),
    (STORED, ([4, 6], 1, 2), r"wants layers \[4, 6\]"),
    (STORED, ([2, 4, 6], 1, 1), "its frame_stride is 2, the configuration's 1"),
    (STORED, (None, 1, 1), "all layers; its frame_stride is 2"),
    ({"num_layers": 3}, ([0, 2], 1, 1), r"its layers are \[0, 1, 2\], the configuration wants lay"),
    ({"num_layers": 3}, (None, 2, 1), "wants layer_stride 2"),
    ({"num_layers": 3, "layers": [0, 1, 2]}, (None, 1, 1), "wants all layers"),
])
def test_a_store_that_is_not_what_was_asked_for(identity, asked, complaint):
    with pytest.raises(ValueError, match=complaint):
        check_stored("feats", identity, *asked)


def test_the_probes_wrapper_takes_it(tiny):
    pooled = probe.PooledFrontend(Selection(tiny, [0, 3], 2), None)
    wav = noise(4000)
    frames = tiny.encode(wav)[::2][:, [0, 3]].double()
    want = torch.cat([frames.mean(0), frames.std(0, unbiased=False)], dim=-1)
    torch.testing.assert_close(pooled.encode(wav)[0].double(), want, rtol=1e-3, atol=1e-3)
