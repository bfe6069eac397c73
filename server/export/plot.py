"""Curves drawn as SVG, for pages that must stand alone."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

WIDTH, HEIGHT = 760, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 16, 34
_MOST_X, _MOST_Y = 8, 5


@dataclass(frozen=True, slots=True)
class Event:
    """A named instant on a curve."""

    index: int
    label: str


@dataclass(frozen=True, slots=True)
class Curve:
    """Values over a clip.

    Attributes:
        title: what is drawn, with its unit.
        values: one per frame, None where unknown.
        is_sound: whether each value counts; others are drawn as grey dots.
        places: where each frame stands, rising.
        axis: what the places are, with their unit.
        events: instants to name.
    """

    title: str
    values: Sequence[float | None]
    is_sound: Sequence[bool]
    places: Sequence[float]
    axis: str
    events: Sequence[Event] = ()


def draw_curve(curve: Curve) -> str:
    """Draw a curve as one ``svg`` element; empty where no value is known."""
    known = [value for value in curve.values if value is not None]
    if not known:
        return ""
    return _Drawing(curve, min(known), max(known)).svg()


def ticks(low: float, high: float, most: int) -> list[float]:
    """Choose round numbers from just below a range to just above it."""
    raw = (high - low) / most or 1.0
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(each * power for each in (1, 2, 2.5, 5, 10) if each * power >= raw * (1 - 1e-9))
    numbers = range(math.floor(low / step), math.ceil(high / step) + 1)
    return [round(number * step, 9) for number in numbers]


class _Drawing:
    """Maps a curve onto the drawing and writes its parts."""

    def __init__(self, curve: Curve, low: float, high: float) -> None:
        self._curve = curve
        room = max(high - low, 0.1 * high, 1e-9)
        self._levels = ticks(max(0.0, low - 0.1 * room), high + 0.1 * room, _MOST_Y)
        self._first = curve.places[0]
        self._span = curve.places[-1] - self._first or 1.0

    def svg(self) -> str:
        """The whole drawing."""
        title = escape(self._curve.title)
        parts = [*self._grid(), *self._lines(), *self._dots(), *self._events()]
        return (
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">'
            f"<title>{title}</title>{''.join(parts)}</svg>"
        )

    def _x(self, place: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * (place - self._first) / self._span

    def _y(self, value: float) -> float:
        low, high = self._levels[0], self._levels[-1]
        return _TOP + (HEIGHT - _TOP - _BOTTOM) * (high - value) / (high - low)

    def _grid(self) -> Iterable[str]:
        right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM
        for level in self._levels:
            y = self._y(level)
            yield f'<path class="grid" d="M{_LEFT} {y:.1f}H{right}"/>'
            yield f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{level:g}</text>'
        last = self._first + self._span
        for place in ticks(self._first, last, _MOST_X):
            if self._first <= place <= last:
                x = self._x(place)
                yield f'<path class="grid" d="M{x:.1f} {bottom}v5"/>'
                yield f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{place:g}</text>'
        axis = escape(self._curve.axis)
        yield f'<text x="{right}" y="{HEIGHT - 2}" text-anchor="end">{axis}</text>'

    def _points(self) -> list[tuple[float, float] | None]:
        """Where each frame's value lies, None where it is unknown."""
        curve = self._curve
        return [
            None if value is None else (self._x(place), self._y(value))
            for value, place in zip(curve.values, curve.places, strict=True)
        ]

    def _lines(self) -> Iterable[str]:
        """Join neighbours that both count."""
        sound = [
            point if is_sound else None
            for point, is_sound in zip(self._points(), self._curve.is_sound, strict=True)
        ]
        steps = []
        for before, point in pairwise([None, *sound]):
            if point is not None:
                steps.append(f"{'M' if before is None else 'L'}{point[0]:.1f} {point[1]:.1f}")
        if steps:
            yield f'<path class="curve" d="{"".join(steps)}"/>'

    def _dots(self) -> Iterable[str]:
        for point, is_sound in zip(self._points(), self._curve.is_sound, strict=True):
            if point is not None:
                name, radius = ("dot", 1.7) if is_sound else ("doubt", 2.2)
                x, y = point
                yield f'<circle class="{name}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"/>'

    def _events(self) -> Iterable[str]:
        points, bottom = self._points(), HEIGHT - _BOTTOM
        for event in self._curve.events:
            point = points[event.index]
            if point is None:
                continue
            x, y = point
            is_below = event.label == "ES" and bottom - y > 36
            words_y = y + 18 if is_below else max(y - 8, 11)
            yield f'<path class="event" d="M{x:.1f} {y:.1f}V{bottom}"/>'
            yield f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="3.6"/>'
            yield (
                f'<text class="name" x="{x:.1f}" y="{words_y:.1f}" text-anchor="middle">'
                f"{escape(event.label)}</text>"
            )
