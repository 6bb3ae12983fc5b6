"""What every frame network promises, checked on any of them."""

from collections.abc import Callable

import numpy as np
import torch
from plain_conv import random_frames, randomise
from torch import nn

from wespeaker_lap.models.layer_pool import WeightedSum
from wespeaker_lap.models.masking import frame_mask
from wespeaker_lap.models.speaker_net import SpeakerNet

GARBAGE = (torch.nan, torch.inf, -torch.inf, 1e300)


def num_params(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def check_arithmetic(net: nn.Module, plain: Callable[[nn.Module, np.ndarray], np.ndarray],
                     lengths: list[int]) -> None:
    """The network equals `plain (T, F) -> (T', out_dim)` on every utterance of a padded batch."""
    randomise(net)
    x = pad(random_frames(len(lengths), max(lengths), net.in_dim), lengths)
    y, out_lengths = net(x, torch.tensor(lengths))
    assert y.shape[2] == net.out_dim
    for utt, frames, n, m in zip(x, y, lengths, out_lengths, strict=True):
        want = plain(net, utt[:n].numpy())
        assert m == len(want)
        np.testing.assert_allclose(frames[:m].detach(), want, rtol=1e-8, atol=1e-10)


def pad(x: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    """`(B, T, F)` with values in the padding that no arithmetic survives."""
    x = x.clone()
    for utt, n in zip(x, lengths, strict=True):
        for frame in range(n, len(utt)):
            utt[frame] = GARBAGE[(frame - n) % len(GARBAGE)]
    return x


def check_padding(net: nn.Module, lengths: list[int]) -> None:
    """Outputs and gradients of an utterance are those it has alone, and it alone has any."""
    randomise(net)
    x = random_frames(len(lengths), max(lengths), net.in_dim)
    padded = pad(x, lengths).requires_grad_()
    together, out_lengths = net(padded, torch.tensor(lengths))
    sum(y[:m].square().sum() for y, m in zip(together, out_lengths, strict=True)).backward()
    for i, (n, m) in enumerate(zip(lengths, out_lengths.tolist(), strict=True)):
        utt = x[i : i + 1, :n].clone().requires_grad_()
        alone, none = net(utt)
        assert none is None and alone.shape[1] == m
        alone.square().sum().backward()
        torch.testing.assert_close(together[i, :m], alone[0], rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(padded.grad[i, :n], utt.grad[0], rtol=1e-9, atol=1e-10)
        assert not padded.grad[i, n:].any()


def check_embeddings(net: nn.Module, time_pool: nn.Module, lengths: list[int]) -> None:
    """In a `SpeakerNet`, float32: the embedding alone is the one of a padded batch."""
    speaker_net = SpeakerNet(WeightedSum(1, net.in_dim), time_pool, 8, frame_net=net)
    randomise(speaker_net).float()
    x = pad(random_frames(len(lengths), max(lengths), net.in_dim), lengths).float().unsqueeze(2)
    together = speaker_net(x, torch.tensor(lengths))
    alone = [speaker_net(utt[None, :n])[0] for utt, n in zip(x, lengths, strict=True)]
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-5, atol=1e-5)


def check_training_leaves_padding_out(make: Callable[[], nn.Module], lengths: list[int]) -> None:
    """Running statistics after a padded batch do not depend on how much padding there is."""
    seen = []
    for extra in (0, 8):
        torch.manual_seed(0)
        net = make().double().train()
        x = random_frames(len(lengths), max(lengths), net.in_dim)
        x = nn.functional.pad(x, (0, 0, 0, extra))
        net(pad(x, lengths), torch.tensor(lengths))
        seen.append([b for name, b in net.named_buffers() if "running" in name])
    for a, b in zip(*seen, strict=True):
        assert a.isfinite().all()
        torch.testing.assert_close(a, b)


def check_every_parameter_learns(net: nn.Module, num_frames: int) -> None:
    torch.manual_seed(0)
    net.train()
    y, _ = net(torch.randn(4, num_frames, net.in_dim))
    (y * torch.randn_like(y)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    # Not the biases: one before a batch norm has a zero gradient.
    assert all(p.grad.any() for n, p in net.named_parameters() if n.endswith("weight"))


def check_bfloat16(net: nn.Module, num_frames: int) -> None:
    """Under autocast, padded and not: frames near those of float32, and finite gradients."""
    randomise(net).float()
    x = random_frames(2, num_frames, net.in_dim).float()
    for lengths in (None, torch.tensor([num_frames, num_frames // 2])):
        want, out_lengths = net(x, lengths)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got, _ = net(x, lengths)
        real = frame_mask(out_lengths, want)
        error = (got.float() - want)[... if real is None else real]
        assert error.square().mean().sqrt() < 0.05 * want.square().mean().sqrt()
        got.float().square().sum().backward()
        assert all(p.grad.isfinite().all() for p in net.parameters())
