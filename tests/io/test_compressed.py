"""The codec int8: Kaldi's rounding, landmarks of least error, outliers, any range."""

import io
import struct
import warnings

import kaldiio
import numpy as np
import pytest

from wespeaker_lap.io.codecs import HEADER_BYTES, check_header, crop_spans, decode, encode


def make_feats(shape, seed=0):
    """(T, L, D) float32 with outlier dimensions, a constant one and layers of other sizes."""
    rng = np.random.default_rng(seed)
    feats = rng.standard_normal(shape) * 10.0 ** rng.integers(-2, 3, (1, shape[1], 1))
    feats[:, :, 0] += 300
    feats[:, :, shape[2] // 2] = -7.25
    return feats.astype(np.float32)


def load_entry(entry, shape):
    """What kaldiio reads, brought to (T, L, D)."""
    return next(kaldiio.load_ark(io.BytesIO(b"utt " + entry)))[1].T.reshape(shape)


def read_crop(entry, shape, start, count):
    parts = [entry[at:at + size] for at, size in crop_spans("int8", shape, start, count)]
    return decode("int8", (count, *shape[1:]), parts)


def read_columns(entry):
    """The fields of a compressed matrix by hand: low, range, landmarks (n, 4), codes (n, g)."""
    token, low, span, rows, columns = struct.unpack_from("<5sffii", entry)
    assert token == b"\0BCM " and len(entry) == 21 + columns * (8 + rows)
    landmarks = np.array(struct.unpack_from(f"<{4 * columns}H", entry, 21)).reshape(columns, 4)
    codes = np.array(list(entry[21 + 8 * columns:])).reshape(columns, rows)
    return low, span, landmarks, codes


@pytest.mark.parametrize(("dim", "size"), [(768, 64), (1024, 64), (192, 64), (512, 64), (80, 80),
                                           (96, 48), (97, 97), (5, 5), (1, 1)])
def test_a_column_is_about_64_neighbouring_dimensions(dim, size):
    entry = encode("int8", np.arange(2 * 3 * dim, dtype=np.float32).reshape(2, 3, dim))
    assert struct.unpack_from("<ii", entry, 13) == (size, 6 * dim // size)
    assert len(entry) == 21 + 6 * dim + 8 * (6 * dim // size)


def quantize(value, points):
    """Kaldi's rule for one value and its column's four points."""
    p0, p25, p75, p100 = points
    if value < p25:
        return min(max(int((value - p0) / (p25 - p0) * 64 + 0.5), 0), 64)
    if value < p75:
        return min(max(64 + int((value - p25) / (p75 - p25) * 128 + 0.5), 64), 192)
    return min(max(192 + int((value - p75) / (p100 - p75) * 63 + 0.5), 192), 255)


@pytest.mark.parametrize("shape", [(1, 3, 5), (7, 3, 97), (5, 2, 128), (6, 1, 2)])
def test_values_are_rounded_as_kaldi_rounds_them(shape):
    feats = make_feats(shape)
    low, span, landmarks, codes = read_columns(encode("int8", feats))
    assert low == feats.min() and np.isclose(low + span, feats.max(), rtol=1e-6)
    assert (np.diff(landmarks, axis=1) >= 1).all()
    columns = feats.reshape(codes.shape).astype(float)
    points = landmarks * (span / 65535) + low
    want = [[quantize(value, row) for value in column]
            for column, row in zip(columns, points, strict=True)]
    # A value half-way between two steps may fall on either side in float32.
    assert np.abs(codes - want).max() <= 1 and (codes != want).mean() < 2e-3


def order_landmarks(units):
    """Kaldi's rounding and ordering of a column's four landmarks."""
    p0 = min(int(units[0] + 0.499), 65532)
    p25 = min(max(int(units[1] + 0.499), p0 + 1), 65533)
    p75 = min(max(int(units[2] + 0.499), p25 + 1), 65534)
    return [p0, p25, p75, max(int(units[3] + 0.499), p75 + 1)]


@pytest.mark.parametrize("shape", [(100, 2, 64), (2, 1, 97), (9, 1, 5), (6, 1, 2), (2, 1, 1)])
def test_landmarks_stand_at_the_ranks_of_least_squared_error(shape):
    feats = np.random.default_rng(1).standard_t(3, shape).astype(np.float32)  # long tails
    low, span, landmarks, codes = read_columns(encode("int8", feats))
    size = codes.shape[1]
    ranks = [0] + [2 ** k for k in range(10) if 2 ** k <= (size - 1) // 2]
    distances = []
    for column, row in zip(feats.reshape(-1, size), landmarks, strict=True):
        u = [(float(value) - float(low)) / span * 65535 for value in sorted(column)]
        # Errors go with the square of the step; values on a landmark have none.
        costs = {(i, j): (max(i - 1, 0) * ((u[i] - u[0]) / 64) ** 2
                          + max(j - i - 1, 0) * ((u[j] - u[i]) / 128) ** 2
                          + max(size - 2 - j, 0) * ((u[-1] - u[j]) / 63) ** 2)
                 for i in ranks for j in (size - 1 - rank for rank in ranks)}
        best = [order_landmarks([u[0], u[i], u[j], u[-1]]) for (i, j), cost in costs.items()
                if cost <= 1.0001 * min(costs.values())]  # float32 may swap near ties
        distances.append(min(np.abs(row - landmark).max() for landmark in best))
    # One unit off where float32 rounds the other way.
    assert max(distances) <= 1 and np.mean(distances) < 0.05


def plant_outliers(feats, dims, factor=1.0, offset=0.0):
    feats = feats.copy()
    feats[:, :, dims] = feats[:, :, dims] * factor + offset
    return feats


def measure_error(got, want, dims):
    """Rms error over rms of the centred signal, of some dimensions; (L,)."""
    error = ((got - want)[:, :, dims] ** 2).mean((0, 2))
    return np.sqrt(error / ((want - want.mean(0))[:, :, dims] ** 2).mean((0, 2)))


@pytest.mark.parametrize(("factor", "offset"), [(1, 0), (30, 0), (1, 50), (1, -50)])
def test_outliers_hardly_cost_the_others(factor, offset):
    shape, outliers = (30, 4, 192), [10, 77, 150]
    bulk = np.setdiff1d(np.arange(192), outliers)
    plain = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    feats = plant_outliers(plain, outliers, factor, offset)
    ours = read_crop(encode("int8", feats), shape, 0, 30)
    assert measure_error(ours, feats, bulk).max() < 0.01
    assert measure_error(ours, feats, outliers).max() < 0.02
    ark = io.BytesIO()
    kaldiio.save_ark(ark, {"a": feats.reshape(-1, 64).T}, compression_method=2)
    theirs = load_entry(ark.getvalue()[2:], shape)
    if factor > 1 or offset:
        assert (measure_error(theirs, feats, bulk) > 5 * measure_error(ours, feats, bulk)).all()
    else:
        assert (measure_error(theirs, feats, bulk) > measure_error(ours, feats, bulk)).all()


def test_what_kaldiio_compressed_is_read_too():
    feats = make_feats((6, 2, 192))
    ark = io.BytesIO()
    kaldiio.save_ark(ark, {"a": feats.reshape(-1, 64).T}, compression_method=2)
    entry = ark.getvalue()[2:]
    check_header("int8", entry[:HEADER_BYTES], feats.shape)
    np.testing.assert_allclose(read_crop(entry, feats.shape, 2, 3),
                               load_entry(entry, feats.shape)[2:5], rtol=0,
                               atol=np.abs(feats).max() * 2 ** -22)


@pytest.mark.parametrize("feats", [
    np.zeros((2, 1, 64)), np.full((1, 1, 3), -7.5), np.full((3, 2, 4), 1e33),
    np.array([[[-1e-42, 0, 1e-42]]]), np.array([[[-2.5e33, 2.5e33, 1, 0, -1]]]),
    np.array([[[1e6, 1e6 + 1, 1e6 + 2]]]), -np.abs(make_feats((5, 2, 64))),
    np.repeat(np.float32([[1e4], [-1e-4]]), 64, axis=1).reshape(1, 2, 64),
    np.arange(128.0).reshape(2, 1, 64),
], ids=["zeros", "constant", "large constant", "denormal", "widest", "far from 0", "negative",
        "constant columns", "even"])
def test_any_range_keeps_every_value_within_its_step(feats):
    feats = feats.astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        entry = encode("int8", feats)
        ours = read_crop(entry, feats.shape, 0, len(feats)).astype(float)
    theirs = load_entry(entry, feats.shape)
    assert np.isfinite(theirs).all()
    _, span, landmarks, codes = read_columns(entry)
    assert (np.diff(landmarks, axis=1) >= 1).all() and landmarks.max() <= 65535
    steps = np.diff(landmarks, axis=1) / [64, 128, 63] * span / 65535
    columns = feats.reshape(codes.shape)
    # Half a step, half a landmark's unit at the ends, float32's rounding and its least numbers.
    bound = steps.max(1)[:, None] / 2 + span / 65535 * 0.51 + np.abs(columns) * 3e-7 + 1e-43
    assert (np.abs(ours.reshape(codes.shape) - columns) <= bound).all()
    assert (np.abs(ours - theirs) <= np.abs(feats).max() * 2e-7 + 1e-43).all()


def test_a_constant_is_kept_exactly():
    for value in (0.0, -7.25, 1e30, 3e-40):
        feats = np.full((2, 2, 64), value, np.float32)
        np.testing.assert_array_equal(
            read_crop(encode("int8", feats), (2, 2, 64), 0, 2), feats)


@pytest.mark.parametrize(("field", "value"), [
    (9, np.nan), (9, np.inf), (9, 0.0), (9, -1.0), (5, np.nan), (5, -np.inf)])
def test_a_range_that_is_none_is_no_header(field, value):
    entry = bytearray(encode("int8", make_feats((3, 1, 5))))
    struct.pack_into("<f", entry, field, value)
    with pytest.raises(ValueError, match="no int8 entry"):
        check_header("int8", bytes(entry), (3, 1, 5))


def test_as_many_values_in_other_columns_are_no_header():
    entry = encode("int8", make_feats((2, 2, 96)))  # columns of 48
    with pytest.raises(ValueError, match="no int8 entry"):
        check_header("int8", entry, (2, 3, 64))
