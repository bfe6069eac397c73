from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.sr._concepts_dict import concepts
from pydicom.uid import UID

from server.artefacts import Material, write_report, write_structured
from server.errors import NotAvailableError
from server.export.structured import Template
from tests.server.export.conftest import analyse
from tests.server.export.reading import assert_valid, dump_report, items_of, name_of
from tests.server.ingest.making import run
from tests.server.phantom import (
    BASE_ROW,
    BEAT_FRAMES,
    ED_HALF_WIDTH_PX,
    ED_LENGTH_PX,
    EF_PERCENT,
    FRAME_MS,
    MIDDLE_COL,
    ed_volume_ml,
)

SIMPLIFIED = "1.2.840.10008.5.1.4.1.1.88.72"
"""Simplified Adult Echo SR Storage."""

TEMPLATES: tuple[Template, ...] = ("5300", "1500")
EF = "Left ventricular ejection fraction single plane 4C (MOD)"


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("which", ["heart", "nothing"])
def test_a_report_is_valid_and_another_program_reads_it(
    which: str, template: Template, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path = tmp_path / "sr.dcm"
    write_structured(path, request.getfixturevalue(which), template)
    assert_valid(path)
    assert "Device Observer Name" in dump_report(path)


@pytest.mark.parametrize("which", ["heart", "nothing"])
def test_the_echo_report_keeps_to_what_a_simplified_echo_report_may_hold(
    which: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """PS3.3 A.35.17 allows it fewer relations; under its class DCMTK checks each of them."""
    path = tmp_path / "sr.dcm"
    write_structured(path, request.getfixturevalue(which), "5300")
    made = dcmread(path)
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = UID(SIMPLIFIED)
    made.save_as(path)
    assert "Simplified Adult Echo SR" in dump_report(path)


@pytest.mark.parametrize("template", TEMPLATES)
def test_ef_volumes_and_rate_are_those_of_the_heart_with_their_units(
    heart: Material, template: Template, tmp_path: Path
) -> None:
    write_structured(tmp_path / "sr.dcm", heart, template)
    found: dict[str, tuple[float, str]] = {}
    for item in items_of(dcmread(tmp_path / "sr.dcm")):
        if item.ValueType == "NUM" and item.MeasuredValueSequence:
            measured = item.MeasuredValueSequence[0]
            unit = measured.MeasurementUnitsCodeSequence[0].CodeValue
            found.setdefault(name_of(item), (float(measured.NumericValue), unit))
    value, unit = found[EF]
    assert unit == "%"
    assert value == pytest.approx(EF_PERCENT, abs=3)
    volume, unit = found["Left ventricular end diastolic volume single plane 4C (MOD)"]
    assert unit == "ml"
    assert volume == pytest.approx(ed_volume_ml(), rel=0.05)
    rate, unit = found["Heart rate"]
    assert unit == "/min"
    assert rate == pytest.approx(60_000 / (BEAT_FRAMES * FRAME_MS), rel=0.05)
    below, _ = found["-, range of lower measurement uncertainty"]
    above, _ = found["+, range of upper measurement uncertainty"]
    interval = heart.study.document["ef"]["interval"]
    assert [value - below, value + above] == pytest.approx(interval, abs=0.11)


def test_outlines_lie_on_the_pixels_of_their_clip_also_where_it_was_made_square(
    squeezed: Material, tmp_path: Path
) -> None:
    write_structured(tmp_path / "sr.dcm", squeezed, "5300")
    lines = [item for item in items_of(dcmread(tmp_path / "sr.dcm")) if item.ValueType == "SCOORD"]
    outline_P2 = np.array(lines[0].GraphicData).reshape(-1, 2)
    right, bottom = outline_P2.max(axis=0)
    left, top = outline_P2.min(axis=0)
    middle, width = (MIDDLE_COL + 0.5) / 2, ED_HALF_WIDTH_PX  # of pixels that are twice as wide
    assert [left, right] == pytest.approx([middle - width / 2, middle + width / 2], abs=1)
    assert [top, bottom] == pytest.approx([BASE_ROW - ED_LENGTH_PX, BASE_ROW], abs=2)
    assert squeezed.study.document["ef"]["percent"] == pytest.approx(EF_PERCENT, abs=3)


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_withheld_ef_is_absent_and_says_why(
    nothing: Material, template: Template, tmp_path: Path
) -> None:
    write_structured(tmp_path / "sr.dcm", nothing, template)
    items = list(items_of(dcmread(tmp_path / "sr.dcm")))
    (ef,) = [item for item in items if item.ValueType == "NUM"]
    assert len(ef.MeasuredValueSequence) == 0
    # PS3.16 CID 42: a qualifier that stands for a missing number.
    assert ef.NumericValueQualifierCodeSequence[0].CodeValue in {"114006", "114011"}
    words = " ".join(item.TextValue for item in items_of(ef) if item.ValueType == "TEXT")
    for reason in nothing.study.document["ef"]["reasons"]:
        assert reason in words


def test_beats_of_a_clip_whose_ef_is_withheld_do_not_pass_for_measurements(
    heart: Material, tmp_path: Path
) -> None:
    study = heart.study
    findings = replace(study.findings, ef=study.findings.ef.withheld_for("colour_overlay"))
    withheld = replace(heart, study=replace(study, findings=findings))
    write_structured(tmp_path / "sr.dcm", withheld, "1500")
    words = [
        item.TextValue
        for item in items_of(dcmread(tmp_path / "sr.dcm"))
        if "TextValue" in item and "Does not count" in item.TextValue
    ]
    assert len(words) == len(findings.beats) > 0
    assert all("colour Doppler covers the image" in each for each in words)
    write_report(tmp_path / "report.html", withheld)
    page = (tmp_path / "report.html").read_text()
    assert page.count("does not count: colour Doppler covers the image") == len(findings.beats)


def test_another_library_finds_a_group_for_the_clip_and_for_each_beat(
    heart: Material, tmp_path: Path
) -> None:
    write_structured(tmp_path / "sr.dcm", heart, "1500")
    content = highdicom.sr.srread(tmp_path / "sr.dcm").content
    assert isinstance(content, highdicom.sr.MeasurementReport)
    groups = content.get_image_measurement_groups()
    assert len(groups) == 1 + len(heart.study.findings.beats)
    sites = {group.finding_sites[0].value.meaning for group in groups}
    assert sites == {"Left ventricle"}
    assert {group.method and group.method.value for group in groups} == {"125208"}


def test_outline_and_axis_lie_on_the_frames_they_were_measured_in(
    heart: Material, tmp_path: Path
) -> None:
    write_structured(tmp_path / "sr.dcm", heart, "5300")
    items = list(items_of(dcmread(tmp_path / "sr.dcm")))
    lines = [item for item in items if item.ValueType == "SCOORD"]
    assert len(lines) == 4
    for line, axis in zip(lines[::2], lines[1::2], strict=True):
        place = line.ContentSequence[0].ReferencedSOPSequence[0].ReferencedFrameNumber - 1
        lv = heart.study.findings.frames[place].reading.lv
        assert lv is not None
        # Column before row, half a pixel on: PS3.3 C.18.6 counts from the corner.
        ends = [lv.apex[1] + 0.5, lv.apex[0] + 0.5, lv.base[1] + 0.5, lv.base[0] + 0.5]
        assert list(axis.GraphicData) == pytest.approx(ends, abs=0.01)


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_code_means_what_the_dictionary_says(
    heart: Material, template: Template, tmp_path: Path
) -> None:
    write_structured(tmp_path / "sr.dcm", heart, template)
    dictionary: dict[str, dict[str, Any]] = concepts
    known = {
        (scheme, value, meaning.casefold())
        for scheme, names in dictionary.items()
        for values in names.values()
        for value, (meaning, *_) in values.items()
    }
    used = set()
    for element in dcmread(tmp_path / "sr.dcm").iterall():
        if element.VR == "SQ" and "CodeSequence" in element.keyword:
            used |= {
                (c.CodingSchemeDesignator, c.CodeValue, c.CodeMeaning.casefold())
                for c in element.value
            }
    coded = {code for code in used if code[0] not in {"UCUM", "RFC5646"}}
    assert len(coded) > 12
    assert coded - known == set()


def test_a_view_that_nobody_named_goes_among_the_post_coordinated(
    heart: Material, tmp_path: Path
) -> None:
    write_structured(tmp_path / "sr.dcm", analyse(heart.upload), "5300")
    assert_valid(tmp_path / "sr.dcm")
    names = [name_of(item) for item in items_of(dcmread(tmp_path / "sr.dcm"))]
    assert "Post-coordinated Measurements" in names
    assert "Left Ventricular Ejection Fraction by US" in names


def test_a_film_has_no_report_since_it_has_nothing_to_refer_to(tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    run(
        "ffmpeg",
        "-f",
        "lavfi",
        "-i",
        "testsrc=size=64x64:rate=10:duration=1",
        "-pix_fmt",
        "yuv420p",
        film,
    )
    with pytest.raises(NotAvailableError, match=r"report\.html"):
        write_structured(tmp_path / "sr.dcm", analyse(film), "5300")
