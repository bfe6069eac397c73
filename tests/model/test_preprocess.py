from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.frame import Fit, Region
from model.preprocess import (
    background_of,
    clip_region,
    find_sector,
    find_sectors,
    make_fit,
    network_box,
    to_network_input,
)

SIDES = st.integers(1, 900)


@pytest.mark.parametrize(
    ("region", "spacing_mm", "source", "network"),
    [
        # 100 x 50 px on 144: scale 1.44, 72 columns behind 36 of padding
        (Region(10, 20, 100, 50), None, (10, 20), (0.5 * 1.44 - 0.5, 36 + 0.5 * 1.44 - 0.5)),
        (Region(10, 20, 100, 50), None, (109, 69), (143 - 0.22, 36 + 71 - 0.22)),
        # rows twice as far apart as columns: 100 x 100 px is 200 x 100 mm
        (Region(0, 0, 100, 100), (0.2, 0.1), (0, 0), (0.22, 36 + 0.5 * 0.72 - 0.5)),
        (Region(0, 0, 100, 100), (0.2, 0.1), (99, 99), (142.78, 36 + 99.5 * 0.72 - 0.5)),
        # columns four times as far apart as rows: 36 rows behind 54 of padding
        (Region(0, 0, 100, 100), (0.1, 0.4), (0, 0), (54 + 0.5 * 0.36 - 0.5, 0.22)),
        # odd: 17 columns of 33 rows become round(17 * 144 / 33) = 74 behind (144 - 74) / 2 = 35
        (Region(3, 4, 33, 17), None, (3, 4), (0.5 * 144 / 33 - 0.5, 35 + 0.5 * 74 / 17 - 0.5)),
        (Region(3, 4, 33, 17), None, (19, 12), (71.5, 35 + 36.5)),
        # 144 px stay where they are
        (Region(0, 0, 144, 144), None, (17, 99), (17.0, 99.0)),
    ],
)
def test_a_pixel_centre_lands_where_the_closed_form_says(
    region: Region,
    spacing_mm: tuple[float, float] | None,
    source: tuple[int, int],
    network: tuple[float, float],
) -> None:
    fit = make_fit(region, (200, 200), 144, spacing_mm)
    found = fit.to_network(np.array([source], np.float64))[0]
    np.testing.assert_allclose(found, network, atol=1e-9)


@given(SIDES, SIDES, st.integers(0, 50), st.integers(0, 50), st.floats(0.1, 10.0))
def test_the_region_fills_its_box_and_the_box_fills_one_side_of_the_input(
    height: int, width: int, top: int, left: int, ratio: float
) -> None:
    region = Region(top, left, height, width)
    fit = make_fit(region, (1000, 1000), 144, (ratio, 1.0))
    box = network_box(fit)
    assert max(box.height, box.width) == 144
    corners_P2 = np.array([[top - 0.5, left - 0.5], [top + height - 0.5, left + width - 0.5]])
    wanted_P2 = np.array([[box.top, box.left], [box.top + box.height, box.left + box.width]])
    np.testing.assert_allclose(fit.to_network(corners_P2), wanted_P2 - 0.5, atol=1e-6)
    above, below = box.top, 144 - box.top - box.height
    before, behind = box.left, 144 - box.left - box.width
    assert below - above in (0, 1)
    assert behind - before in (0, 1)


@given(st.integers(50, 900), st.integers(50, 900), st.floats(0.5, 2.0))
def test_a_millimetre_is_as_long_across_as_down(height: int, width: int, ratio: float) -> None:
    fit = make_fit(Region(0, 0, height, width), (height, width), 144, (ratio, 1.0))
    box = network_box(fit)
    # the shorter side is rounded to whole pixels: half a pixel of it is the only distortion
    allowed = 0.5 / (min(box.height, box.width) - 0.5) + 1e-9
    assert fit.scale_row / ratio / fit.scale_col == pytest.approx(1.0, rel=allowed)


def a_blob(size: tuple[int, int], centre: tuple[float, float]) -> NDArray[np.uint8]:
    rows, cols = np.mgrid[: size[0], : size[1]]
    wide = min(size) / 12.0
    reach = ((rows - centre[0]) ** 2 + (cols - centre[1]) ** 2) / (2 * wide**2)
    return np.rint(255 * np.exp(-reach)).astype(np.uint8)


