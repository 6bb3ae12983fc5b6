"""The back end as a whole: size, initial values, independence of the batch."""

import math

import pytest
import torch
from torch import nn

from wespeaker_lap.models.layer_pool import LAP, WeightedSum
from wespeaker_lap.models.speaker_net import SpeakerNet
from wespeaker_lap.models.time_pool import ASTP, StatsPool


def small_net() -> SpeakerNet:
    return SpeakerNet(LAP(7, 24, out_dim=16, num_heads=4), ASTP(16), embed_dim=8)


@pytest.mark.parametrize(
    ("num_layers", "in_dim", "num_heads", "want"),
    [(25, 1024, 16, 2_312_464), (13, 768, 12, 1_713_780)],
    ids=["WavLM-Large", "WavLM-Base+"],
)
def test_parameter_counts_of_the_paper(num_layers, in_dim, num_heads, want):
    layer_pool = LAP(num_layers, in_dim, out_dim=512, num_heads=num_heads)
    net = SpeakerNet(layer_pool, ASTP(512), embed_dim=192)
    assert sum(p.numel() for p in net.parameters()) == want


def test_linears_begin_xavier_uniform_with_zero_biases():
    net = SpeakerNet(LAP(7, 192), ASTP(512))
    linears = [m for m in net.modules() if isinstance(m, nn.Linear)]
    assert len(linears) == 5
    for linear in linears:
        bound = math.sqrt(6 / sum(linear.weight.shape))
        assert 0.99 * bound < linear.weight.abs().max() <= bound
        assert not linear.bias.any()


@pytest.mark.parametrize(
    "make",
    [small_net, lambda: SpeakerNet(WeightedSum(7, 24), StatsPool(24), embed_dim=8)],
    ids=["LAP-ASTP", "WeightedSum-StatsPool"],
)
def test_an_embedding_is_the_same_alone_and_in_a_batch(make):
    torch.manual_seed(0)
    net = make()
    for _ in range(3):  # running statistics away from 0 and 1
        net(3 * torch.randn(8, 10, 7, 24) + 1)
    net.eval().double()
    lengths = torch.tensor([4, 9, 1])
    feats = torch.full((3, 9, 7, 24), torch.nan, dtype=torch.float64)
    utts = [torch.randn(n, 7, 24, dtype=torch.float64) for n in lengths]
    for i, utt in enumerate(utts):
        feats[i, : len(utt)] = utt
    together = net(feats, lengths)
    alone = torch.cat([net(utt.unsqueeze(0)) for utt in utts])
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-12)


def test_training_on_padded_single_frames_is_finite():
    net = small_net().train()
    feats = torch.randn(4, 5, 7, 24)
    feats[:2, 1:] = torch.nan
    feats.requires_grad_()
    emb = net(feats, torch.tensor([1, 1, 5, 5]))
    emb.square().sum().backward()
    assert emb.isfinite().all()
    assert feats.grad.isfinite().all() and not feats.grad[:2, 1:].any()
    assert all(p.grad.isfinite().all() for p in net.parameters())


def test_every_parameter_learns():
    net = small_net()
    (net(torch.randn(8, 6, 7, 24)) * torch.randn(8, 8)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())  # DDP waits for every one
    # Not the biases: one before a batch norm or a softmax over time has a zero gradient.
    assert all(p.grad.any() for n, p in net.named_parameters() if n.endswith("weight"))


def test_it_learns_to_tell_speakers_apart():
    """Speakers that differ in one layer only, buried in the noise of the others."""
    torch.manual_seed(0)
    net, head = small_net(), nn.Linear(8, 4)
    optimizer = torch.optim.Adam([*net.parameters(), *head.parameters()], lr=0.01)
    voices = torch.randn(4, 24)
    speakers = torch.arange(32) % 4

    def batch():
        feats = torch.randn(32, 12, 7, 24)
        feats[:, :, 3] += voices[speakers].unsqueeze(1)
        return feats

    for _ in range(40):
        loss = nn.functional.cross_entropy(head(net(batch())), speakers)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    right = head(net.eval()(batch())).argmax(dim=1) == speakers
    assert right.float().mean() > 0.9


