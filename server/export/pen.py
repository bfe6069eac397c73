"""Smooth lines and legible text on a canvas."""

from collections.abc import Iterable, Iterator
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]
Anchor = Literal["left", "centre", "right"]
Canvas = NDArray[np.uint8]

PAGE: Colour = (13, 17, 23)
PANEL: Colour = (22, 28, 36)
GRID: Colour = (44, 54, 66)
TEXT: Colour = (236, 241, 246)
SOFT: Colour = (150, 163, 179)
NOTICE: Colour = (240, 228, 66)

STRUCTURE_COLOURS: dict[str, Colour] = {
    "atrium": (204, 121, 167),
    "myocardium": (230, 159, 0),
    "lv": (86, 180, 233),
}
"""In the order of drawing; RGB.

Source:
    Okabe and Ito 2008, Color Universal Design: every kind of colour vision tells them apart.
"""

_FRACTION_BITS = 4
_REGULAR, _BOLD = 400, 600


class Pen:
    """Draws on one canvas (RGB, rows by columns by 3); positions are (x, y) in canvas pixels."""

    def __init__(self, canvas: Canvas) -> None:
        self.canvas = canvas
        self._face = cv2.FontFace("sans")

    def box(self, x: int, y: int, width: int, height: int, colour: Colour) -> None:
        """Fill a rectangle."""
        self.canvas[y : y + height, x : x + width] = colour

    def text(
        self,
        words: str,
        x: float,
        y: float,
        size: int,
        colour: Colour = TEXT,
        anchor: Anchor = "left",
        is_bold: bool = False,
    ) -> int:
        """Write one line on the base line y.

        Returns:
            Its width in pixels.
        """
        width = self.width(words, size, is_bold)
        start = x - {"left": 0.0, "centre": width / 2, "right": width}[anchor]
        weight = _BOLD if is_bold else _REGULAR
        place = (round(start), round(y))
        cv2.putText(self.canvas, words, place, colour, self._face, size, weight)
        return width

    def width(self, words: str, size: int, is_bold: bool = False) -> int:
        """How wide one line comes out, in pixels."""
        weight = _BOLD if is_bold else _REGULAR
        box = cv2.getTextSize((0, 0), words, (0, 0), self._face, size, weight)
        return int(box[2])

    def wrap(self, words: str, size: int, width: float) -> list[str]:
        """Break a text into lines that fit a width."""
        lines: list[str] = []
        for word in words.split():
            longer = f"{lines[-1]} {word}" if lines else word
            if lines and self.width(longer, size) <= width:
                lines[-1] = longer
            else:
                lines.append(word)
        return lines

    def line(self, points_P2: NDArray[np.float64], colour: Colour, thickness: int = 1) -> None:
        """Draw a smooth line through (x, y) points."""
        self._lines([points_P2], colour, thickness)

    def dashes(self, points_P2: NDArray[np.float64], colour: Colour, thickness: int = 1) -> None:
        """Draw a smooth dashed line through (x, y) points."""
        self._lines(dashed(points_P2, dash=7.0, gap=5.0), colour, thickness)

    def dot(self, x: float, y: float, radius: float, colour: Colour) -> None:
        """Draw a filled disk."""
        centre = (_fixed(x), _fixed(y))
        cv2.circle(self.canvas, centre, _fixed(radius), colour, -1, cv2.LINE_AA, _FRACTION_BITS)

    def tint(self, polygons: Iterable[NDArray[np.float64]], colour: Colour, share: float) -> None:
        """Blend a colour into the inside of closed (x, y) polygons; holes stay clear."""
        corners = [_to_fixed(points_P2) for points_P2 in polygons]
        if not corners:
            return
        inside_HW = np.zeros(self.canvas.shape[:2], np.uint8)
        cv2.fillPoly(inside_HW, corners, 255, cv2.LINE_AA, _FRACTION_BITS)
        x, y, width, height = cv2.boundingRect(inside_HW)
        part = self.canvas[y : y + height, x : x + width]
        share_HW1 = inside_HW[y : y + height, x : x + width, None] * np.float32(share / 255)
        part[:] = part + share_HW1 * (np.array(colour, np.float32) - part) + np.float32(0.5)

    def _lines(self, lines: Iterable[NDArray[np.float64]], colour: Colour, thickness: int) -> None:
        corners = [_to_fixed(points_P2) for points_P2 in lines]
        cv2.polylines(self.canvas, corners, False, colour, thickness, cv2.LINE_AA, _FRACTION_BITS)


def dashed(
    points_P2: NDArray[np.float64], dash: float, gap: float
) -> Iterator[NDArray[np.float64]]:
    """Cut a line into dashes of equal length along its course."""
    steps = np.hypot(*np.diff(points_P2, axis=0).T)
    along_P = np.concatenate([[0.0], np.cumsum(steps)])
    for start in np.arange(0.0, along_P[-1], dash + gap):
        stop = min(start + dash, along_P[-1])
        inner = along_P[(along_P > start) & (along_P < stop)]
        at = np.concatenate([[start], inner, [stop]])
        yield np.column_stack([np.interp(at, along_P, points_P2[:, axis]) for axis in (0, 1)])


def _fixed(value: float) -> int:
    return round(value * (1 << _FRACTION_BITS))


def _to_fixed(points_P2: NDArray[np.float64]) -> NDArray[np.int32]:
    """Round points to the fractions of a pixel that OpenCV draws with."""
    return np.round(points_P2 * (1 << _FRACTION_BITS)).astype(np.int32)
