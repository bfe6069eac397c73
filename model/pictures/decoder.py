"""How the frames of one DICOM clip become luma: which decoder, and what the colours really are."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from model.errors import (
    DecodeFailedError,
    MalformedHeaderError,
    TruncatedError,
    UnsupportedPixelsError,
)
from model.pictures.codestream import Coding, Stream, read_stream, starts_a_stream
from model.pictures.jpeg import as_rgb, as_ybr, decode_components, decode_luma, is_whole
from model.pictures.layout import Layout, to_components
from model.pictures.libraries import decode
from model.pictures.pixels import (
    Components,
    expand_range,
    greys_by_window,
    to_luma,
    to_rgb,
    true_photometric,
    truly,
    with_precision,
)
from model.pictures.rle import decode_rle, looks_like_rle

DecodeStream: TypeAlias = Callable[[Stream], Components]

PROCESSOR_THREADS = 2
"""Threads for decoders that work in this process; they let go of the interpreter's lock."""


@dataclass(frozen=True, slots=True)
class Decoder:
    """Decodes one clip's frames from their bytes.

    Attributes:
        words: how the frames are stored, in words.
        layout: the layout of the decoded samples, as it really is.
        components: a frame's bytes into samples.
        luma: a frame's bytes into luma.
        threads: how many frames may be decoded at once.
    """

    words: str
    layout: Layout
    components: Callable[[bytes], Components]
    luma: Callable[[bytes], NDArray[np.uint8]]
    threads: int = PROCESSOR_THREADS

    def colours(self, frame: bytes) -> NDArray[np.uint8] | None:
        """Decode a frame's red, green and blue (H W 3); None where its pictures are grey."""
        if self.layout.samples == 1 and self.layout.palette is None:
            return None
        return to_rgb(self.components(frame), self.layout)


def choose_native(first: bytes, layout: Layout, *, is_little: bool) -> Decoder:
    """Make the decoder of uncompressed frames.

    Args:
        first: the first frame's bytes.
        layout: what the header says.
        is_little: the byte order of 16-bit samples.
    """

    def components(frame: bytes) -> Components:
        return to_components(frame, layout, is_little=is_little)

    return _plain("uncompressed", first, layout, components)


def choose_compressed(
    first: bytes, layout: Layout, open_library: Callable[[], DecodeStream]
) -> Decoder:
    """Make the decoder that the first frame's own bytes ask for.

    Args:
        first: the first frame's bytes.
        layout: what the header says.
        open_library: gives what decodes streams that need a library, where the frames are such.

    Raises:
        DecodeFailedError: the frame is no picture.
        MalformedHeaderError: the frame contradicts the header.
        UnsupportedPixelsError: samples that are not read.
    """
    if starts_a_stream(first):
        stream = read_stream(first)
        layout = _fitted(layout, stream)
        if stream.coding is Coding.JPEG:
            return _jpeg(stream, layout)
        return _by_library(first, stream, layout, open_library())
    if looks_like_rle(first):
        return _plain("RLE", first, layout, lambda frame: decode_rle(frame, layout))
    if layout.frame_bytes <= len(first) <= layout.frame_bytes + 1:
        length = layout.frame_bytes
        return _plain(
            "uncompressed, in fragments",
            first,
            layout,
            lambda frame: to_components(_whole(frame, length), layout, is_little=True),
        )
    raise DecodeFailedError("the frames are neither JPEG, JPEG-LS, JPEG 2000 nor RLE")


def _whole(frame: bytes, length: int) -> bytes:
    if len(frame) < length:
        raise DecodeFailedError(f"a frame has {len(frame)} of {length} bytes")
    return frame[:length]


def _plain(
    words: str, first: bytes, layout: Layout, components: Callable[[bytes], Components]
) -> Decoder:
    """Make a decoder whose luma comes from all samples."""
    shown = components(first)
    layout = replace(layout, photometric=true_photometric(shown, layout))
    return Decoder(words, layout, components, lambda frame: to_luma(components(frame), layout))


def judge(decoder: Decoder, some: Components) -> Decoder:
    """Tell by some pictures of a clip how its samples are shown: in a window, or of fewer bits.

    Args:
        decoder: of the clip.
        some: every sample that pictures from all over it have, in any order.
    """
    layout = decoder.layout
    greys_S = greys_by_window(some, layout)
    if greys_S is None:
        layout = truly(some, layout)
        if layout is decoder.layout:
            return decoder
    return replace(
        decoder,
        layout=layout,
        luma=lambda frame: to_luma(decoder.components(frame), layout, greys_S),
    )


