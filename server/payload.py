"""One frame's payload to grey pixels, by the codec that hello named."""

import math
import re
import struct
import zlib
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import av
import cv2
import numpy as np
from av.codec.context import Flags
from av.error import FFmpegError
from numpy.typing import NDArray

from server.errors import FrameSizeError, UndecodableFrameError, UnsupportedCodecError
from server.ingest import IngestError, decode_colours, decode_luma, read_jpeg
from server.protocol import Codec

_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_PICTURE = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
"""The chunks that hold the picture; the others are comments, profiles and animations."""

_PNG_COLOURED = (2, 3, 6)
"""Colour types of true colour, palette, and true colour with transparency."""

_PNG_SAMPLES = {2: 3, 4: 2, 6: 4}
"""Of a pixel by colour type, where they are not one."""

_INFLATE_BYTES = 4096
"""Deflated bytes taken at once; they come to 4 MB at the most, since deflate makes 1032 of one."""

_UNIT_START = re.compile(rb"\x00\x00\x01(.)", re.DOTALL)

_HEADERS: dict[Codec, tuple[int, ...]] = {"h264": (6, 7, 8, 9), "hevc": (32, 33, 34, 35, 39, 40)}
"""Parameter sets (of video, sequence and picture), delimiter, supplemental information."""

PREDICTED = frozenset(_HEADERS)
"""Codecs that tell a picture by how it differs from those before it."""

_PARAMETER_SETS: dict[Codec, set[int]] = {"h264": {7, 8}, "hevc": {32, 33, 34}}
MOST_PARAMETER_SETS = 64
"""Kept for a decoder elsewhere; an encoder has a few, and may change them now and then."""

_REFRESH: dict[Codec, set[int]] = {"h264": {5}, "hevc": {16, 17, 18, 19, 20, 21}}
"""Pictures from which a decoder can begin; without B-frames also those of HEVC that are no IDR."""

_CODED_BEYOND_PX = 128
"""Video codes whole blocks, and FFmpeg counts a margin beside them."""

COARSER = 4
"""Pixels of a picture for one in which its colours are looked at."""

KEPT_PACKETS_BYTES = 384 << 10
"""Packets since the last independent picture that are kept for a decoder elsewhere."""

_VIDEO = {"h264": "h264", "hevc": "hevc", "mjpeg": "mjpeg"}


