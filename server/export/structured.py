"""A clip's figures as a DICOM structured report, by either of two templates.

TID 5300 is what reporting systems of echocardiography take: one value of a kind, each under a code
that says all of it. TID 1500 is for research: every beat, with methods and uncertainties.

Source:
    DICOM PS3.16 TID 5300 to 5302 with PS3.17 annex CCCC, TID 1500 and 1501 with TID 300, 1001,
    1004, 1204, 4019; CID 225 (uncertainty), 12227 (methods), 12300 (measurements).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import ComprehensiveSRStorage

from model import Beat, EjectionFraction
from server.errors import NotAvailableError
from server.export.content import (
    CENTIMETRE,
    MILLILITRE,
    PER_MINUTE,
    PERCENT,
    Code,
    code,
    container,
    image,
    no_number,
    number,
    polyline,
    text,
    uid_reference,
)
from server.export.objects import (
    NOTICE,
    Kind,
    Maker,
    begin_object,
    derived_uid,
    reference,
)
from server.export.overlay import Findings, MeasuredFrame
from server.export.words import edits_in_words, ef_lines, sentence
from server.ingest.dataset import PRODUCT

Template = Literal["5300", "1500"]

_ECHO = Kind("sr-5300", ComprehensiveSRStorage, "SR", 910, "GDKVM Live report (research use only)")
_IMAGING = Kind(
    "sr-1500", ComprehensiveSRStorage, "SR", 911, "GDKVM Live measurements (research use only)"
)

_COMMENT: Code = ("121106", "DCM", "Comment")
_SOURCE: Code = ("121112", "DCM", "Source of Measurement")
_SHORT_LABEL: Code = ("125309", "DCM", "Short Label")
_DERIVATION: Code = ("121401", "DCM", "Derivation")
_METHOD: Code = ("370129005", "SCT", "Measurement Method")
_FINDING_SITE: Code = ("363698007", "SCT", "Finding Site")
_LEFT_VENTRICLE: Code = ("87878005", "SCT", "Left ventricle")
_DISKS: Code = ("125208", "DCM", "Method of Disks, Single Plane")
_HEART_RATE: Code = ("8867-4", "LN", "Heart rate")
_BELOW: Code = ("371885007", "SCT", "-, range of lower measurement uncertainty")
_ABOVE: Code = ("371886008", "SCT", "+, range of upper measurement uncertainty")
_FAILURE: Code = ("114006", "DCM", "Measurement failure")
_INDETERMINATE: Code = ("114011", "DCM", "Value indeterminate")

_DERIVATIONS: dict[str, Code] = {
    "median_of_beats": ("373099004", "SCT", "Median Value of population"),
    "mean_of_beats": ("373098007", "SCT", "Mean Value of population"),
    "index_beats": ("373098007", "SCT", "Mean Value of population"),
}
_VIEWS: dict[str, Code] = {
    "A4C": ("399214001", "SCT", "Apical four chamber"),
    "A2C": ("399232001", "SCT", "Apical two chamber"),
}


@dataclass(frozen=True, slots=True)
class _Names:
    """The concepts of a view; `is_standard` where they are of CID 12300."""

    ef: Code
    edv: Code
    esv: Code
    is_standard: bool = True


_NAMES = {
    "A4C": _Names(
        ("79993-2", "LN", "Left ventricular ejection fraction single plane 4C (MOD)"),
        ("79999-9", "LN", "Left ventricular end diastolic volume single plane 4C (MOD)"),
        ("80004-5", "LN", "Left ventricular end systolic volume single plane 4C (MOD)"),
    ),
    "A2C": _Names(
        ("79992-4", "LN", "Left ventricular ejection fraction single plane 2C (MOD)"),
        ("79998-1", "LN", "Left ventricular end diastolic volume single plane 2C (MOD)"),
        ("80003-7", "LN", "Left ventricular end systolic volume single plane 2C (MOD)"),
    ),
}
_ANY_VIEW = _Names(
    ("18043-0", "LN", "Left Ventricular Ejection Fraction by US"),
    ("18026-5", "LN", "Left Ventricular End Diastolic Volume"),
    ("18148-7", "LN", "Left Ventricular End Systolic Volume"),
    is_standard=False,
)


def make_report(
    findings: Findings, maker: Maker, size: tuple[int, int], template: Template = "5300"
) -> Dataset:
    """Put what was found in a clip into a structured report.

    Args:
        findings: what was found.
        maker: what it is made of.
        size: rows and columns that outlines are on.
        template: the number of the template.

    Raises:
        NotAvailableError: the clip was no DICOM file.
    """
    origin = maker.origin
    if not (origin and origin.sop_class_uid and origin.sop_instance_uid):
        raise NotAvailableError(
            "this clip was no DICOM object with an identifier, so there is nothing that a "
            "structured report could refer to: fetch result or report.html"
        )
    kind = _ECHO if template == "5300" else _IMAGING
    made = begin_object(kind, maker, findings.view or "")
    _add_document(made, origin.sop_class_uid, origin.sop_instance_uid, origin.series_uid)
    source = (origin.sop_class_uid, origin.sop_instance_uid)
    writer = _Writer(findings, maker, source, np.divide(origin.size, size))
    root = writer.echo() if template == "5300" else writer.imaging(made.SOPInstanceUID)
    del root.RelationshipType
    template_item = Dataset()
    template_item.MappingResource = "DCMR"
    template_item.TemplateIdentifier = template
    root.ContentTemplateSequence = [template_item]
    made.update(root)
    return made


def _add_document(made: Dataset, sop_class: str, instance: str, series: str | None) -> None:
    made.ReferencedPerformedProcedureStepSequence = []
    made.PerformedProcedureCodeSequence = []
    made.CompletionFlag = "COMPLETE"
    made.VerificationFlag = "UNVERIFIED"
    made.PreliminaryFlag = "PRELIMINARY"
    study, series_item = Dataset(), Dataset()
    series_item.SeriesInstanceUID = series or derived_uid("series", instance)
    series_item.ReferencedSOPSequence = [reference(sop_class, instance)]
    study.StudyInstanceUID = made.StudyInstanceUID
    study.ReferencedSeriesSequence = [series_item]
    made.CurrentRequestedProcedureEvidenceSequence = [study]


class _Writer:
    """Writes the content of one report."""

    def __init__(
        self,
        findings: Findings,
        maker: Maker,
        source: tuple[str, str],
        scale_2: NDArray[np.float64],
    ) -> None:
        self._findings = findings
        self._maker = maker
        self._source = source
        self._scale_2 = scale_2
        self._names = _NAMES.get(findings.view or "", _ANY_VIEW)
        self._frames = {frame.seq: index for index, frame in enumerate(findings.frames)}

    def echo(self) -> Dataset:
        """The tree of TID 5300."""
        ef = self._findings.ef
        modifiers = [] if self._names.is_standard else _post_coordinated()
        values = [self._ef(modifiers, self._coordinates(chosen_beat(self._findings)))]
        for concept, volume_ml, label in self._volumes(ef):
            values.append(
                number(
                    "CONTAINS", concept, volume_ml, MILLILITRE,
                    [*modifiers, text("HAS PROPERTIES", _SHORT_LABEL, label)],
                )
            )  # fmt: skip
        heading: Code = ("125301", "DCM", "Pre-coordinated Measurements")
        if not self._names.is_standard:
            heading = ("125302", "DCM", "Post-coordinated Measurements")
        children = [*self._context(), *self._patient(ef), container("CONTAINS", heading, values)]
        children.append(text("CONTAINS", _COMMENT, self._remarks()))
        title: Code = ("125200", "DCM", "Adult Echocardiography Procedure Report")
        return container("CONTAINS", title, children)

    def imaging(self, instance: str) -> Dataset:
        """The tree of TID 1500."""
        groups = [self._clip_group(instance)]
        groups += [self._beat_group(instance, beat) for beat in self._findings.beats]
        procedure: Code = ("121058", "DCM", "Procedure reported")
        children = [
            *self._context(),
            code("HAS CONCEPT MOD", procedure, ("40701008", "SCT", "Echocardiography")),
            container("CONTAINS", ("126010", "DCM", "Imaging Measurements"), groups),
        ]
        title: Code = ("126000", "DCM", "Imaging Measurement Report")
        return container("CONTAINS", title, children)

    def _context(self) -> list[Dataset]:
        """Language, and the device that observes (TID 1204, 1001, 1004)."""
        model = self._maker.model
        observer: Code = ("121005", "DCM", "Observer Type")
        language: Code = ("121049", "DCM", "Language of Content Item and Descendants")
        named: list[tuple[Code, str]] = [
            (("121013", "DCM", "Device Observer Name"), f"{PRODUCT} {self._maker.software}"),
            (("121014", "DCM", "Device Observer Manufacturer"), PRODUCT),
            (("121015", "DCM", "Device Observer Model Name"), f"{model.name} {model.version}"),
            (("121016", "DCM", "Device Observer Serial Number"), model.sha256),
        ]
        device: Code = ("121012", "DCM", "Device Observer UID")
        identity = derived_uid("device", *self._maker.identity)
        return [
            code("HAS CONCEPT MOD", language, ("en", "RFC5646", "English")),
            code("HAS OBS CONTEXT", observer, ("121007", "DCM", "Device")),
            uid_reference("HAS OBS CONTEXT", device, identity),
            *(text("HAS OBS CONTEXT", concept, words) for concept, words in named),
        ]

    def _patient(self, ef: EjectionFraction) -> list[Dataset]:
        if ef.heart_rate_bpm is None:
            return []
        rate = number("CONTAINS", _HEART_RATE, round(ef.heart_rate_bpm, 1), PER_MINUTE)
        return [container("CONTAINS", ("121118", "DCM", "Patient Characteristics"), [rate])]

    def _ef(self, modifiers: Sequence[Dataset], sources: Sequence[Dataset]) -> Dataset:
        """The ejection fraction with its interval, or absent with its reasons."""
        ef = self._findings.ef
        label = text("HAS PROPERTIES", _SHORT_LABEL, f"LV EF {self._findings.view or ''}".strip())
        if ef.percent is None:
            qualifier = _INDETERMINATE if ef.state == "pending" else _FAILURE
            children = [*modifiers, label, text("HAS PROPERTIES", _COMMENT, _why_not(ef))]
            return no_number("CONTAINS", self._names.ef, qualifier, children)
        children = list(modifiers)
        if ef.method in _DERIVATIONS:
            children.append(code("HAS CONCEPT MOD", _DERIVATION, _DERIVATIONS[ef.method]))
        children += [label, *_uncertainty(ef)]
        children.append(text("HAS PROPERTIES", _COMMENT, ". ".join(ef_lines(ef))))
        children += sources
        return number("CONTAINS", self._names.ef, round(ef.percent, 1), PERCENT, children)

    def _volumes(self, ef: EjectionFraction) -> list[tuple[Code, float, str]]:
        found = [(self._names.edv, ef.edv_ml, "LV EDV"), (self._names.esv, ef.esv_ml, "LV ESV")]
        return [(concept, round(ml, 1), label) for concept, ml, label in found if ml is not None]

    def _coordinates(self, beat: Beat | None) -> list[Dataset]:
        """Outline and long axis at both ends of systole, for a reader to check and to edit."""
        if beat is None:
            return []
        lines = []
        for seq in (beat.ed_seq, beat.es_seq):
            index = self._frames.get(seq)
            frame = None if index is None else self._findings.frames[index]
            if index is not None and frame is not None and frame.reading.lv is not None:
                lines += self._lines_of(frame, index)
        return lines

    def _lines_of(self, frame: MeasuredFrame, index: int) -> list[Dataset]:
        lv = frame.reading.lv
        assert lv is not None
        axis_P2 = np.array([lv.apex, lv.base])
        found = [*frame.reading.contours.get("lv", ())[:1], axis_P2]
        shown_on = image("SELECTED FROM", None, *self._source, [index])
        return [polyline(_SOURCE, line_P2, self._scale_2, shown_on) for line_P2 in found]

    def _clip_group(self, instance: str) -> Dataset:
        ef = self._findings.ef
        method = [code("HAS CONCEPT MOD", _METHOD, _DISKS)]
        values = [self._ef(method, self._coordinates(chosen_beat(self._findings)))]
        for concept, volume_ml, _ in self._volumes(ef):
            values.append(number("CONTAINS", concept, volume_ml, MILLILITRE, method))
        if ef.heart_rate_bpm is not None:
            rate = round(ef.heart_rate_bpm, 1)
            values.append(number("CONTAINS", _HEART_RATE, rate, PER_MINUTE))
        return self._group(instance, "Whole clip", [*values, *self._remark_items()])

    def _beat_group(self, instance: str, beat: Beat) -> Dataset:
        method = [code("HAS CONCEPT MOD", _METHOD, _DISKS)]
        sources = self._coordinates(beat)
        change: Code = ("399287000", "SCT", "Left Ventricular Fractional Area Change")
        values = [
            number(
                "CONTAINS", self._names.ef, round(beat.ef_percent, 1), PERCENT, [*method, *sources]
            ),
            number("CONTAINS", change, round(beat.fac_percent, 1), PERCENT),
        ]
        for concept, volume_ml in (
            (self._names.edv, beat.ed_volume_ml),
            (self._names.esv, beat.es_volume_ml),
        ):
            if volume_ml is not None:
                values.append(number("CONTAINS", concept, round(volume_ml, 1), MILLILITRE, method))
        values += self._lengths(beat)
        if reasons := why_uncounted(beat, self._findings.ef):
            words = f"{sentence(reasons, 'Does not count: ')} [{', '.join(reasons)}]"
            values.append(text("CONTAINS", _COMMENT, words))
        return self._group(instance, f"Beat {beat.number + 1}", values)

    def _lengths(self, beat: Beat) -> list[Dataset]:
        found: list[tuple[int, Code]] = [
            (beat.ed_seq, ("18077-8", "LN", "Left Ventricle diastolic major axis")),
            (beat.es_seq, ("18076-0", "LN", "Left Ventricle systolic major axis")),
        ]
        values = []
        for seq, concept in found:
            index = self._frames.get(seq)
            lv = None if index is None else self._findings.frames[index].reading.lv
            if lv is not None and lv.length_cm is not None:
                values.append(number("CONTAINS", concept, round(lv.length_cm, 2), CENTIMETRE))
        return values

    def _group(self, instance: str, name: str, values: Sequence[Dataset]) -> Dataset:
        """A measurement group of TID 1501 about the left ventricle."""
        model = self._maker.model
        algorithm: Code = ("111001", "DCM", "Algorithm Name")
        version: Code = ("111003", "DCM", "Algorithm Version")
        children = [
            text("HAS OBS CONTEXT", ("112039", "DCM", "Tracking Identifier"), name),
            uid_reference(
                "HAS OBS CONTEXT",
                ("112040", "DCM", "Tracking Unique Identifier"),
                derived_uid("tracking", instance, name),
            ),
            code("HAS CONCEPT MOD", _METHOD, _DISKS),
            code("HAS CONCEPT MOD", _FINDING_SITE, _LEFT_VENTRICLE),
            text("HAS CONCEPT MOD", algorithm, model.name),
            text("HAS CONCEPT MOD", version, self._maker.algorithm),
            *self._view(),
            image("CONTAINS", _SOURCE, *self._source, []),
            *values,
        ]
        return container("CONTAINS", ("125007", "DCM", "Measurement Group"), children)

    def _view(self) -> list[Dataset]:
        view = _VIEWS.get(self._findings.view or "")
        return [code("HAS ACQ CONTEXT", ("111031", "DCM", "Image View"), view)] if view else []

    def _remarks(self) -> str:
        mind = sentence(self._findings.ef.reasons, "Mind: ")
        return " ".join(filter(None, (NOTICE, mind, edits_in_words(self._findings.edits))))

    def _remark_items(self) -> list[Dataset]:
        return [text("CONTAINS", _COMMENT, self._remarks())]


def _post_coordinated() -> list[Dataset]:
    """What a measurement without a code of its own says of itself (TID 5302)."""
    modifiers: list[tuple[Code, Code]] = [
        (("125306", "DCM", "Measurement Type"), ("125315", "DCM", "Calculated")),
        (_FINDING_SITE, _LEFT_VENTRICLE),
        (
            ("125305", "DCM", "Finding Observation Type"),
            ("125311", "DCM", "Structure of the Finding Site"),
        ),
        (_METHOD, _DISKS),
        (("399264008", "SCT", "Image Mode"), ("399064001", "SCT", "2D mode")),
    ]
    return [code("HAS CONCEPT MOD", concept, value) for concept, value in modifiers]


def _uncertainty(ef: EjectionFraction) -> list[Dataset]:
    """How far the central 90 % reach below and above the value."""
    if ef.percent is None or ef.interval is None:
        return []
    low, high = ef.interval
    return [
        number("HAS PROPERTIES", _BELOW, round(ef.percent - low, 1), PERCENT),
        number("HAS PROPERTIES", _ABOVE, round(high - ef.percent, 1), PERCENT),
    ]


def _why_not(ef: EjectionFraction) -> str:
    words = ef_lines(ef)[0]
    return f"No ejection fraction is given: {words} [{', '.join(ef.reasons)}]"


def why_uncounted(beat: Beat, ef: EjectionFraction) -> Sequence[str]:
    """Why a beat says nothing of the heart: none does where the clip itself may have no EF."""
    return beat.reasons or (ef.reasons if ef.percent is None else ())


def chosen_beat(findings: Findings) -> Beat | None:
    """The beat that stands for a clip: of those that count, the one nearest to its EF."""
    counted = [beat for beat in findings.beats if beat.is_complete and not beat.reasons]
    usable = counted or [beat for beat in findings.beats if not beat.reasons]
    if findings.ef.percent is None or not usable:
        return None
    percent = findings.ef.percent
    return min(usable, key=lambda beat: abs(beat.ef_percent - percent))