def centroid(image_HW: NDArray[np.floating]) -> NDArray[np.float64]:
    rows, cols = np.mgrid[: image_HW.shape[0], : image_HW.shape[1]]
    mass = image_HW / image_HW.sum()
    return np.array([(rows * mass).sum(), (cols * mass).sum()])


@pytest.mark.parametrize("size", [(300, 401), (97, 64), (144, 144), (433, 90), (600, 800)])
@pytest.mark.parametrize("spacing_mm", [None, (0.3, 0.1), (0.15, 0.3)])
def test_what_the_network_sees_lies_where_the_fit_says(
    size: tuple[int, int], spacing_mm: tuple[float, float] | None
) -> None:
    centre = (0.45 * size[0], 0.6 * size[1])
    fit = make_fit(Region(0, 0, *size), size, 144, spacing_mm)
    image_11HW = to_network_input(a_blob(size, centre), fit)
    assert image_11HW.shape == (1, 1, 144, 144)
    assert image_11HW.dtype == np.float32
    wanted = fit.to_network(np.array([centre]))[0]
    np.testing.assert_allclose(centroid(image_11HW[0, 0]), wanted, atol=0.08)


def test_only_the_region_is_seen_and_the_rest_is_black() -> None:
    pixels_HW = np.full((120, 200), 255, np.uint8)
    pixels_HW[30:90, 50:170] = 51
    fit = make_fit(Region(30, 50, 60, 120), (120, 200), 144)
    image_HW = to_network_input(pixels_HW, fit)[0, 0]
    np.testing.assert_allclose(image_HW[36:108], 51 / 255, atol=1e-6)
    assert not image_HW[:36].any()
    assert not image_HW[108:].any()


def test_shrinking_by_a_whole_number_is_the_mean_of_each_block() -> None:
    pixels_HW = np.random.default_rng(0).integers(0, 256, (432, 432), dtype=np.uint8)
    fit = make_fit(Region(0, 0, 432, 432), (432, 432), 144)
    blocks_HW = pixels_HW.reshape(144, 3, 144, 3).mean(axis=(1, 3))
    found_HW = 255 * to_network_input(pixels_HW, fit)[0, 0]
    np.testing.assert_allclose(found_HW, blocks_HW, atol=0.501)  # rounded to whole grey levels