class PayloadDecoder:
    """Decodes the frames of one session; video codecs keep what they need between packets."""

    def __init__(self, codec: Codec, size: tuple[int, int]) -> None:
        """Get ready.

        Args:
            codec: of every payload.
            size: rows and columns that hello declared.

        Raises:
            UnsupportedCodecError: this installation cannot decode it.
        """
        self._codec = codec
        self._size = size
        self._still = {
            "gray8": self._gray8,
            "rgb24": self._rgb24,
            "jpeg": self._jpeg,
            "png": self._png,
        }.get(codec)
        self._video = None if self._still else _open_video(codec, size)
        self._picture: av.VideoFrame | None = None
        self._since_key = PacketLog(codec)
        self._skipped: list[bytes] = []

    @property
    def packets(self) -> tuple[bytes, ...] | None:
        """What another decoder must see first to go on as this one; None where that is too much."""
        return self._since_key.packets

    def catch_up(self, packets: Sequence[bytes]) -> None:
        """Take in another decoder's packets; their pictures were seen there."""
        for packet in packets:
            self._packet(memoryview(packet))

    def skip(self, payload: memoryview) -> None:
        """Take in a packet whose picture nobody wants; it is decoded before the next one."""
        packet = bytes(payload)
        self._since_key.add(packet)
        self._skipped.append(packet)

    def luma(self, payload: memoryview) -> NDArray[np.uint8] | None:
        """Decode one payload.

        Returns:
            Grey pixels (rows, columns) of the declared size; None for a video packet without a
            picture.

        Raises:
            FrameSizeError: a picture of another size.
            UndecodableFrameError: broken bytes.
        """
        if self._still is not None:
            return self._still(payload)
        return self._packet(payload)

    def colours(self, payload: memoryview) -> NDArray[np.uint8] | None:
        """Decode the colours of the payload that ``luma`` decoded last, at a quarter of its size.

        Returns:
            Red, green and blue (rows, columns, 3); None for a picture that is grey.

        Raises:
            UndecodableFrameError: broken bytes.
        """
        match self._codec:
            case "gray8":
                return None
            case "rgb24":
                raw = np.frombuffer(payload, np.uint8).reshape(*self._size, 3)
                return np.ascontiguousarray(raw[::COARSER, ::COARSER])
            case "jpeg":
                try:
                    return decode_colours(read_jpeg(bytes(payload)))
                except IngestError as error:
                    raise UndecodableFrameError(error.message) from error
            case "png":
                return _png_colours(bytes(payload))
        rows, columns = (math.ceil(px / COARSER) for px in self._size)
        assert self._picture is not None
        coarse = self._picture.reformat(columns, rows, "rgb24")
        return np.asarray(coarse.to_ndarray(), np.uint8)

    def _gray8(self, payload: memoryview) -> NDArray[np.uint8]:
        self._check_bytes(payload, 1)
        return np.frombuffer(payload, np.uint8).reshape(self._size)

    def _rgb24(self, payload: memoryview) -> NDArray[np.uint8]:
        self._check_bytes(payload, 3)
        raw = np.frombuffer(payload, np.uint8).reshape(*self._size, 3)
        return np.asarray(cv2.cvtColor(raw, cv2.COLOR_RGB2GRAY), np.uint8)

    def _jpeg(self, payload: memoryview) -> NDArray[np.uint8]:
        try:
            stream = read_jpeg(bytes(payload))
            self._check_size((stream.rows, stream.columns))
            return decode_luma(stream)
        except IngestError as error:
            raise UndecodableFrameError(error.message) from error

    def _png(self, payload: memoryview) -> NDArray[np.uint8]:
        chunks = _png_chunks(bytes(payload))
        columns, rows = struct.unpack_from(">II", chunks[0].body)
        self._check_size((rows, columns))
        _check_png(chunks)
        return _decode_png(chunks, cv2.IMREAD_GRAYSCALE)

    def _packet(self, payload: memoryview) -> NDArray[np.uint8] | None:
        self._since_key.add(bytes(payload))
        skipped, self._skipped = self._skipped, []
        for packet in skipped:
            self._pictures(packet)
        pictures = self._pictures(bytes(payload))
        if not pictures:
            return None
        self._picture = pictures[-1]
        self._check_size((self._picture.height, self._picture.width))
        return np.asarray(self._picture.to_ndarray(format="gray"), np.uint8)

    def _pictures(self, packet: bytes) -> list[av.VideoFrame]:
        assert self._video is not None
        try:
            pictures = self._video.decode(av.Packet(packet))
        except FFmpegError as error:
            if _has_only_headers(self._codec, packet):
                return []
            raise UndecodableFrameError("a video packet cannot be decoded") from error
        if self._video.has_b_frames:
            # Each would be answered with the picture of an earlier one.
            raise UndecodableFrameError("pictures come after later packets; encode no B-frames")
        if any(each.is_corrupt for each in pictures):
            # What was missing is made up from the pictures before.
            raise UndecodableFrameError("a video packet is damaged or cut short")
        return pictures

    def _check_bytes(self, payload: memoryview, samples: int) -> None:
        rows, columns = self._size
        if len(payload) != rows * columns * samples:
            raise FrameSizeError(
                f"hello said {rows}x{columns} px, {rows * columns * samples} bytes a frame; "
                f"this one has {len(payload)} bytes"
            )

    def _check_size(self, found: tuple[int, int]) -> None:
        if found != self._size:
            said, came = ("x".join(map(str, size)) for size in (self._size, found))
            raise FrameSizeError(f"hello said {said} px, a frame is {came} px")


def _has_only_headers(codec: Codec, packet: bytes) -> bool:
    """Whether a packet has parameter sets and the like, but no slice; FFmpeg calls that an error.

    Source:
        NAL unit types: ITU-T H.264 table 7-1, ITU-T H.265 table 7-1; start codes: annex B of both.
    """
    kinds = _unit_kinds(codec, packet)
    headers = _HEADERS.get(codec, ())
    return bool(kinds) and all(kind in headers for kind in kinds)


def _unit_kinds(codec: Codec, packet: bytes) -> list[int]:
    """Types of the NAL units of a packet; none for a codec that has no such."""
    firsts = [match[1][0] for match in _UNIT_START.finditer(packet)]
    match codec:
        case "h264":
            return [first & 31 for first in firsts]
        case "hevc":
            return [first >> 1 & 63 for first in firsts]
        case _:
            return []


class PacketLog:
    """The packets of a video since the last picture that needs none before it.

    Source:
        Instantaneous decoding refresh, random access and parameter sets: ITU-T H.264 table 7-1,
        H.265 table 7-1.
    """

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        # As they were seen last, the latest at the end: they may come one by one.
        self._parameters: dict[bytes, None] = {}
        self._packets: list[bytes] = []
        self._bytes = 0

    @property
    def packets(self) -> tuple[bytes, ...] | None:
        """Oldest first; None where they are more than KEPT_PACKETS_BYTES."""
        return None if self._bytes > KEPT_PACKETS_BYTES else tuple(self._packets)

    def add(self, packet: bytes) -> None:
        """Take the next packet in."""
        if self._codec not in _HEADERS:
            return
        units = _units(self._codec, packet)
        kinds = {kind for kind, _ in units}
        self._note_parameters(units)
        if kinds & _REFRESH[self._codec]:
            if not kinds >= _PARAMETER_SETS[self._codec]:
                packet = b"".join(self._parameters) + packet
            self._packets, self._bytes = [], 0
        self._bytes += len(packet)
        if self._bytes <= KEPT_PACKETS_BYTES:
            self._packets.append(packet)
        else:
            self._packets = []

    def _note_parameters(self, units: list[tuple[int, bytes]]) -> None:
        for kind, unit in units:
            if kind in _PARAMETER_SETS[self._codec]:
                self._parameters.pop(unit, None)
                self._parameters[unit] = None
        while (
            len(self._parameters) > MOST_PARAMETER_SETS
            or sum(map(len, self._parameters)) > KEPT_PACKETS_BYTES
        ):
            del self._parameters[next(iter(self._parameters))]


