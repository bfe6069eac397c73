"""How the pixels of one frame are laid out, checked against the limits before anything is read.

Source:
    DICOM PS3.3 C.7.6.3 (image pixel module).
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.ingest.clip import IngestLimits
from server.ingest.elements import Header
from server.ingest.errors import (
    MalformedHeaderError,
    TooLargeError,
    TooManyFramesError,
    UnsupportedPixelsError,
)
from server.ingest.palette import Palette, read_palette
from server.ingest.tags import Tag

MIN_SIDE_PX, MAX_SIDE_PX = 16, 8192

_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422", "YBR_PARTIAL_420", "YBR_RCT")
_PHOTOMETRICS = (*_GREY, "PALETTE COLOR", *_COLOUR, "YBR_ICT")


@dataclass(frozen=True, slots=True)
class Layout:
    """The pixels of one frame.

    Attributes:
        samples: components of a pixel, 1 or 3.
        bytes_per_sample: 1 or 2 (BitsAllocated / 8).
        bits: BitsStored, or the precision of a compressed stream.
        shift: unused low bits of a sample.
        is_signed: two's complement samples.
        is_planar: one component after the other (PlanarConfiguration 1).
        photometric: PhotometricInterpretation.
        declared_frames: NumberOfFrames, None where absent or unreadable.
        palette: the look-up table of a PALETTE COLOR image.
    """

    rows: int
    columns: int
    samples: int
    bytes_per_sample: int
    bits: int
    shift: int
    is_signed: bool
    is_planar: bool
    photometric: str
    declared_frames: int | None
    palette: Palette | None

    @property
    def is_subsampled(self) -> bool:
        """Whether two neighbours in a row share their chroma, where frames are not compressed."""
        return self.photometric in ("YBR_FULL_422", "YBR_PARTIAL_422")

    @property
    def frame_bytes(self) -> int:
        """Bytes of one uncompressed frame; 4:2:2 frames hold two bytes a pixel, not three."""
        pixels = self.rows * self.columns
        if self.is_subsampled:
            return 2 * pixels
        return pixels * self.samples * self.bytes_per_sample


def read_layout(header: Header, limits: IngestLimits) -> Layout:
    """Read and check the image pixel attributes.

    Raises:
        MalformedHeaderError: an attribute is missing or contradicts another one.
        UnsupportedPixelsError: a layout not read here.
        TooLargeError: more pixels than allowed.
        TooManyFramesError: more frames than allowed.
    """
    rows, columns = required(header, Tag.Rows), required(header, Tag.Columns)
    check_size(rows, columns, limits)
    photometric = header.text(Tag.PhotometricInterpretation)
    samples = header.integer(Tag.SamplesPerPixel) or (3 if photometric in _COLOUR else 1)
    photometric = photometric or ("MONOCHROME2" if samples == 1 else "RGB")
    allocated = required(header, Tag.BitsAllocated)
    bits = header.integer(Tag.BitsStored) or allocated
    high_bit = header.integer(Tag.HighBit)
    shift = max(0, (bits - 1 if high_bit is None else high_bit) + 1 - bits)
    _check_bits(photometric, samples, allocated, bits + shift)
    is_signed = header.integer(Tag.PixelRepresentation) == 1
    palette = read_palette(header, is_signed) if photometric == "PALETTE COLOR" else None
    layout = Layout(
        rows=rows,
        columns=columns,
        samples=samples,
        bytes_per_sample=allocated // 8,
        bits=bits,
        shift=shift,
        is_signed=is_signed,
        is_planar=samples == 3 and header.integer(Tag.PlanarConfiguration) == 1,
        photometric=photometric,
        declared_frames=declared_frames(header),
        palette=palette,
    )
    check_frames(layout, layout.declared_frames or 1, limits)
    return layout


def check_size(rows: int, columns: int, limits: IngestLimits) -> None:
    """Refuse images that are too small to show anything, or larger than allowed.

    Raises:
        UnsupportedPixelsError: too small.
        TooLargeError: too large.
    """
    if min(rows, columns) < MIN_SIDE_PX:
        raise UnsupportedPixelsError(
            f"the images have {rows} rows and {columns} columns; at least {MIN_SIDE_PX} are needed"
        )
    if max(rows, columns) > MAX_SIDE_PX or rows * columns > limits.frame_pixels:
        raise TooLargeError(
            f"the images have {rows} rows and {columns} columns; at most {MAX_SIDE_PX} a side and "
            f"{limits.frame_pixels} pixels are read"
        )


def check_frames(layout: Layout, frames: int, limits: IngestLimits) -> None:
    """Refuse clips that are longer than allowed.

    Raises:
        TooManyFramesError: too many frames.
        TooLargeError: too many bytes once decoded.
    """
    check_count(frames, limits)
    decoded = layout.rows * layout.columns * layout.samples * layout.bytes_per_sample * frames
    if decoded > limits.decoded_bytes:
        raise TooLargeError(
            f"the clip decodes to {decoded} bytes, at most {limits.decoded_bytes} are read: "
            "send a shorter or smaller one"
        )


def check_count(frames: int, limits: IngestLimits) -> None:
    """Refuse clips of more frames than allowed.

    Raises:
        TooManyFramesError: too many frames.
    """
    if frames > limits.frames:
        raise TooManyFramesError(
            f"the clip has {frames} frames, at most {limits.frames} are read: send a shorter one"
        )


def required(header: Header, tag: Tag) -> int:
    """Read a whole number that pixel data make no sense without.

    Raises:
        MalformedHeaderError: it is not there.
    """
    value = header.integer(tag)
    if value is None:
        raise MalformedHeaderError(f"the header has pixel data, but no {tag.name}")
    return value


def _check_bits(photometric: str, samples: int, allocated: int, top: int) -> None:
    if photometric not in _PHOTOMETRICS:
        raise UnsupportedPixelsError(
            "this PhotometricInterpretation is not read; wanted is one of "
            + ", ".join(_PHOTOMETRICS)
        )
    if samples != (3 if photometric in (*_COLOUR, "YBR_ICT") else 1):
        raise MalformedHeaderError(f"{photometric} images with SamplesPerPixel {samples}")
    if allocated not in (8, 16) or top > allocated:
        raise UnsupportedPixelsError(
            f"samples of {top} bits in {allocated} are not read; wanted are 8 or 16 bits allocated"
        )
    if samples == 3 and photometric != "RGB" and allocated != 8:
        raise UnsupportedPixelsError(f"{photometric} images of {allocated} bits are not read")


def declared_frames(header: Header) -> int | None:
    """Read NumberOfFrames, None where absent or unreadable."""
    number = header.number(Tag.NumberOfFrames)
    return int(number) if number is not None and number >= 1 else None


def as_stored(layout: Layout, length: int) -> Layout:
    """Correct the photometric interpretation of native 4:2:2 frames by their length.

    Args:
        layout: what the header says.
        length: bytes of all pixel data.

    Raises:
        MalformedHeaderError: an odd number of columns cannot share chroma in pairs.
    """
    if not layout.is_subsampled:
        return layout
    whole = replace(layout, photometric=layout.photometric.replace("422", "").rstrip("_"))
    if length // 2 * 2 == whole.frame_bytes * (layout.declared_frames or 1) // 2 * 2:
        return whole
    if layout.columns % 2:
        raise MalformedHeaderError(f"{layout.photometric} with {layout.columns} columns")
    return layout


def to_components(raw: bytes, layout: Layout, *, is_little: bool) -> NDArray[np.integer[Any]]:
    """Give the bytes of one uncompressed frame their shape: H W, or H W 3.

    4:2:2 chroma is repeated for the pixel to its right.

    Source:
        DICOM PS3.3 C.7.6.3.1.2 (order of the samples of YBR_FULL_422).
    """
    rows, columns = layout.rows, layout.columns
    if layout.is_subsampled:
        pairs = np.frombuffer(raw, np.uint8).reshape(rows, columns // 2, 4)
        chroma = np.repeat(pairs[:, :, 2:], 2, axis=1)
        return np.dstack([pairs[:, :, :2].reshape(rows, columns), chroma])
    word = np.dtype(np.uint8 if layout.bytes_per_sample == 1 else "<u2" if is_little else ">u2")
    samples: NDArray[np.integer[Any]] = np.frombuffer(raw, word).astype(word.newbyteorder("="))
    if layout.samples == 1:
        return samples.reshape(rows, columns)
    if layout.is_planar:
        return samples.reshape(3, rows, columns).transpose(1, 2, 0)
    return samples.reshape(rows, columns, 3)
