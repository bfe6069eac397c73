"""Machine-readable reasons and figures in words for people."""

from collections.abc import Sequence
from typing import Protocol

from model import counted
from server.edits import Edit, last_edits

FIGURES = {
    "fractional_area_change": "Fractional area change",
    "longitudinal_shortening": "Longitudinal shortening",
    "stroke_volume": "Stroke volume",
    "cardiac_output": "Cardiac output",
    "lv_length_ed": "Long axis at end diastole",
    "lv_area_ed": "Area at end diastole",
    "lv_length_es": "Long axis at end systole",
    "lv_area_es": "Area at end systole",
    "la_volume_es": "Volume of the left atrium at end systole",
}
"""Figures of a clip's result beside the EF."""

UNITS = {"cm2": "cm²"}
"""UCUM codes that people write otherwise."""

RANGES = {
    "ejection_fraction": "EF",
    "end_diastolic_volume": "EDV",
    "end_systolic_volume": "ESV",
}
"""Normal ranges that stand beside figures of ours."""

_REASONS = {
    # of an ejection fraction
    "no_frames": "no frame has been seen yet",
    "no_complete_beat": "no beat is complete",
    "too_few_frames": "the clip is too short",
    "single_beat": "it rests on one beat only",
    "too_few_beats": "it rests on too few beats",
    "time_base_unknown": "the frame rate is unknown",
    "no_spacing": "the size of a pixel is unknown",
    "irregular_rhythm": "the rhythm is irregular",
    "beats_disagree": "the beats disagree",
    "interval_too_wide": "the figure is too uncertain",
    "low_frame_rate": "the frame rate is low",
    "incomplete_beat": "only a part of a beat is in the clip",
    "times_not_rising": "some frame times do not rise",
    "curve_interrupted": "the view was lost in between",
    "picture_changed": "the picture became another one in between; the figure is of the last one",
    "colour_overlay": "colour Doppler covers the image",
    "view_not_apical": "it is not an apical four- or two-chamber view",
    # of a biplane measurement
    "lengths_differ": "the long axes of the views differ by more than a tenth",
    "views_disagree": "the views differ by more than 15 points",
    "a4c_not_measured": "the four-chamber view has no ejection fraction",
    "a2c_not_measured": "the two-chamber view has no ejection fraction",
    "no_disks": "a view has no disks",
    # of other figures
    "atrium_not_seen": "the atrium is not seen",
    "atrium_cut_off": "the atrium is cut off",
    # of a beat
    "beat_not_confirmed": "the beat was not confirmed by what followed",
    "frames_rejected": "too many of its frames could not be measured",
    "ef_out_of_range": "the ejection fraction is implausible",
    "axis_changed_too_much": "the long axis changed more than a heart's does",
    "ef_unlike_area_change": "volume and area tell different stories",
    "area_jumps": "the outline jumps from frame to frame",
    "noisy_curve": "the volume curve is too noisy",
    "frame_rate_too_low": "there are too few frames for so short a beat",
    "heart_rate_out_of_range": "the heart rate is implausible",
    # of a frame
    "axis_flipped": "the long axis flipped",
    "no_left_ventricle": "no left ventricle is seen",
    "view_uncertain": "it may be no apical view of a heart, or too little of one",
    "ventricle_in_pieces": "the ventricle is in pieces",
    "holes_in_ventricle": "the ventricle has holes",
    "implausible_size": "the ventricle has an implausible size",
    "implausible_shape": "the ventricle has an implausible shape",
    "ragged_outline": "the outline is ragged",
    "wall_missing": "the heart's wall is not seen all round",
    "atrium_misplaced": "the atrium is not where it should be",
    "implausible_wall": "the wall has an implausible thickness",
    "unsure_outline": "the outline is unsure",
    "ventricle_cut_off": "the ventricle is cut off by the edge of the image",
    "annulus_not_seen": "the mitral annulus is not seen",
    "axis_uncertain": "the long axis is uncertain",
    "several_sectors": "the screen shows several images, of which one is measured",
    "scale_changed": "the image changed its size, so that the size of a pixel is unknown",
}


class EjectionFigures(Protocol):
    """An ejection fraction, whichever side of the wire it is on."""

    @property
    def state(self) -> str: ...  # noqa: D102
    @property
    def percent(self) -> float | None: ...  # noqa: D102
    @property
    def interval(self) -> tuple[float, float] | None: ...  # noqa: D102
    @property
    def beats(self) -> int: ...  # noqa: D102
    @property
    def heart_rate_bpm(self) -> float | None: ...  # noqa: D102
    @property
    def edv_ml(self) -> float | None: ...  # noqa: D102
    @property
    def esv_ml(self) -> float | None: ...  # noqa: D102
    @property
    def reasons(self) -> Sequence[str]: ...  # noqa: D102


def known_reasons() -> frozenset[str]:
    """Every reason that has words."""
    return frozenset(_REASONS)


def reason_in_words(code: str) -> str:
    """Say one reason; a code that is not known here is read out."""
    return _REASONS.get(code, code.replace("_", " "))


def sentence(reasons: Sequence[str], start: str = "") -> str:
    """Say several reasons as one sentence, empty where there is none."""
    if not reasons:
        return ""
    text = start + "; ".join(reason_in_words(code) for code in reasons) + "."
    return text[0].upper() + text[1:]


def whole(value: float) -> str:
    """Round to a whole number by way of one decimal, as whoever reads it off the wire must."""
    return f"{round(value, 1):.0f}"


def ef_headline(ef: EjectionFigures) -> str:
    """The figure, or the one word that stands for it."""
    if ef.state == "measured" and ef.percent is not None:
        return f"{whole(ef.percent)} %"
    return "not given" if ef.state == "withheld" else "not yet"


def ef_lines(ef: EjectionFigures) -> tuple[str, ...]:
    """What a reader needs beside the headline: interval, beats, rate, volumes, and what to mind."""
    if ef.state != "measured":
        reason = sentence(ef.reasons)
        return (reason or "The images do not allow one.",)
    lines = []
    if ef.interval is not None:
        lines.append(f"{whole(ef.interval[0])} to {whole(ef.interval[1])} % (90 % interval)")
    rate = "" if ef.heart_rate_bpm is None else f", {whole(ef.heart_rate_bpm)} per minute"
    lines.append(counted(ef.beats, "beat") + rate)
    if ef.edv_ml is not None and ef.esv_ml is not None:
        lines.append(f"EDV {whole(ef.edv_ml)} ml, ESV {whole(ef.esv_ml)} ml")
    notes = [code for code in ef.reasons if code != "single_beat"]
    if notes:
        lines.append(sentence(notes, "Note: "))
    return tuple(lines)


def quality_in_words(state: str, reasons: Sequence[str]) -> str:
    """Say what the gates think of a frame; empty where it passed."""
    if state == "pass":
        return ""
    return sentence(reasons, "Not measured: " if state == "fail" else "With care: ")


def edits_in_words(edits: Sequence[Edit]) -> str:
    """Say which outlines a person drew; frames are counted from 1. Empty where there are none."""
    last = last_edits(edits)
    if not last:
        return ""
    frames = ", ".join(f"{frame + 1}{_by(edit)}" for frame, edit in sorted(last.items()))
    return f"Outlines were corrected by hand in frame {frames}."


def _by(edit: Edit) -> str:
    told = ", ".join(filter(None, (edit.who, edit.time)))
    return f" ({told})" if told else ""
