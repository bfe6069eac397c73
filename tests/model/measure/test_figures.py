"""Figures beside the EF: closed forms where there are beats, and a reason where there are none."""

from dataclasses import replace
from math import pi

import numpy as np
import pytest
from numpy.typing import NDArray

from model import Beat, EjectionFraction, Figure, Reading, derive_figures
from model.measure.biplane import counted_beats
from tests.model.measure.simulation import (
    EDV_ML,
    LENGTH_MM,
    Followed,
    Heart,
    follow,
    frame_times_ms,
    noisy_readings,
)

SIDE_PX = 200
EF, RATE = 60.0, 75.0


def edge_px(reach_px: float | None = None) -> NDArray[np.float32]:
    """How far each pixel is from the outermost ones, and from an arc about (0, 80) if any."""
    row, col = np.mgrid[:SIDE_PX, :SIDE_PX].astype(np.float32)
    sides = np.minimum.reduce([row, col, SIDE_PX - 1 - row, SIDE_PX - 1 - col])
    return sides if reach_px is None else np.minimum(sides, reach_px - np.hypot(row, col - 80))


def circle(centre: tuple[float, float], radius: float) -> NDArray[np.float32]:
    angle = np.linspace(0, 2 * pi, 361)
    points = np.stack([centre[0] + radius * np.cos(angle), centre[1] + radius * np.sin(angle)], 1)
    return points.astype(np.float32)


@pytest.fixture(scope="module")
def told() -> tuple[NDArray[np.float64], list[Reading], Followed]:
    times = frame_times_ms(5.0, 40)
    readings = noisy_readings(Heart.regular(RATE, EF, start_ms=150.0), times)
    return times, readings, follow(times, readings)


def named(figures: tuple[Figure, ...]) -> dict[str, Figure]:
    return {figure.name: figure for figure in figures}


def derive(
    readings: list[Reading],
    told: Followed,
    *,
    spacing_mm: tuple[float, float] | None = (1.0, 1.0),
    reach_px: float | None = None,
) -> dict[str, Figure]:
    seqs, edge_px_HW = range(len(readings)), edge_px(reach_px)
    return named(
        derive_figures(
            seqs, readings, told.beats(), told.ef, spacing_mm=spacing_mm, edge_px_HW=edge_px_HW
        )
    )


def test_stroke_volume_and_output_are_those_of_the_heart(
    told: tuple[NDArray[np.float64], list[Reading], Followed],
) -> None:
    _, readings, followed = told
    figures = derive(readings, followed)
    stroke_ml = EDV_ML * EF / 100
    assert figures["stroke_volume"].value == pytest.approx(stroke_ml, rel=0.03)
    assert figures["cardiac_output"].value == pytest.approx(stroke_ml * RATE / 1000, rel=0.04)
    assert figures["lv_length_ed"].value == pytest.approx(LENGTH_MM / 10, rel=0.01)
    # The drawn axis shortens by a quarter of the share ejected; five frames about a turn lose some.
    assert figures["longitudinal_shortening"].value == pytest.approx(EF / 4, abs=1.0)
    assert all(figure.reason is None for name, figure in figures.items() if name != "la_volume_es")


def test_without_calibration_only_ratios_are_told(
    told: tuple[NDArray[np.float64], list[Reading], Followed],
) -> None:
    times, readings, _ = told
    bare = [
        replace(r, lv=r.lv and replace(r.lv, index_mm=None, length_cm=None, area_cm2=None))
        for r in readings
    ]
    figures = derive(bare, follow(times, bare), spacing_mm=None)
    given = {name for name, figure in figures.items() if figure.value is not None}
    assert given == {"fractional_area_change", "longitudinal_shortening"}
    assert {f.reason for f in figures.values() if f.value is None} == {"no_spacing"}


def test_without_an_ef_every_figure_has_the_same_names_and_a_reason(
    told: tuple[NDArray[np.float64], list[Reading], Followed],
) -> None:
    _, readings, followed = told
    ef = EjectionFraction.without_figure("withheld", ("colour_overlay",))
    figures = named(derive_figures(
        range(len(readings)), readings, followed.beats(), ef, spacing_mm=None,
        edge_px_HW=edge_px(),
    ))  # fmt: skip
    assert set(figures) == set(derive(readings, followed))
    assert {figure.reason for figure in figures.values()} == {"colour_overlay"}
    assert all(figure.value is None for figure in figures.values())


def with_atrium(readings: list[Reading], outline_P2: NDArray[np.float32]) -> list[Reading]:
    return [replace(reading, contours={"atrium": (outline_P2,)}) for reading in readings]


def test_a_round_atrium_has_the_volume_of_a_sphere(
    told: tuple[NDArray[np.float64], list[Reading], Followed],
) -> None:
    _, readings, followed = told
    radius = 18.0
    bottoms = [reading.lv.base for reading in readings if reading.lv is not None]
    # A circle that touches the middle of the annulus of the emptiest ventricle.
    row = min(base[0] for base in bottoms) + radius
    atrium = with_atrium(readings, circle((row, 80.0), radius))
    volume = derive(atrium, followed)["la_volume_es"]
    assert volume.value is not None
    assert volume.value == pytest.approx(4 / 3 * pi * radius**3 / 1000, rel=0.03)
    stretched = derive(atrium, followed, spacing_mm=(2.0, 2.0))["la_volume_es"]
    assert stretched.value == pytest.approx(8 * volume.value, rel=1e-6)


def test_an_atrium_that_the_image_cuts_off_has_no_volume(
    told: tuple[NDArray[np.float64], list[Reading], Followed],
) -> None:
    _, readings, followed = told
    cut = circle((185.0, 80.0), 25.0).clip(0, 199)
    volume = derive(with_atrium(readings, cut), followed)["la_volume_es"]
    assert (volume.value, volume.reason) == (None, "atrium_cut_off")


def test_an_atrium_that_the_fan_cuts_off_has_no_volume(
    told: tuple[NDArray[np.float64], list[Reading], Followed],
) -> None:
    """The far arc runs through the atrium, well inside the image."""
    _, readings, followed = told
    reach_px = 170.0
    whole = with_atrium(readings, circle((145.0, 80.0), 18.0))
    assert derive(whole, followed, reach_px=reach_px)["la_volume_es"].value is not None
    cut = circle((160.0, 0.0), 25.0)
    cut *= np.minimum(1, reach_px / np.hypot(*cut.T))[:, None]
    cut[:, 1] += 80
    for told_px, reason in ((reach_px, "atrium_cut_off"), (None, None)):
        figure = derive(with_atrium(readings, cut), followed, reach_px=told_px)["la_volume_es"]
        assert figure.reason == reason


def test_the_beats_that_count_are_those_of_the_ef() -> None:
    first, other = (
        Beat(number, 0, 20, es_seq, 667.0, None, None, None, ef, 40.0, False, ())
        for number, es_seq, ef in ((0, 5, 62.0), (1, 29, 50.8))
    )
    assert counted_beats([first, other]) == [first]
    assert counted_beats([other, first]) == [first]
    whole = replace(other, number=2, ed_seq=31, is_complete=True)
    assert counted_beats([first, other, whole]) == [whole]
    assert counted_beats([replace(first, reasons=("noisy_curve",)), other]) == [other]
