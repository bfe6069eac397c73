import math
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from model.frame import STRUCTURES, Mask, Region
from model.measure import Ventricle, measure_frame
from model.measure.volume import area_length_volume
from model.preprocess import make_fit
from model.training.scores import (
    agreement,
    bootstrap,
    case_scores,
    ef_scores,
    overlap,
    row_averaged_dice,
    structure_scores,
    subgroup_scores,
    surface_distances,
)

SIDE = 120


def square(top: int, left: int, side: int = 40) -> NDArray[np.bool_]:
    area = np.zeros((SIDE, SIDE), bool)
    area[top : top + side, left : left + side] = True
    return area


def disc(radius: float) -> NDArray[np.bool_]:
    rows, cols = np.mgrid[:SIDE, :SIDE]
    return np.hypot(rows - 60, cols - 60) <= radius


def test_a_mask_against_itself_is_perfect() -> None:
    assert overlap(disc(30), disc(30)) == (1.0, 1.0)
    assert surface_distances(disc(30), disc(30), 0.5) == (0.0, 0.0)


@pytest.mark.parametrize("shift", [1, 10, 39])
def test_shifted_squares_overlap_by_the_closed_form(shift: int) -> None:
    dice, iou = overlap(square(20, 20), square(20, 20 + shift))
    assert dice == pytest.approx(1 - shift / 40)
    assert iou == pytest.approx((40 - shift) / (40 + shift))


def test_squares_apart_do_not_overlap() -> None:
    assert overlap(square(0, 0), square(60, 60)) == (0.0, 0.0)


def test_where_nobody_sees_anything_there_is_no_score() -> None:
    nothing = np.zeros((SIDE, SIDE), bool)
    assert all(map(math.isnan, overlap(nothing, nothing)))
    assert all(map(math.isnan, surface_distances(nothing, nothing, 0.5)))


def test_one_empty_mask_costs_all_overlap_and_the_diagonal() -> None:
    nothing = np.zeros((30, 40), bool)
    something = nothing.copy()
    something[5, 5] = True
    for guess, truth in ((nothing, something), (something, nothing)):
        assert overlap(guess, truth) == (0.0, 0.0)
        assert surface_distances(guess, truth, 0.5) == (25.0, 25.0)  # half of 50 px


def test_a_square_shifted_along_its_side_is_away_by_the_closed_form() -> None:
    # Square of 40 px (rim 4 * 40 - 4 = 156 px) shifted by 10. The front column (40 px) and the
    # last 10 px of top and bottom overhang: the overhang's distance is its way to the other front
    # side, d = 1..10, along rows; inner front pixels are min(10, rows to top or bottom) away.
    hd95, asd = surface_distances(square(20, 20), square(20, 30), 0.3)
    front = [min(10, row, 39 - row) for row in range(40)]
    # the tail column of one lies 10 px outside the other, nearest on its own tail side
    tail = [10] * 40
    edges = list(range(1, 10)) * 2
    distances = np.array(front + tail + edges + [0] * (156 - len(front + tail + edges)))
    assert asd == pytest.approx(0.3 * distances.mean())
    assert hd95 == pytest.approx(0.3 * 10.0)


def test_concentric_discs_are_their_radii_apart() -> None:
    hd95, asd = surface_distances(disc(20), disc(32), 0.25)
    assert asd == pytest.approx(0.25 * 12, abs=0.25 * 0.3)
    assert hd95 == pytest.approx(0.25 * 12, abs=0.25 * 0.8)


def test_distances_are_those_of_a_search_among_all_rim_pixels() -> None:
    rng = np.random.default_rng(4)
    for _ in range(5):
        blobs = [cv2.GaussianBlur(rng.normal(size=(60, 70)), (0, 0), 6.0) > 0.01 for _ in range(2)]
        rims = []
        for blob in blobs:
            padded = np.pad(blob, 1)
            inner = (
                padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:] & blob
            )
            rims.append(np.argwhere(blob & ~inner))
        there = cKDTree(rims[1]).query(rims[0])[0]
        back = cKDTree(rims[0]).query(rims[1])[0]
        hd95, asd = surface_distances(blobs[0], blobs[1], 0.7)
        assert asd == pytest.approx(0.7 * np.concatenate([there, back]).mean())
        assert hd95 == pytest.approx(0.7 * max(np.percentile(there, 95), np.percentile(back, 95)))


def test_agreement_is_the_closed_form_of_five_pairs() -> None:
    reference = np.array([60.0, 50.0, 40.0, 30.0, 70.0])
    error = np.array([1.0, -1.0, 2.0, -2.0, 20.0])
    found = agreement(np.stack([reference + error, reference], axis=1))
    mae, rmse, r, bias, beyond, r2, low, high = found
    assert mae == pytest.approx(26 / 5)
    assert rmse == pytest.approx(math.sqrt((1 + 1 + 4 + 4 + 400) / 5))
    assert bias == pytest.approx(4.0)
    assert beyond == pytest.approx(0.2)
    # errors less their mean: -3 -5 -2 -6 16; references less theirs: 10 0 -10 -20 20
    # sums of products 430, of squares 1000 and 330: found x reference 1430, found^2 1000+860+330
    assert r == pytest.approx(1430 / math.sqrt(1000 * 2190))
    assert r2 == pytest.approx(1 - (1 + 1 + 4 + 4 + 400) / 1000)
    # errors less their mean squared: 9 + 25 + 4 + 36 + 256 = 330, over 4
    assert (low + high) / 2 == pytest.approx(4.0)
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(330 / 4))


