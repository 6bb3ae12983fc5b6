"""Crops as they are stored, in rows of bytes, and to floats: by the reading threads or on a GPU.

torch does it two to three times as fast as `io.codecs.decode`, with the same numbers. A float32
batch of an int8 store is 3.5 times as large as what was read for it: left as they are stored,
crops cost the host no arithmetic and the bus less than a third, and a GPU makes floats of them in
passing.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from wespeaker_lap.io.codecs import crop_spans
from wespeaker_lap.io.compressed import HEADER_BYTES, STEPS, UNITS

CODECS = ("int8", "float16")  # float32 is read as it is computed with
_ALIGNMENT = 16  # bytes
_ROWS = 16  # examples worked on at a time: their scratch is small beside the batch

Shape = tuple[int, int, int]


def check_codec(codec: str) -> None:
    """Refuse a store that there is nothing to dequantize of.

    Raises:
        ValueError: it is float32.
    """
    if codec not in CODECS:
        raise ValueError(f"train.dequantize 'device' is for features stored as "
                         f"{' or '.join(CODECS)}, these are {codec}; set it to 'host'")


def part_bytes(codec: str, shape: Shape) -> list[int]:
    """Bytes of each part of a stored crop of that shape (T, L, D); see `crop_spans`."""
    return [size for _, size in crop_spans(codec, shape, 0, shape[0])]


def row_bytes(codec: str, shape: Shape) -> int:
    """Bytes of a row that holds a stored crop of that shape, one part behind the other."""
    return -(-sum(part_bytes(codec, shape)) // _ALIGNMENT) * _ALIGNMENT


def cut_row(row: np.ndarray, sizes: Sequence[int]) -> list[np.ndarray]:
    """The parts of a row: (n,) uint8 to views of those sizes."""
    ends = np.cumsum(sizes)
    return [row[end - size:end] for end, size in zip(ends, sizes, strict=True)]


class Dequantize(nn.Module):
    """Rows of stored bytes to features, with the numbers that `io.codecs.decode` gives.

    Args:
        codec: in `CODECS`.
        shape: (T, L, D) of a crop.

    Raises:
        ValueError: another codec.
    """

    def __init__(self, codec: str, shape: Shape):
        super().__init__()
        check_codec(codec)
        self.codec, self.shape, self.sizes = codec, tuple(shape), part_bytes(codec, shape)
        # Divided by as tensors: a GPU multiplies by a number's reciprocal, and rounds otherwise.
        self.register_buffer("steps", torch.from_numpy(STEPS), persistent=False)
        self.register_buffer("units", torch.tensor(float(UNITS)), persistent=False)

    @torch.no_grad()
    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """(B, n) uint8, n = `row_bytes`, to (B, T, L, D) float32."""
        want = row_bytes(self.codec, self.shape)
        if rows.dtype != torch.uint8 or rows.ndim != 2 or rows.shape[1] != want:
            raise ValueError(f"want (B, {want}) uint8, got {tuple(rows.shape)} {rows.dtype}")
        parts = rows[:, :sum(self.sizes)].split(self.sizes, dim=1)
        feats = torch.empty(len(rows), *self.shape, device=rows.device)
        for first in range(0, len(rows), _ROWS):
            some = slice(first, first + _ROWS)
            self.fill([part[some] for part in parts], feats[some])
        return feats

    def fill(self, parts: Sequence[torch.Tensor], out: torch.Tensor) -> None:
        """Write features to where they are wanted.

        Args:
            parts: (B, size) uint8 for each of `part_bytes`; of any T.
            out: (B, T, L, D) float32, contiguous.
        """
        if self.codec == "float16":
            out.view(len(out), -1).copy_(parts[0].view(torch.float16))
        else:
            self._fill_from_int8(*parts, out)

    def _fill_from_int8(self, ranges: torch.Tensor, landmarks: torch.Tensor, codes: torch.Tensor,
                    out: torch.Tensor) -> None:
        """See `io.compressed.decompress`, whose order of rounding this keeps."""
        num_columns = landmarks.shape[1] // HEADER_BYTES
        low, span = ranges.view(torch.float32).unbind(1)  # (B,) each
        points = landmarks.view(torch.int16).int().bitwise_and_(0xFFFF).float()
        points = points.mul_(span[:, None]).div_(self.units).add_(low[:, None])
        points = points.unflatten(1, (num_columns, 4))  # (B, C, 4)
        slopes = (points.diff(dim=2) / self.steps).unsqueeze(3).unbind(2)  # 3 x (B, C, 1)
        codes = codes.unflatten(1, (num_columns, -1))  # (B, C, g)
        values = out.view(codes.shape)
        byte, piece = torch.empty_like(codes), torch.empty_like(values)  # (B, C, g)
        values.copy_(torch.clamp(codes, max=64, out=byte)).mul_(slopes[0]).add_(points[:, :, :1])
        for slope, begin, end in ((slopes[1], 64, 192), (slopes[2], 192, 255)):
            piece.copy_(torch.clamp(codes, begin, end, out=byte).sub_(begin))
            values += piece.mul_(slope)
