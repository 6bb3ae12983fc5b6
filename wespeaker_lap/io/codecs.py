"""Layer features as entries of a Kaldi ark: what follows `UTT ` there.

`float32` is a Kaldi matrix T x (L*D); `float16` is kaldiio's numpy entry (T, L, D). Both are
time-major, so that a crop of frames is one run of bytes.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

CODECS = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2")}
HEADER_BYTES = 256  # every header is shorter than this
_NPY_MAGIC = b"\x93NUMPY\x01\x00"
_BLOCK = 1 << 17  # values that are converted at a time, so that they stay in the cache
_REBIAS = np.float32(2.0 ** 112)  # from the exponent of float16 to that of float32


def encode(codec: str, feats: np.ndarray) -> bytes:
    """Turn features into an entry.

    Args:
        codec: one of CODECS.
        feats: (T, L, D) float.

    Raises:
        ValueError: values that the codec does not hold as finite numbers.
    """
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(feats, dtype=CODECS[codec])
    if not np.isfinite(stored).all():
        raise ValueError(f"features that are not finite in {codec}; look at the recording, or use "
                         f"the codec float32")
    return _make_header(codec, stored.shape) + stored.tobytes()


def entry_bytes(codec: str, shape: tuple[int, int, int]) -> int:
    """Bytes of the entry of features of a shape (T, L, D)."""
    num_frames, num_layers, dim = shape
    return (len(_make_header(codec, shape))
            + num_frames * num_layers * dim * CODECS[codec].itemsize)


def check_header(codec: str, head: bytes, shape: tuple[int, int, int]) -> None:
    """Check an entry's first HEADER_BYTES bytes.

    Raises:
        ValueError: it is no entry of this codec and shape.
    """
    if not bytes(head).startswith(_make_header(codec, shape)):
        raise ValueError(f"no {codec} entry of shape {shape}")


def crop_spans(codec: str, shape: tuple[int, int, int], start: int,
               count: int) -> list[tuple[int, int]]:
    """Where frames `start` to `start + count` are: (first byte in the entry, bytes) of each run."""
    frame_bytes = shape[1] * shape[2] * CODECS[codec].itemsize
    return [(len(_make_header(codec, shape)) + start * frame_bytes, count * frame_bytes)]


def decode(codec: str, shape: tuple[int, int, int], parts: Sequence,
           out: np.ndarray | None = None) -> np.ndarray:
    """Turn the runs of a crop into numbers.

    Args:
        codec: one of CODECS.
        shape: (count, L, D) of the crop.
        parts: the bytes of each run of `crop_spans`.
        out: (count, L, D) float32, contiguous, to write to; None for a new array.

    Returns:
        (count, L, D) float32.
    """
    out = np.empty(shape, np.float32) if out is None else out
    stored = np.frombuffer(parts[0], CODECS[codec])
    if codec == "float32":
        out.reshape(-1)[:] = stored
        return out
    halves, bits, flat = stored.view("<i2"), out.reshape(-1).view("<i4"), out.reshape(-1)
    for at in range(0, len(halves), _BLOCK):
        part = bits[at:at + _BLOCK]
        part[:] = halves[at:at + _BLOCK]
        np.left_shift(part, 13, out=part)
        np.bitwise_and(part, np.int32(-0x70000001), out=part)  # one sign bit of the four
        np.multiply(flat[at:at + _BLOCK], _REBIAS, out=flat[at:at + _BLOCK])
    return out


@lru_cache(4096)
def _make_header(codec: str, shape: tuple[int, int, int]) -> bytes:
    num_frames, num_layers, dim = map(int, shape)
    if codec == "float32":
        sizes = (num_frames, num_layers * dim)
        return b"\0BFM " + b"".join(b"\4" + size.to_bytes(4, "little") for size in sizes)
    fields = (f"{{'descr': '<f2', 'fortran_order': False, "
              f"'shape': ({num_frames}, {num_layers}, {dim}), }}").encode()
    padded = fields.ljust(-(-(len(fields) + 11) // 64) * 64 - 11) + b"\n"
    npy = _NPY_MAGIC + len(padded).to_bytes(2, "little") + padded
    total = len(npy) + 2 * num_frames * num_layers * dim
    length = total.to_bytes((total.bit_length() + 7) // 8, "little")
    return b"NPY" + bytes([len(length)]) + length + npy
