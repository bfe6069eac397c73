"""The report of one clip as a page that stands alone: prints well, asks nothing of a server."""

import base64
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from model import Beat, Frame, counted
from server.export.film import starts_s
from server.export.objects import NOTICE
from server.export.overlay import Findings
from server.export.pen import STRUCTURE_COLOURS, Canvas, Pen
from server.export.plot import Curve, Event, draw_curve
from server.export.scale import Scale
from server.export.structured import chosen_beat, why_uncounted
from server.export.words import (
    FIGURES,
    RANGES,
    UNITS,
    ef_headline,
    ef_lines,
    reason_in_words,
    whole,
)
from server.ingest import WARNINGS
from server.ingest.dataset import PRODUCT

_STYLE = (Path(__file__).parent / "summary.css").read_text(encoding="utf-8")
_STILL_PX = 560
_QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 88]
_NAMES = {"lv": "ventricle", "myocardium": "wall", "atrium": "atrium"}
_STATES = {"pass": "measured", "warn": "measured, with care", "fail": "not measured"}
_METHODS = {
    "single_beat": "one beat",
    "median_of_beats": "median of the beats that count",
    "mean_of_beats": "mean of the beats that count",
    "index_beats": "mean of the beats that follow two of equal length",
    "biplane": "biplane method of disks",
}


@dataclass(frozen=True, slots=True)
class About:
    """What the page says of the clip and of this program beside the findings.

    Attributes:
        document: the clip result.
        software: version of this program.
        made: when the page was made, in words; empty where nobody must know.
        clip_uid: SOPInstanceUID, or its pseudonym; None where the clip has none.
    """

    document: Mapping[str, Any]
    software: str
    made: str
    clip_uid: str | None


