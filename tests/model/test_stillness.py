"""When an image counts as standing still."""

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from model.frame import Frame, Region
from model.predictor import Predictor, self_test_frame
from model.preprocess import find_sector, make_fit, to_network_input
from model.stillness import STILL_SHARE, StillWatch

SIDE = 192
FIT = make_fit(Region(0, 0, SIDE, SIDE), (SIDE, SIDE), 144)


def follow(
    watch: StillWatch,
    pictures: Sequence[NDArray[np.uint8]],
    times_us: Sequence[int | None],
    first: int = 0,
) -> list[int | None]:
    """Since when the image stands still, after every frame."""
    told = []
    for seq, (picture, time_us) in enumerate(zip(pictures, times_us, strict=True), first):
        watch = watch.after(Frame(seq, time_us, picture), to_network_input(picture, FIT))
        told.append(watch.since_seq)
    return told


def cells_of(image_11HW: NDArray[np.float32]) -> NDArray[np.float64]:
    """Means of 6 x 6 pixels."""
    return image_11HW[0, 0].astype(np.float64).reshape(24, 6, 24, 6).mean(axis=(1, 3))


def noisy(picture: NDArray[np.uint8], sigma: float, seed: int) -> NDArray[np.uint8]:
    noise = np.random.default_rng(seed).normal(0, sigma, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def times(count: int, fps: int) -> list[int | None]:
    return [round(1e6 * each / fps) for each in range(count)]


HEART = self_test_frame(0).pixels_HW


@pytest.mark.parametrize("sigma", [0, 1, 4])
@pytest.mark.parametrize("fps", [10, 30, 60, 120])
def test_an_image_under_noise_stands_still_after_a_second(sigma: float, fps: int) -> None:
    moving = [np.roll(HEART, 3 * each, axis=1) for each in range(4)]
    pictures: list[NDArray[np.uint8]] = [*moving]
    pictures += [noisy(moving[-1], sigma, each) for each in range(2 * fps)]
    told = follow(StillWatch(), pictures, times(4 + 2 * fps, fps))
    # Without noise the first held image is the last that moved.
    since = 3 if sigma == 0 else told[-1]
    assert since in (3, 4)
    assert told == (since + fps) * [None] + (4 + 2 * fps - since - fps) * [since]


def test_without_times_thirty_frames_count() -> None:
    assert follow(StillWatch(), 40 * [HEART], 40 * [None]) == 30 * [None] + 10 * [0]


def test_a_second_of_few_frames_is_not_enough() -> None:
    assert follow(StillWatch(), 7 * [HEART], times(7, 1)) == 5 * [None] + 2 * [0]


@pytest.mark.parametrize("px", [1, 2])
def test_an_image_that_moves_by_pixels_does_not_stand_still(px: int) -> None:
    swaying = [np.roll(HEART, px * round(2 * np.sin(each / 5)), axis=0) for each in range(120)]
    assert set(follow(StillWatch(), swaying, times(120, 30))) == {None}


def test_a_heart_that_hardly_beats_in_a_still_image_does_not_stand_still() -> None:
    # Half an axis of 40 to 37 px: (37 / 40)^3, an EF of about a fifth; nothing else moves.
    rows, cols = np.mgrid[0:SIDE, 0:SIDE]

    def heart(wide: float) -> NDArray[np.uint8]:
        radius = np.hypot((rows - 85) / (1.5 * wide), (cols - 100) / wide)
        return np.where(radius < 1, 30, np.where(radius < 1.3, 150, 80)).astype(np.uint8)

    beating = [heart(38.5 + 1.5 * np.cos(2 * np.pi * each / 30)) for each in range(90)]
    assert set(follow(StillWatch(), beating, times(90, 30))) == {None}


def test_every_patient_moves_far_more_from_diastole_to_systole(shared_dir: Path) -> None:
    folder = shared_dir / "data/ultrasound/camus/a4c-256"
    if not folder.is_dir():
        pytest.skip("CAMUS's stills are not beside the checkout")
    diastoles = sorted(
        path for split in ("train", "valid") for path in folder.glob(f"{split}/*_ED.png")
    )
    assert len(diastoles) > 400
    changes = []
    for path in diastoles:
        ed_HW, es_HW = (
            np.asarray(cv2.imread(str(each), cv2.IMREAD_GRAYSCALE), np.uint8)
            for each in (path, path.with_name(path.name.replace("_ED", "_ES")))
        )
        fit = make_fit(
            find_sector(ed_HW) or Region(0, 0, 256, 256), (ed_HW.shape[0], ed_HW.shape[1]), 144
        )
        cells = [cells_of(to_network_input(each, fit)) for each in (ed_HW, es_HW)]
        changes.append(np.sqrt(np.mean((cells[1] - cells[0]) ** 2)) / cells[0].std())
    assert min(changes) > 3 * STILL_SHARE


def test_it_ends_with_the_first_image_that_differs() -> None:
    pictures = [*40 * [HEART], np.roll(HEART, 4, axis=0), *3 * [HEART]]
    told = follow(StillWatch(), pictures, times(len(pictures), 30))
    assert told[30:] == [*10 * [0], *4 * [None]]


@pytest.mark.parametrize("cut", [0, 1, 29, 31])
def test_a_watch_goes_on_from_what_was_saved(cut: int) -> None:
    pictures = [noisy(HEART, 2, each) for each in range(40)]
    whole = follow(StillWatch(), pictures, times(40, 30))
    watch = StillWatch()
    for seq in range(cut):
        frame = Frame(seq, times(40, 30)[seq], pictures[seq])
        watch = watch.after(frame, to_network_input(pictures[seq], FIT))
    again = StillWatch.from_view(**json.loads(json.dumps(watch.to_view())))
    assert again.to_view() == watch.to_view()
    assert follow(again, pictures[cut:], times(40, 30)[cut:], cut) == whole[cut:]


@pytest.mark.parametrize("cells", ["", "AAAA", "not base64"])
def test_cells_that_are_no_image_are_refused(cells: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        StillWatch.from_view(cells=cells)


def test_the_predictor_says_since_when(tiny_predictor: Predictor) -> None:
    state, told = tiny_predictor.start(), []
    for seq in range(3, 45):
        shown = self_test_frame(seq % 3 if seq < 10 else 0)
        frame = Frame(seq, 33_333 * seq, shown.pixels_HW)
        mask, state = tiny_predictor.step(frame, state)
        told.append(mask.still_since_seq)
    assert told == 37 * [None] + 5 * [9]