@pytest.mark.parametrize("is_transposed", [False, True])
def test_no_row_is_skipped_where_rows_shrink_and_columns_grow(is_transposed: bool) -> None:
    # 432 x 72 px of 1 x 6 mm: rows shrink by 3 while columns double
    size, spacing_mm = ((72, 432), (6.0, 1.0)) if is_transposed else ((432, 72), (1.0, 6.0))
    fit = make_fit(Region(0, 0, *size), size, 144, spacing_mm)
    for line in range(432):
        pixels_HW = np.zeros(size, np.uint8)
        if is_transposed:
            pixels_HW[:, line] = 240
        else:
            pixels_HW[line] = 240
        image_HW = to_network_input(pixels_HW, fit)[0, 0]
        lines = image_HW.mean(axis=0 if is_transposed else 1)
        assert np.flatnonzero(lines).tolist() == [line // 3]
        assert 255 * lines[line // 3] == pytest.approx(80.0)  # a third of its mean


@pytest.mark.parametrize(
    ("region", "size", "inside"),
    [
        (Region(0, 0, 10, 10), (10, 10), Region(0, 0, 10, 10)),
        (Region(4, 6, 100, 100), (10, 20), Region(4, 6, 6, 14)),
        (Region(9, 19, 1, 1), (10, 20), Region(9, 19, 1, 1)),
        (Region(10, 0, 5, 5), (10, 20), None),
        (Region(0, 20, 5, 5), (10, 20), None),
    ],
)
def test_a_region_is_cut_to_the_image(
    region: Region, size: tuple[int, int], inside: Region | None
) -> None:
    assert clip_region(region, size) == inside


def a_sector(size: tuple[int, int]) -> tuple[NDArray[np.uint8], Region]:
    """A fan of speckle on black whose box is known from its own pixels."""
    rows, cols = np.mgrid[: size[0], : size[1]].astype(np.float64)
    apex_row, apex_col, reach = 0.12 * size[0], 0.52 * size[1], 0.75 * size[0]
    radius = np.hypot(rows - apex_row, cols - apex_col)
    angle = np.abs(np.arctan2(cols - apex_col, rows - apex_row))
    fan_HW = (radius > 0.03 * size[0]) & (radius < reach) & (angle < 0.6)
    speckle_HW = np.random.default_rng(1).rayleigh(45.0, size).clip(1, 255)
    image_HW = np.where(fan_HW, speckle_HW, 0).astype(np.uint8)
    at_rows, at_cols = np.nonzero(fan_HW)
    top, left = int(at_rows.min()), int(at_cols.min())
    return image_HW, Region(top, left, int(np.ptp(at_rows)) + 1, int(np.ptp(at_cols)) + 1)


def add_text_and_trace(image_HW: NDArray[np.uint8]) -> None:
    rows, cols = image_HW.shape
    scale = rows / 700
    for line, text in enumerate(("HR 72", "X5-1", "36 Hz", "15 cm")):
        place = (4, int((line + 1) * 0.06 * rows))
        cv2.putText(image_HW, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, 1)
    at = np.arange(cols)
    beat = (0.94 + 0.04 * np.sin(at / cols * 40)) * rows
    trace = np.stack([at, beat], axis=1).astype(np.int32)
    cv2.polylines(image_HW, [trace], False, 200, max(1, rows // 300))


@pytest.mark.parametrize("size", [(600, 800), (434, 636), (112, 112), (1080, 1920), (333, 217)])
@pytest.mark.parametrize("is_annotated", [False, True])
@pytest.mark.parametrize("background", [0, 16, 60, 240])
def test_a_sector_is_found_whole_with_a_small_margin(
    size: tuple[int, int], is_annotated: bool, background: int
) -> None:
    image_HW, box = a_sector(size)
    image_HW[image_HW == 0] = background
    if is_annotated:
        add_text_and_trace(image_HW)
    found = find_sector(image_HW)
    assert found is not None
    # margin of 2 % of the longer side, plus the smoothing of the search: 5 px of its coarse copy
    extra = 0.02 * max(box.height, box.width) + 5 * max(1, round(max(size) / 256)) + 1
    ends = [
        (box.top, found.top, -1),
        (box.left, found.left, -1),
        (box.top + box.height, found.top + found.height, 1),
        (box.left + box.width, found.left + found.width, 1),
    ]
    for wanted, got, outward in ends:
        assert -0.01 * max(size) <= outward * (got - wanted) <= extra
    assert clip_region(found, size) == found


@pytest.mark.parametrize("side", [450, 560])
@pytest.mark.parametrize("background", [0, 60])
def test_a_small_sector_on_a_large_screen_is_found(side: int, background: int) -> None:
    image_HW, box = a_sector((side, side))
    screen_HW = np.zeros((1080, 1920), np.uint8)
    add_text_and_trace(screen_HW)
    screen_HW[200:, 700:][:side, :side] = image_HW
    screen_HW[screen_HW == 0] = background
    found = find_sector(screen_HW)
    assert found is not None
    wanted = box.top + 200, box.left + 700, box.height, box.width
    got = found.top, found.left, found.height, found.width
    # two margins of 2 %, and the smoothing of the search: 5 px of its coarse copy on each side
    assert got == pytest.approx(wanted, abs=2 * (0.02 * side + 5 * 8))


def test_a_small_panel_is_no_sector() -> None:
    grain_HW = np.random.default_rng(4).integers(60, 180, (260, 300), dtype=np.uint8)
    screen_HW = np.zeros((1080, 1920), np.uint8)
    screen_HW[300:560, 800:1100] = grain_HW
    assert find_sector(screen_HW) is None


def a_toolbar(screen_HW: NDArray[np.uint8]) -> None:
    screen_HW[:150] = 170
    cv2.putText(screen_HW, "PATIENT  STUDY  MEASURE", (60, 100), 0, 2.0, 30, 4)


def a_list(screen_HW: NDArray[np.uint8]) -> None:
    screen_HW[:, :500] = 70
    for line in range(12):
        cv2.putText(screen_HW, "4CH 36 Hz", (40, 80 + 80 * line), 0, 1.5, 220, 2)


@pytest.mark.parametrize("add_panel", [a_toolbar, a_list])
@pytest.mark.parametrize("side", [560, 820])
def test_a_panel_of_a_program_is_taken_for_no_sector(
    add_panel: Callable[[NDArray[np.uint8]], None], side: int
) -> None:
    image_HW, box = a_sector((side, side))
    screen_HW = np.zeros((1080, 1920), np.uint8)
    add_panel(screen_HW)
    assert find_sector(screen_HW) is None
    screen_HW[200:, 700:][:side, :side] = image_HW
    (found,) = find_sectors(screen_HW)
    wanted = box.top + 200, box.left + 700, box.height, box.width
    got = found.top, found.left, found.height, found.width
    assert got == pytest.approx(wanted, abs=2 * (0.02 * side + 5 * 8))


@pytest.mark.parametrize("background", [16, 60, 240])
def test_what_has_the_grey_of_the_screen_is_seen_as_black(background: int) -> None:
    image_HW, _ = a_sector((288, 288))
    grey_HW = np.where(image_HW == 0, background, image_HW).astype(np.uint8)
    assert background_of(image_HW) == 0
    assert background_of(grey_HW) == background
    # as documented: what is within two greys of the screen's
    tissue_HW = np.where(np.abs(image_HW.astype(int) - background) <= 2, 0, image_HW)
    fit = make_fit(Region(0, 0, 288, 288), (288, 288), 144)
    found = to_network_input(grey_HW, fit, background)
    np.testing.assert_array_equal(found, to_network_input(tissue_HW.astype(np.uint8), fit))


def beside(*images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.hstack(images)


def test_two_sectors_on_a_screen_are_both_found() -> None:
    image_HW, box = a_sector((300, 280))
    found = find_sectors(beside(image_HW, image_HW))
    middles = sorted(each.left + each.width / 2 for each in found)
    wanted = box.left + box.width / 2
    assert middles == pytest.approx([wanted, 280 + wanted], abs=6)


def a_shadow(image_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A sector that a rib's shadow parts from its apex down."""
    rows, cols = np.mgrid[: image_HW.shape[0], : image_HW.shape[1]].astype(np.float64)
    angle = np.arctan2(cols - 0.52 * image_HW.shape[1], rows - 0.1 * image_HW.shape[0])
    return np.where(np.abs(angle) < 0.15, 0, image_HW).astype(np.uint8)


def a_panel(image_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A trace or a menu as large as the sector, beside it."""
    panel_HW = np.zeros_like(image_HW)
    panel_HW[40:250, 30:250] = 120
    return beside(image_HW, panel_HW)


def an_overview(image_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A small copy in a corner, as scanners show beside a zoomed image."""
    shown_HW = beside(np.zeros((300, 60), np.uint8), image_HW)
    small_HW = cv2.resize(image_HW, (132, 141), interpolation=cv2.INTER_AREA)
    shown_HW[:141, :132] = np.maximum(shown_HW[:141, :132], small_HW)
    return shown_HW


@pytest.mark.parametrize("shown", [a_shadow, a_panel, an_overview])
def test_what_is_no_other_sector_is_taken_for_none(
    shown: Callable[[NDArray[np.uint8]], NDArray[np.uint8]],
) -> None:
    assert len(find_sectors(shown(a_sector((300, 280))[0]))) == 1


def test_a_page_of_text_and_a_black_frame_show_no_sector() -> None:
    page_HW = np.zeros((600, 800), np.uint8)
    assert find_sector(page_HW) is None
    for line in range(12):
        place = (40, 40 + 45 * line)
        cv2.putText(page_HW, "MEASUREMENTS 4CH", place, cv2.FONT_HERSHEY_SIMPLEX, 1.0, 255, 2)
    assert find_sector(page_HW) is None


def test_noise_below_the_level_of_tissue_shows_no_sector() -> None:
    noise_HW = np.random.default_rng(2).integers(0, 6, (300, 400), dtype=np.uint8)
    assert find_sector(noise_HW) is None


@pytest.mark.parametrize("size", [(16, 16), (16, 8192), (8192, 16)])
def test_images_at_the_limits_of_size_can_be_searched_and_seen(size: tuple[int, int]) -> None:
    pixels_HW = np.full(size, 200, np.uint8)
    found = find_sector(pixels_HW)
    assert found in (None, Region(0, 0, *size))
    fit: Fit = make_fit(found or Region(0, 0, *size), size, 144)
    assert to_network_input(pixels_HW, fit).max() == pytest.approx(200 / 255)
