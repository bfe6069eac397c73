from pathlib import Path

import numpy as np
import pytest

from server.edits import (
    MOST_OUTLINES,
    MOST_POINTS,
    Corrections,
    Outlines,
    check_contours,
    first_crossing,
)
from server.errors import EditError
from server.study import analyse_clip
from tests.server.phantom import (
    BASE_ROW,
    BEAT_FRAMES,
    ED_HALF_WIDTH_PX,
    ED_LENGTH_PX,
    MIDDLE_COL,
    grey_predictor,
    phantom_clip,
)

SIZE = (100, 200)
SQUARE = [(10.0, 10.0), (10.0, 60.0), (60.0, 60.0), (60.0, 10.0)]
RING = [
    (50 + 40 * np.cos(angle), 100 + 40 * np.sin(angle))
    for angle in np.linspace(0, 2 * np.pi, MOST_POINTS, endpoint=False)
]


def test_an_outline_is_kept_open_and_to_a_hundredth() -> None:
    line = [(10.004, 10.0), (10.0, 10.0), *SQUARE[1:], SQUARE[0]]
    assert check_contours({"lv": [line]}, SIZE) == {"lv": [[*SQUARE[1:], SQUARE[0]]]}


def test_an_outline_of_many_points_passes() -> None:
    kept = check_contours({"lv": [RING], "myocardium": [], "atrium": [SQUARE]}, SIZE)
    assert len(kept["lv"][0]) == MOST_POINTS
    assert kept["myocardium"] == []


def test_the_edge_of_the_image_is_inside() -> None:
    # Pixel centres are whole numbers, so that the image begins half a pixel before the first.
    corners = [(-0.5, -0.5), (-0.5, 199.5), (99.5, 199.5), (99.5, -0.5)]
    assert check_contours({"lv": [corners]}, SIZE)["lv"][0] == corners


@pytest.mark.parametrize(
    ("contours", "words"),
    [
        ({}, "no structure"),
        ({"spleen": [SQUARE]}, "'spleen', wanted lv, myocardium, atrium"),
        ({"lv": [[]]}, "fewer than 3"),
        ({"lv": [[(1.0, 1.0), (5.0, 5.0), (1.0, 1.0), (1.0, 1.0)]]}, "fewer than 3"),
        ({"lv": [[*RING, (50.0, 100.0)]]}, "at most 1000"),
        ({"lv": [SQUARE] * (MOST_OUTLINES + 1)}, "at most 8"),
        ({"lv": [[*SQUARE[:3], (60.0, -0.51)]]}, "leaves the image of 100 rows and 200 columns"),
        ({"lv": [[*SQUARE[:3], (99.51, 10.0)]]}, "at row 99.51, column 10"),
        ({"atrium": [[SQUARE[0], SQUARE[2], SQUARE[1], SQUARE[3]]]}, "atrium meets itself"),
    ],
)
def test_what_no_structure_can_look_like_is_refused_with_what_is_wrong(
    contours: Outlines, words: str
) -> None:
    with pytest.raises(EditError, match=words):
        check_contours(contours, SIZE)


@pytest.mark.parametrize(
    ("points", "crossing"),
    [
        (SQUARE, None),
        (SQUARE[:3], None),
        ([(0, 0), (10, 10), (10, 0), (0, 10)], (0, 2)),
        ([(0, 0), (0, 9), (9, 9), (0, 5), (9, 0)], (0, 2)),  # a point on another side
        ([(0, 0), (0, 9), (5, 5), (9, 9), (9, 0), (5, 5)], (1, 4)),  # two points in one place
        ([(0, 0), (0, 4), (1, 4), (1, 6), (0, 6), (0, 9), (9, 9), (9, 0)], None),  # in one line
    ],
)
def test_sides_that_meet_are_found(
    points: list[tuple[float, float]], crossing: tuple[int, int] | None
) -> None:
    assert first_crossing(np.array(points, float)) == crossing


def test_the_ef_is_that_of_what_was_drawn(tmp_path: Path) -> None:
    """The phantom's EF is 50 %; half ellipsoids that empty by 60 % are drawn over it."""
    count, corrections = 2 * BEAT_FRAMES + 5, Corrections()
    for frame in range(count):
        emptied = (1 - np.cos(2 * np.pi * frame / BEAT_FRAMES)) / 2
        shrink = (1 - 0.6 * emptied) ** (1 / 3)
        angle = np.linspace(-np.pi / 2, np.pi / 2, 90)
        rows = BASE_ROW + 0.5 - ED_LENGTH_PX * shrink * np.cos(angle)
        columns = MIDDLE_COL + ED_HALF_WIDTH_PX * shrink * np.sin(angle)
        corrections.add(frame, {"lv": [list(zip(rows, columns, strict=True))]})
    path = phantom_clip(tmp_path / "phantom.dcm", count)
    study = analyse_clip(path, grey_predictor(), correct=corrections.apply)
    assert study.document["ef"]["percent"] == pytest.approx(60, abs=1)
