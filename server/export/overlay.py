"""The overlay video of a clip: frames with outlines, the volume curve, the EF or why not."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model import Beat, EjectionFraction, Frame, Reading
from server.edits import Edit
from server.export.curve import Box, Mark, VolumeCurve
from server.export.film import NOMINAL_FPS, open_film, starts_s
from server.export.pen import NOTICE, PAGE, PANEL, SOFT, STRUCTURE_COLOURS, TEXT, Canvas, Pen
from server.export.scale import Scale
from server.export.words import ef_headline, ef_lines, quality_in_words

RESEARCH_ONLY = "Research use only"

BAR_PX, STRIP_PX, PANEL_PX = 44, 40, 204
"""Heights of the title above the image, of the figures below it and of the panel below those."""

FIGURES_PX = 268
"""Width of the panel's left part, which holds the EF."""

LEAST_WIDTH_PX = 720
LEAST_SIDE_PX, MOST_SIDE_PX = 640, 1200
"""The image's longer side is scaled into this range."""

_LV_TINT = 0.14
_LINE_PX = 2
_MARGIN = 18


@dataclass(frozen=True, slots=True)
class MeasuredFrame:
    """What is known of one frame of a clip."""

    seq: int
    time_us: int | None
    reading: Reading


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found in a clip; the overlay tells all of it.

    Attributes:
        frames: one per frame, in order.
        beats: every beat in its last revision.
        ef: of the whole clip.
        view: such as "A4C", None where unknown.
        edits: every correction of an outline, in order.
        spacing_mm: row and column spacing, None where unknown.
    """

    frames: Sequence[MeasuredFrame]
    beats: Sequence[Beat]
    ef: EjectionFraction
    view: str | None = None
    edits: Sequence[Edit] = ()
    spacing_mm: tuple[float, float] | None = None

    @property
    def revision(self) -> int:
        """How often outlines were corrected."""
        return self.edits[-1].revision if self.edits else 0

    def anonymous(self) -> "Findings":
        """The same without who corrected outlines, and when."""
        return replace(self, edits=[edit.anonymous() for edit in self.edits])


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things are on the canvas, in pixels; width and height are even.

    Attributes:
        scale: from source pixels to those of the image.
        image: where the frame is.
    """

    width: int
    height: int
    scale: Scale
    image: Box

    @classmethod
    def of(cls, rows: int, columns: int, spacing_mm: tuple[float, float] | None = None) -> "Layout":
        """Fit a source image of this size, whose pixels have this one."""
        scale = Scale.of((rows, columns), spacing_mm, LEAST_SIDE_PX, MOST_SIDE_PX)
        width = max(LEAST_WIDTH_PX, scale.width + scale.width % 2)
        height = BAR_PX + scale.height + STRIP_PX + PANEL_PX
        image = Box((width - scale.width) // 2, BAR_PX, scale.width, scale.height)
        return cls(width, height + height % 2, scale, image)

    def to_canvas(self, points_P2: NDArray[np.float32]) -> NDArray[np.float64]:
        """Map (row, column) source points to (x, y); pixel centres are whole numbers in both."""
        return self.scale.points(points_P2) + np.array([self.image.x, self.image.y])


def write_overlay(path: Path, frames: Iterable[Frame], findings: Findings) -> None:
    """Write an H.264 MP4 that a browser plays, frame by frame, with bounded memory.

    Args:
        path: where to write; its folder exists.
        frames: the clip's frames once more, as many as ``findings.frames`` and in that order.
        findings: what was found in them.
    """
    drawn = pictures(frames, findings)
    first = next(drawn)
    rows, columns = first[0].shape[:2]
    with open_film(path, columns, rows) as film:
        for picture in chain([first], drawn):
            film.add(*picture)


def pictures(frames: Iterable[Frame], findings: Findings) -> Iterator[tuple[Canvas, float, float]]:
    """Draw the overlay picture by picture.

    Args:
        frames: as for `write_overlay`.
        findings: what was found in them.

    Yields:
        A picture (RGB), and its start and duration in seconds.
    """
    sheet: _Sheet | None = None
    for index, frame in enumerate(frames):
        sheet = sheet or _Sheet.of(frame, findings)
        yield sheet.picture(index, frame), *sheet.timing(index)


def picture_at(frames: Iterable[Frame], findings: Findings, index: int) -> Canvas:
    """Draw one picture of the overlay.

    Args:
        frames: as for `write_overlay`.
        findings: what was found in them.
        index: its place in the clip.
    """
    frame = next(islice(frames, index, None))
    return _Sheet.of(frame, findings).picture(index, frame)


class _Sheet:
    """Draws the pictures of one film over a page that is drawn once."""

    def __init__(self, layout: Layout, findings: Findings) -> None:
        self.layout = layout
        self._findings = findings
        times_s = starts_s([each.time_us for each in findings.frames])
        count = len(findings.frames)
        self._has_times = times_s is not None
        self._times_s = times_s or [index / NOMINAL_FPS for index in range(count)]
        self._marks = _marks(findings)
        panel = Box(FIGURES_PX, layout.height - PANEL_PX, layout.width - FIGURES_PX, PANEL_PX)
        readings = [each.reading for each in findings.frames]
        places, unit = (times_s, " s") if times_s else (range(1, count + 1), "")
        self._curve = VolumeCurve(panel, readings, places, unit, self._marks)
        self._page = self._blank_page()

    @classmethod
    def of(cls, frame: Frame, findings: Findings) -> "_Sheet":
        """Begin with a page for frames of this size."""
        rows, columns = frame.pixels_HW.shape
        return cls(Layout.of(rows, columns, findings.spacing_mm), findings)

    def timing(self, index: int) -> tuple[float, float]:
        """Start and duration of a picture in seconds; the last lasts as long as the one before."""
        last = len(self._times_s) - 1
        if last == 0:
            return 0.0, 1.0
        earlier = min(index, last - 1)
        return self._times_s[index], self._times_s[earlier + 1] - self._times_s[earlier]

    def picture(self, index: int, frame: Frame) -> Canvas:
        """Draw one frame."""
        pen = Pen(self._page.copy())
        self._draw_image(pen, frame)
        self._draw_outlines(pen, self._findings.frames[index].reading)
        self._draw_strip(pen, index)
        self._curve.play(pen, index)
        return pen.canvas

    def _blank_page(self) -> Canvas:
        width, height = self.layout.width, self.layout.height
        pen = Pen(np.empty((height, width, 3), np.uint8))
        pen.box(0, 0, width, height, PAGE)
        pen.box(0, height - PANEL_PX, width, PANEL_PX, PANEL)
        view = self._findings.view
        pen.text("GDKVM Live" + (f"  ·  {view}" if view else ""), _MARGIN, 29, 17, is_bold=True)
        pen.text(RESEARCH_ONLY, width - _MARGIN, 28, 15, NOTICE, "right")
        _draw_legend(pen, width / 2, 28)
        self._draw_ef(pen)
        self._curve.draw(pen)
        return pen.canvas

    def _draw_ef(self, pen: Pen) -> None:
        ef, top = self._findings.ef, self.layout.height - PANEL_PX
        pen.text("Ejection fraction", _MARGIN, top + 24, 13, SOFT)
        size = 46 if ef.state == "measured" else 32
        pen.text(ef_headline(ef), _MARGIN, top + 74, size, is_bold=True)
        notes = list(ef_lines(ef))
        if not self._has_times:
            notes.append(f"Frame rate unknown, shown at {NOMINAL_FPS} per second.")
        lines = [line for note in notes for line in pen.wrap(note, 14, FIGURES_PX - 2 * _MARGIN)]
        for number, line in enumerate(lines[:6]):
            pen.text(line, _MARGIN, top + 102 + 19 * number, 14, TEXT)

    def _draw_image(self, pen: Pen, frame: Frame) -> None:
        box, scaled_HW = self.layout.image, self.layout.scale.picture(frame.pixels_HW)
        pen.canvas[box.y : box.y + box.height, box.x : box.x + box.width] = scaled_HW[..., None]

    def _draw_outlines(self, pen: Pen, reading: Reading) -> None:
        for name, colour in STRUCTURE_COLOURS.items():
            lines = [self.layout.to_canvas(line_P2) for line_P2 in reading.contours.get(name, ())]
            if name == "lv":
                pen.tint(lines, colour, _LV_TINT)
            draw = pen.dashes if name == "atrium" else pen.line
            for line_P2 in lines:
                draw(line_P2, colour, _LINE_PX)

    def _draw_strip(self, pen: Pen, index: int) -> None:
        """Say which instant this is, how large the ventricle is and whether to trust it."""
        y = self.layout.height - PANEL_PX - STRIP_PX + 26
        when = f"{self._times_s[index]:.2f} s  ·  " if self._has_times else ""
        x = _MARGIN + pen.text(f"{when}frame {index + 1} of {len(self._times_s)}", _MARGIN, y, 15)
        for label in {mark.label for mark in self._marks if mark.index == index}:
            x = _draw_badge(pen, label, x + 14, y)
        self._draw_figures(pen, self._findings.frames[index].reading, x + 24, y)

    def _draw_figures(self, pen: Pen, reading: Reading, left: float, y: float) -> None:
        right = self.layout.width - _MARGIN
        remark = quality_in_words(reading.quality.state, reading.quality.reasons[:1])
        if reading.quality.state != "fail":
            width = pen.text(_size_in_words(reading), right, y, 15, TEXT, "right")
            right -= width + 24
        if pen.width(remark, 15) <= right - left:
            pen.text(remark, right, y, 15, NOTICE, "right")


def _draw_legend(pen: Pen, centre: float, y: float) -> None:
    """Name the outlines by colour and kind of line."""
    names = {"lv": "ventricle", "myocardium": "wall", "atrium": "atrium"}
    widths = {name: 26 + 8 + pen.width(words, 14) for name, words in names.items()}
    x = centre - (sum(widths.values()) + 2 * 20) / 2
    for name, words in names.items():
        draw = pen.dashes if name == "atrium" else pen.line
        draw(np.array([[x, y - 5.0], [x + 26, y - 5.0]]), STRUCTURE_COLOURS[name], _LINE_PX)
        pen.text(words, x + 34, y, 14, SOFT)
        x += widths[name] + 20


def _draw_badge(pen: Pen, label: str, x: int, y: int) -> int:
    """Write a label on a bright ground; returns where it ends."""
    width = pen.width(label, 15, is_bold=True) + 16
    pen.box(x, y - 18, width, 25, TEXT)
    pen.text(label, x + 8, y, 15, PAGE, is_bold=True)
    return x + width


def _size_in_words(reading: Reading) -> str:
    lv = reading.lv
    if lv is None:
        return ""
    if lv.volume_ml is None or lv.area_cm2 is None or lv.length_cm is None:
        return f"area {lv.area_px:.0f} px"
    return f"{lv.volume_ml:.0f} ml  ·  {lv.area_cm2:.1f} cm²  ·  {lv.length_cm:.1f} cm"


def _marks(findings: Findings) -> list[Mark]:
    """Give ED and ES of every beat as places in the film."""
    places = {each.seq: index for index, each in enumerate(findings.frames)}
    return [
        Mark(places[seq], label)
        for beat in findings.beats
        for seq, label in ((beat.ed_seq, "ED"), (beat.es_seq, "ES"))
        if seq in places
    ]
