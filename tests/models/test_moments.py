"""Statistics of batch norm against numpy and torch's own batch norm."""

import numpy as np
import pytest
import torch
from torch import nn

from wespeaker_lap.models import moments
from wespeaker_lap.models.moments import merge_moments, norm_statistics, split_rows


@pytest.mark.parametrize("momentum", [0.1, 0.0, None])
@pytest.mark.parametrize("block_bytes", [1, 200, 2**20])
def test_batches_count_as_in_torch(momentum, block_bytes, monkeypatch):
    monkeypatch.setattr(moments, "CPU_BLOCK_BYTES", block_bytes)
    ours, theirs = (nn.BatchNorm1d(6, momentum=momentum).double() for _ in range(2))
    for num_rows in (7, 2, 30):
        rows = 4.0 + 3.0 * torch.randn(num_rows, 6, dtype=torch.float64)
        mean, var = norm_statistics(ours, rows)
        np.testing.assert_allclose(mean, rows.numpy().mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(var, rows.numpy().var(axis=0), rtol=1e-12)
        theirs(rows)
        for name, value in theirs.named_buffers():
            torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-12, atol=1e-14)
    assert norm_statistics(ours.eval(), rows) == (ours.running_mean, ours.running_var)
    assert int(ours.num_batches_tracked) == 3


def test_a_large_mean_costs_no_digits():
    rows = 1000.0 + torch.randn(5000, 4)
    _, var = norm_statistics(nn.BatchNorm1d(4), rows)
    np.testing.assert_allclose(var, rows.double().numpy().var(axis=0), rtol=1e-4)


def test_one_row_alone_is_an_error():
    with pytest.raises(ValueError, match="2 rows or more"):
        norm_statistics(nn.BatchNorm1d(3), torch.zeros(1, 3))


def test_without_running_statistics_the_batch_is_always_measured():
    norm = nn.BatchNorm1d(2, track_running_stats=False).eval()
    rows = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    assert [v.tolist() for v in norm_statistics(norm, rows)] == [[2.0, 5.0], [1.0, 0.0]]


def test_parts_of_unequal_size_merge():
    rows = np.random.default_rng(0).normal(7.0, 2.0, (12, 3))
    parts = np.split(rows, [1, 6])
    stats = (torch.tensor(np.stack([getattr(part, name)(axis=0) for part in parts]))
             for name in ("mean", "var"))
    counts = torch.tensor([1, 5, 6], dtype=torch.float64)
    mean, var = merge_moments(counts, *stats)
    np.testing.assert_allclose(mean, rows.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(var, rows.var(axis=0), rtol=1e-12)


def test_blocks_cover_every_row_once(monkeypatch):
    monkeypatch.setattr(moments, "CPU_BLOCK_BYTES", 64)
    rows = torch.arange(11.0)[:, None].expand(11, 8)  # 32 bytes a row
    assert [rows[part, 0].tolist() for part in split_rows(rows)] == [
        [0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10]]
    assert [len(rows[part]) for part in split_rows(rows, enlarge=3)] == [6, 5]
    assert split_rows(rows[:0]) == []
