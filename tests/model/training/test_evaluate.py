import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from model.errors import FrameError
from model.frame import STRUCTURES, Frame, Mask, Region
from model.postprocess import to_source_labels
from model.predictor import Predictor, StreamState
from model.preprocess import make_fit, to_network_input
from model.training.evaluate import (
    agreement,
    bootstrap,
    ef_scores,
    evaluate,
    overlap,
    read_annotated,
    reference_mask,
    structure_scores,
    surface_distances,
)
from tests.model.training.hearts import draw_labels, write_index, write_patient

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
    mae, rmse, r, bias, beyond = agreement(np.stack([reference + error, reference], axis=1))
    assert mae == pytest.approx(26 / 5)
    assert rmse == pytest.approx(math.sqrt((1 + 1 + 4 + 4 + 400) / 5))
    assert bias == pytest.approx(4.0)
    assert beyond == pytest.approx(0.2)
    # errors less their mean: -3 -5 -2 -6 16; references less theirs: 10 0 -10 -20 20
    # sums of products 430, of squares 1000 and 330: found x reference 1430, found^2 1000+860+330
    assert r == pytest.approx(1430 / math.sqrt(1000 * 2190))


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


def a_row(patient: str, phase: str, **values: Any) -> dict[str, Any]:
    scores = {"dice": 0.9, "iou": 0.8, "hd95_mm": 3.0, "asd_mm": 1.0}
    return {
        "patient": patient,
        "phase": phase,
        "atrium": scores | values.get("atrium", {}),
        "volume_ml": values.get("volume_ml", 100.0),
        "reference_ml": values.get("reference_ml", 100.0),
    }


def test_scores_are_means_by_phase_and_unseen_structures_are_left_out() -> None:
    unseen = dict.fromkeys(("dice", "iou", "hd95_mm", "asd_mm"), float("nan"))
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


def test_the_stills_of_the_split_are_read_with_their_spacing(data: Path) -> None:
    stills = read_annotated(data)
    assert [(each.patient, each.phase) for each in stills] == [
        ("patient0003", "ed"),
        ("patient0003", "es"),
    ]
    assert {each.mm_per_px for each in stills} == {0.8}
    write_patient(data / "test", "patient0009", 9)
    write_index(data, [("test", "patient0009", "ED", "0.5"), ("valid", "patient0003", "ED", "0.8")])
    assert [each.patient for each in read_annotated(data)] == ["patient0009"]  # test goes first


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ("no_index", "index.csv"),
        ("no_split", "valid"),
        ("no_column", "mm_per_px"),
        ("no_number", "line 2"),
        ("negative", "line 2"),
        ("phase", "line 2"),
        ("missing", "patient0003_4CH_ES"),
        ("unequal", "patient0003_4CH_ES"),
        ("labels", "patient0003_4CH_ES"),
        ("empty", "all"),
    ],
)
def test_a_folder_that_is_not_in_the_layout_is_refused_and_the_fault_is_named(
    data: Path, damage: str, named: str
) -> None:
    mask = data / "valid" / "patient0003_4CH_ES_gt.png"
    index = data / "index.csv"
    rows = {
        "no_number": ("valid", "patient0003", "ED", "?"),
        "negative": ("valid", "patient0003", "ED", "-1"),
        "phase": ("valid", "patient0003", "EX", "0.8"),
        "empty": ("train", "patient0001", "ED", "0.8"),
    }
    if damage == "no_index":
        index.unlink()
    elif damage == "no_split":
        (data / "valid").rename(data / "validation")
    elif damage == "no_column":
        index.write_text("split,patient,phase\nvalid,patient0003,ED\n")
    elif damage == "missing":
        mask.unlink()
    elif damage == "unequal":
        cv2.imwrite(str(mask), draw_labels(1.0)[1:])
    elif damage == "labels":
        cv2.imwrite(str(mask), draw_labels(1.0) * 60)
    else:
        write_index(data, [rows[damage]])
    with pytest.raises(FrameError) as refusal:
        read_annotated(data)
    assert named in refusal.value.message


@pytest.mark.parametrize("size", [(96, 96), (80, 96), (96, 70)])
def test_an_annotation_as_a_mask_says_what_was_annotated(data: Path, size: tuple[int, int]) -> None:
    still = read_annotated(data)[0]
    labels_HW = still.labels_HW[: size[0], : size[1]]
    mask = reference_mask(replace(still, labels_HW=labels_HW))
    np.testing.assert_array_equal(to_source_labels(mask), labels_HW)


class Oracle(Predictor):
    """Answers every still with its annotation, drawn on a network's grid of another size."""

    def __init__(self, predictor: Predictor, data: Path) -> None:
        super().__init__(predictor.model, predictor.backend)
        self.truth = {each.image_HW.tobytes(): each.labels_HW for each in read_annotated(data)}

    def step(self, frame: Frame, state: StreamState) -> tuple[Mask, StreamState]:
        labels_HW = self.truth[frame.pixels_HW.tobytes()]
        size = labels_HW.shape[0], labels_HW.shape[1]
        fit = make_fit(Region(0, 0, *size), size, 144)
        maps = [(labels_HW == k + 1).astype(np.uint8) * 255 for k in range(len(STRUCTURES))]
        stacked = np.stack([to_network_input(each, fit)[0, 0] for each in maps])
        return Mask(stacked, fit, 1.0), state


def test_the_annotations_themselves_score_nearly_full_marks(
    data: Path, tiny_predictor: Predictor
) -> None:
    seen: list[tuple[int, int]] = []
    report = evaluate(
        data,
        predictor=Oracle(tiny_predictor, data),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(1, 2), (2, 2)]
    for name in STRUCTURES:
        assert report[name]["all"]["dice"] > 0.97
        assert report[name]["all"]["hd95_mm"] <= 0.8  # one pixel
    assert report["ef"]["pairs"] == 1
    assert report["ef"]["mae"] < 2.0
    assert report["patients"] == 1
    assert report["weights"]["sha256"] == tiny_predictor.model.sha256
    json.dumps(report, allow_nan=False)


def test_weights_that_know_nothing_still_give_a_whole_report(
    data: Path, tiny_predictor: Predictor
) -> None:
    report = evaluate(data, predictor=tiny_predictor)
    json.dumps(report, allow_nan=False)
    for name in STRUCTURES:
        assert set(report[name]) == {"ed", "es", "all"}
        assert {"dice", "iou", "hd95_mm", "asd_mm", "ci95"} == set(report[name]["all"])
    assert {"mae", "rmse", "r", "bias", "beyond_15", "ci95"} <= set(report["ef"])
