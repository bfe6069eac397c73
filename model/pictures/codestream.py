"""What a compressed frame says of itself: its format, size and precision, read from its markers.

Nothing is decoded here. The answer decides which decoder gets the frame, and whether it gets it at
all: a stream whose size is not the header's never reaches a decoder.

Source:
    ITU-T T.81 annex B (JPEG markers), T.87 annex C (JPEG-LS), T.800 annex A (JPEG 2000), T.814
    annex A (HTJ2K); Adobe technical note 5116 (APP14).
"""

import struct
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from model.errors import DecodeFailedError, UnsupportedSyntaxError

JPEG_START = b"\xff\xd8"
_SCAN = b"\xff\xda"
J2K_START = b"\xff\x4f\xff\x51"
JP2_START = b"\x00\x00\x00\x0cjP  "
_MAX_PADDING = 64
_MAX_SEGMENTS = 1000
_MAX_SCANS = 100
"""Scans of a progressive frame; encoders write about ten, and each costs as much as a picture."""

_J2K_SEARCH_BYTES = 1 << 16


class Coding(Enum):
    """The ways a frame can be compressed."""

    JPEG = "JPEG"
    JPEG_12_BIT = "JPEG, 12 bit"
    JPEG_LOSSLESS = "JPEG Lossless"
    JPEG_LS = "JPEG-LS"
    JPEG_2000 = "JPEG 2000"
    HTJ2K = "HTJ2K"
    RLE = "RLE"


@dataclass(frozen=True, slots=True)
class Stream:
    """One compressed frame.

    Attributes:
        payload: the codestream, without padding or wrapping before it.
        bits: precision of a sample.
        samples: components of a pixel.
        says_rgb: whether the stream itself calls its three components RGB (True) or YCbCr (False);
            None where it does not say.
        is_subsampled: whether components differ in resolution.
    """

    coding: Coding
    payload: bytes
    rows: int
    columns: int
    bits: int
    samples: int
    says_rgb: bool | None = None
    is_subsampled: bool = False

    @property
    def wanted(self) -> dict[str, Any]:
        """What a library is told of it (`libraries.decode`), as JSON can hold it."""
        return {
            "coding": self.coding.value,
            "rows": self.rows,
            "columns": self.columns,
            "samples": self.samples,
            "bits": self.bits,
        }


def starts_a_stream(head: bytes) -> bool:
    """Whether bytes look like the beginning of a JPEG or JPEG 2000 frame, padding allowed."""
    return head.startswith((J2K_START, JP2_START)) or head.lstrip(b"\0").startswith(JPEG_START)


def read_stream(frame: bytes) -> Stream:
    """Read a compressed frame's own header.

    Raises:
        DecodeFailedError: it has none.
        UnsupportedSyntaxError: a coding that is not read here.
    """
    if frame.startswith((J2K_START, JP2_START)):
        return _read_j2k(frame)
    start = frame.find(JPEG_START, 0, _MAX_PADDING)
    if start < 0 or frame[:start].strip(b"\0"):
        raise DecodeFailedError("a frame is neither JPEG, JPEG-LS nor JPEG 2000")
    try:
        return _read_jpeg(frame[start:])
    except (struct.error, IndexError) as error:
        raise DecodeFailedError("a JPEG frame ends inside its own header") from error


def _read_jpeg(payload: bytes) -> Stream:
    """Walk the marker segments up to the first scan."""
    adobe: int | None = None
    has_jfif = False
    stream: Stream | None = None
    for marker, offset, length in jpeg_segments(payload):
        body = payload[offset : offset + length]
        if marker == 0xE0 and body.startswith(b"JFIF\0"):
            has_jfif = True
        elif marker == 0xEE and body.startswith(b"Adobe") and length >= 12:
            adobe = body[11]
        elif marker in _CODING_OF_FRAME_MARKER:
            stream = _read_frame_header(payload, _CODING_OF_FRAME_MARKER[marker], body)
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            raise UnsupportedSyntaxError("hierarchical and arithmetic JPEG are not read")
    if stream is None:
        raise DecodeFailedError("a JPEG frame has no frame header")
    if payload.count(_SCAN) > _MAX_SCANS:
        raise DecodeFailedError(f"a JPEG frame has more than {_MAX_SCANS} scans")
    return _with_colours(stream, has_jfif, adobe)


