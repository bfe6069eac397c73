"""Where a pixel has the size that the client declared, and where it no longer has."""

import json
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest

from model.cuts import CutWatch
from model.frame import Frame, Region
from model.preprocess import to_network_input
from model.scale import SETTLED_FRAMES, ScaleWatch
from model.stillness import StillWatch
from tests.model.fans import FIT, FPS, Picture, beating, heart

WHOLE = Region(20, 60, 200, 200)
INNER = Region(70, 110, 100, 100)


def seen_for(frames: int, region: Region, watch: ScaleWatch | None = None) -> ScaleWatch:
    watch = watch or ScaleWatch()
    for _ in range(frames):
        watch = watch.after(region, is_apical=True)
    return watch


@pytest.mark.parametrize(
    ("region", "is_left"),
    [
        (WHOLE, False),
        (INNER, True),
        (replace(WHOLE, left=0), False),
        (Region(20, 0, 220, 260), True),
        (Region(0, 40, 240, 240), True),
        # a probe that hardly touches: the fan ends at half its depth, and is half as wide there
        (Region(20, 110, 100, 100), False),
        (Region(22, 64, 192, 192), False),
    ],
    ids=["same", "zoomed out", "moved", "grown aside", "grown upwards", "shallow", "breath"],
)
def test_an_image_of_another_size_at_another_place_has_pixels_of_another_size(
    region: Region, is_left: bool
) -> None:
    assert seen_for(SETTLED_FRAMES, WHOLE).is_left(region) == is_left


def test_the_size_of_a_pixel_is_told_of_where_a_heart_was_seen_at_leisure() -> None:
    watch = seen_for(SETTLED_FRAMES - 1, INNER)
    for _ in range(200):
        watch = watch.after(INNER, is_apical=False)
    assert not watch.is_left(WHOLE)
    watch = seen_for(SETTLED_FRAMES, WHOLE, watch.elsewhere())
    assert watch.is_left(INNER)
    assert not seen_for(500, INNER, watch.elsewhere()).is_left(WHOLE)


def lost_after(pictures: Iterable[Picture | None]) -> list[bool]:
    """Per frame, whether the size is lost; None is a frame that shows no heart."""
    still, cuts, watch, found = StillWatch(), CutWatch(), ScaleWatch(), []
    for seq, picture in enumerate(pictures):
        shown = heart(40) if picture is None else picture
        frame = Frame(seq, round(1e6 * seq / FPS), shown)
        presence, was_still, was = float(picture is not None), still.is_still, cuts
        still = still.after(frame, to_network_input(shown, FIT))
        cuts = cuts.after(frame, still.cells_HW, presence, was_still=was_still)
        watch = ScaleWatch.from_view(**json.loads(json.dumps(watch.to_view())))
        watch = watch.after_picture(was, cuts).after(FIT.region, is_apical=presence > 0.5)
        found.append(watch.is_left(FIT.region))
    return found


@pytest.mark.parametrize("zoom", [0.7, 0.8, 1.25, 1.5])
def test_the_size_is_lost_with_another_depth_and_found_with_the_one_before(zoom: float) -> None:
    pictures = [*beating(3), *beating(3, zoom=zoom), *beating(3)]
    found = lost_after(pictures)
    assert found[:90] == 90 * [False]
    assert found[92:180] == 88 * [True]
    assert found[182:] == 88 * [False]


def test_a_third_depth_does_not_bring_it_back() -> None:
    found = lost_after([*beating(3), *beating(3, zoom=0.7), *beating(3, zoom=1.4)])
    assert found[92:] == 178 * [True]


@pytest.mark.parametrize("between", ["no heart", "frozen", "first frames"])
def test_a_probe_at_another_place_leaves_it_as_it_was(between: str) -> None:
    before, elsewhere = beating(3), [np.roll(each, 25, axis=1) for each in beating(3)]
    match between:
        case "no heart":
            pictures = [*before, *15 * [None], *elsewhere]
        case "frozen":
            pictures = [*before, *60 * [before[-1]], *elsewhere]
        case _:
            pictures = [*before[:20], *elsewhere]
    assert not any(lost_after(pictures))
