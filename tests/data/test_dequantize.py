"""Crops as they are stored: the bytes of the store, and the numbers that the codec gives."""

import numpy as np
import pytest
import torch

from wespeaker_lap.data.dequantize import Dequantize, row_bytes
from wespeaker_lap.data.loader import BatchLoader
from wespeaker_lap.data.source import FeatureSource
from wespeaker_lap.io.feats import FeatureStore, FeatureWriter

FRAMES = {"a": 41, "b": 3, "c": 12, "d": 1, "é": 30}


def write(directory, codec, num_layers, dim):
    """Layers of other sizes, dimensions that stand out, a constant one, negative zeros."""
    rng = np.random.default_rng(dim)
    with FeatureWriter(directory, {"num_layers": num_layers, "dim": dim}, codec) as writer:
        for utt, frames in FRAMES.items():
            feats = rng.standard_normal((frames, num_layers, dim))
            feats *= 10.0 ** rng.integers(-2, 3, (1, num_layers, 1))
            feats[:, :, 0] += 90
            feats[:, 0, dim // 2] = -0.0
            writer.write(utt, feats.astype(np.float32))
    return FeatureStore(directory)


def make_source(store, crop_frames, as_stored):
    return FeatureSource(store, dict.fromkeys(FRAMES, "x"), ["x"], crop_frames, 3,
                         as_stored=as_stored)


@pytest.mark.parametrize("codec", ["int8", "float16"])
@pytest.mark.parametrize(("num_layers", "dim"), [(1, 1), (3, 5), (2, 64), (13, 96), (4, 192),
                                                 (2, 97), (1, 1024)])
def test_the_numbers_are_the_stores_to_the_bit(tmp_path, codec, num_layers, dim):
    """Crops in the middle, whole utterances, tiled ones; by threads and at once."""
    store = write(tmp_path, codec, num_layers, dim)
    keys = [[(epoch, index) for epoch in range(7) for index in range(len(FRAMES))]]
    for crop_frames in (1, 12, 17, 90):
        host, stored = (make_source(store, crop_frames, as_stored) for as_stored in (False, True))
        crops = [store.read(*host.locate(key)) for key in keys[0]]
        wanted = np.stack([np.resize(crop, (crop_frames, num_layers, dim)) for crop in crops])
        whole, = BatchLoader(host, keys, 2)
        rows, = BatchLoader(stored, keys, 2)
        assert rows.feats.dtype == torch.uint8 and rows.feats.ndim == 2
        feats = Dequantize(codec, (crop_frames, num_layers, dim))(rows.feats)
        for found in (whole.feats, feats):
            assert found.shape == wanted.shape and found.dtype == torch.float32
            np.testing.assert_array_equal(found.numpy().view(np.int32), wanted.view(np.int32))
        assert whole.utts == rows.utts and whole.num_bytes == rows.num_bytes


def test_by_hand():
    """A column of four: landmarks 0, 100, 300 and 65535 of a range from -1 to 65534."""
    shape = (1, 1, 4)
    landmarks = np.array([0, 100, 300, 65535], "<u2").tobytes()
    stored = np.array([-1, 65535], "<f4").tobytes() + landmarks + bytes([0, 32, 160, 255])
    padded = bytearray(stored.ljust(row_bytes("int8", shape), b"\xff"))
    row = torch.frombuffer(padded, dtype=torch.uint8)
    # Half-way to the first landmark; at 96 of 128 from the second to the third.
    assert Dequantize("int8", shape)(row[None]).tolist() == [[[[-1.0, 49.0, 249.0, 65534.0]]]]


def test_a_row_is_as_small_as_what_is_stored():
    assert row_bytes("float16", (100, 13, 768)) == 2 * 100 * 13 * 768
    values = 100 * 13 * 768
    assert row_bytes("int8", (100, 13, 768)) == values + 8 * values // 64 + 16  # 8 of them unused


def test_a_float32_store_is_refused():
    with pytest.raises(ValueError, match=r"'device' is for features stored as int8 or float16, "
                                         r"these are float32; set it to 'host'"):
        Dequantize("float32", (1, 1, 1))


@pytest.mark.parametrize("rows", [torch.zeros(2, 31, dtype=torch.uint8), torch.zeros(2, 32),
                                  torch.zeros(32, dtype=torch.uint8)])
def test_rows_that_do_not_fit_are_refused(rows):
    with pytest.raises(ValueError, match=r"want \(B, 32\) uint8, got"):
        Dequantize("int8", (1, 1, 4))(rows)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("codec", ["int8", "float16"])
def test_a_gpu_gives_the_same_numbers(tmp_path, codec):
    store = write(tmp_path, codec, 13, 96)
    keys = [[(epoch, index) for epoch in range(7) for index in range(len(FRAMES))]]
    wanted = next(iter(BatchLoader(make_source(store, 17, False), keys, 2))).feats
    rows = next(iter(BatchLoader(make_source(store, 17, True), keys, 2, pin=True))).feats
    feats = Dequantize(codec, (17, 13, 96)).cuda()(rows.cuda(non_blocking=True))
    torch.testing.assert_close(feats.cpu(), wanted, rtol=1e-6, atol=1e-4)
