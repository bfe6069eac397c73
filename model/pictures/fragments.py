"""Where each frame lies inside the pixel data, native or in fragments.

Nothing is decoded and no frame is read here: only item headers and the first bytes of fragments.

Source:
    DICOM PS3.5 annex A.4 (encapsulation), PS3.3 C.7.6.3.1.8 (extended offset table).
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from model.errors import MalformedHeaderError, TruncatedError
from model.pictures.codestream import starts_a_stream
from model.pictures.layout import Layout
from model.pictures.window import Window

UNDEFINED = 0xFFFFFFFF
"""The length of what only a delimiter ends."""

_ITEM = b"\xfe\xff\x00\xe0"
_MAX_FRAGMENTS = 200_000
_START_BYTES = 64

Piece = tuple[int, int]
"""Offset and length of a stretch of the file."""


@dataclass(frozen=True, slots=True)
class PixelData:
    """Where the pixel data lie.

    Attributes:
        offset: position of their first byte.
        length: in bytes, UNDEFINED where only a delimiter ends them.
        is_words: whether they are words (OW), and not bytes.
        is_little: the byte order of words.
        frame_offsets: ExtendedOffsetTable, empty where absent.
    """

    offset: int
    length: int
    is_words: bool
    is_little: bool
    frame_offsets: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Frames:
    """Every whole frame's pieces, in order.

    Attributes:
        pieces: for each frame, the stretches of the file that hold it.
        warnings: what did not match the header.
    """

    pieces: tuple[tuple[Piece, ...], ...]
    warnings: tuple[str, ...] = ()


def is_encapsulated(pixels: PixelData, window: Window) -> bool:
    """Whether the pixel data are items of fragments, whatever the transfer syntax says."""
    return pixels.length == UNDEFINED or window.read_at(pixels.offset, 4) == _ITEM


def locate_native(
    pixels: PixelData, window: Window, frame_bytes: int, declared: int | None
) -> Frames:
    """Cut native pixel data into frames.

    Raises:
        TruncatedError: not one whole frame is there.
    """
    present = min(pixels.length, window.size - pixels.offset)
    held = present // frame_bytes
    if held == 0:
        raise TruncatedError(
            f"a frame needs {frame_bytes} bytes, the file holds {present}: it was cut short"
        )
    count, warnings = _settle(held, declared)
    offsets = (pixels.offset + index * frame_bytes for index in range(count))
    return Frames(tuple(((offset, frame_bytes),) for offset in offsets), warnings)


def locate_fragments(pixels: PixelData, window: Window, declared: int | None) -> Frames:
    """Group fragments into frames.

    Raises:
        MalformedHeaderError: no fragments, or more than any clip has.
        TruncatedError: not one whole frame is there.
    """
    found = walk_fragments(pixels.offset, window)
    if not found.whole:
        raise TruncatedError("the pixel data hold no whole frame: the file was cut short")
    groups = _group(window, pixels.frame_offsets, declared, found)
    count, warnings = _settle(len(groups), declared)
    if found.is_cut and "truncated_frames" not in warnings:
        warnings = (*warnings, "truncated_frames")
    return Frames(tuple(groups[:count]), warnings)


def _settle(held: int, declared: int | None) -> tuple[int, tuple[str, ...]]:
    """Choose the number of frames from what is there and what is declared."""
    if declared is None:
        return held, () if held == 1 else ("frame_count_missing",)
    if held < declared:
        return held, ("truncated_frames",)
    return declared, () if held == declared else ("extra_pixel_data",)


@dataclass(frozen=True, slots=True)
class Fragments:
    """The fragments as they follow each other, not yet grouped into frames.

    Attributes:
        table: the basic offset table.
        whole: the fragments that are wholly there.
        rest: what is there of one that the file's end cuts, None where none is cut.
        is_cut: the file ends before the fragments do.
    """

    table: bytes
    whole: list[Piece]
    rest: Piece | None
    is_cut: bool


def walk_fragments(offset: int, window: Window) -> Fragments:
    """List the fragments of encapsulated pixel data that begin at ``offset``.

    Raises:
        MalformedHeaderError: more than any clip has.
    """
    pieces: list[Piece] = []
    while len(head := window.read_at(offset, 8)) == 8 and head[:4] == _ITEM:
        (length,) = struct.unpack_from("<I", head, 4)
        pieces.append((offset + 8, min(length, window.size - offset - 8)))
        if len(pieces) > _MAX_FRAGMENTS:
            raise MalformedHeaderError(f"the pixel data have more than {_MAX_FRAGMENTS} fragments")
        offset += 8 + length
    rest = pieces.pop() if pieces and offset > window.size else None
    start, length = pieces[0] if pieces else (0, 0)
    table = window.read_at(start, min(length, 4 * _MAX_FRAGMENTS))
    return Fragments(table, pieces[1:], rest, is_cut=len(head) < 8)


def _group(
    window: Window, extended: tuple[int, ...], declared: int | None, found: Fragments
) -> list[tuple[Piece, ...]]:
    """Find out which fragments make a frame: by count, by offset table, by start markers."""
    fragments = found.whole
    if declared == len(fragments):
        return [(fragment,) for fragment in fragments]
    offsets = [fragment[0] - 8 for fragment in fragments]
    tables = (extended, _basic_offsets(found.table))
    tabled = [
        begins
        for table in tables
        if _is_usable(begins := [offsets[0] + offset for offset in table], offsets)
    ]
    seen = [
        fragment[0] - 8
        for fragment in fragments
        if starts_a_stream(window.read_at(fragment[0], min(fragment[1], _START_BYTES)))
    ]
    # where the header does not count, what is seen goes before a table that may be too short
    candidates = [*tabled, seen] if declared else [seen, *tabled]
    for begins in candidates:
        if begins and declared in (None, len(begins)):
            return _split(fragments, {*begins, offsets[0]})
    if seen:
        return _split(fragments, {*seen, offsets[0]})
    return [tuple(fragments)] if declared == 1 else [(fragment,) for fragment in fragments]


def _basic_offsets(table: bytes) -> tuple[int, ...]:
    return struct.unpack_from(f"<{len(table) // 4}I", table)


def _is_usable(wanted: list[int], starts: list[int]) -> bool:
    """Whether an offset table's entries rise and are where fragments start."""
    if not wanted:
        return False
    is_rising = all(a < b for a, b in pairwise(wanted))
    return is_rising and wanted[0] == starts[0] and set(wanted) <= set(starts)


def _split(fragments: list[Piece], begins: set[int]) -> list[tuple[Piece, ...]]:
    groups: list[list[Piece]] = []
    for fragment in fragments:
        if fragment[0] - 8 in begins or not groups:
            groups.append([])
        groups[-1].append(fragment)
    return [tuple(group) for group in groups]


def frame_reader(frames: Frames, window: Window) -> Callable[[int], bytes]:
    """Make a function that reads one frame's bytes by its index."""

    def read(index: int) -> bytes:
        pieces = frames.pieces[index]
        parts = [window.read_at(offset, length) for offset, length in pieces]
        if any(len(part) < length for part, (_, length) in zip(parts, pieces, strict=True)):
            raise TruncatedError(f"the file was cut short while it was read, at frame {index}")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    return read


def single_stream(pixels: PixelData, window: Window, layout: Layout) -> Frames | None:
    """Find one bare codestream where native pixels should be; None where there is none."""
    if starts_a_stream(window.read_at(pixels.offset, _START_BYTES)):
        length = min(pixels.length, window.size - pixels.offset)
        if length < layout.frame_bytes * (layout.declared_frames or 1):
            return Frames((((pixels.offset, length),),), ("native_pixel_data_compressed",))
    return None