def test_one_pair_has_no_correlation() -> None:
    assert math.isnan(agreement(np.array([[55.0, 50.0]]))[2])


def test_an_interval_is_that_of_the_mean_and_holds_patients_together() -> None:
    rng = np.random.default_rng(0)
    patients = np.repeat([f"p{i:03d}" for i in range(200)], 2)
    # two equal rows a patient: 200 independent numbers of variance 1, not 400
    table = np.repeat(rng.normal(size=200), 2)[:, None]
    low, high = bootstrap(patients, table, lambda part: part.mean(axis=0))
    half = 1.96 * float(table.std()) / math.sqrt(200)
    assert high[0] - low[0] == pytest.approx(2 * half, rel=0.08)
    assert low[0] < table.mean() < high[0]


def a_ventricle(volume: float) -> Ventricle | None:
    """A ventricle of that many index units cubed by disks, twice that by area and length."""
    if math.isnan(volume):
        return None
    area = math.sqrt(2 * volume * 3 * math.pi / 8)
    axis = ((0.0, 0.0), (1.0, 0.0), ((1.0, 0.0), (1.0, 1.0)))
    known = (area, None, None, None, volume, 0.0, 1.0, np.ones(20), None)
    return Ventricle(*known, *axis, "principal_axis")


def a_row(patient: str, phase: str, **values: Any) -> dict[str, Any]:
    scores = {
        "dice": 0.9,
        "iou": 0.8,
        "hd95_mm": 3.0,
        "asd_mm": 1.0,
        "row_averaged_dice": 0.95,
        "pixels": (9, 20),
    }
    return {
        "patient": patient,
        "view": values.get("view", "4CH"),
        "phase": phase,
        "lv": scores | values.get("lv", {}),
        "atrium": scores | values.get("atrium", {}),
        "found": a_ventricle(values.get("volume_ml", 100.0)),
        "reference": a_ventricle(values.get("reference_ml", 100.0)),
        "quality": values.get("quality", ""),
        "stated_ef": values.get("stated_ef"),
    }


def test_scores_are_means_by_phase_and_unseen_structures_are_left_out() -> None:
    keys = ("dice", "iou", "hd95_mm", "asd_mm", "row_averaged_dice")
    unseen: dict[str, Any] = dict.fromkeys(keys, float("nan")) | {"pixels": (0, 0)}
    rows = [
        a_row("a", "ed", atrium={"dice": 0.8}),
        a_row("a", "es", atrium={"dice": 0.6}),
        a_row("b", "ed", atrium={"dice": 0.9}),
        a_row("b", "es", atrium=unseen),
    ]
    scores = structure_scores(rows, "atrium")
    assert scores["ed"]["dice"] == pytest.approx(0.85)
    assert scores["es"]["dice"] == pytest.approx(0.6)
    assert scores["all"]["dice"] == pytest.approx(2.3 / 3, abs=1e-5)
    assert scores["all"]["hd95_mm"] == pytest.approx(3.0)
    assert scores["ed"]["ci95"]["dice"] == [0.8, 0.9]
    assert scores["es"]["ci95"]["dice"] == [0.6, 0.6]


def test_where_nothing_can_be_scored_the_scores_are_null() -> None:
    scores = structure_scores([a_row("a", "ed")], "atrium")
    assert scores["es"]["dice"] is None
    assert scores["es"]["ci95"]["dice"] is None
    ef = ef_scores([a_row("a", "ed")])
    assert (ef["mae"], ef["ci95"]["mae"], ef["pairs"]) == (None, None, 0)


def test_ejection_fractions_come_from_both_volumes_of_a_patient() -> None:
    rows = [
        a_row("a", "ed", volume_ml=100.0, reference_ml=120.0),
        a_row("a", "es", volume_ml=40.0, reference_ml=60.0),
        a_row("b", "es", volume_ml=50.0, reference_ml=50.0),
        a_row("b", "ed", volume_ml=100.0, reference_ml=80.0),
        a_row("c", "ed", volume_ml=float("nan")),
        a_row("c", "es"),
        a_row("only-es", "es"),
        a_row("only-ed", "ed"),
    ]
    scores = ef_scores(rows)
    # a: 60 against 50; b: 50 against 37.5
    assert scores["pairs"] == 2
    assert scores["mae"] == pytest.approx((10 + 12.5) / 2)
    assert scores["bias"] == pytest.approx((10 + 12.5) / 2)
    assert scores["r"] == pytest.approx(1.0)
    assert scores["beyond_15"] == 0.0
    assert scores["ci95"]["mae"] == [10.0, 12.5]


