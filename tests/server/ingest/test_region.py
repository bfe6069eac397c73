import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pydicom import Dataset, dcmwrite
from pydicom.sr._cid_dict import cid_concepts
from pydicom.sr._concepts_dict import concepts
from pydicom.sr._snomed_dict import mapping
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian

from model import Region
from server.ingest import Clip, open_clip
from server.ingest.region import view_named
from tests.server.ingest.making import COLUMNS, ROWS, grey_cine, run, save, ultrasound

IMAGE = (0, 0, COLUMNS - 1, ROWS - 1)
WHOLE = Region(0, 0, ROWS, COLUMNS)
LEFT, RIGHT = (0, 0, 29, 39), (32, 0, 61, 47)


def box(
    corners: tuple[int, int, int, int],
    kind: tuple[int, int] = (1, 1),
    deltas_cm: tuple[float, float] | None = (0.03, 0.05),
    units: int = 3,
) -> Dataset:
    """One item: corners as x0, y0, x1, y1; kind as spatial format and data type."""
    item = Dataset()
    item.RegionSpatialFormat, item.RegionDataType = kind
    item.RegionFlags = 0
    item.RegionLocationMinX0, item.RegionLocationMinY0 = corners[:2]
    item.RegionLocationMaxX1, item.RegionLocationMaxY1 = corners[2:]
    item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = units
    if deltas_cm is not None:
        item.PhysicalDeltaX, item.PhysicalDeltaY = deltas_cm
    return item


def opened(tmp_path: Path, *boxes: Dataset, **attributes: Any) -> Clip:
    made = ultrasound(grey_cine(), SequenceOfUltrasoundRegions=list(boxes), **attributes)
    with open_clip(save(made, tmp_path / "clip")) as clip:
        list(clip.frames)
        return clip


def test_corners_are_inclusive_and_deltas_are_centimetres(tmp_path: Path) -> None:
    clip = opened(tmp_path, box((4, 2, 59, 45)))
    assert clip.region == Region(top=2, left=4, height=44, width=56)
    assert clip.spacing_mm == pytest.approx((0.5, 0.3))  # rows first
    assert clip.warnings == ()


def test_a_negative_delta_is_a_direction_not_a_size(tmp_path: Path) -> None:
    clip = opened(tmp_path, box(IMAGE, deltas_cm=(-0.03, 0.05)))
    assert clip.spacing_mm == pytest.approx((0.5, 0.3))


@pytest.mark.parametrize(
    ("syntax", "start"),
    [(ExplicitVRLittleEndian, b"\x18\0\x11\x60"), (ExplicitVRBigEndian, b"\0\x18\x60\x11")],
)
def test_regions_of_unknown_vr_are_read_as_implicit_little_endian(
    tmp_path: Path, syntax: str, start: bytes
) -> None:
    """PS3.5 section 6.2.2, note 2."""
    held = Dataset()
    held.SequenceOfUltrasoundRegions = [box((4, 2, 59, 45))]
    content = io.BytesIO()
    dcmwrite(content, held, implicit_vr=True, little_endian=True)
    made = ultrasound(grey_cine())
    # What the element holds, behind its tag and length.
    made.add_new(0x00186011, "OB", content.getvalue()[8:])
    path = save(made, tmp_path / "clip", syntax)
    written = path.read_bytes()
    assert written.count(start + b"OB") == 1
    path.write_bytes(written.replace(start + b"OB", start + b"UN"))
    with open_clip(path) as clip:
        assert clip.spacing_mm == pytest.approx((0.5, 0.3))
        assert clip.region == Region(2, 4, 44, 56)


def test_waveforms_and_graphics_are_never_the_tissue(tmp_path: Path) -> None:
    ecg, m_mode, bar = box(IMAGE, (4, 10)), box(IMAGE, (2, 1)), box(IMAGE, (5, 13))
    clip = opened(tmp_path, ecg, m_mode, box(LEFT), bar)
    assert clip.region == Region(0, 0, 40, 30)
    assert clip.warnings == ()


def test_tissue_goes_before_colour_flow(tmp_path: Path) -> None:
    clip = opened(tmp_path, box(RIGHT, (1, 2)), box(LEFT))
    assert clip.region == Region(0, 0, 40, 30)
    assert not clip.colour_overlay


def test_a_clip_of_colour_flow_alone_says_so(tmp_path: Path) -> None:
    clip = opened(tmp_path, box(RIGHT, (1, 2)))
    assert clip.region == Region(0, 32, 48, 30)
    assert clip.colour_overlay


def test_of_two_images_side_by_side_the_larger_is_taken_with_a_warning(tmp_path: Path) -> None:
    clip = opened(tmp_path, box(LEFT), box(RIGHT))
    assert clip.region == Region(0, 32, 48, 30)
    assert clip.warnings == ("several_regions",)


