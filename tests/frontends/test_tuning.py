"""Encoders that are trained: which parameters, at which rate, with less memory; and as a folder."""

from itertools import chain

import pytest
import torch
from torchaudio.models.wav2vec2.utils import import_huggingface_model

from wespeaker_lap.frontends.export import export_frontend
from wespeaker_lap.frontends.fbank import Fbank, FbankLayer
from wespeaker_lap.frontends.selection import Selection
from wespeaker_lap.frontends.ssl import FrozenSSL
from wespeaker_lap.frontends.tuning import find_encoder, group_parameters, start_tuning

CASES = [(kind, style) for kind in ("WavLM", "Hubert", "Wav2Vec2") for style in ("base", "large")]
LENGTHS = [3200, 2000]


@pytest.fixture(params=CASES, ids="-".join)
def encoder(request, hf_model):
    """With a dropout of its own for every place."""
    model = import_huggingface_model(hf_model(*request.param))
    transformer = model.encoder.transformer
    model.encoder.feature_projection.dropout.p, transformer.dropout.p = 0.11, 0.15
    for block in transformer.layers:
        block.attention.dropout, block.dropout.p = 0.12, 0.15
        block.feed_forward.intermediate_dropout.p = 0.13
        block.feed_forward.output_dropout.p = 0.15
    return FrozenSSL(model, "small", normalize_waveform=True, normalize_eps=1e-7)


def make_waves() -> torch.Tensor:
    return torch.randn(2, 3200, generator=torch.Generator().manual_seed(0))


def find_gradients(encoder, seed=3) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    encoder.zero_grad()
    torch.manual_seed(seed)
    feats, _ = encoder(make_waves(), LENGTHS)
    weights = torch.linspace(-1, 1, feats.shape[-1] * feats.shape[2]).view(feats.shape[2:])
    (feats * weights).sum().backward()
    return feats.detach(), {name: p.grad.clone() for name, p in encoder.named_parameters()
                            if p.grad is not None}


def test_a_frozen_encoder_leaves_no_graph_and_no_dropout(encoder):
    feats, _ = encoder.train()(make_waves(), LENGTHS)
    assert not feats.requires_grad and not encoder.training
    assert torch.equal(feats, encoder.eval()(make_waves(), LENGTHS)[0])


def test_dropout_acts_in_training_alone(encoder):
    frozen = encoder(make_waves(), LENGTHS)[0]
    start_tuning(encoder)
    torch.testing.assert_close(encoder.eval()(make_waves(), LENGTHS)[0], frozen, rtol=1e-4,
                               atol=1e-4)
    torch.manual_seed(0)
    one, other = (encoder.train()(make_waves(), LENGTHS)[0] for _ in range(2))
    # Of every state, from the first on.
    assert ((one - other).abs().amax(dim=(0, 1, 3)) > 0.01).all()


def test_what_enters_the_first_block_has_dropout_of_its_own(encoder):
    """State 0 where no other dropout acts."""
    encoder.model.encoder.feature_projection.dropout.p = 0.0
    start_tuning(encoder)
    torch.manual_seed(0)
    one, other = (encoder.train()(make_waves(), layers=[0])[0] for _ in range(2))
    dropped = (one == 0).float().mean()
    assert abs(dropped - 0.15) < 0.03 and not torch.equal(one, other)


def test_gradients_reach_all_but_the_convolutions(encoder):
    start_tuning(encoder)
    _, gradients = find_gradients(encoder.train())
    names = {name for name, _ in encoder.named_parameters()}
    assert names - gradients.keys() == {name for name in names if "feature_extractor" in name}
    start_tuning(encoder, freeze_conv=False)
    assert find_gradients(encoder)[1].keys() == names


def test_the_gradient_is_that_of_finite_differences(encoder):
    """In float64, along a random direction of all parameters."""
    start_tuning(encoder.double(), freeze_conv=False)
    encoder.eval()
    weights = torch.linspace(-1, 1, 4 * 32).view(4, 32).double()

    def value() -> torch.Tensor:
        return (encoder(make_waves().double(), LENGTHS)[0] * weights).sum()

    value().backward()
    torch.manual_seed(1)
    steps = [torch.randn_like(p) * p.abs().mean() for p in encoder.parameters()]
    slope = sum((p.grad * step).sum() for p, step in zip(encoder.parameters(), steps, strict=True))
    values = []
    with torch.no_grad():
        for sign in (1, -2):
            for p, step in zip(encoder.parameters(), steps, strict=True):
                p.add_(step, alpha=sign * 1e-6)
            values.append(value())
    torch.testing.assert_close((values[0] - values[1]) / 2e-6, slope, rtol=1e-4, atol=1e-4)


def test_checkpointing_changes_no_gradient(encoder):
    """With dropout: the second computation draws what the first one drew."""
    found = []
    for checkpointing in (False, True):
        start_tuning(encoder, freeze_conv=False, checkpointing=checkpointing)
        found.append(find_gradients(encoder.train()))
    (feats, gradients), (other_feats, other) = found
    assert torch.equal(feats, other_feats) and gradients.keys() == other.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(other[name], gradient, rtol=1e-5, atol=1e-6)


def test_checkpointing_keeps_less(encoder):
    """Numbers that autograd keeps for the backward pass."""
    kept = []
    for checkpointing in (False, True):
        start_tuning(encoder, checkpointing=checkpointing)
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
                lambda x, sizes=sizes: (sizes.append(x.numel()), x)[1], lambda x: x):
            encoder.train()(make_waves())
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 2


def test_rates_fall_from_block_to_block(encoder):
    start_tuning(encoder)
    groups = group_parameters(encoder, 0.5)
    assert [factor for factor, _ in groups] == [0.125, 0.25, 0.5, 1.0]  # three blocks
    names = {id(p): name for name, p in encoder.named_parameters()}
    grouped = [sorted(names[id(p)] for p in params) for _, params in groups]
    assert sorted(chain(*grouped)) == sorted(
        name for name, p in encoder.named_parameters() if p.requires_grad)
    for number in range(3):
        assert all(f"layers.{number}." in name for name in grouped[number + 1]
                   if "transformer.layer_norm" not in name)
    assert any("feature_projection" in name for name in grouped[0])
    is_large = not encoder.model.encoder.transformer.layer_norm_first
    outer = "model.encoder.transformer.layer_norm.weight"
    assert (outer in grouped[-1]) == is_large and (outer in grouped[0]) != is_large
    start_tuning(encoder, freeze_conv=False)
    lowest = group_parameters(encoder, 0.5)[0][1]
    assert len(lowest) > len(groups[0][1])


def test_a_folder_holds_the_same_encoder(encoder, tmp_path):
    """Its states, its identity but for the name, and its dropout."""
    export_frontend(encoder, tmp_path / "encoder")
    loaded = FrozenSSL.load(tmp_path / "encoder")
    assert torch.equal(loaded(make_waves(), LENGTHS)[0], encoder(make_waves(), LENGTHS)[0])
    assert loaded.identity() == {**encoder.identity(), "encoder": "encoder"}
    for one in (loaded, encoder):
        start_tuning(one)
    assert torch.equal(find_gradients(loaded.train())[0], find_gradients(encoder.train())[0])


def test_only_an_encoder_is_found(encoder):
    assert find_encoder(Selection(encoder, [0, 2])) is find_encoder(encoder) is encoder
    with pytest.raises(ValueError, match="fbank: no encoder that could be trained"):
        find_encoder(FbankLayer(Fbank()))