def _units(codec: Codec, packet: bytes) -> list[tuple[int, bytes]]:
    """The NAL units of a packet: type, and bytes with a start code and no zeros after them."""
    starts = [match.start() for match in _UNIT_START.finditer(packet)]
    units = [packet[a:b].rstrip(b"\0") for a, b in pairwise([*starts, len(packet)])]
    return list(zip(_unit_kinds(codec, packet), units, strict=True))


class _Chunk(NamedTuple):
    kind: bytes
    body: bytes
    raw: bytes


def _png_chunks(png: bytes) -> list[_Chunk]:
    """Take a PNG apart, its checksums verified.

    libpng reserves whatever length a damaged chunk claims, so it never sees one.

    Raises:
        UndecodableFrameError: it is no PNG, or not a whole one.

    Source:
        PNG specification (third edition), sections 5.3 to 5.6.
    """
    if not png.startswith(_PNG_START):
        raise UndecodableFrameError("a PNG frame is no PNG")
    chunks, position = [], len(_PNG_START)
    while position < len(png):
        length = int.from_bytes(png[position : position + 4], "big")
        end = position + 12 + length
        raw = png[position:end]
        if len(raw) < 12 + length or zlib.crc32(raw[4:-4]) != int.from_bytes(raw[-4:], "big"):
            raise UndecodableFrameError("a PNG frame is cut short or damaged")
        chunks.append(_Chunk(raw[4:8], raw[8:-4], raw))
        position = end
    kinds = [each.kind for each in chunks]
    if kinds[:1] != [b"IHDR"] or len(chunks[0].body) != 13 or kinds[-1] != b"IEND":
        raise UndecodableFrameError("a PNG frame is not a whole PNG")
    return chunks


def _check_png(chunks: list[_Chunk]) -> None:
    """Refuse a PNG that unpacks to far more than its picture; libpng would unpack all of it.

    Raises:
        UndecodableFrameError: it does, or is damaged.

    Source:
        PNG specification (third edition), sections 7.2 (scanlines), 8.1 (interlacing: under twice
        as many rows, each padded) and 11.2.1 (IHDR).
    """
    columns, rows, depth, colour = struct.unpack_from(">IIBB", chunks[0].body)
    row_bytes = math.ceil(columns * depth * _PNG_SAMPLES.get(colour, 1) / 8)
    most = 2 * rows * (row_bytes + 2)
    packed = b"".join(each.body for each in chunks if each.kind == b"IDAT")
    inflater, count = zlib.decompressobj(), 0
    for start in range(0, len(packed), _INFLATE_BYTES):
        try:
            count += len(inflater.decompress(packed[start : start + _INFLATE_BYTES]))
        except zlib.error as error:
            raise UndecodableFrameError("a PNG frame cannot be decoded") from error
        if count > most:
            raise UndecodableFrameError("a PNG frame unpacks to more than its picture")
        if inflater.eof:
            return


def _decode_png(chunks: list[_Chunk], flags: int) -> NDArray[np.uint8]:
    picture = _PNG_START + b"".join(each.raw for each in chunks if each.kind in _PNG_PICTURE)
    flags |= cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(np.frombuffer(picture, np.uint8), flags)
    if image is None:
        raise UndecodableFrameError("a PNG frame cannot be decoded")
    return np.asarray(image, np.uint8)


def _png_colours(png: bytes) -> NDArray[np.uint8] | None:
    """Red, green and blue at a quarter of the size; None where the header says grey."""
    chunks = _png_chunks(png)
    if chunks[0].body[9] not in _PNG_COLOURED:
        return None
    image = _decode_png(chunks, cv2.IMREAD_COLOR)
    return np.ascontiguousarray(image[::COARSER, ::COARSER, ::-1])


def _open_video(codec: Codec, size: tuple[int, int]) -> "av.VideoCodecContext":
    """Open a decoder that refuses much larger pictures before it reserves memory for them."""
    try:
        context = av.CodecContext.create(_VIDEO[codec], "r")
    except (ValueError, FFmpegError) as error:
        raise UnsupportedCodecError(f"{codec} cannot be decoded here") from error
    assert isinstance(context, av.VideoCodecContext)
    most_px = (size[0] + _CODED_BEYOND_PX) * (size[1] + _CODED_BEYOND_PX)
    # Of a picture cut short this decoder gives what there is, and does not say so unless asked.
    strict = {"err_detect": "explode"} if codec == "mjpeg" else {}
    context.options = {"max_pixels": str(most_px), **strict}
    # Frame threads would answer packets late.
    context.thread_count = 1
    context.flags |= Flags.low_delay
    return context
