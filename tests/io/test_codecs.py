"""Codecs: kaldiio reads what we write and we read what kaldiio writes; crops, rounding, limits."""

import io
import warnings

import kaldiio
import numpy as np
import pytest

from wespeaker_lap.io.codecs import (
    CODECS,
    HEADER_BYTES,
    check_header,
    crop_spans,
    decode,
    encode,
    entry_bytes,
    place_parts,
)

SHAPES = [(1, 1, 1), (1, 3, 5), (2, 1, 2), (7, 3, 97), (9, 2, 80), (40, 13, 96), (3, 4, 192),
          (200, 2, 128)]


def make_feats(shape, seed=0):
    """(T, L, D) float32 with outlier dimensions, a constant one and layers of other sizes."""
    rng = np.random.default_rng(seed)
    feats = rng.standard_normal(shape) * 10.0 ** rng.integers(-2, 3, (1, shape[1], 1))
    feats[:, :, 0] += 300
    feats[:, :, shape[2] // 2] = -7.25
    return feats.astype(np.float32)


def load_entry(codec, entry, shape):
    """What kaldiio reads, brought to (T, L, D) by the rule of the module's docstring."""
    loaded = next(kaldiio.load_ark(io.BytesIO(b"utt " + entry)))[1]
    assert loaded.shape == {"float32": (shape[0], shape[1] * shape[2]), "float16": shape,
                            "int8": loaded.shape}[codec]
    return (loaded.T if codec == "int8" else loaded).reshape(shape)


def read_crop(codec, entry, shape, start, count, out=None):
    parts = [entry[at:at + size] for at, size in crop_spans(codec, shape, start, count)]
    return decode(codec, (count, *shape[1:]), parts, out)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("codec", list(CODECS))
def test_kaldiio_reads_every_entry_equal_to_ours(codec, shape):
    feats = make_feats(shape)
    entry = encode(codec, feats)
    assert type(entry) is bytes and len(entry) == entry_bytes(codec, shape)
    check_header(codec, entry[:HEADER_BYTES], shape)
    ours, theirs = read_crop(codec, entry, shape, 0, shape[0]), load_entry(codec, entry, shape)
    assert ours.dtype == np.float32 and ours.shape == shape
    if codec == "int8":  # three float32 operations in another order
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=np.abs(feats).max() * 2 ** -22)
    else:
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("shape", SHAPES)
def test_both_float_codecs_are_kaldiios_bytes(shape):
    feats = make_feats(shape)
    ark = io.BytesIO()
    kaldiio.save_ark(ark, {"a": feats.reshape(shape[0], -1)})
    assert b"a " + encode("float32", feats) == ark.getvalue()
    ark = io.BytesIO()
    kaldiio.save_ark(ark, {"a": feats.astype(np.float16)}, write_function="numpy")
    assert b"a " + encode("float16", feats) == ark.getvalue()


@pytest.mark.parametrize("codec", list(CODECS))
def test_a_crop_is_a_piece_of_the_whole_and_costs_its_own_bytes(codec):
    shape = (23, 3, 128)
    entry = encode(codec, make_feats(shape))
    whole = read_crop(codec, entry, shape, 0, 23)
    a_frame = {"float32": 4 * 384, "float16": 2 * 384, "int8": 384 + 6 * 8}[codec]
    for start in range(23):
        for count in range(1, 24 - start):
            spans = crop_spans(codec, shape, start, count)
            assert sum(size for _, size in spans) == count * a_frame + 8 * (codec == "int8")
            ends = [at + size for at, size in spans]
            starts = [at for at, _ in spans]
            assert all(end <= at for end, at in zip(ends, starts[1:], strict=False))
            assert starts[0] > 0 and ends[-1] <= len(entry)
            np.testing.assert_array_equal(read_crop(codec, entry, shape, start, count),
                                          whole[start:start + count])


@pytest.mark.parametrize("num_frames", [1, 5])  # beside one block and over several
def test_every_finite_half_comes_out_as_numpy_has_it(num_frames):
    """Others are refused when features are written: see the limits below."""
    halves = np.arange(65536, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)]
    stored = np.resize(halves, (num_frames, 1, len(halves)))
    decoded = decode("float16", stored.shape, [stored.tobytes()])
    np.testing.assert_array_equal(decoded.view(np.uint32),
                                  stored.astype(np.float32).view(np.uint32))


@pytest.mark.parametrize("codec", list(CODECS))
def test_parts_are_placed_where_they_are_decoded_from(codec):
    """Those of float32 in the array itself, which costs no copy."""
    shape, crop = (9, 2, 64), (5, 2, 64)
    entry = encode(codec, make_feats(shape))
    for out in (None, np.full(crop, np.nan, np.float32)):
        parts, placed = place_parts(codec, crop, out)
        spans = crop_spans(codec, shape, 3, 5)
        assert [len(part) for part in parts] == [size for _, size in spans]
        for part, (at, size) in zip(parts, spans, strict=True):
            part[:] = np.frombuffer(entry, np.uint8)[at:at + size]
        assert decode(codec, crop, parts, placed) is placed and (out is None or placed is out)
        np.testing.assert_array_equal(placed, read_crop(codec, entry, shape, 3, 5))
        assert np.may_share_memory(parts[-1], placed) == (codec == "float32")
    with pytest.raises(ValueError, match=r"want out as contiguous float32 \(5, 2, 64\), got"):
        place_parts(codec, crop, np.empty((5, 2, 63), np.float32))


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.float32])
@pytest.mark.parametrize("codec", list(CODECS))
def test_any_float_and_any_strides_are_taken(codec, dtype):
    feats = make_feats((6, 3, 64)).astype(dtype)
    want = encode(codec, np.ascontiguousarray(feats).astype(np.float32))
    assert encode(codec, feats) == want
    assert encode(codec, np.asfortranarray(feats)) == want
    assert encode(codec, feats.repeat(2, axis=0)[::2]) == want


