"""Which stored values a grey picture is shown in: the window or the tables that its header gives.

What the standard calls a VOI LUT; a `Window` is elsewhere here a stretch of a file, so that a
window of greys is called `Levels`.

Source:
    DICOM PS3.3 C.11.1 (modality LUT: the rescale, or a table), C.11.2 (VOI LUT: the window, or a
    table), C.7.6.16.2.9-10 (both in functional groups).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from model.errors import MalformedHeaderError
from model.pictures.palette import DeclaredTable, read_table

_LEVELS = ("WindowCenter", "WindowWidth", "VOILUTFunction")
_RESCALE = ("RescaleSlope", "RescaleIntercept")
_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
_LARGEST = 1e15

_WHOLE_RANGE_STEPS = 2
"""Steps of grey that a window over the whole range may be off: of 8 bits writers give it as 127/254
(Philips), 127.5/255 or 128/256, and only the last one is exact under LINEAR."""


@dataclass(frozen=True, slots=True)
class DeclaredContrast:
    """What a header says of its greys, empty or None where it says nothing.

    Attributes:
        levels: the values of WindowCenter, WindowWidth and VOILUTFunction.
        rescale: the values of RescaleSlope and RescaleIntercept.
        modality: the table of ModalityLUTSequence, the first of several.
        voi: the table of VOILUTSequence, the first of several.
        shape: PresentationLUTShape.
    """

    levels: tuple[bytes, ...] = (b"",) * len(_LEVELS)
    rescale: tuple[bytes, ...] = (b"",) * len(_RESCALE)
    modality: DeclaredTable | None = None
    voi: DeclaredTable | None = None
    shape: bytes = b""

    @property
    def is_inverse(self) -> bool:
        """Whether the highest value is black, whatever the photometric interpretation says."""
        return _first(self.shape) == "INVERSE"


_Place = TypeVar("_Place")
"""A header, or an item of one of its sequences."""


def declare_contrast(
    header: _Place,
    value: Callable[[_Place, str], bytes],
    items: Callable[[_Place, str], Sequence[_Place]],
    *,
    is_little: bool,
) -> DeclaredContrast:
    """Look where a header may say how its greys are shown.

    What stands in the functional groups of single frames is taken from the first frame.

    Args:
        header: of the file.
        value: gives what stands under a keyword, empty where absent.
        items: gives those of the sequence of that keyword.
        is_little: the byte order of tables.
    """
    groups = [group for name in _GROUPS for group in items(header, name)[:1]]

    def first(within: str, keywords: tuple[str, ...]) -> tuple[bytes, ...]:
        places = [header, *(place for group in groups for place in items(group, within)[:1])]
        found = (tuple(value(place, keyword) for keyword in keywords) for place in places)
        return next((each for each in found if any(each)), (b"",) * len(keywords))

    def table(keyword: str) -> DeclaredTable | None:
        for item in items(header, keyword)[:1]:
            words = value(item, "LUTDescriptor"), value(item, "LUTData")
            return DeclaredTable(*words, None, is_little)
        return None

    return DeclaredContrast(
        first("FrameVOILUTSequence", _LEVELS),
        first("PixelValueTransformationSequence", _RESCALE),
        table("ModalityLUTSequence"),
        table("VOILUTSequence"),
        value(header, "PresentationLUTShape"),
    )


@dataclass(frozen=True, slots=True)
class Line:
    """A rescale, by which stored values mean others."""

    slope: float
    intercept: float

    def values(self, stored: NDArray[Any]) -> NDArray[np.float64]:
        """What stored values mean."""
        return np.asarray(stored * self.slope + self.intercept, np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A look-up table; what lies beside it takes its first or its last entry.

    Attributes:
        first: the value that takes the first entry.
        entries_E: its entries.
        highest: the largest that an entry may be.
    """

    first: int
    entries_E: NDArray[np.uint16]
    highest: int

    def values(self, value: NDArray[Any]) -> NDArray[np.float64]:
        """The entries of some values."""
        index = np.clip(np.rint(value) - self.first, 0, len(self.entries_E) - 1)
        return self.entries_E[index.astype(np.int64)].astype(np.float64)

    def share(self, value: NDArray[Any]) -> NDArray[np.float64]:
        """Black (0) to white (1) of some values."""
        return self.values(value) / self.highest


