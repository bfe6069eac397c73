"""When a picture counts as another one."""

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from model.cuts import CUT_STEP, GAP_STEP, CutWatch
from model.frame import Frame, Region
from model.preprocess import find_sector, make_fit, to_network_input
from model.stillness import CELLS, StillWatch
from tests.model.fans import FIT, FPS, SIDE, Picture, beating


def other(picture: Picture) -> Picture:
    """Another heart: smaller, elsewhere, and lying on its other side."""
    turn = cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), 35, 0.8)
    return np.asarray(cv2.warpAffine(picture[:, ::-1], turn, (SIDE, SIDE)), np.uint8)


def cuts_in(
    pictures: Sequence[Picture], fps: int = FPS, hidden: Sequence[int] = (), is_timed: bool = True
) -> dict[int, int]:
    """Per frame at which a cut was told, the last frame of the old picture."""
    still, watch, told = StillWatch(), CutWatch(), {}
    for seq, picture in enumerate(pictures):
        frame = Frame(seq, round(1e6 * seq / fps) if is_timed else None, picture)
        still = still.after(frame, to_network_input(picture, FIT))
        watch = watch.after(frame, still.cells_HW, 0.0 if seq in hidden else 1.0)
        if watch.old_seq is not None:
            told[seq] = watch.old_seq
    return told


@pytest.mark.parametrize("is_timed", [True, False])
def test_another_heart_is_told_of_three_frames_after_the_cut(is_timed: bool) -> None:
    pictures = [*beating(3), *map(other, beating(3))]
    assert cuts_in(pictures, is_timed=is_timed) == {92: 89}


@pytest.mark.parametrize("fps", [8, 15, 30, 60])
def test_a_heart_that_beats_is_not_cut(fps: int) -> None:
    assert cuts_in(beating(6, fps), fps) == {}


def test_a_change_of_gain_is_no_cut() -> None:
    pictures = beating(6)
    brighter = [np.asarray(0.6 * each, np.uint8) for each in pictures[90:]]
    assert cuts_in([*pictures[:90], *brighter]) == {}


def test_a_damaged_frame_is_no_cut() -> None:
    pictures = beating(6)
    pictures[100] = other(pictures[100])
    pictures[140:142] = map(other, pictures[140:142])
    assert cuts_in(pictures) == {}


def test_a_finger_over_the_lens_is_no_cut() -> None:
    pictures = beating(6)
    pictures[100:145] = 45 * [other(pictures[0])]
    assert cuts_in(pictures, hidden=range(100, 145)) == {}


@pytest.mark.parametrize("gap", [15, 45])
def test_another_heart_after_a_gap_is_told_of(gap: int) -> None:
    # As where a viewer shows nothing while it opens the next loop.
    pictures = [*beating(3), *gap * [np.zeros((SIDE, SIDE), np.uint8)], *map(other, beating(3))]
    assert cuts_in(pictures, hidden=range(90, 90 + gap)) == {92 + gap: 89}


@pytest.mark.parametrize("lost", range(2, 30, 3))
@pytest.mark.parametrize("is_timed", [True, False])
def test_a_heart_that_was_not_seen_for_a_while_is_the_same(lost: int, is_timed: bool) -> None:
    pictures = [np.roll(each, k // 40, axis=1) for k, each in enumerate(beating(8))]
    assert cuts_in(pictures, hidden=range(100, 100 + lost), is_timed=is_timed) == {}


def test_a_loop_that_begins_again_is_no_other_picture() -> None:
    # Its last frame is far from its first, as where the probe was moved meanwhile.
    drifting = [np.roll(each, k // 2, axis=1) for k, each in enumerate(beating(2.5))]
    twice = cuts_in([*beating(2), *map(other, drifting), *map(other, drifting)])
    assert list(twice.values()) == [59]


def test_a_saved_watch_goes_on_as_if_nothing_had_happened() -> None:
    still, watch = StillWatch(), CutWatch()
    for seq, picture in enumerate([*beating(3), *map(other, beating(1))]):
        frame = Frame(seq, round(1e6 * seq / FPS), picture)
        still = still.after(frame, to_network_input(picture, FIT))
        watch = watch.after(frame, still.cells_HW, 1.0)
        again = CutWatch.from_view(**json.loads(json.dumps(watch.to_view())))
        assert again.to_view() == watch.to_view()
        watch = again
        assert watch.old_seq == (89 if seq == 92 else None)
    with pytest.raises(ValueError, match="base64"):
        CutWatch.from_view(last="?")


def shape_of(path: Path) -> NDArray[np.float64]:
    """Means of 6 x 6 pixels of what the network sees, less their mean, over their deviation."""
    image = np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), np.uint8)
    rows, cols = image.shape
    fit = make_fit(find_sector(image) or Region(0, 0, rows, cols), (rows, cols), 6 * CELLS)
    seen = to_network_input(image, fit)[0, 0].astype(np.float64)
    cells = seen.reshape(CELLS, 6, CELLS, 6).mean(axis=(1, 3))
    return np.asarray((cells - cells.mean()) / cells.std())


def test_other_patients_are_far(shared_dir: Path) -> None:
    folder = shared_dir / "data/ultrasound/camus/a4c-256"
    if not folder.is_dir():
        pytest.skip("CAMUS's stills are not beside the checkout")
    diastoles = sorted(folder.glob("*/*_ED.png"))
    assert len(diastoles) > 400
    ends = [
        np.stack([shape_of(path).ravel() for path in diastoles]),
        np.stack(
            [
                shape_of(path.with_name(path.name.replace("_ED", "_ES"))).ravel()
                for path in diastoles
            ]
        ),
    ]
    steps = np.stack([np.sqrt(np.maximum(2 - 2 * ends[0] @ end.T / CELLS**2, 0)) for end in ends])
    is_other = ~np.eye(len(diastoles), dtype=bool)
    assert np.mean(steps[0][is_other] > CUT_STEP) > 0.98
    assert np.mean(steps.min(0)[is_other] > GAP_STEP) > 0.75