def side_by_side(is_left_moving: bool) -> Any:
    """Two images of one size, one live and one frozen."""
    cine = np.zeros((6, ROWS, COLUMNS), np.uint8)
    cine[:, 4:44, 2:30] = np.random.default_rng(3).integers(0, 255, (40, 28))
    cine[:, 4:44, 34:62] = cine[:, 4:44, 2:30]
    moving = slice(2, 30) if is_left_moving else slice(34, 62)
    for index in range(6):
        cine[index, :, moving] = np.roll(cine[index, :, moving], 5 * index, axis=0)
    return cine


@pytest.mark.parametrize("is_left_moving", [True, False])
def test_of_two_images_the_live_one_goes_before_a_frozen_larger_one(
    tmp_path: Path, is_left_moving: bool
) -> None:
    frozen, live = ((33, 0, 63, 47), (1, 0, 29, 47)) if is_left_moving else (
        (0, 0, 30, 47), (34, 0, 62, 47)
    )  # fmt: skip
    made = ultrasound(
        side_by_side(is_left_moving), SequenceOfUltrasoundRegions=[box(frozen), box(live)]
    )
    with open_clip(save(made, tmp_path / "clip")) as clip:
        assert clip.region == Region(0, live[0], 48, 29)
        assert clip.warnings == ("several_regions",)


def test_of_two_images_one_with_a_pixel_size_goes_before_a_larger_one(tmp_path: Path) -> None:
    clip = opened(tmp_path, box(LEFT), box(RIGHT, units=0))
    assert clip.region == Region(0, 0, 40, 30)
    assert clip.spacing_mm == pytest.approx((0.5, 0.3))


@pytest.mark.parametrize("other", [(4, 10), (5, 13), (1, 1)])
def test_any_region_outside_the_image_shows_that_it_was_rescaled(
    tmp_path: Path, other: tuple[int, int]
) -> None:
    clip = opened(tmp_path, box(LEFT), box((0, 50, 2 * COLUMNS, 60), other))
    assert clip.region is None
    assert clip.spacing_mm is None
    assert "region_outside_image" in clip.warnings


@pytest.mark.parametrize("corners", [(0, 0, COLUMNS + 1, 20), (0, 0, 20, ROWS + 1)])
def test_a_region_that_runs_out_of_the_image_is_dropped_with_its_calibration(
    tmp_path: Path, corners: tuple[int, int, int, int]
) -> None:
    clip = opened(tmp_path, box(corners))
    assert clip.region is None
    assert clip.spacing_mm is None
    assert clip.warnings == ("region_outside_image",)


def test_a_writer_that_takes_the_corners_for_half_open_is_forgiven(tmp_path: Path) -> None:
    clip = opened(tmp_path, box((0, 0, COLUMNS, ROWS)))
    assert clip.region == WHOLE
    assert clip.warnings == ()


@pytest.mark.parametrize(
    ("deltas_cm", "units"),
    [
        ((0.03, 0.05), 0),
        ((0.03, 0.05), 4),
        ((0.0, 0.05), 3),
        ((0.0019, 0.0019), 3),
        ((0.21, 0.05), 3),
        ((float("nan"), 0.05), 3),
        ((float("inf"), 0.05), 3),
        (None, 3),
    ],
)
def test_a_pixel_size_that_is_no_length_or_no_pixel_is_not_used(
    tmp_path: Path, deltas_cm: tuple[float, float] | None, units: int
) -> None:
    clip = opened(tmp_path, box(IMAGE, deltas_cm=deltas_cm, units=units))
    assert clip.region == WHOLE
    assert clip.spacing_mm is None
    assert clip.warnings == ("spacing_unusable",)


def test_no_region_means_no_region(tmp_path: Path) -> None:
    clip = opened(tmp_path)
    assert (clip.region, clip.spacing_mm, clip.warnings) == (None, None, ())


def test_an_item_without_a_box_is_passed_over(tmp_path: Path) -> None:
    clip = opened(tmp_path, Dataset(), box(LEFT))
    assert clip.region == Region(0, 0, 40, 30)


def code(value: str) -> list[Dataset]:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", "a view"
    return [item]


