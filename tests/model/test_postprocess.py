import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from model.frame import STRUCTURES, Mask, Region
from model.postprocess import to_source_labels
from model.preprocess import make_fit, network_box

SIDE = 48


def interpolated(map_HW: NDArray[np.float64], row: float, col: float) -> float:
    """Bilinear value at a place of a map whose edge goes on for ever."""
    row = min(max(row, 0.0), map_HW.shape[0] - 1.0)
    col = min(max(col, 0.0), map_HW.shape[1] - 1.0)
    r, c = int(row), int(col)
    below, beside = min(r + 1, map_HW.shape[0] - 1), min(c + 1, map_HW.shape[1] - 1)
    dr, dc = row - r, col - c
    upper = (1 - dc) * map_HW[r, c] + dc * map_HW[r, beside]
    lower = (1 - dc) * map_HW[below, c] + dc * map_HW[below, beside]
    return float((1 - dr) * upper + dr * lower)


def reference_scores(mask: Mask) -> NDArray[np.float64]:
    """Probability of background and structures at every pixel of the region, one by one."""
    fit, box = mask.fit, network_box(mask.fit)
    maps = [1.0 - mask.probabilities_NHW.astype(np.float64).sum(axis=0), *mask.probabilities_NHW]
    seen = [
        np.asarray(each, np.float64)[
            box.top : box.top + box.height, box.left : box.left + box.width
        ]
        for each in maps
    ]
    region = fit.region
    scores = np.zeros((4, region.height, region.width))
    for row in range(region.height):
        for col in range(region.width):
            at = fit.to_network(np.array([[region.top + row, region.left + col]], np.float64))[0]
            for index, each in enumerate(seen):
                scores[index, row, col] = interpolated(each, at[0] - box.top, at[1] - box.left)
    return scores


def a_mask(size: tuple[int, int], region: Region, seed: int, sharpness: float) -> Mask:
    """Smooth random probabilities, background over most of the map."""
    rng = np.random.default_rng(seed)
    logits = [
        cv2.GaussianBlur(rng.normal(size=(SIDE, SIDE)), (0, 0), 3.0) * sharpness for _ in range(4)
    ]
    scores = np.exp(np.stack(logits) + np.array([2.0, 0, 0, 0])[:, None, None])
    probabilities = (scores / scores.sum(axis=0))[1:].astype(np.float32)
    return Mask(probabilities, make_fit(region, size, SIDE), 1.0, drawn=frozenset(STRUCTURES))