_CODING_OF_FRAME_MARKER = {
    0xC0: Coding.JPEG,
    0xC1: Coding.JPEG,
    0xC2: Coding.JPEG,
    0xC3: Coding.JPEG_LOSSLESS,
    0xF7: Coding.JPEG_LS,
}


def jpeg_segments(payload: bytes) -> list[tuple[int, int, int]]:
    """List a JPEG's marker segments before its first scan: marker, body offset, body length."""
    segments: list[tuple[int, int, int]] = []
    position = 2
    while True:
        while payload[position] == 0xFF and payload[position + 1] == 0xFF:
            position += 1
        if payload[position] != 0xFF:
            raise DecodeFailedError(f"a JPEG frame has no marker where one is due, at {position}")
        marker = payload[position + 1]
        if marker == 0xDA:
            return segments
        (length,) = struct.unpack_from(">H", payload, position + 2)
        if length < 2:
            raise DecodeFailedError(f"a JPEG frame has a segment of {length} bytes at {position}")
        if len(segments) == _MAX_SEGMENTS:
            raise DecodeFailedError(f"a JPEG frame has more than {_MAX_SEGMENTS} segments")
        segments.append((marker, position + 4, length - 2))
        position += 2 + length


def _read_frame_header(payload: bytes, coding: Coding, body: bytes) -> Stream:
    bits, rows, columns, samples = struct.unpack_from(">BHHB", body)
    samplings = {body[6 + 3 * index + 1] for index in range(samples)}
    if coding is Coding.JPEG and bits != 8:
        coding = Coding.JPEG_12_BIT
    names = bytes(body[6 + 3 * index] for index in range(samples))
    says_rgb = True if names == b"RGB" else None
    return Stream(coding, payload, rows, columns, bits, samples, says_rgb, len(samplings) > 1)


def _with_colours(stream: Stream, has_jfif: bool, adobe: int | None) -> Stream:
    """Decide what the markers say of the colours, in libjpeg's order."""
    if stream.coding is not Coding.JPEG or stream.samples != 3:
        return stream
    says_rgb = stream.says_rgb
    if has_jfif:
        says_rgb = False
    elif adobe is not None:
        says_rgb = adobe == 0
    return replace(stream, says_rgb=says_rgb)


def _read_j2k(frame: bytes) -> Stream:
    """Read SIZ and COD, from inside a JP2 file where there is one."""
    start = frame.find(J2K_START, 0, _J2K_SEARCH_BYTES)
    if start < 0:
        raise DecodeFailedError("a JP2 frame holds no JPEG 2000 codestream")
    payload = frame[start:]
    try:
        capabilities, width, height, left, top = struct.unpack_from(">HIIII", payload, 6)
        (samples,) = struct.unpack_from(">H", payload, 40)
        depth = payload[42]
        samplings = {payload[43 + 3 * index : 45 + 3 * index] for index in range(samples)}
        transformed = _uses_colour_transform(payload)
    except (struct.error, IndexError) as error:
        raise DecodeFailedError("a JPEG 2000 frame ends inside its own header") from error
    coding = Coding.HTJ2K if capabilities & 1 << 14 else Coding.JPEG_2000
    bits = (depth & 0x7F) + 1
    is_subsampled = samplings != {b"\x01\x01"}
    rgb = True if transformed else None
    return Stream(coding, payload, height - top, width - left, bits, samples, rgb, is_subsampled)


def _uses_colour_transform(payload: bytes) -> bool:
    """Read COD's multiple component transformation flag."""
    position = 2
    while payload[position] == 0xFF and payload[position + 1] not in (0x90, 0xD9):
        if payload[position + 1] == 0x52:
            return payload[position + 8] == 1
        position += 2 + struct.unpack_from(">H", payload, position + 2)[0]
    return False
