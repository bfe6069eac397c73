"""The volume curve of a clip: drawn whole once, then played along frame by frame."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model import Reading
from server.export.pen import GRID, SOFT, STRUCTURE_COLOURS, TEXT, Colour, Pen

AHEAD: Colour = (52, 86, 110)
"""The part of the curve that is still to come."""

_LABEL_PX = 13
_MARGIN_LEFT, _MARGIN_RIGHT, _MARGIN_TOP, _MARGIN_BOTTOM = 56, 20, 44, 28
_ROOM_FOR_MARK = 20.0


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of the canvas, in pixels."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Mark:
    """A named instant, such as ED."""

    index: int
    label: str


class VolumeCurve:
    """Left-ventricular volume over a clip, with marks."""

    def __init__(
        self,
        box: Box,
        readings: Sequence[Reading],
        places: Sequence[float],
        unit: str,
        marks: Iterable[Mark],
    ) -> None:
        """Lay the curve out in a box.

        Args:
            box: where to draw.
            readings: one per frame.
            places: where each frame stands on the horizontal axis, rising.
            unit: of the places, empty where they are numbers of frames.
            marks: instants to name.
        """
        self._box = box
        self._volumes, self.title = _volumes(readings)
        self._is_sound = np.array([reading.quality.state != "fail" for reading in readings])
        self._marks = [mark for mark in marks if math.isfinite(self._volumes[mark.index])]
        self._levels = _levels(self._volumes)
        self._unit = unit
        self._first, self._span = places[0], places[-1] - places[0] or 1.0
        self._xs = self._x(np.asarray(places, np.float64))
        self._ys = self._y(self._volumes)

    def draw(self, pen: Pen) -> None:
        """Draw what does not change: axes, the whole curve dimly, the marks."""
        box = self._box
        if not self._levels:
            middle = (box.x + box.width / 2, box.y + box.height / 2)
            pen.text("No left ventricle is seen in any frame", *middle, 15, SOFT, "centre")
            return
        pen.text(self.title, box.x + _MARGIN_LEFT, box.y + 24, _LABEL_PX, SOFT)
        self._draw_axes(pen)
        self._draw_line(pen, len(self._xs), AHEAD, 2)
        for mark in self._marks:
            self._draw_mark(pen, mark)

    def play(self, pen: Pen, index: int) -> None:
        """Draw how far the film has come."""
        if not self._levels:
            return
        x, bottom = float(self._xs[index]), float(self._y(np.array(self._levels[0])))
        pen.line(np.array([[x, self._box.y + _MARGIN_TOP - 8], [x, bottom]]), SOFT)
        self._draw_line(pen, index + 1, STRUCTURE_COLOURS["lv"], 3)
        if math.isfinite(self._volumes[index]):
            pen.dot(x, float(self._ys[index]), 5.5, TEXT)
            if self._is_sound[index]:
                pen.dot(x, float(self._ys[index]), 3.5, STRUCTURE_COLOURS["lv"])

    def _x(self, places: NDArray[np.float64]) -> NDArray[np.float64]:
        width = self._box.width - _MARGIN_LEFT - _MARGIN_RIGHT
        share = (places - self._first) / self._span
        return np.asarray(self._box.x + _MARGIN_LEFT + width * share)

    def _y(self, volumes: NDArray[np.float64]) -> NDArray[np.float64]:
        if not self._levels:
            return np.full_like(volumes, np.nan)
        low, high = self._levels[0], self._levels[-1]
        height = self._box.height - _MARGIN_TOP - _MARGIN_BOTTOM
        return np.asarray(self._box.y + _MARGIN_TOP + height * (high - volumes) / (high - low))

    def _draw_axes(self, pen: Pen) -> None:
        left, right = self._box.x + _MARGIN_LEFT, self._box.x + self._box.width - _MARGIN_RIGHT
        bottom = self._box.y + self._box.height
        for level in self._levels:
            y = round(float(self._y(np.array(level))))
            pen.box(left, y, right - left, 1, GRID)
            pen.text(f"{level:g}", left - 8, y + 5, _LABEL_PX, SOFT, "right")
        for place in _ticks(self._first, self._first + self._span, most=8):
            if not (self._unit or place.is_integer()):
                continue
            x = float(self._x(np.array(place)))
            pen.text(f"{place:g}{self._unit}", x, bottom - 8, _LABEL_PX, SOFT, "centre")

    def _draw_line(self, pen: Pen, until: int, colour: Colour, thickness: int) -> None:
        """Connect neighbours that were both measured; frames that failed stay single dots."""
        is_known = np.isfinite(self._volumes[:until])
        is_joined = is_known & self._is_sound[:until]
        for run in _runs(is_joined):
            pen.line(np.column_stack([self._xs[run], self._ys[run]]), colour, thickness)
        for index in np.flatnonzero(is_known & ~is_joined):
            pen.dot(float(self._xs[index]), float(self._ys[index]), 1.5, SOFT)

    def _draw_mark(self, pen: Pen, mark: Mark) -> None:
        x, y = float(self._xs[mark.index]), float(self._ys[mark.index])
        bottom = float(self._y(np.array(self._levels[0])))
        pen.dashes(np.array([[x, y], [x, bottom]]), SOFT)
        pen.dot(x, y, 4.0, TEXT)
        has_room_below = bottom - y > 2 * _ROOM_FOR_MARK
        is_below = mark.label == "ES" and has_room_below
        pen.text(mark.label, x, y + (20 if is_below else -10), _LABEL_PX, TEXT, "centre", True)


def _volumes(readings: Sequence[Reading]) -> tuple[NDArray[np.float64], str]:
    """Give millilitres where every ventricle has them, else percent of the largest ventricle."""
    ventricles = [reading.lv for reading in readings]
    seen = [lv for lv in ventricles if lv is not None]
    volumes_ml = [lv.volume_ml for lv in seen if lv.volume_ml is not None]
    if seen and len(volumes_ml) == len(seen):
        found = [math.nan if lv is None else lv.volume_ml or 0.0 for lv in ventricles]
        return np.array(found), "Volume of the left ventricle, ml"
    largest = max((lv.volume_index for lv in seen), default=1.0)
    found = [math.nan if lv is None else 100 * lv.volume_index / largest for lv in ventricles]
    return np.array(found), "Volume of the left ventricle, % of the largest"


def _levels(volumes: NDArray[np.float64]) -> list[float]:
    """Choose round levels about the curve; none where there is no curve."""
    known = volumes[np.isfinite(volumes)]
    if not known.size:
        return []
    low, high = float(known.min()), float(known.max())
    room = max(high - low, 0.1 * high, 1.0)
    return _ticks(max(0.0, low - 0.25 * room), high + 0.15 * room, most=4, is_outside=True)


def _ticks(low: float, high: float, most: int, is_outside: bool = False) -> list[float]:
    """Choose round numbers in a range, or around it, and at most ``most`` steps between them."""
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(each * power for each in (1, 2, 2.5, 5, 10) if each * power >= raw * (1 - 1e-9))
    first, last = (math.floor, math.ceil) if is_outside else (math.ceil, math.floor)
    numbers = range(first(low / step), last(high / step) + 1)
    return [round(number * step, 9) for number in numbers]


def _runs(is_set: NDArray[np.bool_]) -> list[slice]:
    """Find the stretches of neighbours that are set."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], is_set, [False]]).astype(np.int8)))
    return [slice(int(a), int(b)) for a, b in edges.reshape(-1, 2)]
