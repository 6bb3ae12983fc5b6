"""Codecs of the layer-feature store: (T, L, D) to the bytes of one ark entry, and crops back.

An entry is what follows `UTT ` in an ark, and kaldiio reads every one. All are time-major, so
that a crop of frames is a few runs of bytes (`crop_spans`).

========  ============================================  ==================  ====================
codec     entry                                         bytes a value       kaldiio.load_mat
========  ============================================  ==================  ====================
float32   Kaldi matrix `FM `                            4                   (T, L*D)
float16   kaldiio's numpy entry `NPY`, `<f2`            2                   (T, L, D)
int8      Kaldi compressed matrix `CM `, a column for   1 + 8 / g           (g, T*L*D/g); its
          every g neighbouring dimensions of a frame    (9 / 8 for g = 64)  .T.reshape(T, L, D)
          and layer; g: the divisor of D nearest 64
========  ============================================  ==================  ====================

Why int8 is stored so: a few dimensions of an encoder's layer are often 10 to 100 times larger than
the others. One range for all (`CM3`), or a column a frame, then leaves a handful of levels for
the rest. A column a (layer, dimension) would be the most exact, but its values lie T bytes apart,
and a crop would be L*D runs. With short columns inside a frame an outlier costs its 64
neighbours at most, and with fitted landmarks (see `compressed`) costs those little;
`benchmarks/codecs.py` prints the errors. Kaldi writes `CM` for more than 8 rows only, but
every reader goes by the token.
"""

import io
import math
import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from wespeaker_lap.io.compressed import HEADER_BYTES as COLUMN_BYTES
from wespeaker_lap.io.compressed import compress, decompress, measure_range

HEADER_BYTES = 256  # that `check_header` wants to see; no header is longer
Shape = tuple[int, int, int]
Spans = list[tuple[int, int]]

_MATRIX = struct.Struct("<6sibi")  # "\0BFM \4", rows, "\4", columns
_COMPRESSED = struct.Struct("<5sffii")  # "\0BCM ", least value, range, rows, columns
_RANGE_AT, _RANGE_BYTES = 5, 8  # where the least value and the range are
_HALF_LIMIT = 65520.0  # what rounds to infinity in float16
_GROUP = 64  # values of a column wanted
_BLOCK = 1 << 16  # halves widened at a time: they and the floats stay in the second cache


class Codec(NamedTuple):
    """What a codec does: see the functions of this module."""

    encode: Callable[[np.ndarray], bytes]
    fits: Callable[[bytes, Shape], bool]
    spans: Callable[[Shape, int, int], Spans]
    decode: Callable[[Sequence[bytes], np.ndarray], None]


def encode(codec: str, feats: np.ndarray) -> bytes:
    """The whole entry of an utterance, header included.

    Args:
        codec: a name in `CODECS`.
        feats: (T, L, D) float.

    Raises:
        ValueError: unknown codec, another number of axes, no values, or values that are not finite
            in this codec.
    """
    feats = np.asarray(feats)
    if feats.ndim != 3 or feats.size == 0:
        raise ValueError(f"want (T, L, D) with T, L and D above 0, got {tuple(feats.shape)}")
    return _find(codec).encode(feats)


def entry_bytes(codec: str, shape: Shape) -> int:
    """Length of the entry of features of that shape (T, L, D)."""
    first, size = crop_spans(codec, shape, 0, shape[0])[-1]
    return first + size


def check_header(codec: str, head: bytes, shape: Shape) -> None:
    """Check that an entry is what the codec writes for features of that shape.

    Args:
        codec: a name in `CODECS`.
        head: its first `HEADER_BYTES` bytes, or the whole entry where it is shorter.
        shape: (T, L, D).

    Raises:
        ValueError: it is not.
    """
    if not _find(codec).fits(bytes(head), tuple(shape)):
        raise ValueError(f"no {codec} entry of shape {tuple(shape)}")


