"""How the pixels of one frame are laid out.

Source:
    DICOM PS3.3 C.7.6.3 (image pixel module).
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import MalformedHeaderError, UnsupportedPixelsError
from model.pictures.contrast import Contrast, DeclaredContrast, read_contrast
from model.pictures.palette import DeclaredTable, Palette, read_palette

_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422", "YBR_PARTIAL_420", "YBR_RCT")
_PHOTOMETRICS = (*_GREY, "PALETTE COLOR", *_COLOUR, "YBR_ICT")


@dataclass(frozen=True, slots=True)
class DeclaredPixels:
    """The attributes of the image pixel module, None where absent.

    Attributes:
        rows: Rows.
        columns: Columns.
        samples: SamplesPerPixel.
        photometric: PhotometricInterpretation, empty where absent.
        bits_allocated: BitsAllocated.
        bits_stored: BitsStored.
        high_bit: HighBit.
        representation: PixelRepresentation.
        planar_configuration: PlanarConfiguration.
        frames: NumberOfFrames, None also where it is unreadable.
        tables: of red, green and blue, for PALETTE COLOR.
        contrast: how its greys are to be shown.
    """

    rows: int | None
    columns: int | None
    samples: int | None
    photometric: str
    bits_allocated: int | None
    bits_stored: int | None
    high_bit: int | None
    representation: int | None
    planar_configuration: int | None
    frames: int | None
    tables: tuple[DeclaredTable, ...]
    contrast: DeclaredContrast


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
        contrast: how a grey image is to be shown, None where the header does not say.
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
    contrast: Contrast | None

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


def make_layout(declared: DeclaredPixels) -> Layout:
    """Check what a header says of its pixels, and fill in what it leaves out.

    Raises:
        MalformedHeaderError: an attribute is missing or contradicts another one.
        UnsupportedPixelsError: a layout not read here.
    """
    rows, columns = insist(declared.rows, "Rows"), insist(declared.columns, "Columns")
    photometric = declared.photometric
    samples = declared.samples or (3 if photometric in _COLOUR else 1)
    photometric = photometric or ("MONOCHROME2" if samples == 1 else "RGB")
    if declared.contrast.is_inverse and photometric == "MONOCHROME2":
        photometric = "MONOCHROME1"
    allocated = insist(declared.bits_allocated, "BitsAllocated")
    bits = declared.bits_stored or allocated
    high_bit = declared.high_bit
    shift = max(0, (bits - 1 if high_bit is None else high_bit) + 1 - bits)
    _check_bits(photometric, samples, allocated, bits + shift)
    is_signed = declared.representation == 1
    is_palette = photometric == "PALETTE COLOR"
    return Layout(
        rows=rows,
        columns=columns,
        samples=samples,
        bytes_per_sample=allocated // 8,
        bits=bits,
        shift=shift,
        is_signed=is_signed,
        is_planar=samples == 3 and declared.planar_configuration == 1,
        photometric=photometric,
        declared_frames=declared.frames,
        palette=read_palette(declared.tables, is_signed) if is_palette else None,
        contrast=_contrast(declared.contrast, bits, is_signed) if photometric in _GREY else None,
    )


def _contrast(declared: DeclaredContrast, bits: int, is_signed: bool) -> Contrast | None:
    """The window or table of a header, None where it has none or shows everything."""
    lowest = -(1 << bits - 1) if is_signed else 0
    contrast = read_contrast(declared, lowest)
    return None if contrast is None or contrast.is_whole(lowest, bits) else contrast


def insist(value: int | None, keyword: str) -> int:
    """Insist on a number that pixel data make no sense without.

    Raises:
        MalformedHeaderError: it is not there.
    """
    if value is None:
        raise MalformedHeaderError(f"the header has pixel data, but no {keyword}")
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


def swap_words(words: bytes) -> bytes:
    """Exchange the two bytes of every big-endian word; of an odd number the last is left out."""
    return np.frombuffer(words[: len(words) // 2 * 2], ">u2").astype("<u2").tobytes()
