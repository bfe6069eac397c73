"""The colour look-up tables of PALETTE COLOR images.

Source:
    DICOM PS3.3 C.7.6.3.1.5-6 (palette descriptors and data), C.7.9.2 (segmented tables).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.ingest.elements import Header
from server.ingest.errors import MalformedHeaderError
from server.ingest.tags import Tag

_DESCRIPTORS = (
    Tag.RedPaletteColorLookupTableDescriptor,
    Tag.GreenPaletteColorLookupTableDescriptor,
    Tag.BluePaletteColorLookupTableDescriptor,
)
_TABLES = (
    Tag.RedPaletteColorLookupTableData,
    Tag.GreenPaletteColorLookupTableData,
    Tag.BluePaletteColorLookupTableData,
)
_SEGMENTED = (
    Tag.SegmentedRedPaletteColorLookupTableData,
    Tag.SegmentedGreenPaletteColorLookupTableData,
    Tag.SegmentedBluePaletteColorLookupTableData,
)
_DISCRETE, _LINEAR, _INDIRECT = 0, 1, 2
_MAX_SEGMENTS = 1 << 17


@dataclass(frozen=True, slots=True, eq=False)
class Palette:
    """A colour for every stored value.

    Attributes:
        first: the stored value that takes the first entry.
        colours_PC: entries in rows, red, green and blue in columns, uint8.
    """

    first: int
    colours_PC: NDArray[np.uint8]


def read_palette(header: Header, is_signed: bool) -> Palette:
    """Read the three tables.

    Raises:
        MalformedHeaderError: a table is missing, too short or contradicts itself.
    """
    channels = [_channel(header, index, is_signed) for index in range(3)]
    firsts = {first for first, _ in channels}
    lengths = {len(table) for _, table in channels}
    if len(firsts) != 1 or len(lengths) != 1:
        raise MalformedHeaderError("the three palette tables differ in length or first value")
    colours = np.stack([table for _, table in channels], axis=1)
    if any(_entry_bits(header, index) == 16 for index in range(3)) and colours.max() > 255:
        colours >>= 8
    return Palette(firsts.pop(), np.minimum(colours, 255).astype(np.uint8))


def _entry_bits(header: Header, channel: int) -> int:
    return int(header.binary(_DESCRIPTORS[channel], "H")[2])


def _channel(header: Header, channel: int, is_signed: bool) -> tuple[int, NDArray[np.uint16]]:
    """Read one table: its first stored value and its entries."""
    descriptor = header.binary(_DESCRIPTORS[channel], "H")
    if len(descriptor) != 3 or descriptor[2] not in (8, 16):
        raise MalformedHeaderError(f"{_DESCRIPTORS[channel].name} is missing or unreadable")
    count = int(descriptor[0]) or 1 << 16
    first = int(descriptor[1])
    if is_signed and first >= 1 << 15:
        first -= 1 << 16
    wide = descriptor[2] == 16
    if _SEGMENTED[channel] in header.values:
        values = [int(word) for word in _words(header, _SEGMENTED[channel], wide=wide)]
        entries = _SegmentedTable(values, count=count, wide=wide).expand()
    else:
        data = header.values.get(_TABLES[channel], b"")
        # some writers give every 8-bit entry a word of its own
        entries = _words(header, _TABLES[channel], wide=wide or len(data) >= 2 * count)[:count]
    if len(entries) < count:
        raise MalformedHeaderError(
            f"{_TABLES[channel].name} holds {len(entries)} entries, its descriptor says {count}"
        )
    return first, entries


def _words(header: Header, tag: Tag, *, wide: bool) -> NDArray[np.uint16]:
    data = header.values.get(tag, b"")
    order = header.encoding.order
    pairs = np.frombuffer(data[: len(data) // 2 * 2], f"{order}u2").astype(np.uint16)
    return pairs if wide else pairs.astype("<u2").view(np.uint8).astype(np.uint16)


class _SegmentedTable:
    """Expands a segmented table, never beyond its length and never for long."""

    def __init__(self, values: list[int], *, count: int, wide: bool) -> None:
        self._values = values
        self._count = count
        self._wide = wide
        self._segments_left = _MAX_SEGMENTS
        self.entries: list[int] = []

    def expand(self) -> NDArray[np.uint16]:
        """Run through all segments."""
        position = 0
        while len(self.entries) < self._count and position + 2 <= len(self._values):
            if self._segments_left < 0:
                break
            position = self._segment(position)
        return np.array(self.entries[: self._count], np.uint16)

    def _segment(self, position: int) -> int:
        """Append what one segment stands for; returns where the next segment starts."""
        kind, length = self._values[position : position + 2]
        position += 2
        self._segments_left -= 1
        if kind == _DISCRETE:
            self.entries.extend(self._values[position : position + length])
            return position + length
        if kind == _LINEAR and self.entries and position < len(self._values):
            _ramp(self.entries, length, self._values[position])
            return position + 1
        if kind == _INDIRECT:
            return self._copy(position, length)
        raise MalformedHeaderError(f"a segmented palette has an unreadable segment of type {kind}")

    def _copy(self, position: int, segments: int) -> int:
        """Run again through segments that stand elsewhere in the table."""
        parts = self._values[position : position + (2 if self._wide else 4)]
        bits = 16 if self._wide else 8
        target = sum(part << bits * index for index, part in enumerate(parts))
        target //= 2 if self._wide else 1  # the offset counts bytes
        for _ in range(segments):
            is_plain = self._values[target : target + 1] in ([_DISCRETE], [_LINEAR])
            if not is_plain or self._segments_left < 0 or len(self.entries) >= self._count:
                break
            target = self._segment(target)
        return position + len(parts)


def _ramp(entries: list[int], length: int, last: int) -> None:
    """Append a straight line from the last entry to ``last``."""
    first = entries[-1]
    entries.extend(round(first + (last - first) * step / length) for step in range(1, length + 1))
