"""Hidden states against transformers, and alone against padded."""

import numpy as np
import pytest
import torch
from torchaudio.models.wav2vec2.utils import import_huggingface_model

from wespeaker_lap.frontends.hidden_states import compute_states, count_frames, normalize

KINDS = ("WavLM", "Hubert", "Wav2Vec2", "UniSpeechSat")
STYLES = ("base", "large")
LENGTHS = [6400, 3217, 4801]  # 19, 9 and 14 frames of the seven-layer front end
FRAMES = [19, 9, 14]


@pytest.fixture(params=[(k, s) for k in KINDS for s in STYLES], ids="-".join)
def pair(request, hf_model):
    theirs = hf_model(*request.param)
    return theirs, import_huggingface_model(theirs).eval()


def make_batch(seed=1, filler=None):
    """(B, S) noise of different levels; what is beyond a length is `filler` or more noise."""
    wav = torch.randn(3, 6400, generator=torch.Generator().manual_seed(seed))
    wav = wav * torch.tensor([0.1, 2.0, 0.5])[:, None] + 0.05
    if filler is not None:
        for row, length in zip(wav, LENGTHS, strict=True):
            row[length:] = filler
    return wav


def their_states(model, wav, **kwargs):
    """All states of transformers, the last one after large style's final norm.

    That is `hidden_states[-1]` in transformers 4; in 5 it is `last_hidden_state` only.
    """
    with torch.no_grad():
        out = model(wav, output_hidden_states=True, **kwargs)
    return torch.stack([*out.hidden_states[:-1], out.last_hidden_state], dim=2)


def our_states(model, wav, samples, **kwargs):
    with torch.no_grad():
        return compute_states(model, wav, samples, **kwargs)


def test_all_states_equal_those_of_transformers(pair):
    theirs, ours = pair
    wav = make_batch()
    expected = their_states(theirs, wav)
    assert expected.shape == (3, 19, 4, 32)
    states = our_states(ours, wav, [6400] * 3)
    torch.testing.assert_close(states, expected, atol=1e-4, rtol=0)
    # the layers differ by far more than the tolerance, so that a shifted layer would show
    assert (expected[:, :, 1:] - expected[:, :, :-1]).abs().amax(dim=(0, 1, 3)).min() > 0.1


def test_padded_batch_equals_each_utterance_alone_in_transformers(pair):
    theirs, ours = pair
    states = our_states(ours, make_batch(), LENGTHS)  # noise beyond the ends must not matter
    for i, (length, frames) in enumerate(zip(LENGTHS, FRAMES, strict=True)):
        alone = their_states(theirs, make_batch()[i : i + 1, :length])[0]
        assert len(alone) == frames
        torch.testing.assert_close(states[i, :frames], alone, atol=1e-4, rtol=0)
        assert not states[i, frames:].any()


@pytest.mark.parametrize("kind", KINDS)
def test_large_style_equals_transformers_with_attention_mask(hf_model, kind):
    theirs = hf_model(kind, "large")
    wav = make_batch(filler=0.0)
    mask = (torch.arange(6400) < torch.tensor(LENGTHS)[:, None]).long()
    expected = their_states(theirs, wav, attention_mask=mask)
    states = our_states(import_huggingface_model(theirs).eval(), wav, LENGTHS)
    for i, frames in enumerate(FRAMES):
        torch.testing.assert_close(states[i, :frames], expected[i, :frames], atol=1e-4, rtol=0)


def test_group_norm_of_transformers_lets_padding_in(hf_model):
    # The reason for our own loop: the tolerance above would not hold with plain padding.
    theirs = hf_model("Wav2Vec2", "base")
    wav = make_batch(filler=0.0)
    mask = (torch.arange(6400) < torch.tensor(LENGTHS)[:, None]).long()
    padded = their_states(theirs, wav, attention_mask=mask)[1, :9]
    alone = their_states(theirs, wav[1:2, :3217])[0]
    assert (padded - alone).abs().max() > 0.01


def test_padding_of_nan_does_not_reach_true_frames(pair):
    _, ours = pair
    clean = our_states(ours, make_batch(filler=0.0), LENGTHS)
    assert torch.equal(our_states(ours, make_batch(filler=float("nan")), LENGTHS), clean)


@pytest.mark.parametrize("kind", KINDS)
def test_last_state_before_the_norm_is_the_last_block_output(hf_model, kind):
    theirs = hf_model(kind, "large")
    caught = []
    layer = theirs.encoder.layers[-1]
    handle = layer.register_forward_hook(lambda module, args, out: caught.append(out))
    wav = make_batch()
    expected = their_states(theirs, wav)
    handle.remove()
    raw = caught[0][0] if isinstance(caught[0], tuple) else caught[0]
    ours = import_huggingface_model(theirs).eval()
    states = our_states(ours, wav, [6400] * 3, after_norm=False)
    torch.testing.assert_close(states[:, :, -1], raw, atol=1e-4, rtol=0)
    torch.testing.assert_close(states[:, :, :-1], expected[:, :, :-1], atol=1e-4, rtol=0)
    assert (raw - expected[:, :, -1]).abs().max() > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_base_style_has_one_last_state(hf_model, kind):
    ours = import_huggingface_model(hf_model(kind, "base")).eval()
    before, after = (our_states(ours, make_batch(), LENGTHS, after_norm=x) for x in (False, True))
    assert torch.equal(before, after)


def test_count_frames_is_what_the_convolutions_give(hf_model):
    ours = import_huggingface_model(hf_model("WavLM", "base")).eval()
    # 400 samples (25 ms) for one frame, 320 (20 ms) for each further one
    for num_samples, frames in {0: 0, 399: 0, 400: 1, 719: 1, 720: 2, 16000: 49}.items():
        assert count_frames(ours, num_samples) == frames
    assert ours.feature_extractor(torch.zeros(1, 16000), None)[0].shape[1] == 49


@pytest.mark.parametrize("eps", [1e-5, 1e-7])
def test_normalize_over_true_samples(eps):
    wav = make_batch() * 1e-3  # quiet enough for eps to count
    result = normalize(wav, LENGTHS, eps).double().numpy()
    for i, length in enumerate(LENGTHS):
        true = wav[i, :length].double().numpy()
        expected = (true - true.mean()) / np.sqrt(((true - true.mean()) ** 2).mean() + eps)
        np.testing.assert_allclose(result[i, :length], expected, atol=1e-5)
        assert not result[i, length:].any()


def test_normalize_equals_the_feature_extractor_of_transformers():
    transformers = pytest.importorskip("transformers")
    wav = make_batch()
    utterances = [row[:n].numpy() for row, n in zip(wav, LENGTHS, strict=True)]
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
    # without the mask the extractor takes the mean over the padding too
    options = {"padding": True, "return_tensors": "pt", "return_attention_mask": True}
    expected = extractor(utterances, sampling_rate=16000, **options)
    result = normalize(wav, LENGTHS, 1e-7)
    torch.testing.assert_close(result, expected.input_values, atol=1e-5, rtol=0)


def test_silence_is_finite(pair):
    states = our_states(pair[1], normalize(torch.zeros(2, 6400), [6400, 800], 1e-7), [6400, 800])
    assert states.isfinite().all()
