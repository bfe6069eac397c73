"""Two apical views of one heart: the biplane method of disks, and how well the views agree.

Source: ef-and-measurement.md sections 1.1 and 1.7 (lengths, biplane); section 0, item 1: the disk
height belongs to one instant.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from model.errors import MeasurementError
from model.measure.beats import Beat
from model.measure.ejection import EjectionFraction
from model.measure.reading import Reading, Ventricle
from model.measure.volume import DISKS, disk_volume

LENGTHS_DIFFER_PERCENT = 10.0
"""Of the longer axis; beyond it the shorter view is likely foreshortened."""

VIEWS_DISAGREE_POINTS = 15.0

FRAMES_AROUND = 2
"""Frames on either side of an instant that its disks are averaged over."""


@dataclass(frozen=True, slots=True, eq=False)
class DiskStack:
    """The disks of one view at one instant.

    Attributes:
        length: long axis, in millimetres or, without calibration, in index units.
        diameters_20: from apex to base in the same unit.
    """

    length: float
    diameters_20: NDArray[np.float64]

    def scaled(self, factor: float) -> "DiskStack":
        """The same shape at another size."""
        return DiskStack(self.length * factor, self.diameters_20 * factor)

    @property
    def volume(self) -> float:
        """Of this plane alone, in its unit cubed."""
        return disk_volume(self.diameters_20, self.diameters_20, self.length)


@dataclass(frozen=True, slots=True, eq=False)
class ViewDisks:
    """What one view's beats leave for a biplane measurement.

    Attributes:
        is_calibrated: lengths are millimetres.
        ed: end of diastole, over the beats that the EF rests on.
        es: end of systole; with ``ed`` it has the view's EF.
    """

    is_calibrated: bool
    ed: DiskStack
    es: DiskStack

    def to_json(self) -> dict[str, Any]:
        """As in the result of a clip."""
        stacks = {
            name: {
                "length": round(stack.length, 4),
                "diameters": [round(float(each), 4) for each in stack.diameters_20],
            }
            for name, stack in (("ed", self.ed), ("es", self.es))
        }
        return {"unit": "mm" if self.is_calibrated else "px", **stacks}

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> Self:
        """Read what ``to_json`` wrote.

        Raises:
            MeasurementError: these are no disks.
        """
        try:
            is_calibrated = {"mm": True, "px": False}[written["unit"]]
            stacks = [
                DiskStack(float(each["length"]), np.array(each["diameters"], np.float64))
                for each in (written["ed"], written["es"])
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise MeasurementError("the disks of a view have another form than ours") from error
        for stack in stacks:
            sizes = np.append(stack.diameters_20, stack.length)
            if sizes.shape != (DISKS + 1,) or not (np.isfinite(sizes).all() and sizes.min() >= 0):
                raise MeasurementError(f"a view has {DISKS} disks and a length, none below 0")
            if not stack.volume > 0:
                raise MeasurementError("the disks of a view hold no volume")
        return cls(is_calibrated, *stacks)


@dataclass(frozen=True, slots=True)
class Biplane:
    """A biplane measurement, or why there is none.

    Attributes:
        ef: with method "biplane"; withheld where a view has no EF.
        ed_length_difference_percent: of the longer axis; None unless both views are calibrated.
        es_length_difference_percent: the same at the end of systole.
        ef_difference_points: A4C less A2C, None where a view has no EF.
    """

    ef: EjectionFraction
    ed_length_difference_percent: float | None
    es_length_difference_percent: float | None
    ef_difference_points: float | None


def view_disks(
    seqs: Sequence[int],
    readings: Sequence[Reading],
    beats: Sequence[Beat],
    ef: EjectionFraction,
) -> ViewDisks | None:
    """Average the disks about ED and ES over the beats that count.

    Args:
        seqs: number of each frame.
        readings: what each frame's mask says.
        beats: of the clip.
        ef: of the clip; the disks are scaled to its volumes, so that one view gives its own EF.

    Returns:
        None where there is no EF.
    """
    counted = counted_beats(beats)
    if ef.percent is None or not counted:
        return None
    place = {seq: index for index, seq in enumerate(seqs)}
    ed = _mean_stack(readings, [place[beat.ed_seq] for beat in counted])
    es = _mean_stack(readings, [place[beat.es_seq] for beat in counted])
    if ed is None or es is None:
        return None
    edv = ed.volume if ef.edv_ml is None else 1000.0 * ef.edv_ml
    esv = edv * (1 - ef.percent / 100)
    return ViewDisks(
        ef.edv_ml is not None, ed.scaled(_to_volume(ed, edv)), es.scaled(_to_volume(es, esv))
    )


def counted_beats(beats: Sequence[Beat]) -> list[Beat]:
    """The beats that stand for the heart, as in the EF.

    These are whole ones where there are any, else of two halves about one end of diastole the one
    that empties further.
    """
    counted = sorted((b for b in beats if not b.reasons), key=lambda beat: beat.ef_percent)
    whole = [beat for beat in counted if beat.is_complete]
    best = {beat.ed_seq: beat for beat in whole or counted}
    return sorted(best.values(), key=lambda beat: beat.number)


def ventricles_about(readings: Sequence[Reading], place: int) -> list[Ventricle]:
    """The measured ventricles of a few frames about one."""
    near = readings[max(place - FRAMES_AROUND, 0) : place + FRAMES_AROUND + 1]
    return [each.lv for each in near if each.lv is not None and each.quality.state != "fail"]


def _mean_stack(readings: Sequence[Reading], places: Sequence[int]) -> DiskStack | None:
    lvs = [lv for place in places for lv in ventricles_about(readings, place)]
    if not lvs:
        return None
    length = float(np.mean([lv.length_index for lv in lvs]))
    diameters = np.mean([lv.diameters_index_20 for lv in lvs], axis=0)
    return DiskStack(length, np.asarray(diameters, np.float64))


def _to_volume(stack: DiskStack, volume: float) -> float:
    return float(np.cbrt(volume / stack.volume))


def measure_biplane(
    a4c: tuple[ViewDisks | None, EjectionFraction], a2c: tuple[ViewDisks | None, EjectionFraction]
) -> Biplane:
    """Bring a four- and a two-chamber view together.

    Without calibration of both, each view is measured in lengths of its own axis at the end of
    diastole: the axis is one, so the views fit, and EF needs no more.

    The interval takes the network's errors in both views for one and the same, since nothing here
    tells how far they cancel: its half width is the mean of the views'.
    """
    disks4, ef4 = a4c
    disks2, ef2 = a2c
    if disks4 is None or disks2 is None or ef4.percent is None or ef2.percent is None:
        return Biplane(_not_biplane(ef4, ef2), None, None, None)
    is_calibrated = disks4.is_calibrated and disks2.is_calibrated
    if not is_calibrated:
        disks4, disks2 = _in_own_lengths(disks4), _in_own_lengths(disks2)
    edv, esv = _volume(disks4.ed, disks2.ed), _volume(disks4.es, disks2.es)
    ed_length, es_length = (
        _difference_percent(first.length, second.length)
        for first, second in ((disks4.ed, disks2.ed), (disks4.es, disks2.es))
    )
    difference = ef4.percent - ef2.percent
    reasons = ["no_spacing"] * (not is_calibrated)
    if is_calibrated and max(ed_length, es_length) > LENGTHS_DIFFER_PERCENT:
        reasons.append("lengths_differ")
    if abs(difference) > VIEWS_DISAGREE_POINTS:
        reasons.append("views_disagree")
    percent = 100 * (1 - esv / edv)
    half = 0.5 * (_half_width(ef4) + _half_width(ef2))
    ef = EjectionFraction(
        state="measured",
        percent=percent,
        interval=(max(percent - half, 0.0), min(percent + half, 100.0)),
        fac_percent=None,
        method="biplane",
        beats=min(ef4.beats, ef2.beats),
        heart_rate_bpm=_mean_known(ef4.heart_rate_bpm, ef2.heart_rate_bpm),
        edv_ml=edv / 1000 if is_calibrated else None,
        esv_ml=esv / 1000 if is_calibrated else None,
        reasons=tuple(dict.fromkeys([*reasons, *_shared(ef4), *_shared(ef2)])),
    )
    return Biplane(
        ef,
        ed_length if is_calibrated else None,
        es_length if is_calibrated else None,
        difference,
    )


def _not_biplane(ef4: EjectionFraction, ef2: EjectionFraction) -> EjectionFraction:
    reasons: list[str] = []
    for name, ef in (("a4c_not_measured", ef4), ("a2c_not_measured", ef2)):
        if ef.percent is None:
            reasons += [name, *ef.reasons[:1]]
    return EjectionFraction.without_figure("withheld", tuple(reasons) or ("no_disks",))


def _in_own_lengths(disks: ViewDisks) -> ViewDisks:
    factor = 1 / disks.ed.length
    return ViewDisks(False, disks.ed.scaled(factor), disks.es.scaled(factor))


def _volume(first: DiskStack, second: DiskStack) -> float:
    return disk_volume(first.diameters_20, second.diameters_20, max(first.length, second.length))


def _difference_percent(first: float, second: float) -> float:
    return 100 * abs(first - second) / max(first, second)


def _half_width(ef: EjectionFraction) -> float:
    assert ef.interval is not None
    assert ef.percent is not None
    return max(ef.interval[1] - ef.percent, ef.percent - ef.interval[0])


def _mean_known(*values: float | None) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _shared(ef: EjectionFraction) -> tuple[str, ...]:
    return tuple(reason for reason in ef.reasons if reason != "no_spacing")
