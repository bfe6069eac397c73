"""How a header says that its pixels are laid out, held to the limits before anything is read.

Source:
    DICOM PS3.3 C.7.6.3 (image pixel module).
"""

from model.pictures import (
    COLOURS,
    DeclaredPixels,
    DeclaredTable,
    Layout,
    declare_contrast,
    insist,
    make_layout,
)
from server.ingest.clip import IngestLimits
from server.ingest.elements import Header
from server.ingest.errors import TooLargeError, TooManyFramesError, UnsupportedPixelsError
from server.ingest.tags import Tag

MIN_SIDE_PX, MAX_SIDE_PX = 16, 8192


def read_layout(header: Header, limits: IngestLimits) -> Layout:
    """Read and check the image pixel attributes.

    Raises:
        MalformedHeaderError: an attribute is missing or contradicts another one.
        UnsupportedPixelsError: a layout not read here.
        TooLargeError: more pixels than allowed.
        TooManyFramesError: more frames than allowed.
    """
    check_size(required(header, Tag.Rows), required(header, Tag.Columns), limits)
    layout = make_layout(_declared(header))
    check_frames(layout, layout.declared_frames or 1, limits)
    return layout


def _declared(header: Header) -> DeclaredPixels:
    return DeclaredPixels(
        rows=header.integer(Tag.Rows),
        columns=header.integer(Tag.Columns),
        samples=header.integer(Tag.SamplesPerPixel),
        photometric=header.text(Tag.PhotometricInterpretation),
        bits_allocated=header.integer(Tag.BitsAllocated),
        bits_stored=header.integer(Tag.BitsStored),
        high_bit=header.integer(Tag.HighBit),
        representation=header.integer(Tag.PixelRepresentation),
        planar_configuration=header.integer(Tag.PlanarConfiguration),
        frames=declared_frames(header),
        tables=tuple(_table(header, colour) for colour in COLOURS),
        contrast=declare_contrast(
            header,
            lambda place, keyword: place.values.get(Tag[keyword], b""),
            lambda place, keyword: place.sequences.get(Tag[keyword], ()),
            is_little=header.encoding.is_little,
        ),
    )


def _table(header: Header, colour: str) -> DeclaredTable:
    name = f"{colour}PaletteColorLookupTable"
    return DeclaredTable(
        header.values.get(Tag[f"{name}Descriptor"], b""),
        header.values.get(Tag[f"{name}Data"], b""),
        header.values.get(Tag[f"Segmented{name}Data"]),
        header.encoding.is_little,
    )


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
    return insist(header.integer(tag), tag.name)


def declared_frames(header: Header) -> int | None:
    """Read NumberOfFrames, None where absent or unreadable."""
    number = header.number(Tag.NumberOfFrames)
    return int(number) if number is not None and number >= 1 else None