class EveryOther(nn.Module):
    """A frame network that halves the sequences and doubles the values."""

    out_dim = 16

    def forward(self, frames, lengths):
        return 2 * frames[:, ::2], (lengths + 1) // 2


def test_a_frame_network_may_shorten_the_sequences():
    net = SpeakerNet(LAP(7, 24, out_dim=16, num_heads=4), ASTP(16), 8, frame_net=EveryOther())
    net.eval()
    feats, lengths = torch.randn(2, 9, 7, 24), torch.tensor([9, 4])
    frames = net.layer_pool(feats, lengths)
    want = net.time_pool(2 * frames[:, ::2], torch.tensor([5, 2]))
    want = net.embed_norm(net.linear(net.pool_norm(want)))
    torch.testing.assert_close(net(feats, lengths), want)


class Halves(EveryOther):
    """It also shows what its two blocks found."""

    def forward(self, frames, lengths, return_scales=False):
        shorter, lengths = super().forward(frames, lengths)
        found = [frames[:, ::2], 3 * frames[:, ::2]]
        return (shorter, lengths, found) if return_scales else (shorter, lengths)


def test_the_scales_of_the_frame_network_come_out_with_their_lengths():
    net = SpeakerNet(LAP(7, 24, out_dim=16, num_heads=4), ASTP(16), 8, frame_net=Halves()).eval()
    feats, lengths = torch.randn(2, 9, 7, 24), torch.tensor([9, 4])
    embeddings, scales, shorter = net(feats, lengths, return_scales=True)
    torch.testing.assert_close(embeddings, net(feats, lengths))
    frames = net.layer_pool(feats, lengths)[:, ::2]
    torch.testing.assert_close(scales, [frames, 3 * frames])
    assert shorter.tolist() == [5, 2]


def test_a_layer_more_between_pooling_and_embedding():
    net = SpeakerNet(WeightedSum(7, 24), StatsPool(24), 8, hidden_dim=5).eval()
    feats = torch.randn(3, 9, 7, 24)
    pooled = net.pool_norm(net.time_pool(net.layer_pool(feats), None))
    linear, _, norm = net.hidden
    want = net.embed_norm(net.linear(norm((pooled @ linear.weight.T + linear.bias).clamp(min=0))))
    torch.testing.assert_close(net(feats), want)


class Cut(nn.Module):
    """The first frames of every utterance."""

    def forward(self, feats, lengths):
        return feats[:, 2:], lengths - 2


class Square(nn.Module):
    """Of all numbers after the seventh frame, which `Cut` moves."""

    def forward(self, feats, lengths):
        return torch.cat([feats[:, :5], feats[:, 5:] ** 2], dim=1), lengths


def test_augmentation_is_the_first_thing_that_happens():
    """One after the other, and without a trace in the weights."""
    net = SpeakerNet(WeightedSum(7, 24), StatsPool(24), 8).eval()
    augmented = SpeakerNet(WeightedSum(7, 24), StatsPool(24), 8, augments=[Cut(), Square()]).eval()
    augmented.load_state_dict(net.state_dict())
    feats, lengths = torch.randn(2, 9, 7, 24), torch.tensor([9, 8])
    changed = feats[:, 2:].clone()
    changed[:, 5:] **= 2
    torch.testing.assert_close(augmented(feats, lengths), net(changed, lengths - 2))


def test_frames_of_another_size_are_an_error():
    with pytest.raises(ValueError, match="wants frames of 512 values, but gets 192"):
        SpeakerNet(WeightedSum(7, 192), ASTP(512))


def test_all_batch_norms_can_become_synchronised():
    net = nn.SyncBatchNorm.convert_sync_batchnorm(small_net())
    norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert len(norms) == 5
    assert all(isinstance(m, nn.SyncBatchNorm) for m in norms)
