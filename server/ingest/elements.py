"""The header pass: DICOM data elements walked with bounds, only what is wanted kept.

Nothing is allocated by a length that a file claims: a value is read only where it is wanted, short
enough and wholly inside the file; everything else is stepped over.

Source:
    DICOM PS3.5 chapter 7 (data elements, nesting of items) and annex A (transfer syntaxes).
"""

import struct
from dataclasses import dataclass, field

from model.pictures import UNDEFINED, Encoding, Window
from server.ingest.errors import MalformedHeaderError, TruncatedError

PIXEL_DATA = 0x7FE00010
_PER_FRAME = 0x52009230
"""PerFrameFunctionalGroupsSequence, of which the first item is kept: a clip may have thousands."""

_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD

_SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())
MAX_VALUE_BYTES = 1 << 20
MAX_DEPTH = 16

_UNKNOWN = Encoding(is_explicit=False, is_little=True)
"""Of the items in a value of VR UN, whatever holds it (PS3.5 section 6.2.2 note 2)."""


@dataclass(frozen=True, slots=True)
class Element:
    """Where one data element lies.

    Attributes:
        vr: two letters, empty where the encoding is implicit.
        offset: position of the value's first byte.
        length: bytes of the value, UNDEFINED where only a delimiter ends it.
    """

    tag: int
    vr: bytes
    offset: int
    length: int


@dataclass(slots=True)
class Header:
    """The wanted elements of a data set or of an item.

    Attributes:
        values: raw values by tag.
        sequences: items by tag.
        private_groups: odd groups met at the top level.
        pixels: where the pixel data lie, None where there are none.
        end: position of the first element that was not walked.
    """

    encoding: Encoding
    values: dict[int, bytes] = field(default_factory=dict)
    sequences: dict[int, list["Header"]] = field(default_factory=dict)
    private_groups: set[int] = field(default_factory=set)
    pixels: Element | None = None
    end: int = 0

    def text(self, tag: int) -> str:
        """Read a text value, empty where absent."""
        return self.values.get(tag, b"").decode("latin-1").strip(" \0")

    def numbers(self, tag: int) -> tuple[float, ...]:
        """Read a DS or IS value; empty where absent or where a part is no finite number."""
        parts = self.text(tag).split("\\")
        try:
            numbers = tuple(float(part) for part in parts)
        except ValueError:
            return ()
        return numbers if all(abs(number) < 1e15 for number in numbers) else ()

    def number(self, tag: int) -> float | None:
        """Read a DS or IS value that must be single, None where it is not."""
        numbers = self.numbers(tag)
        return numbers[0] if len(numbers) == 1 else None

    def binary(self, tag: int, code: str) -> tuple[float, ...]:
        """Read a binary value, such as US ("H") or FD ("d"); empty where absent or cut."""
        value = self.values.get(tag, b"")
        count = len(value) // struct.calcsize(code)
        return struct.unpack_from(f"{self.encoding.order}{count}{code}", value)

    def integer(self, tag: int, code: str = "H") -> int | None:
        """Read the first number of a binary value, None where absent."""
        numbers = self.binary(tag, code)
        return int(numbers[0]) if numbers else None


def detect_encoding(head: bytes, declared: Encoding) -> Encoding:
    """Look how the first element is really written; writers and the file meta may disagree."""
    if len(head) < 8:
        return declared
    little, big = (int.from_bytes(head[:2], "little"), int.from_bytes(head[:2], "big"))
    return Encoding(is_explicit=_is_vr(head[4:6]), is_little=little <= big)


def _is_vr(code: bytes) -> bool:
    return len(code) == 2 and all(0x41 <= letter <= 0x5A for letter in code)


