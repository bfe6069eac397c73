"""Two views of one heart: biplane disks, what the views must agree in, and what is refused."""

from dataclasses import replace
from math import pi

import numpy as np
import pytest

from model import EjectionFraction, MeasurementError, ViewDisks, measure_biplane, view_disks
from model.measure.biplane import DiskStack
from tests.model.measure.simulation import EDV_ML, Heart, follow, frame_times_ms, noisy_readings

PLACES = (np.arange(20) + 0.5) / 20


def half_ellipsoid(length: float, width: float) -> DiskStack:
    """Disks of half an ellipsoid: from a point at the apex to the full width at the base."""
    return DiskStack(length, width * np.sqrt(1 - (1 - PLACES) ** 2))


def view_of(
    ed: tuple[float, float], es: tuple[float, float], *, is_calibrated: bool = True
) -> ViewDisks:
    return ViewDisks(is_calibrated, half_ellipsoid(*ed), half_ellipsoid(*es))


def ef_of(percent: float, half: float = 10.0) -> EjectionFraction:
    interval = (percent - half, percent + half)
    return EjectionFraction(
        "measured", percent, interval, 40.0, "median_of_beats", 3, 70.0, 100.0, 40.0, ()
    )


WITHHELD = EjectionFraction.without_figure("withheld", ("colour_overlay",))


def test_an_ellipsoid_of_three_axes_has_its_own_volume() -> None:
    # Half of an ellipsoid with semi-axes L, a/2 and b/2: V = 2/3 pi L (a/2) (b/2).
    a4c, a2c = view_of((90, 50), (80, 36)), view_of((90, 42), (80, 30))
    found = measure_biplane((a4c, ef_of(60)), (a2c, ef_of(60)))
    edv, esv = (
        2 / 3 * pi * length * a * b / 4 / 1000 for length, a, b in ((90, 50, 42), (80, 36, 30))
    )
    assert found.ef.method == "biplane"
    assert found.ef.edv_ml == pytest.approx(edv, rel=0.001)
    assert found.ef.esv_ml == pytest.approx(esv, rel=0.001)
    assert found.ef.percent == pytest.approx(100 * (1 - esv / edv), abs=0.05)
    assert found.ef.reasons == ()


def test_the_longer_axis_of_the_instant_gives_the_height_and_a_short_one_is_told() -> None:
    a4c, a2c = view_of((90, 50), (70, 36)), view_of((80, 50), (75, 36))
    found = measure_biplane((a4c, ef_of(55)), (a2c, ef_of(55)))
    # Longest at ED is 90, at ES 75.
    assert found.ef.edv_ml == pytest.approx(2 / 3 * pi * 90 * 50 * 50 / 4 / 1000, rel=0.001)
    assert found.ef.esv_ml == pytest.approx(2 / 3 * pi * 75 * 36 * 36 / 4 / 1000, rel=0.001)
    assert found.ed_length_difference_percent == pytest.approx(100 * 10 / 90)
    assert found.es_length_difference_percent == pytest.approx(100 * 5 / 75)
    assert "lengths_differ" in found.ef.reasons


@pytest.mark.parametrize(("second", "is_told"), [(46.0, False), (44.0, True)])
def test_views_whose_efs_differ_by_more_than_15_points_warn(second: float, is_told: bool) -> None:
    view = view_of((90, 50), (80, 36))
    found = measure_biplane((view, ef_of(60)), (view, ef_of(second)))
    assert found.ef_difference_points == pytest.approx(60 - second)
    assert ("views_disagree" in found.ef.reasons) == is_told


def test_without_calibration_there_is_an_ef_but_no_millilitre() -> None:
    # The same heart, its views seen at other scales: the EF must be the calibrated one.
    a4c, a2c = view_of((90, 50), (80, 36)), view_of((90, 42), (80, 30))
    wanted = measure_biplane((a4c, ef_of(60)), (a2c, ef_of(60))).ef.percent
    loose = ViewDisks(False, a2c.ed.scaled(3.1), a2c.es.scaled(3.1))
    found = measure_biplane((a4c, ef_of(60)), (loose, ef_of(60)))
    assert found.ef.percent == pytest.approx(wanted)
    assert found.ef.edv_ml is None
    assert found.ef.esv_ml is None
    assert found.ed_length_difference_percent is None
    assert "no_spacing" in found.ef.reasons


def test_a_view_without_an_ef_withholds_the_biplane_one_and_says_which() -> None:
    found = measure_biplane((view_of((90, 50), (80, 36)), ef_of(60)), (None, WITHHELD))
    assert found.ef.state == "withheld"
    assert found.ef.percent is None
    assert found.ef.reasons == ("a2c_not_measured", "colour_overlay")


def test_the_interval_is_no_narrower_than_the_mean_of_both() -> None:
    view = view_of((90, 50), (80, 36))
    ef = measure_biplane((view, ef_of(60, 8.0)), (view, ef_of(60, 12.0))).ef
    assert ef.interval is not None
    assert ef.interval[1] - ef.interval[0] == pytest.approx(20.0)


def test_one_view_taken_twice_has_its_own_ef_and_volume() -> None:
    heart = Heart.regular(75, 55, start_ms=150.0)
    times = frame_times_ms(5.0, 40)
    readings = noisy_readings(heart, times, noise=0.01)
    told = follow(times, readings)
    disks = view_disks(range(len(times)), readings, told.beats(), told.ef)
    assert disks is not None
    found = measure_biplane((disks, told.ef), (disks, told.ef))
    assert found.ef.percent == pytest.approx(told.ef.percent)
    assert found.ef.edv_ml == pytest.approx(EDV_ML, rel=0.03)


def test_without_an_ef_there_are_no_disks() -> None:
    times = frame_times_ms(5.0, 40)
    readings = noisy_readings(Heart.regular(75, 55), times)
    told = follow(times, readings)
    assert view_disks(range(len(times)), readings, told.beats(), WITHHELD) is None


def test_disks_come_back_from_a_result_as_they_went_in() -> None:
    view = view_of((90, 50), (80, 36))
    again = ViewDisks.from_json(view.to_json())
    np.testing.assert_allclose(again.ed.diameters_20, view.ed.diameters_20, atol=1e-4)
    assert (again.es.length, again.is_calibrated) == (80, True)


@pytest.mark.parametrize(
    "damage",
    [
        {"unit": "cm"},
        {"ed": {"length": 90}},
        {"ed": {"length": 90, "diameters": [1.0] * 19}},
        {"ed": {"length": float("nan"), "diameters": [1.0] * 20}},
        {"ed": {"length": 90, "diameters": [-1.0] * 20}},
        {"es": {"length": 90, "diameters": [0.0] * 20}},
        {"es": None},
    ],
)
def test_what_are_no_disks_is_refused(damage: dict[str, object]) -> None:
    with pytest.raises(MeasurementError):
        ViewDisks.from_json(view_of((90, 50), (80, 36)).to_json() | damage)


def test_a_beat_that_does_not_count_leaves_no_disks() -> None:
    times = frame_times_ms(5.0, 40)
    readings = noisy_readings(Heart.regular(75, 55), times)
    told = follow(times, readings)
    beats = [replace(beat, reasons=("noisy_curve",)) for beat in told.beats()]
    assert view_disks(range(len(times)), readings, beats, told.ef) is None