@pytest.mark.parametrize(("codec", "largest", "too_large"), [
    ("float16", 65519.9, 65520.0), ("int8", 2.59e33, 2.6e33), ("float32", 3.4e38, 3.5e38)])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_limit_of_every_codec(codec, largest, too_large, sign):
    feats = np.zeros((2, 1, 3))  # float64, so that 3.5e38 gets there
    feats[1] = [0, sign * largest, -sign * largest]
    assert np.isfinite(load_entry(codec, encode(codec, feats), feats.shape)).all()
    feats[1, 0, 1:] = sign * too_large, -sign * too_large
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=f"not finite in {codec}; look at the recording"):
            encode(codec, feats)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("codec", list(CODECS))
def test_what_is_not_finite_is_refused(codec, dtype, value):
    feats = make_feats((3, 2, 5)).astype(dtype)
    feats[2, 1, 3] = value
    advice = "recording$" if codec == "float32" else "recording, or use the codec float32$"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=f"not finite in {codec}; look at the {advice}"):
            encode(codec, feats)


@pytest.mark.parametrize("codec", list(CODECS))
def test_the_header_is_checked(codec):
    shape = (40, 13, 96)
    entry = encode(codec, make_feats(shape))
    for other in [(39, 13, 96), (40, 12, 96), (40, 13, 48), (41, 13, 96)]:
        with pytest.raises(ValueError, match=rf"no {codec} entry of shape \({other[0]}, "):
            check_header(codec, entry[:HEADER_BYTES], other)
    for another in set(CODECS) - {codec}:
        with pytest.raises(ValueError, match=f"no {another} entry of shape"):
            check_header(another, entry[:HEADER_BYTES], shape)
    length = crop_spans(codec, shape, 0, 40)[0][0] if codec != "int8" else 21
    assert length <= HEADER_BYTES
    for cut in range(length):
        with pytest.raises(ValueError, match=f"no {codec} entry"):
            check_header(codec, entry[:cut], shape)
    check_header(codec, memoryview(entry)[:length], shape)


@pytest.mark.parametrize("codec", list(CODECS))
def test_a_batch_is_filled_in_place(codec):
    shape = (9, 2, 64)
    entry = encode(codec, make_feats(shape))
    batch = np.full((3, 6, 2, 64), np.nan, np.float32)
    out = batch[1, :5]
    assert read_crop(codec, entry, shape, 3, 5, out) is out
    np.testing.assert_array_equal(batch[1, :5], read_crop(codec, entry, shape, 3, 5))
    assert np.isnan(batch[[0, 2]]).all() and np.isnan(batch[1, 5]).all()
    fresh = read_crop(codec, entry, shape, 3, 5)
    assert fresh.flags.writeable and fresh.flags.c_contiguous
    read_only = np.empty((5, 2, 64), np.float32)
    read_only.flags.writeable = False
    for wrong in (batch[0], np.empty((5, 2, 64)), batch.reshape(-1, 2, 64)[:10:2], read_only):
        with pytest.raises(ValueError, match=r"want out as contiguous float32 \(5, 2, 64\)"):
            read_crop(codec, entry, shape, 3, 5, wrong)


@pytest.mark.parametrize("codec", list(CODECS))
def test_what_is_asked_for_wrongly(codec):
    for feats in (np.zeros((3, 4)), np.zeros((0, 2, 3)), np.zeros((1, 2, 0)), np.zeros(())):
        with pytest.raises(ValueError, match=r"want \(T, L, D\) with T, L and D above 0, got"):
            encode(codec, feats)
    for start, count in [(0, 8), (-1, 2), (3, 0), (5, 3)]:
        with pytest.raises(ValueError, match=f"7 frames, asked for {count} from frame {start}"):
            crop_spans(codec, (7, 2, 3), start, count)
    entry = encode(codec, make_feats((7, 2, 3)))
    parts = [entry[at:at + size] for at, size in crop_spans(codec, (7, 2, 3), 0, 4)]
    for wrong in (parts[:-1], [*parts[:-1], parts[-1][:-1]], [*parts, b""]):
        with pytest.raises(ValueError, match=rf"{codec} frames of shape \(4, 2, 3\) are"):
            decode(codec, (4, 2, 3), wrong)


def test_an_unknown_codec():
    shape = (1, 1, 1)
    for call in (lambda: encode("int4", np.zeros(shape)), lambda: entry_bytes("int4", shape),
                 lambda: check_header("int4", b"", shape), lambda: decode("int4", shape, []),
                 lambda: crop_spans("int4", shape, 0, 1), lambda: place_parts("int4", shape)):
        with pytest.raises(ValueError, match="'int4'; choose one of float32, float16, int8"):
            call()