def _fitted(layout: Layout, stream: Stream) -> Layout:
    """Bring the header's layout in line with the stream, which knows better."""
    if (stream.rows, stream.columns) != (layout.rows, layout.columns):
        raise MalformedHeaderError(
            f"the header says {layout.rows} rows and {layout.columns} columns, "
            f"the frames have {stream.rows} and {stream.columns}"
        )
    if stream.samples not in (1, 3) or stream.bits > 16:
        raise UnsupportedPixelsError(
            f"frames of {stream.samples} components with {stream.bits} bits are not read"
        )
    layout = with_precision(layout, stream.bits)
    if stream.samples == layout.samples:
        return replace(layout, photometric="RGB") if stream.says_rgb else layout
    if layout.palette is not None:
        raise MalformedHeaderError("PALETTE COLOR frames have one component, these have three")
    photometric = "MONOCHROME2" if stream.samples == 1 else "RGB"
    return replace(layout, samples=stream.samples, photometric=photometric)


def _jpeg(first: Stream, layout: Layout) -> Decoder:
    """Make the decoder of 8-bit lossy JPEG, which reads luma without a detour through RGB."""
    if first.samples == 1:
        return Decoder(
            "JPEG",
            layout,
            lambda frame: decode_luma(_same(frame, first)),
            lambda frame: to_luma(decode_luma(_same(frame, first)), layout),
        )
    if first.says_rgb is False and not layout.photometric.startswith("YBR"):
        layout = replace(layout, photometric="YBR_FULL")
    layout = replace(layout, photometric=true_photometric(decode_components(first), layout))
    is_rgb = layout.photometric == "RGB"
    is_partial = "PARTIAL" in layout.photometric

    def luma(frame: bytes) -> NDArray[np.uint8]:
        stream = _same(frame, first)
        if is_rgb is not bool(stream.says_rgb):
            stream = as_rgb(stream) if is_rgb else as_ybr(stream)
        grey = decode_luma(stream)
        return expand_range(grey) if is_partial else grey

    return Decoder("JPEG", layout, lambda frame: decode_components(_same(frame, first)), luma)


def _same(frame: bytes, first: Stream) -> Stream:
    """Read a later frame's stream, which must be of the first one's kind and whole."""
    stream = read_stream(frame)
    wanted = (first.coding, first.rows, first.columns, first.samples, first.bits)
    if (stream.coding, stream.rows, stream.columns, stream.samples, stream.bits) != wanted:
        raise DecodeFailedError("a frame differs from the first one in coding, size or depth")
    return stream


def is_end_whole(first: bytes, last: bytes) -> bool:
    """Whether the last frame is whole, as far as its end marker tells.

    Raises:
        TruncatedError: the only frame is cut.
    """
    if not starts_a_stream(last) or read_stream(last).coding is not Coding.JPEG:
        return True
    if is_whole(last):
        return True
    if first is last:
        raise TruncatedError("the only frame is cut short: send the whole file")
    return not is_whole(first)  # some encoders never write the marker


def _by_library(first: bytes, stream: Stream, layout: Layout, library: DecodeStream) -> Decoder:
    """Make the decoder that asks a library, one frame at a time."""

    def components(frame: bytes) -> Components:
        return library(_same(frame, stream))

    return replace(_plain(stream.coding.value, first, layout, components), threads=1)


def decode_by_library(stream: Stream) -> Components:
    """Decode a stream that needs a library, in this process: for files that are trusted.

    Raises:
        DecodeFailedError: the picture is not of the size that it claims.
        Exception: whatever the library raises.
    """
    kind, shape, samples = decode(stream.payload, stream.wanted)
    return in_rows(np.frombuffer(samples, kind).reshape(shape), stream)


def in_rows(samples: NDArray[Any], stream: Stream) -> Components:
    """Bring the samples that a library gave into their order, H W or H W 3.

    Raises:
        DecodeFailedError: they are not of the size that the stream claims.
    """
    size = (stream.rows, stream.columns)
    shape = size if stream.samples == 1 else (*size, stream.samples)
    if samples.shape == (3, *size) != shape:
        samples = samples.transpose(1, 2, 0)
    if samples.shape != shape:
        raise DecodeFailedError("a decoded frame is not of the size that it claimed")
    return samples
