from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.random import Generator
from numpy.typing import NDArray

from model.training.clips import Patient, read_patients
from model.training.negatives import (
    blank,
    in_air,
    make_negative,
    phantom,
    short_axis,
    shuffled,
    texture,
    turned,
    under_flow,
)

SIDE = 48


@pytest.fixture
def patients(data: Path) -> list[Patient]:
    return read_patients(data / "train", 2 * SIDE)


def test_another_organ_is_shown_in_part_and_stays_itself(patients: list[Patient]) -> None:
    organ = np.full((120, 200), 128, np.uint8)
    shown = 0
    for seed in range(40):
        is_organ = np.random.default_rng(seed).random() < 0.5
        image = make_negative([organ], patients, SIDE, np.random.default_rng(seed))
        assert image.shape == (SIDE, SIDE)
        if is_organ:
            shown += 1
            assert np.ptp(image) < 1e-6  # one grey in, one grey out
    assert shown > 10


@pytest.mark.parametrize("make", [turned, shuffled, under_flow])
def test_a_heart_shown_as_no_heart_is_never_the_heart_itself(
    patients: list[Patient], make: Callable[..., NDArray[np.float32]]
) -> None:
    still = patients[0].ed.image_HW
    heart = still.reshape(SIDE, 2, SIDE, 2).mean(axis=(1, 3)) / 255
    for seed in range(50):
        image = make(still, SIDE, np.random.default_rng(seed))
        assert np.abs(image - heart).mean() > 0.02


@pytest.mark.parametrize("make", [texture, in_air, phantom, short_axis, blank])
def test_what_is_made_of_nothing_is_an_image_of_its_seed(
    make: Callable[[int, Generator], NDArray[np.float32]],
) -> None:
    for seed in range(20):
        image, same = (make(SIDE, np.random.default_rng(seed)) for _ in range(2))
        assert image.shape == (SIDE, SIDE)
        assert image.dtype == np.float32
        assert image.min() >= 0
        assert image.max() <= 1
        np.testing.assert_array_equal(image, same)


def test_a_probe_in_air_is_bright_at_its_face_and_dark_below() -> None:
    images = [in_air(SIDE, np.random.default_rng(seed)) for seed in range(20)]
    middle = np.mean(images, axis=0)[:, SIDE // 2 - 2 : SIDE // 2 + 2].mean(axis=1)
    assert middle[: SIDE // 4].mean() > 3 * middle[SIDE // 2 :].mean()


def test_a_short_axis_is_a_bright_ring_about_a_dark_middle() -> None:
    for seed in range(10):
        image = cv2.blur(short_axis(4 * SIDE, np.random.default_rng(seed)), (9, 9))
        middle = image[70:140, 70:120]  # holds the middle of every ring drawn
        assert image.max() > 3 * middle.min()


def test_negatives_follow_from_the_seed(patients: list[Patient]) -> None:
    one, same, other = (
        make_negative([], patients, SIDE, np.random.default_rng(seed)) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