@pytest.mark.parametrize(
    ("size", "region"),
    [
        ((61, 90), Region(0, 0, 61, 90)),
        ((61, 90), Region(7, 11, 40, 33)),
        ((30, 23), Region(2, 0, 28, 23)),
        ((48, 48), Region(0, 0, 48, 48)),
        ((120, 40), Region(0, 5, 120, 7)),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("sharpness", [20.0, 80.0])
def test_labels_are_those_of_a_slow_bilinear_argmax(
    size: tuple[int, int], region: Region, seed: int, sharpness: float
) -> None:
    mask = a_mask(size, region, seed, sharpness)
    scores = reference_scores(mask)
    wanted = scores.argmax(axis=0)
    ordered = np.sort(scores, axis=0)
    is_clear = ordered[-1] - ordered[-2] > 1e-5
    assert is_clear.mean() > 0.99
    assert len(np.unique(wanted)) > 1  # there is something to compare
    labels_HW = to_source_labels(mask)
    assert labels_HW.dtype == np.uint8
    inside = labels_HW[
        region.top : region.top + region.height, region.left : region.left + region.width
    ]
    np.testing.assert_array_equal(inside[is_clear], wanted[is_clear])
    outside = labels_HW.copy()
    outside[region.top : region.top + region.height, region.left : region.left + region.width] = 0
    assert not outside.any()
    assert labels_HW.shape == size


def test_a_map_of_background_has_no_labels() -> None:
    fit = make_fit(Region(0, 0, 70, 70), (70, 70), SIDE)
    faint = np.full((3, SIDE, SIDE), 0.16, np.float32)  # background 0.52
    assert not to_source_labels(Mask(faint, fit, 1.0)).any()


@pytest.mark.parametrize("label", [1, 2, 3])
def test_a_structure_that_fills_the_input_fills_the_region(label: int) -> None:
    fit = make_fit(Region(5, 9, 50, 30), (70, 70), SIDE)
    sure = np.zeros((3, SIDE, SIDE), np.float32)
    sure[label - 1] = 1.0
    wanted = np.zeros((70, 70), np.uint8)
    wanted[5:55, 9:39] = label
    np.testing.assert_array_equal(to_source_labels(Mask(sure, fit, 1.0)), wanted)


def test_one_sure_pixel_of_the_network_is_seen_on_the_source() -> None:
    # 96 px on 48: the pixel's own four source pixels have 9/16 of it, their neighbours 3/16
    fit = make_fit(Region(0, 0, 96, 96), (96, 96), SIDE)
    probabilities = np.zeros((3, SIDE, SIDE), np.float32)
    probabilities[2, 10, 47] = 1.0
    wanted = np.zeros((96, 96), np.uint8)
    wanted[20:22, 94:96] = 3
    np.testing.assert_array_equal(to_source_labels(Mask(probabilities, fit, 1.0)), wanted)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_structure_reaches_as_far_as_it_is_likelier_than_not(axis: int) -> None:
    # Sure in lines 20 to 30, 0.49 elsewhere: above one half from line 19 + 0.01 / 0.51 to
    # 31 - 0.01 / 0.51 of the network. Source line x of 192 is line (x + 0.5) / 4 - 0.5 there.
    lines = np.full(SIDE, 0.49, np.float32)
    lines[20:31] = 1.0
    maps = np.zeros((3, SIDE, SIDE), np.float32)
    maps[0] = lines[:, None] if axis == 0 else lines[None, :]
    wanted = np.zeros((192, 192), np.uint8)
    np.moveaxis(wanted, axis, 0)[78:126] = 1
    fit = make_fit(Region(0, 0, 192, 192), (192, 192), SIDE)
    np.testing.assert_array_equal(to_source_labels(Mask(maps, fit, 1.0)), wanted)


def test_the_likelier_of_two_structures_wins_without_a_majority() -> None:
    fit = make_fit(Region(0, 0, 48, 48), (48, 48), SIDE)
    maps = np.empty((3, SIDE, SIDE), np.float32)
    maps[:] = np.array([0.30, 0.35, 0.05], np.float32)[:, None, None]  # background 0.30
    assert (to_source_labels(Mask(maps, fit, 1.0)) == 2).all()


LV, WALL, ATRIUM = 1, 2, 3


def sure(labels_HW: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Maps that have no doubt of these labels."""
    return np.stack([labels_HW == 1 + index for index in range(3)]).astype(np.float32)


def shown(maps_NHW: NDArray[np.float32], *drawn: str) -> NDArray[np.uint8]:
    """Labels on a source whose pixels are those of the network."""
    fit = make_fit(Region(0, 0, SIDE, SIDE), (SIDE, SIDE), SIDE)
    return to_source_labels(Mask(maps_NHW, fit, 1.0, drawn=frozenset(drawn)))


def a_heart() -> NDArray[np.uint8]:
    """Cavity within a wall, above an atrium."""
    labels_HW = np.zeros((SIDE, SIDE), np.uint8)
    labels_HW[4:30, 10:38] = WALL
    labels_HW[8:30, 14:34] = LV
    labels_HW[30:44, 14:34] = ATRIUM
    return labels_HW


@pytest.mark.parametrize("content", [0, WALL, ATRIUM])
def test_what_lies_within_the_ventricle_belongs_to_it(content: int) -> None:
    found_HW = a_heart()
    found_HW[15:18, 20:25] = content
    np.testing.assert_array_equal(shown(sure(found_HW)), a_heart())


def test_what_lies_within_the_atrium_belongs_to_it() -> None:
    found_HW = a_heart()
    found_HW[35:38, 20:25] = LV
    np.testing.assert_array_equal(shown(sure(found_HW)), a_heart())


@pytest.mark.parametrize("name", ["lv", "atrium"])
def test_a_piece_apart_is_given_to_what_is_next_in_likelihood(name: str) -> None:
    maps_NHW = sure(a_heart())
    index = STRUCTURES.index(name)
    maps_NHW[index, 20:24, 3:6], maps_NHW[1, 20:24, 3:6] = 0.5, 0.3  # background 0.2
    maps_NHW[index, 40:45, 3:6] = 0.6  # background 0.4
    wanted_HW = a_heart()
    wanted_HW[20:24, 3:6] = WALL
    np.testing.assert_array_equal(shown(maps_NHW), wanted_HW)


def test_a_wall_may_be_in_pieces() -> None:
    found_HW = a_heart()
    found_HW[4:8, 22:26] = 0  # open at the apex
    np.testing.assert_array_equal(shown(sure(found_HW)), found_HW)


def test_what_a_person_drew_stays_as_it_was_drawn() -> None:
    found_HW = a_heart()
    found_HW[15:18, 20:25] = 0
    found_HW[20:24, 3:6] = LV
    found_HW[35:38, 20:25] = 0
    wanted_HW = found_HW.copy()
    wanted_HW[35:38, 20:25] = ATRIUM
    np.testing.assert_array_equal(shown(sure(found_HW), "lv"), wanted_HW)


def test_a_model_of_the_ventricle_alone_is_made_whole_too() -> None:
    found_HW = np.where(a_heart() == LV, LV, 0).astype(np.uint8)
    wanted_HW = found_HW.copy()
    found_HW[15:18, 20:25] = 0
    np.testing.assert_array_equal(shown(sure(found_HW)[:1]), wanted_HW)
