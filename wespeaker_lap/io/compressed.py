"""Kaldi's compressed matrix (`CM`): a byte a value, and four 16-bit landmarks a column.

A column's bytes 0 to 64, 64 to 192 and 192 to 255 lie evenly between its four landmarks, which
are whole numbers of 65535ths of the matrix's range. Kaldi's own writer puts the landmarks at the
percentiles 0, 25, 75 and 100, so one outlier coarsens a quarter of its column. No reader asks
where they came from; here they stand at those ranks of the column that make the squared error
least. What is fixed by the format (rounding, rising landmarks) is as in Kaldi, so `copy-feats` and
kaldiio read it. Source: Kaldi, `matrix/compressed-matrix.h`.
"""

import numpy as np

HEADER_BYTES = 8  # of a column
STEPS = np.array([64, 128, 63], np.float32)  # between one landmark and the next
UNITS = np.float32(65535)  # of the matrix's range
_BLOCK = 1 << 15  # values worked on at a time: they and their scratch stay in the second cache


def measure_range(values: np.ndarray) -> tuple[np.float32, np.float32]:
    """The least value and the range, as Kaldi's global header has them.

    Args:
        values: float32, any shape.

    Returns:
        Both as float32. They are not finite where a value is not, or where readers, which
        multiply before they divide, would overflow.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        low, high = values.min(), values.max()
        if low == high:  # a constant matrix still needs a range
            high = np.float32(float(low) + 1 + abs(float(low)))
        span = high - low
        return low, span if np.isfinite(span * UNITS) else np.float32(np.inf)


def compress(values: np.ndarray, low: np.float32,
             span: np.float32) -> tuple[np.ndarray, np.ndarray]:
    """Columns of floats to landmarks and bytes.

    Args:
        values: (n, g) float32, n columns of g values each.
        low, span: of `measure_range`, over all columns.

    Returns:
        Landmarks (n, 4) `<u2` and codes (n, g) uint8.
    """
    landmarks = np.empty((len(values), 4), "<u2")
    codes = np.empty(values.shape, np.uint8)
    rows = max(1, _BLOCK // values.shape[1])
    for at in range(0, len(values), rows):
        # In 65535ths of the range; scaled after the division, as a tiny range has no reciprocal.
        units = (values[at:at + rows] - low) / span
        units *= UNITS
        landmarks[at:at + rows] = _fit_landmarks(np.sort(units, axis=1))
        codes[at:at + rows] = _quantize(units, landmarks[at:at + rows].astype(np.float32))
    return landmarks, codes


def _fit_landmarks(ranked: np.ndarray) -> np.ndarray:
    """Landmarks of least squared error: (n, g) values in rising order -> (n, 4) uint16.

    An error is even over a step, so its square is in proportion to the step's; a value on a
    landmark has none. The second landmark is sought at ranks 0, 1, 2, 4, … from below, the third
    at such ranks from above.
    """
    size = ranked.shape[1]
    ranks = np.array([0] + [2 ** k for k in range(size.bit_length()) if 2 ** k <= (size - 1) // 2])
    second, third = ranked[:, ranks], ranked[:, size - 1 - ranks]  # (n, R)
    outside = np.maximum(ranks - 1, 0).astype(np.float32)  # values between an end and a landmark
    between = (size - 2 - ranks[:, None] - ranks).clip(0).astype(np.float32)
    error = third[:, None, :] - second[:, :, None]  # (n, R, R)
    error /= STEPS[1]
    error *= error
    error *= between
    error += (outside * ((second - ranked[:, :1]) / STEPS[0]) ** 2)[:, :, None]
    error += (outside * ((ranked[:, -1:] - third) / STEPS[2]) ** 2)[:, None, :]
    best = error.reshape(len(ranked), -1).argmin(axis=1)
    column = np.arange(len(ranked))
    chosen = np.stack([ranked[:, 0], second[column, best // len(ranks)],
                       third[column, best % len(ranks)], ranked[:, -1]])
    return _let_rise((chosen + np.float32(0.499)).astype(np.int32)).T


def _let_rise(landmarks: np.ndarray) -> np.ndarray:
    """(4, n) whole numbers, each at least one above the one before it, 65535 at most."""
    low, second, third, high = landmarks
    low = np.minimum(low, 65532)
    second = np.clip(second, low + 1, 65533)
    third = np.clip(third, second + 1, 65534)
    return np.stack([low, second, third, np.clip(high, third + 1, 65535)])


def _quantize(units: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """(n, g) values and (n, 4) landmarks -> (n, g) codes, rounded to the nearest."""
    low, second, third, _ = np.split(landmarks, 4, axis=1)
    per_unit = STEPS / np.diff(landmarks, axis=1)  # (n, 3)
    # The code is a line in each of three pieces: their sum is Kaldi's case by case.
    codes = np.minimum(units, second)
    codes -= low
    codes *= per_unit[:, :1]
    for start, end, slope in ((second, third, per_unit[:, 1:2]), (third, None, per_unit[:, 2:])):
        piece = np.maximum(units, start)
        if end is not None:
            np.minimum(piece, end, out=piece)
        piece -= start
        piece *= slope
        codes += piece
    codes += np.float32(0.5)
    return np.clip(codes, 0, 255, out=codes).astype(np.uint8)


def decompress(landmarks: np.ndarray, codes: np.ndarray, low: np.float32, span: np.float32,
               out: np.ndarray) -> None:
    """Landmarks and bytes back to columns of floats.

    Args:
        landmarks: (n, 4) `<u2`.
        codes: (n, g) uint8.
        low, span: of the matrix, float32.
        out: (n, g) float32, C-contiguous; filled.
    """
    points = landmarks.astype(np.float32)  # (n, 4); one expression in kaldiio's order of rounding
    points *= span
    points /= UNITS
    points += low
    slopes = np.diff(points, axis=1) / STEPS
    rows = max(1, _BLOCK // codes.shape[1])
    # Bounds as arrays: numpy has no fast path for the larger of an array and a number.
    bound64, bound192 = (np.full((min(rows, len(codes)), codes.shape[1]), bound, np.uint8)
                         for bound in (64, 192))
    byte, piece = np.empty_like(bound64), np.empty(bound64.shape, np.float32)
    for at in range(0, len(codes), rows):
        code, part = codes[at:at + rows], out[at:at + rows]
        few = slice(len(code))  # the last block may be short
        base, slope = points[at:at + rows, :1], slopes[at:at + rows]
        np.minimum(code, bound64[few], out=byte[few])
        np.copyto(part, byte[few])
        part *= slope[:, :1]
        part += base
        np.maximum(code, bound64[few], out=byte[few])
        np.minimum(byte[few], bound192[few], out=byte[few])
        _add_piece(part, byte[few], bound64[few], slope[:, 1:2], piece[few])
        np.maximum(code, bound192[few], out=byte[few])
        _add_piece(part, byte[few], bound192[few], slope[:, 2:], piece[few])


def _add_piece(part: np.ndarray, byte: np.ndarray, bound: np.ndarray, slope: np.ndarray,
               piece: np.ndarray) -> None:
    """Add `slope * (byte - bound)` to `part`; `byte` and `piece` are overwritten."""
    np.subtract(byte, bound, out=byte)
    np.copyto(piece, byte)
    np.multiply(piece, slope, out=piece)
    np.add(part, piece, out=part)