class HeaderReader:
    """Walks one file's data set up to its pixel data."""

    def __init__(self, window: Window, wanted: frozenset[int], max_elements: int) -> None:
        """Prepare a walk.

        Args:
            window: the file.
            wanted: tags whose values, or whose items, are kept.
            max_elements: how many elements to walk before giving up.
        """
        self._window = window
        self._wanted = wanted
        self._left = max_elements

    def read(self, offset: int, encoding: Encoding, *, group: int | None = None) -> Header:
        """Read the data set that starts at ``offset``, up to its pixel data.

        Args:
            offset: position of the first element.
            encoding: how the elements are written.
            group: read only as long as elements are of this group.

        Raises:
            MalformedHeaderError: too many, too deep, too long.
            TruncatedError: the file ends inside an element.
        """
        header = Header(encoding)
        while (element := self._element(offset, encoding)) is not None:
            if group is not None and element.tag >> 16 != group:
                break
            if element.tag == PIXEL_DATA:
                header.pixels = element
                break
            if element.tag >> 16 & 1:
                header.private_groups.add(element.tag >> 16)
            offset = self._take(element, header, depth=0)
        header.end = offset
        return header

    def _element(self, offset: int, encoding: Encoding) -> Element | None:
        """Read one element's tag, VR and length; None where the file ends."""
        head = self._window.read_at(offset, 12)
        if len(head) < 8:
            return None
        self._left -= 1
        if self._left < 0:
            raise MalformedHeaderError(
                f"the header has too many elements, the last one at byte {offset}"
            )
        group, number = struct.unpack_from(f"{encoding.order}HH", head)
        tag = group << 16 | number
        vr = head[4:6]
        if group == 0xFFFE or not encoding.is_explicit or not _is_vr(vr):
            (length,) = struct.unpack_from(f"{encoding.order}I", head, 4)
            return Element(tag, b"", offset + 8, length)
        if vr in _SHORT_VRS:
            (length,) = struct.unpack_from(f"{encoding.order}H", head, 6)
            return Element(tag, vr, offset + 8, length)
        if len(head) < 12:
            raise TruncatedError(f"the file ends at byte {self._window.size}, inside its header")
        (length,) = struct.unpack_from(f"{encoding.order}I", head, 8)
        return Element(tag, vr, offset + 12, length)

    def _take(self, element: Element, header: Header, depth: int) -> int:
        """Keep or step over one element; returns where the next one starts."""
        is_wanted = element.tag in self._wanted
        is_sequence = element.vr == b"SQ" or element.length == UNDEFINED
        is_untold = element.vr in (b"", b"UN")
        if is_sequence or (is_wanted and is_untold and self._holds_items(element, header)):
            keep = header.sequences.setdefault(element.tag, []) if is_wanted else None
            if element.length == UNDEFINED or is_wanted:
                return self._items(element, header.encoding, keep, depth + 1)
        end = element.offset + element.length
        if end > self._window.size:
            raise TruncatedError(
                f"the file ends at byte {self._window.size}, inside element {_name(element.tag)}: "
                "the upload or the file was cut short"
            )
        if is_wanted:
            header.values[element.tag] = self._value(element)
        return end

    def _value(self, element: Element) -> bytes:
        if element.length > MAX_VALUE_BYTES:
            raise MalformedHeaderError(
                f"element {_name(element.tag)} at byte {element.offset} claims "
                f"{element.length} bytes; at most {MAX_VALUE_BYTES} make sense there"
            )
        return self._window.read_at(element.offset, element.length)

    def _holds_items(self, element: Element, header: Header) -> bool:
        order = _UNKNOWN.order if element.vr == b"UN" else header.encoding.order
        item = struct.pack(f"{order}HH", _ITEM >> 16, _ITEM & 0xFFFF)
        return element.length >= 8 and self._window.read_at(element.offset, 4) == item

    def _items(
        self, sequence: Element, encoding: Encoding, keep: list[Header] | None, depth: int
    ) -> int:
        """Walk a sequence's items; returns where the element after it starts."""
        if depth > MAX_DEPTH:
            raise MalformedHeaderError(
                f"sequences nest deeper than {MAX_DEPTH} at byte {sequence.offset}"
            )
        if sequence.vr == b"UN":
            encoding = _UNKNOWN
        offset = sequence.offset
        end = None if sequence.length == UNDEFINED else sequence.offset + sequence.length
        if end is not None and end > self._window.size:
            raise TruncatedError(
                f"the file ends at byte {self._window.size}, inside element {_name(sequence.tag)}"
            )
        while end is None or offset < end:
            item = self._element(offset, encoding)
            if item is None:
                raise TruncatedError(
                    f"the file ends inside the sequence {_name(sequence.tag)} "
                    f"at byte {sequence.offset}"
                )
            if item.tag == _SEQUENCE_END:
                return item.offset
            if item.tag != _ITEM:
                raise MalformedHeaderError(
                    f"an item was due at byte {offset}, in the sequence {_name(sequence.tag)}"
                )
            offset = self._item(item, encoding, keep, depth)
            if sequence.tag == _PER_FRAME:
                if end is not None:
                    return end
                keep = None
        return end

    def _item(
        self, item: Element, encoding: Encoding, keep: list[Header] | None, depth: int
    ) -> int:
        """Walk one item; returns where the next one starts."""
        if item.length != UNDEFINED and keep is None:
            return item.offset + item.length
        header = Header(encoding)
        if keep is not None:
            keep.append(header)
        end = None if item.length == UNDEFINED else item.offset + item.length
        offset = item.offset
        while end is None or offset < end:
            element = self._element(offset, encoding)
            if element is None:
                raise TruncatedError(f"the file ends inside the item at byte {item.offset}")
            if element.tag == _ITEM_END:
                return element.offset
            offset = self._take(element, header, depth)
        return end


def _name(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
