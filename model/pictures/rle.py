"""DICOM's run length encoding, bounded by the size that the header promises.

Source:
    DICOM PS3.5 annex G.
"""

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import DecodeFailedError
from model.pictures.layout import Layout

_HEADER_BYTES = 64


def decode_rle(frame: bytes, layout: Layout) -> NDArray[np.integer[Any]]:
    """Decode one frame to its samples (H W, or H W 3).

    Raises:
        DecodeFailedError: not the segments that the header promises, or one too short.
    """
    wanted = layout.samples * layout.bytes_per_sample
    if len(frame) < _HEADER_BYTES:
        raise DecodeFailedError("an RLE frame is shorter than its own header")
    count, *offsets = struct.unpack("<16I", frame[:_HEADER_BYTES])
    if count != wanted:
        raise DecodeFailedError(f"an RLE frame has {count} segments, the header asks for {wanted}")
    ends = [*offsets[1:count], len(frame)]
    pixels = layout.rows * layout.columns
    planes = [
        np.frombuffer(_unpack(frame[start:end], pixels), np.uint8)
        for start, end in zip(offsets, ends, strict=False)
    ]
    step = layout.bytes_per_sample
    samples = [_sample(planes[first : first + step]) for first in range(0, wanted, step)]
    shaped = [sample.reshape(layout.rows, layout.columns) for sample in samples]
    return shaped[0] if layout.samples == 1 else np.dstack(shaped)


def _sample(planes: list[NDArray[np.uint8]]) -> NDArray[np.integer[Any]]:
    """Join byte planes, the most significant one first."""
    if len(planes) == 1:
        return planes[0]
    return planes[0].astype(np.uint16) << 8 | planes[1]


def _unpack(segment: bytes, wanted: int) -> bytearray:
    """Undo PackBits, up to the bytes that are wanted."""
    out = bytearray()
    position, end = 0, len(segment)
    while len(out) < wanted and position + 1 < end:
        code = segment[position]
        if code < 128:
            out += segment[position + 1 : position + 2 + code]
            position += 2 + code
        elif code > 128:
            out += segment[position + 1 : position + 2] * (257 - code)
            position += 2
        else:
            position += 1
    if len(out) < wanted:
        raise DecodeFailedError(f"an RLE segment gives {len(out)} of {wanted} bytes")
    del out[wanted:]
    return out


def looks_like_rle(frame: bytes) -> bool:
    """Whether a frame begins with a segment table."""
    if len(frame) < _HEADER_BYTES:
        return False
    count, first = struct.unpack_from("<2I", frame)
    return bool(1 <= count <= 15 and first == _HEADER_BYTES)
