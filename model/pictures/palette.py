"""Look-up tables, and the three that make the colours of PALETTE COLOR images.

Source:
    DICOM PS3.3 C.7.6.3.1.5-6 (palette descriptors and data), C.7.9.2 (segmented tables).
"""

from collections.abc import Container, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.errors import MalformedHeaderError

COLOURS = ("Red", "Green", "Blue")
"""What the keywords of a palette's tables begin with."""

_DISCRETE, _LINEAR, _INDIRECT = 0, 1, 2
_MAX_SEGMENTS = 1 << 17


@dataclass(frozen=True, slots=True)
class DeclaredTable:
    """One channel's table as a header holds it, empty where it does not.

    Attributes:
        descriptor: the value of its descriptor.
        entries: the value of its data.
        segments: the value of its segmented data, None where absent.
        is_little: the byte order of all three.
    """

    descriptor: bytes
    entries: bytes
    segments: bytes | None
    is_little: bool

    def words(self, value: bytes) -> NDArray[np.uint16]:
        """Read one of the values as 16-bit numbers."""
        order = "<" if self.is_little else ">"
        return np.frombuffer(value[: len(value) // 2 * 2], f"{order}u2").astype(np.uint16)

    @property
    def described(self) -> tuple[int, ...]:
        """The descriptor's numbers: of entries, of the first stored value, of an entry's bits."""
        return tuple(int(word) for word in self.words(self.descriptor))


@dataclass(frozen=True, slots=True, eq=False)
class Palette:
    """A colour for every stored value.

    Attributes:
        first: the stored value that takes the first entry.
        colours_PC: entries in rows, red, green and blue in columns, uint8.
    """

    first: int
    colours_PC: NDArray[np.uint8]


def read_palette(tables: Sequence[DeclaredTable], is_signed: bool) -> Palette:
    """Read the three tables.

    Args:
        tables: of red, green and blue.
        is_signed: whether stored values are.

    Raises:
        MalformedHeaderError: a table is missing, too short or contradicts itself.
    """
    channels = [_channel(*each, is_signed) for each in zip(COLOURS, tables, strict=True)]
    firsts = {first for first, _ in channels}
    lengths = {len(entries) for _, entries in channels}
    if len(firsts) != 1 or len(lengths) != 1:
        raise MalformedHeaderError("the three palette tables differ in length or first value")
    colours = np.stack([entries for _, entries in channels], axis=1)
    if any(table.described[2] == 16 for table in tables) and colours.max() > 255:
        colours >>= 8
    return Palette(firsts.pop(), np.minimum(colours, 255).astype(np.uint8))


def _channel(colour: str, table: DeclaredTable, is_signed: bool) -> tuple[int, NDArray[np.uint16]]:
    name = f"{colour}PaletteColorLookupTable"
    first, entries, _ = read_table(name, table, (8, 16), is_signed=is_signed)
    return first, entries


def read_table(
    name: str, table: DeclaredTable, depths: Container[int], *, is_signed: bool
) -> tuple[int, NDArray[np.uint16], int]:
    """Read a table: the value that takes its first entry, its entries, and the bits of one.

    Args:
        name: what its keywords begin with.
        table: what the header says.
        depths: which numbers of bits an entry may have.
        is_signed: whether the values may lie below zero.

    Raises:
        MalformedHeaderError: it is missing, too short or contradicts itself.
    """
    described = table.described
    if len(described) != 3 or described[2] not in depths:
        raise MalformedHeaderError(f"{name}Descriptor is missing or unreadable")
    count = described[0] or 1 << 16
    first = described[1]
    if is_signed and first >= 1 << 15:
        first -= 1 << 16
    wide = described[2] > 8
    if table.segments is not None:
        values = [int(word) for word in _entries(table, table.segments, wide=wide)]
        entries = _SegmentedTable(values, count=count, wide=wide).expand()
    else:
        # some writers give every 8-bit entry a word of its own
        wide = wide or len(table.entries) >= 2 * count
        entries = _entries(table, table.entries, wide=wide)[:count]
    if len(entries) < count:
        raise MalformedHeaderError(
            f"{name}Data holds {len(entries)} entries, its descriptor says {count}"
        )
    return first, entries, described[2]


def _entries(table: DeclaredTable, value: bytes, *, wide: bool) -> NDArray[np.uint16]:
    words = table.words(value)
    return words if wide else words.astype("<u2").view(np.uint8).astype(np.uint16)


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