def crop_spans(codec: str, shape: Shape, start: int, count: int) -> Spans:
    """The bytes of an entry that hold frames `start` to `start + count`.

    Args:
        codec: a name in `CODECS`.
        shape: (T, L, D) of the whole utterance.
        start, count: frames.

    Returns:
        [(first byte in the entry, number of bytes)], in rising order.

    Raises:
        ValueError: unknown codec, or frames that the utterance does not have.
    """
    if start < 0 or count < 1 or start + count > shape[0]:
        raise ValueError(f"{shape[0]} frames, asked for {count} from frame {start}")
    return _find(codec).spans(tuple(shape), start, count)


def decode(codec: str, shape: Shape, parts: Sequence[bytes],
           out: np.ndarray | None = None) -> np.ndarray:
    """The frames of a crop.

    Args:
        codec: a name in `CODECS`.
        shape: (count, L, D) of the crop.
        parts: the bytes of each of `crop_spans`: anything with the buffer protocol.
        out: (count, L, D) float32, C-contiguous, to be filled; None for a new one.

    Returns:
        `out`.

    Raises:
        ValueError: unknown codec, parts of another length, or an `out` that cannot be filled.
    """
    shape = tuple(shape)
    want = [size for _, size in _find(codec).spans(shape, 0, shape[0])]
    got = [memoryview(part).nbytes for part in parts]
    if got != want:
        raise ValueError(f"{codec} frames of shape {shape} are {want} bytes, got {got}")
    out = _check_out(shape, out)
    CODECS[codec].decode(parts, out)
    return out


def place_parts(codec: str, shape: Shape,
                out: np.ndarray | None = None) -> tuple[list[np.ndarray], np.ndarray]:
    """Memory for the parts of a crop that is going to be decoded.

    Args:
        codec, shape, out: see `decode`.

    Returns:
        An array of uint8 for each of `crop_spans`, and `out`. What is stored as float32 stands
        in `out` itself, so that it is read where it is wanted.

    Raises:
        ValueError: unknown codec, or an `out` that cannot be filled.
    """
    out = _check_out(tuple(shape), out)
    if codec == "float32":
        return [out.reshape(-1).view(np.uint8)], out
    spans = _find(codec).spans(tuple(shape), 0, shape[0])
    return [np.empty(size, np.uint8) for _, size in spans], out


def _check_out(shape: Shape, out: np.ndarray | None) -> np.ndarray:
    if out is None:
        return np.empty(shape, np.float32)
    if out.shape != shape or out.dtype != np.float32 or not out.flags.carray:
        raise ValueError(f"want out as contiguous float32 {shape}, got {out.dtype} {out.shape}")
    return out


def _find(codec: str) -> Codec:
    if codec not in CODECS:
        raise ValueError(f"unknown codec {codec!r}; choose one of {', '.join(CODECS)}")
    return CODECS[codec]


def _refuse(codec: str) -> ValueError:
    otherwise = "" if codec == "float32" else ", or use the codec float32"
    return ValueError(f"features that are not finite in {codec}; look at the recording{otherwise}")


def _encode_float32(feats: np.ndarray) -> bytes:
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(feats, "<f4")
    if not np.isfinite(stored).all():
        raise _refuse("float32")
    return b"".join((_float32_header(feats.shape), stored))


def _float32_header(shape: Shape) -> bytes:
    return _MATRIX.pack(b"\0BFM \4", shape[0], 4, shape[1] * shape[2])


def _fits_float32(head: bytes, shape: Shape) -> bool:
    return head.startswith(_float32_header(shape))


def _float32_spans(shape: Shape, start: int, count: int) -> Spans:
    frame = 4 * shape[1] * shape[2]
    return [(_MATRIX.size + start * frame, count * frame)]


def _decode_float32(parts: Sequence[bytes], out: np.ndarray) -> None:
    stored = np.frombuffer(parts[0], "<f4").reshape(out.shape)
    if not np.may_share_memory(stored, out):
        np.copyto(out, stored)


def _encode_float16(feats: np.ndarray) -> bytes:
    # Asked before the cast: numpy looks at halves ten times slower. NaN fails too.
    if not (float(feats.min()) > -_HALF_LIMIT and float(feats.max()) < _HALF_LIMIT):
        raise _refuse("float16")
    return b"".join((_float16_header(feats.shape), np.ascontiguousarray(feats, "<f2")))