def test_one_patient_has_an_error_and_no_correlation() -> None:
    rows = [a_row("a", "ed"), a_row("a", "es", volume_ml=50.0, reference_ml=60.0)]
    scores = ef_scores(rows)
    assert scores["mae"] == pytest.approx(10.0)
    assert scores["r"] is None
    assert scores["ci95"]["r"] is None


def test_the_published_kind_of_dice_is_that_of_rows_and_flattered_by_empty_ones() -> None:
    # 40 rows of 40 px against 40 rows of 40 px, shifted by 10 px along the row: 60 of 80 a row
    shifted = row_averaged_dice(square(10, 10), square(10, 20))
    assert shifted == pytest.approx((80 * 1.0 + 40 * 60 / 80) / 120)
    assert overlap(square(10, 10), square(10, 20))[0] == pytest.approx(60 / 80)
    # padding an image with empty rows raises it, and the Dice of the mask stays
    padded = [np.pad(square(10, left), ((0, SIDE), (0, 0))) for left in (10, 20)]
    assert row_averaged_dice(*padded) == pytest.approx((200 * 1.0 + 40 * 60 / 80) / 240)
    assert overlap(*padded)[0] == pytest.approx(60 / 80)


def test_pooled_dice_counts_pixels_and_not_masks() -> None:
    rows = [a_row("a", "ed", lv={"pixels": (10, 40)}), a_row("b", "ed", lv={"pixels": (90, 160)})]
    assert structure_scores(rows, "lv")["ed"]["pooled_dice"] == pytest.approx(200 / 200)
    assert structure_scores(rows[:1], "lv")["ed"]["pooled_dice"] == pytest.approx(0.5)


def test_area_and_length_of_an_ellipse_give_its_ellipsoid() -> None:
    rows, cols = np.mgrid[:200, :200].astype(np.float64)
    long, wide = 70.0, 30.0
    radius = np.hypot((rows - 100) / long, (cols - 100) / wide)
    soft = (1.0 / (1.0 + np.exp((radius - 1.0) * 60.0))).astype(np.float32)
    maps = np.zeros((len(STRUCTURES), 200, 200), np.float32)
    maps[0] = soft
    mask = Mask(maps, make_fit(Region(0, 0, 200, 200), (200, 200), 200), 1.0)
    ventricle = measure_frame(mask, None).lv
    assert ventricle is not None
    wanted = 4 / 3 * math.pi * long * wide**2  # 8 (pi a b)^2 / (3 pi 2 a) is the ellipsoid's volume
    length_share = ventricle.length_index / (2 * long)
    assert area_length_volume(ventricle) * length_share == pytest.approx(wanted, rel=0.01)


def test_both_rules_and_what_the_index_states_are_compared_apart() -> None:
    rows = [
        a_row("a", "ed", volume_ml=100.0, reference_ml=100.0, stated_ef=52.0),
        a_row("a", "es", volume_ml=40.0, reference_ml=50.0, stated_ef=52.0),
    ]
    scores = ef_scores(rows)
    assert scores["mae"] == pytest.approx(10.0)
    assert scores["area_length"]["mae"] == pytest.approx(10.0)
    assert scores["stated"]["mae"] == pytest.approx(8.0)
    assert "biplane" not in scores
    rows += [a_row("a", phase, view="2CH") for phase in ("ed", "es")]
    assert ef_scores(rows)["biplane"]["pairs"] == 0  # made-up ventricles have no millimetres


def test_the_worst_ventricle_comes_first_with_its_ef() -> None:
    rows = [
        a_row("fine", "ed"),
        a_row("fine", "es", volume_ml=50.0, reference_ml=40.0),
        a_row("poor", "ed", lv={"dice": 0.7}),
        a_row("poor", "es"),
        a_row("missed", "ed", lv={"dice": 0.0}),
        a_row("missed", "es"),
    ]
    missed, poor, fine = case_scores(rows)
    assert (missed["patient"], missed["dice"]) == ("missed", {"ed": 0.0, "es": 0.9})
    assert (poor["patient"], poor["dice"]) == ("poor", {"ed": 0.7, "es": 0.9})
    assert (fine["patient"], fine["ef"], fine["reference_ef"]) == ("fine", 50.0, 60.0)


def test_patients_are_grouped_by_their_reference_ef_and_by_quality() -> None:
    rows = []
    for name, es_ml, quality in (("a", 65.0, "good"), ("b", 55.0, "poor"), ("c", 50.0, "good")):
        rows += [
            a_row(name, "ed", quality=quality),
            a_row(name, "es", reference_ml=es_ml, quality=quality, lv={"dice": es_ml / 100}),
        ]
    groups = subgroup_scores(rows)
    assert {name: group["patients"] for name, group in groups.items()} == {
        "EF below 40": 1,
        "EF 40 to 50": 1,
        "EF 50 and above": 1,
        "quality good": 2,
        "quality poor": 1,
    }
    assert groups["EF 40 to 50"]["lv"]["dice"] == pytest.approx((0.9 + 0.55) / 2)