def write_summary(path: Path, frames: Iterable[Frame], findings: Findings, about: About) -> None:
    """Write ``report.html``.

    Args:
        path: where to write.
        frames: the clip's frames once more; two of them are shown.
        findings: what was found in them.
        about: what else the page says.
    """
    page = _Page(findings, about)
    body = page.body(stills(frames, findings))
    title = f"{PRODUCT}: report of one clip"
    path.write_text(
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title>\n<style>\n{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n",
        encoding="utf-8",
    )


def stills(frames: Iterable[Frame], findings: Findings) -> dict[int, bytes]:
    """Draw the frames that stand for a clip, as JPEG, by their place in it.

    These are both ends of systole, or the first frame with a ventricle, or the first frame.
    """
    places = _places(findings)
    drawn: dict[int, bytes] = {}
    for index, frame in enumerate(frames):
        if index in places:
            drawn[index] = _still(frame, findings, index)
        if index >= max(places):
            break
    return drawn


def _places(findings: Findings) -> list[int]:
    beat = chosen_beat(findings)
    index_of = {frame.seq: index for index, frame in enumerate(findings.frames)}
    if beat is not None:
        return [index_of[seq] for seq in (beat.ed_seq, beat.es_seq) if seq in index_of]
    seen = (i for i, frame in enumerate(findings.frames) if frame.reading.lv is not None)
    return [next(seen, 0)]


def _still(frame: Frame, findings: Findings, index: int) -> bytes:
    rows, columns = frame.pixels_HW.shape
    scale = Scale.of((rows, columns), findings.spacing_mm, _STILL_PX, _STILL_PX)
    canvas: Canvas = np.repeat(scale.picture(frame.pixels_HW)[..., None], 3, axis=2)
    pen = Pen(canvas)
    for name, colour in STRUCTURE_COLOURS.items():
        for line_P2 in findings.frames[index].reading.contours.get(name, ()):
            pen.line(scale.points(line_P2), colour, 2)
    return cv2.imencode(".jpg", np.ascontiguousarray(canvas[..., ::-1]), _QUALITY)[1].tobytes()


class _Page:
    """Writes the parts of one page."""

    def __init__(self, findings: Findings, about: About) -> None:
        self._findings = findings
        self._about = about
        times_s = starts_s([frame.time_us for frame in findings.frames])
        self._has_times = times_s is not None
        self._places = times_s or [float(i + 1) for i in range(len(findings.frames))]

    def body(self, pictures: Mapping[int, bytes]) -> str:
        """All that is seen."""
        return "\n".join(
            [
                f'<header><h1>{PRODUCT}</h1><p class="notice">{escape(NOTICE)}</p></header>',
                "<main>",
                self._answer(),
                self._figures(pictures),
                self._curves(),
                self._beats(),
                self._others(),
                self._edits(),
                self._quality(),
                self._clip(),
                self._method(),
                "</main>",
                f"<footer>{self._footer()}</footer>",
            ]
        )

    def _answer(self) -> str:
        ef = self._findings.ef
        lines = "".join(f"<p>{escape(line)}</p>" for line in ef_lines(ef))
        return (
            f'<section class="answer {escape(ef.state)}">'
            "<h2>Left-ventricular ejection fraction</h2>"
            f'<p class="figure">{escape(ef_headline(ef))}</p><div>{lines}</div></section>'
        )

    def _figures(self, pictures: Mapping[int, bytes]) -> str:
        beat = chosen_beat(self._findings)
        names = {} if beat is None else {beat.ed_seq: "End diastole", beat.es_seq: "End systole"}
        shown = []
        for index in sorted(pictures, key=_places(self._findings).index):
            jpeg = pictures[index]
            seq = self._findings.frames[index].seq
            when = f", {self._places[index]:.2f} s" if self._has_times else ""
            caption = f"{names.get(seq, 'Frame')}: frame {index + 1}{when}"
            source = base64.b64encode(jpeg).decode("ascii")
            shown.append(
                f'<figure><img src="data:image/jpeg;base64,{source}" alt="{escape(caption)}">'
                f"<figcaption>{escape(caption)}</figcaption></figure>"
            )
        key = "".join(
            f'<li><span class="{name}"></span>{words}</li>' for name, words in _NAMES.items()
        )
        return f'<section class="stills">{"".join(shown)}<ul class="key">{key}</ul></section>'

    def _curves(self) -> str:
        ventricles = [frame.reading.lv for frame in self._findings.frames]
        seen = [lv for lv in ventricles if lv is not None]
        if not seen:
            return (
                "<section><h2>Curves</h2><p>No left ventricle is seen in any frame.</p></section>"
            )
        largest = max(lv.volume_index for lv in seen)
        has_ml = all(lv.volume_ml is not None for lv in seen)
        volumes = [
            None if lv is None else lv.volume_ml if has_ml else 100 * lv.volume_index / largest
            for lv in ventricles
        ]
        areas = [
            None if lv is None else lv.area_px if lv.area_cm2 is None else lv.area_cm2
            for lv in ventricles
        ]
        volume_unit = "ml" if has_ml else "% of the largest"
        area_unit = "px" if seen[0].area_cm2 is None else "cm²"
        return (
            "<section><h2>Curves</h2>"
            + self._curve(f"Volume of the left ventricle, {volume_unit}", volumes)
            + self._curve(f"Area of the left ventricle, {area_unit}", areas)
            + '<p class="small">Grey dots are frames that did not pass the quality gates.</p>'
            "</section>"
        )

    def _curve(self, title: str, values: Sequence[float | None]) -> str:
        index_of = {frame.seq: index for index, frame in enumerate(self._findings.frames)}
        marks = {
            (index_of[seq], label)
            for beat in self._findings.beats
            for seq, label in ((beat.ed_seq, "ED"), (beat.es_seq, "ES"))
            if seq in index_of
        }
        curve = Curve(
            title=title,
            values=values,
            is_sound=[frame.reading.quality.state != "fail" for frame in self._findings.frames],
            places=self._places,
            axis="time, s" if self._has_times else "frame",
            events=[Event(*mark) for mark in sorted(marks)],
        )
        return f"<h3>{escape(title)}</h3><div class='wide'>{draw_curve(curve)}</div>"

    def _beats(self) -> str:
        if not self._findings.beats:
            return ""
        has_ml = any(beat.ed_volume_ml is not None for beat in self._findings.beats)
        volumes = ("EDV, ml", "ESV, ml") if has_ml else ()
        heads = ("Beat", "ED frame", "ES frame", *volumes, "EF, %", "Quality")
        rows = [self._beat(beat, has_ml=has_ml) for beat in self._findings.beats]
        return f"<section><h2>Beats</h2>{_table(heads, rows)}</section>"

    def _beat(self, beat: Beat, *, has_ml: bool) -> list[str]:
        index_of = {frame.seq: index + 1 for index, frame in enumerate(self._findings.frames)}
        volumes = (beat.ed_volume_ml, beat.es_volume_ml) if has_ml else ()
        return [
            str(beat.number + 1),
            str(index_of.get(beat.ed_seq, "-")),
            str(index_of.get(beat.es_seq, "-")),
            *map(_rounded, volumes),
            f"{beat.ef_percent:.1f}",
            self._worth(beat),
        ]

    def _worth(self, beat: Beat) -> str:
        """Whether a beat counts, and why not."""
        part = "" if beat.is_complete else "half a beat; "
        if reasons := why_uncounted(beat, self._findings.ef):
            return f"{part}does not count: {'; '.join(map(reason_in_words, reasons))}"
        sound = [other for other in self._findings.beats if not other.reasons]
        if not beat.is_complete and any(other.is_complete for other in sound):
            return f"{part}whole ones count"
        if any(o.ed_seq == beat.ed_seq and o.ef_percent > beat.ef_percent for o in sound):
            return f"{part}the other half, which empties further, counts"
        return f"{part}counts"

    def _others(self) -> str:
        """Figures beside the EF, each with its method or the reason why it is missing."""
        figures = self._about.document["figures"]
        known = [each for each in figures if each["value"] is not None]
        missing: dict[str, list[str]] = {}
        for each in figures:
            if each["value"] is None:
                missing.setdefault(each["reason"], []).append(FIGURES[each["name"]].lower())
        rows = [
            [
                FIGURES[each["name"]],
                f"{each['value']:.3g} {UNITS.get(each['unit'], each['unit'])}",
                each["method"].replace("_", " "),
                str(each["beats"]),
            ]
            for each in known
        ]
        table = _table(("Figure", "Value", "Method", "Beats"), rows) if rows else ""
        notes = [
            f"Not given, since {reason_in_words(code)}: {', '.join(names)}."
            for code, names in missing.items()
        ]
        if self._findings.ef.percent is not None:
            notes.append(self._normal())
        said = "".join(f'<p class="small">{escape(note)}</p>' for note in notes)
        return f"<section><h2>Other figures</h2>{table}{said}</section>"

    def _normal(self) -> str:
        """What is normal, as context."""
        normal = self._about.document["normal_ranges"]
        has_ml = self._findings.ef.edv_ml is not None
        said = []
        for each in normal["ranges"]:
            words = RANGES.get(each["name"])
            if words and (has_ml or each["unit"] == "%"):
                (men, women), unit = (each["men"], each["women"]), each["unit"]
                said.append(
                    f"{words} {men[0]:g} to {men[1]:g} {unit} in men, "
                    f"{women[0]:g} to {women[1]:g} {unit} in women"
                )
        return f"Normal for comparison: {'; '.join(said)} ({normal['source']}). {normal['note']}"

    def _edits(self) -> str:
        edits = self._findings.edits
        if not edits:
            return ""
        heads = ("Correction", "Frame", "When", "Who", "Drawn", "Area, px", "EF, %")
        rows = [
            [
                str(edit.revision),
                str(edit.frame + 1),
                edit.time.replace("T", " ").replace("+00:00", " UTC") or "-",
                edit.who or "-",
                ", ".join(_NAMES[name] for name in edit.after.contours or ()) or "undone",
                _change(edit.before.lv_area_px, edit.after.lv_area_px),
                _change(edit.before.ef_percent, edit.after.ef_percent),
            ]
            for edit in edits
        ]
        return f"<section><h2>Corrections by hand</h2>{_table(heads, rows)}</section>"

    def _quality(self) -> str:
        frames = self._findings.frames
        states: Counter[str] = Counter(frame.reading.quality.state for frame in frames)
        reasons = Counter(code for frame in frames for code in frame.reading.quality.reasons)
        counts = [f"{states[state]} {words}" for state, words in _STATES.items() if states[state]]
        rows = [[reason_in_words(code), str(count)] for code, count in reasons.most_common()]
        table = _table(("What was seen", "Frames"), rows) if rows else ""
        said = f"Of {counted(len(frames), 'frame')}: {escape(', '.join(counts))}."
        return f"<section><h2>Quality</h2><p>{said}</p>{table}</section>"

    def _clip(self) -> str:
        clip = self._about.document["clip"]
        rows, columns = clip["size"]
        spacing = clip["spacing_mm"]
        base = clip["time_base"]
        duration_ms = base["duration_ms"]
        seconds = "unknown" if duration_ms is None else f"{duration_ms / 1000:.2f} s"
        facts = [
            ("View", clip["view"] or "not told"),
            ("Frames", f"{clip['frames']} of {columns} x {rows} pixels"),
            ("Duration", f"{seconds} ({base['source']})" if base["source"] else seconds),
            (
                "Size of a pixel",
                f"{spacing[0]:.4g} x {spacing[1]:.4g} mm (row x column)" if spacing else "unknown",
            ),
        ]
        if self._about.clip_uid:
            facts.append(("Clip (SOP Instance UID)", self._about.clip_uid))
        facts += [("Mind", WARNINGS.get(code, code)) for code in clip["warnings"]]
        return f"<section><h2>Clip</h2>{_facts(facts)}</section>"

    def _method(self) -> str:
        model, ef = self._about.document["model"], self._findings.ef
        facts = [
            ("Volumes", "single-plane method of disks, 20 disks, on outlines finer than a pixel"),
            ("Ejection fraction", _METHODS.get(ef.method, "none is given")),
            ("Interval", "central 90 %"),
            ("Network", f"{model['name']} {model['version']}"),
            ("Weights (SHA-256)", model["sha256"]),
            ("Arithmetic", model.get("precision") or "unknown"),
            ("Software", f"{PRODUCT} {self._about.software}"),
        ]
        return f"<section><h2>Method</h2>{_facts(facts)}</section>"

    def _footer(self) -> str:
        made = f" Made {escape(self._about.made)}." if self._about.made else ""
        # What is written in the pictures themselves stays, unless the fan alone is shown.
        return f"<p>{escape(NOTICE)}{made}</p>"


def _rounded(value: float | None) -> str:
    return "-" if value is None else whole(value)


def _change(before: float | None, after: float | None) -> str:
    return f"{_rounded(before)} → {_rounded(after)}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(each)}</th>' for each in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="wide">{table}</div>'


def _facts(facts: Sequence[tuple[str, str]]) -> str:
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(words)}</dd>" for name, words in facts)
    return f"<dl>{rows}</dl>"