@lru_cache(maxsize=4096)  # asked for at every read, and numpy takes 20 us over it
def _float16_header(shape: Shape) -> bytes:
    npy = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        npy, {"descr": "<f2", "fortran_order": False, "shape": shape})
    length = len(npy.getvalue()) + 2 * math.prod(shape)
    digits = (length.bit_length() + 7) // 8
    return b"NPY" + bytes([digits]) + length.to_bytes(digits, "little") + npy.getvalue()


def _fits_float16(head: bytes, shape: Shape) -> bool:
    return head.startswith(_float16_header(shape))


def _float16_spans(shape: Shape, start: int, count: int) -> Spans:
    frame = 2 * shape[1] * shape[2]
    return [(len(_float16_header(shape)) + start * frame, count * frame)]


def _decode_float16(parts: Sequence[bytes], out: np.ndarray) -> None:
    """Widen halves by their bits: about four times as fast as numpy's cast.

    A half's bits, moved up by 13 and its sign by 16, are a float 2^112 times too small. The rule
    is for finite values, and no others are written; looking for some would take a third longer.
    """
    halves, floats = np.frombuffer(parts[0], "<i2"), out.reshape(-1)
    for at in range(0, len(halves), _BLOCK):
        wide = floats[at:at + _BLOCK]
        bits = wide.view(np.int32)
        np.copyto(bits, halves[at:at + _BLOCK])  # repeats the sign in all upper bits
        bits <<= 13
        bits &= np.int32(-0x70002000)  # 0x8fffe000: all but the repeated signs
        wide *= np.float32(2.0 ** 112)


@lru_cache(maxsize=16)
def _group_size(dim: int) -> int:
    """Values of a column: the divisor of `dim` nearest to 64, by ratio."""
    divisors = [size for size in range(1, dim + 1) if dim % size == 0]
    return min(divisors, key=lambda size: abs(math.log(size / _GROUP)))


def _encode_int8(feats: np.ndarray) -> bytes:
    size = _group_size(feats.shape[2])
    with np.errstate(over="ignore"):
        columns = np.ascontiguousarray(feats, np.float32).reshape(-1, size)
    low, span = measure_range(columns)
    if not np.isfinite(span):
        raise _refuse("int8")
    landmarks, codes = compress(columns, low, span)
    header = _COMPRESSED.pack(b"\0BCM ", low, span, size, len(columns))
    return b"".join((header, landmarks, codes))


def _fits_int8(head: bytes, shape: Shape) -> bool:
    if len(head) < _COMPRESSED.size:
        return False
    token, low, span, rows, columns = _COMPRESSED.unpack_from(head)
    return (token == b"\0BCM " and math.isfinite(low) and 0 < span < math.inf
            and rows == _group_size(shape[2]) and rows * columns == math.prod(shape))


def _int8_spans(shape: Shape, start: int, count: int) -> Spans:
    frame = shape[1] * shape[2]
    columns = frame // _group_size(shape[2])
    codes_at = _COMPRESSED.size + shape[0] * columns * COLUMN_BYTES
    return [(_RANGE_AT, _RANGE_BYTES),
            (_COMPRESSED.size + start * columns * COLUMN_BYTES, count * columns * COLUMN_BYTES),
            (codes_at + start * frame, count * frame)]


def _decode_int8(parts: Sequence[bytes], out: np.ndarray) -> None:
    low, span = np.frombuffer(parts[0], "<f4")
    size = _group_size(out.shape[2])
    decompress(np.frombuffer(parts[1], "<u2").reshape(-1, 4),
               np.frombuffer(parts[2], np.uint8).reshape(-1, size), low, span,
               out.reshape(-1, size))


CODECS = {
    "float32": Codec(_encode_float32, _fits_float32, _float32_spans, _decode_float32),
    "float16": Codec(_encode_float16, _fits_float16, _float16_spans, _decode_float16),
    "int8": Codec(_encode_int8, _fits_int8, _int8_spans, _decode_int8),
}
