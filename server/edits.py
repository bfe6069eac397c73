"""Corrections of a clip's outlines: what may be drawn, and the trail of who drew what, and when."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model import STRUCTURES, Drawn, Mask, correct_mask
from server.errors import EditError

Outlines = Mapping[str, Sequence[Sequence[tuple[float, float]]]]
"""Per name of STRUCTURES its closed outlines of (row, column) points, as in ``outlines.json``."""

LEAST_POINTS, MOST_POINTS = 3, 1000
MOST_OUTLINES = 8
"""Of one structure in one frame."""

MOST_EDITS = 1000
"""Of one clip; its result holds all of them."""

_DIGITS = 2


@dataclass(frozen=True, slots=True)
class EditSide:
    """A frame on one side of an edit.

    Attributes:
        contours: of the structures that the edit touched; None for the network's own.
        lv_area_px: area of the ventricle, None where it shows none.
        ef_percent: of the clip, None where it has none.
    """

    contours: Outlines | None
    lv_area_px: float | None
    ef_percent: float | None


@dataclass(frozen=True, slots=True)
class Edit:
    """One correction of one frame.

    Attributes:
        revision: of the result that it led to, rising by one from 1.
        frame: place in the clip, from 0.
        who: name of the API key, None where the server has none.
        time: UTC, ISO 8601; empty where nobody must know.
        before: how the frame was.
        after: how it is; without contours where the network's own were restored.
    """

    revision: int
    frame: int
    who: str | None
    time: str
    before: EditSide
    after: EditSide

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Edit":
        """Read what ``to_json`` made."""
        sides = {name: EditSide(**document[name]) for name in ("before", "after")}
        return cls(**{**document, **sides})

    def to_json(self) -> dict[str, Any]:
        """As part of a clip's result."""
        return asdict(self)

    def anonymous(self) -> "Edit":
        """The same by nobody and at no time: a correction is often made on the day of the study."""
        return replace(self, who=None, time="")


def edits_of(document: Mapping[str, Any]) -> tuple[Edit, ...]:
    """Every edit that a clip's result tells of, in order."""
    return tuple(Edit.from_json(each) for each in document["edits"])


def last_edits(edits: Sequence[Edit]) -> dict[int, Edit]:
    """By frame the last edit of each frame that is not as the network left it."""
    last = {edit.frame: edit for edit in edits}
    return {frame: edit for frame, edit in last.items() if edit.after.contours is not None}


class Corrections:
    """What edits draw over the network's masks, frame by frame."""

    def __init__(self, edits: Sequence[Edit] = ()) -> None:
        self._outlines: dict[int, dict[str, Any]] = {}
        for edit in edits:
            self.add(edit.frame, edit.after.contours)

    def add(self, frame: int, contours: Outlines | None) -> None:
        """Draw over what was drawn before; None takes all of it away."""
        if contours is None:
            self._outlines.pop(frame, None)
        else:
            self._outlines[frame] = {**self._outlines.get(frame, {}), **contours}

    def names(self, frame: int) -> list[str]:
        """Structures that are drawn in a frame."""
        return list(self._outlines.get(frame, {}))

    def apply(self, frame: int, mask: Mask) -> Mask:
        """The mask of a frame as corrected.

        Raises:
            MeasurementError: an outline cannot be measured.
        """
        outlines = self._outlines.get(frame)
        return mask if outlines is None else correct_mask(mask, _drawn(outlines))


def _drawn(outlines: Outlines) -> Drawn:
    return {
        name: [np.array([*line, line[0]], np.float64) for line in lines]
        for name, lines in outlines.items()
    }


def check_contours(contours: Outlines, size: tuple[int, int]) -> Outlines:
    """Take outlines in the form that they are kept in: open, to a hundredth of a pixel.

    Args:
        contours: as a client drew them; the last point may repeat the first.
        size: rows and columns of the clip.

    Raises:
        EditError: what is wrong with them.
    """
    if not contours:
        raise EditError("contours names no structure; null brings the network's outlines back")
    unknown = sorted(set(contours) - set(STRUCTURES))
    if unknown:
        raise EditError(f"contours names {unknown[0][:40]!r}, wanted {', '.join(STRUCTURES)}")
    kept = {}
    for name, lines in contours.items():
        if len(lines) > MOST_OUTLINES:
            raise EditError(f"{name} has {len(lines)} outlines, at most {MOST_OUTLINES} are taken")
        kept[name] = [_check_outline(name, line, size) for line in lines]
    return kept


def _check_outline(
    name: str, line: Sequence[tuple[float, float]], size: tuple[int, int]
) -> list[tuple[float, float]]:
    points = _without_repeats([(round(row, _DIGITS), round(col, _DIGITS)) for row, col in line])
    if len(points) < LEAST_POINTS:
        raise EditError(f"an outline of {name} has fewer than {LEAST_POINTS} different points")
    if len(points) > MOST_POINTS:
        raise EditError(f"an outline of {name} has {len(points)} points, at most {MOST_POINTS}")
    for row, col in points:
        if not (-0.5 <= row <= size[0] - 0.5 and -0.5 <= col <= size[1] - 0.5):
            raise EditError(
                f"an outline of {name} leaves the image of {size[0]} rows and {size[1]} columns "
                f"at row {row:g}, column {col:g}"
            )
    crossing = first_crossing(np.array(points))
    if crossing is not None:
        (row, col), (other_row, other_col) = (points[place] for place in crossing)
        raise EditError(
            f"an outline of {name} meets itself: its sides from row {row:g}, column {col:g} and "
            f"from row {other_row:g}, column {other_col:g}"
        )
    return points


def _without_repeats(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Leave out points that repeat the one before, the first being behind the last."""
    return [point for place, point in enumerate(points) if point != points[place - 1]]


def first_crossing(points_P2: NDArray[np.float64]) -> tuple[int, int] | None:
    """Find two sides of a closed outline that touch though they are not neighbours.

    Args:
        points_P2: the outline without its first point repeated.

    Returns:
        The places of the sides' first points, None where the outline is simple.
    """
    count = len(points_P2)
    ends_P2 = np.roll(points_P2, -1, axis=0)
    low_P2, high_P2 = np.minimum(points_P2, ends_P2), np.maximum(points_P2, ends_P2)
    is_near_PP = ((low_P2[:, None] <= high_P2) & (low_P2 <= high_P2[:, None])).all(axis=-1)
    starts_PP = _turns(points_P2, ends_P2, points_P2)
    stops_PP = _turns(points_P2, ends_P2, ends_P2)
    is_astride_PP = starts_PP * stops_PP <= 0
    meets_PP = np.triu(is_near_PP & is_astride_PP & is_astride_PP.T, k=2)
    meets_PP[0, count - 1] = False
    found = np.argwhere(meets_PP)
    return (int(found[0][0]), int(found[0][1])) if len(found) else None


def _turns(
    first_P2: NDArray[np.float64], last_P2: NDArray[np.float64], other_Q2: NDArray[np.float64]
) -> NDArray[np.float64]:
    """On which side of every line from first to last each other point lies."""
    side_P2 = last_P2 - first_P2
    away_PQ2 = other_Q2 - first_P2[:, None]
    turn_PQ = side_P2[:, None, 0] * away_PQ2[..., 1] - side_P2[:, None, 1] * away_PQ2[..., 0]
    # Hundredths of a pixel make whole numbers, so that what touches is exactly 0.
    return np.sign(np.round(turn_PQ * 10 ** (2 * _DIGITS)))