@dataclass(frozen=True, slots=True)
class Levels:
    """A window.

    Attributes:
        center: WindowCenter, the first of several.
        width: WindowWidth, the first of several.
        function: VOILUTFunction.
    """

    center: float
    width: float
    function: str

    def share(self, value: NDArray[Any]) -> NDArray[np.float64]:
        """Black (0) to white (1) of some values, and beyond both outside the window.

        Source:
            DICOM PS3.3 C.11.2.1.2.1 (LINEAR), C.11.2.1.3.1 (SIGMOID), C.11.2.1.3.2 (LINEAR_EXACT).
        """
        if self.function == "SIGMOID":
            return np.asarray(1 / (1 + np.exp(-4 * (value - self.center) / self.width)))
        if self.function == "LINEAR_EXACT":
            return np.asarray((value - self.center) / self.width + 0.5)
        return np.asarray((value - (self.center - 0.5)) / (self.width - 1) + 0.5)


Shown: TypeAlias = Levels | Table


@dataclass(frozen=True, slots=True, eq=False)
class Contrast:
    """How stored values are shown.

    Attributes:
        meaning: what they mean.
        shown: the greys of that.
    """

    meaning: Line | Table
    shown: Shown

    def is_whole(self, lowest: int, bits: int) -> bool:
        """Whether it shows the whole range of stored values, by which writers mean no window.

        Args:
            lowest: the least of them.
            bits: of each.
        """
        greys = self.show(lowest + np.arange(1 << bits))
        straight = np.arange(1 << bits) * (255 / ((1 << bits) - 1))
        return bool(np.abs(greys - straight).max() <= _WHOLE_RANGE_STEPS)

    def show(self, stored: NDArray[Any]) -> NDArray[np.uint8]:
        """Turn stored values into greys, 0 below the window and 255 above it."""
        with np.errstate(over="ignore"):
            share = self.shown.share(self.meaning.values(stored))
        return np.rint(255 * np.clip(share, 0, 1)).astype(np.uint8)


def read_contrast(declared: DeclaredContrast, lowest: int) -> Contrast | None:
    """Read how a header wants its greys shown; None where it does not say, or nothing sound.

    A window goes before the table of VOILUTSequence, which the standard calls its alternative.

    Args:
        declared: what it says.
        lowest: the least stored value; tables may then begin below zero as well.
    """
    line = _line(declared.rescale)
    table = _table(declared.modality, is_signed=lowest < 0)
    meaning: Line | Table | None = table or line
    if meaning is None:
        return None
    least = lowest if isinstance(meaning, Table) else meaning.values(np.array([lowest])).item()
    levels = _levels(declared.levels)
    shown: Shown | None = levels or _table(
        declared.voi, is_signed=not isinstance(meaning, Table) and least < 0
    )
    if shown is not None:
        return Contrast(meaning, shown)
    return None if table is None else Contrast(Line(1, 0), table)


def _line(declared: tuple[bytes, ...]) -> Line | None:
    slope, intercept = _number(declared[0], without=1), _number(declared[1], without=0)
    return None if slope is None or intercept is None else Line(slope, intercept)


def _levels(declared: tuple[bytes, ...]) -> Levels | None:
    center, width = (_number(value) for value in declared[:2])
    function = _first(declared[2]) or "LINEAR"
    if center is None or width is None or function not in _FUNCTIONS:
        return None
    return Levels(center, width, function) if width > (function == "LINEAR") else None


def _table(declared: DeclaredTable | None, *, is_signed: bool) -> Table | None:
    if declared is None:
        return None
    try:
        first, entries_E, bits = read_table("LUT", declared, range(8, 17), is_signed=is_signed)
    except MalformedHeaderError:
        return None
    return Table(first, entries_E, (1 << bits) - 1)


def _first(value: bytes) -> str:
    return value.decode("latin-1").strip(" \0").split("\\")[0].strip()


def _number(value: bytes, *, without: float | None = None) -> float | None:
    """The first of some numbers, None where it is none or beyond all measure."""
    text = _first(value)
    try:
        number = without if without is not None and not text else float(text)
    except ValueError:
        return None
    return number if abs(number) < _LARGEST else None
