"""Baseline and progressive 8-bit JPEG, straight to luma.

libjpeg decodes only the luma plane where the picture is YCbCr, which makes this the fast path of
almost every cine. What it takes the components for is decided by markers; `as_rgb` and `as_ybr`
write the marker that says what `pixels.true_photometric` found.
"""

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from model.errors import DecodeFailedError
from model.pictures.codestream import JPEG_START, Coding, Stream, jpeg_segments, read_stream

_END = b"\xff\xd9"
_APP0, _APP14 = 0xE0, 0xEE
_TAIL_BYTES = 64


def is_whole(payload: bytes) -> bool:
    """Whether a JPEG reaches its end marker; libjpeg would fill a cut one up with grey."""
    return _END in payload[-_TAIL_BYTES:]


def decode_luma(stream: Stream) -> NDArray[np.uint8]:
    """Decode a JPEG to luma (H W).

    Raises:
        DecodeFailedError: libjpeg cannot read it.
    """
    return _decode(stream, cv2.IMREAD_GRAYSCALE)


def decode_colours(stream: Stream) -> NDArray[np.uint8] | None:
    """Decode a JPEG to red, green and blue (H W 3) at a quarter of its size; None where it is grey.

    Raises:
        DecodeFailedError: libjpeg cannot read it.
    """
    if stream.samples == 1:
        return None
    image = _read(stream, cv2.IMREAD_REDUCED_COLOR_4)
    return np.ascontiguousarray(image[:, :, ::-1])


def decode_components(stream: Stream) -> NDArray[np.uint8]:
    """Decode a JPEG of three components to those components as stored (H W 3)."""
    raw = _decode(as_rgb(stream), cv2.IMREAD_COLOR)
    return np.ascontiguousarray(raw[:, :, ::-1])


def as_rgb(stream: Stream) -> Stream:
    """Mark the components as RGB, whatever the stream says now."""
    return _marked(stream, transform=0)


def as_ybr(stream: Stream) -> Stream:
    """Mark the components as YCbCr, whatever the stream says now."""
    return _marked(stream, transform=1)


def _marked(stream: Stream, transform: int) -> Stream:
    """Replace APP0 and APP14, which libjpeg believes, by an APP14 with the wanted transform."""
    parts = [JPEG_START, b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00", bytes([transform])]
    scan = 2
    for marker, offset, length in jpeg_segments(stream.payload):
        if marker not in (_APP0, _APP14):
            parts += [b"\xff", bytes([marker]), stream.payload[offset - 2 : offset + length]]
        scan = offset + length
    payload = b"".join([*parts, stream.payload[scan:]])
    return replace(stream, payload=payload, says_rgb=transform == 0)


def _decode(stream: Stream, flags: int) -> NDArray[np.uint8]:
    image = _read(stream, flags)
    if image.shape[:2] != (stream.rows, stream.columns):
        raise DecodeFailedError("a JPEG frame cannot be decoded")
    return image


def _read(stream: Stream, flags: int) -> NDArray[np.uint8]:
    try:
        image = cv2.imdecode(
            np.frombuffer(stream.payload, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION
        )
    except cv2.error as error:
        raise DecodeFailedError("a JPEG frame cannot be decoded") from error
    if image is None:
        raise DecodeFailedError("a JPEG frame cannot be decoded")
    return np.asarray(image, np.uint8)


def read_jpeg(payload: bytes) -> Stream:
    """Read the header of a JPEG that stands alone, such as a frame of a stream.

    Raises:
        DecodeFailedError: no baseline or progressive JPEG of 8 bits, or one that is cut short.
        UnsupportedSyntaxError: a kind of JPEG that nothing here reads.
    """
    stream = read_stream(payload)
    if stream.coding is not Coding.JPEG:
        raise DecodeFailedError(f"a frame is {stream.coding.value}, wanted is baseline JPEG")
    if not is_whole(payload):
        raise DecodeFailedError("a JPEG frame ends before its picture does")
    return stream