@pytest.mark.parametrize(
    ("attributes", "view"),
    [
        ({"ViewCodeSequence": code("399214001")}, "A4C"),
        ({"ViewCodeSequence": code("399232001")}, "A2C"),
        ({"ViewCodeSequence": code("G-0396")}, "PLAX"),
        ({"ViewCodeSequence": code("399232001"), "ViewName": "A4C"}, "A2C"),
        ({"ViewCodeSequence": code("1"), "ViewName": "Apical 4 Chamber"}, "A4C"),
        ({"StageName": "PLAX"}, "PLAX"),
        ({"ViewName": "subcostal"}, "SUBCOSTAL"),
        ({"ViewName": "heart"}, None),
        ({}, None),
    ],
)
def test_the_view_comes_from_its_code_and_else_from_its_name(
    tmp_path: Path, attributes: dict[str, Any], view: str | None
) -> None:
    assert opened(tmp_path, **attributes).view == view


def test_every_view_that_dicom_has_a_code_for_is_known_by_it(tmp_path: Path) -> None:
    """CID 12226, as pydicom has it, by the codes of today and those of before."""
    apical = {"ApicalFourChamber": "A4C", "ApicalTwoChamber": "A2C", "ApicalLongAxis": "A3C"}
    views = [(scheme, name) for scheme, names in cid_concepts[12226].items() for name in names]
    assert len(views) > 25
    known: Any = concepts
    for scheme, name in views:
        for value in known[scheme][name]:
            for each in (value, mapping["SCT"].get(value, value)):
                view = opened(tmp_path, ViewCodeSequence=code(each)).view
                assert view == apical.get(name, view)
                assert (view in ("A4C", "A2C", "A3C", None)) == (name in apical), (name, view)


@pytest.mark.parametrize(
    ("words", "view"),
    [
        *((words, "A4C") for words in ("4CH", "AP4", "Apical 4-Ch View", "four chamber", "4C")),
        *((words, "A2C") for words in ("2 Ch", "AP2", "apical two chamber view", "A2CH")),
        *((words, "A3C") for words in ("A3C", "ALAX", "Apical Long Axis", "AP3")),
        *((words, "PLAX") for words in ("LAX", "Parasternal Long Axis")),
        *((words, "PSAX") for words in ("SAX MV", "PSAX-PM", "parasternal short axis")),
        ("Apical 5 Chamber", "A5C"),
        ("Suprasternal", "SUPRASTERNAL"),
        *((words, None) for words in ("", "2", "A2", "Rest", "Stage 4", "Peak 2", "chamber")),
    ],
)
def test_views_go_by_the_names_that_people_give_them(words: str, view: str | None) -> None:
    assert view_named(words) == view


@pytest.mark.parametrize(
    ("keyword", "shape"),
    [
        ("PixelAspectRatio", ["3", "4"]),
        ("PixelAspectRatio", ["8", "7"]),
        ("PixelSpacing", ["0.3", "0.4"]),
        ("ImagerPixelSpacing", ["0.3", "0.4"]),
        ("NominalScannedPixelSpacing", ["0.3", "0.4"]),
    ],
)
def test_pixels_of_no_known_size_are_made_square_as_viewers_do(
    tmp_path: Path, keyword: str, shape: list[str]
) -> None:
    clip = opened(tmp_path, **{keyword: shape})
    run("dcm2pnm", "+Syv", str(ROWS), tmp_path / "clip", tmp_path / "shown.pgm")
    shown = cv2.imread(str(tmp_path / "shown.pgm"), cv2.IMREAD_GRAYSCALE)
    assert shown is not None
    assert (clip.size, clip.warnings) == (shown.shape, ("pixels_made_square",))
    with open_clip(tmp_path / "clip") as again:
        first = next(again.frames).pixels_HW
    assert np.abs(first.astype(int) - shown).mean() < 3


def test_a_region_of_no_known_pixel_size_keeps_its_tissue_where_pixels_are_made_square(
    tmp_path: Path,
) -> None:
    clip = opened(tmp_path, box((4, 2, 59, 45), units=0), PixelAspectRatio=["1", "2"])
    assert clip.size == (ROWS, 2 * COLUMNS)
    assert clip.region == Region(top=2, left=8, height=44, width=112)


@pytest.mark.parametrize("shape", [["0", "1"], ["1", "5"], ["1", "1"], ["2"], ["one", "two"]])
def test_pixels_of_a_shape_that_none_has_are_taken_as_squares(
    tmp_path: Path, shape: list[str]
) -> None:
    made = ultrasound(grey_cine())
    made.add_new("PixelAspectRatio", "LO", shape)
    with open_clip(save(made, tmp_path / "clip")) as clip:
        assert (clip.size, clip.warnings) == ((ROWS, COLUMNS), ())


def test_the_pixel_size_of_a_region_goes_before_the_shape_that_a_header_tells(
    tmp_path: Path,
) -> None:
    clip = opened(tmp_path, box(IMAGE), PixelAspectRatio=["3", "4"])
    assert (clip.size, clip.warnings) == ((ROWS, COLUMNS), ())
    assert clip.spacing_mm == pytest.approx((0.5, 0.3))
