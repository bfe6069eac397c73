"""When colour counts as lying over the heart."""

import hashlib
import json
import struct
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from model.colours import HELD_LOOKS, ColourWatch
from model.frame import Frame, Mask, Region
from model.pictures import COLOUR_LOOK_FRAMES
from model.predictor import Predictor, self_test_frame
from model.preprocess import make_fit

VIEW_HEADER = struct.Struct("<I32s")
"""Of a saved session: length and checksum of the JSON that follows."""

SIZE = (120, 160)
REGION = Region(20, 30, 96, 96)
GREY = np.full((*SIZE, 3), 90, np.uint8)

MAPS_NHW = np.zeros((3, 48, 48), np.float32)
MAPS_NHW[0, 10:30, 16:32] = 1.0  # 40 x 32 px of the source, from row 40 and column 62
HEART = Mask(MAPS_NHW, make_fit(REGION, SIZE, 48), 1.0)
NO_HEART = Mask(np.zeros_like(MAPS_NHW), HEART.fit, 1.0)


def coloured(rows: slice, columns: slice) -> NDArray[np.uint8]:
    picture = GREY.copy()
    picture[rows, columns] = (200, 40, 10)
    return picture


def after(watch: ColourWatch, picture: NDArray[np.uint8] | None, mask: Mask = HEART) -> ColourWatch:
    return watch.after(Frame(0, None, GREY[:, :, 0], picture), mask)


def test_a_stream_is_looked_at_in_its_first_frame_and_in_every_eighth() -> None:
    watch, looks = ColourWatch(), []
    for seq in range(20):
        if watch.is_due:
            looks.append(seq)
        watch = after(watch, GREY if watch.is_due else None)
    assert looks == [0, 8, 16]


@pytest.mark.parametrize("every", [1, 4])
def test_colour_within_the_heart_covers_it(every: int) -> None:
    # 6 x 6 of 40 x 32 px are 2.8 %
    flow = coloured(slice(48, 56), slice(70, 78))[::every, ::every]
    assert after(ColourWatch(), np.ascontiguousarray(flow)).is_covered


def test_colour_beside_the_heart_does_not() -> None:
    picture = coloured(slice(20, 36), slice(30, 126))
    assert not after(ColourWatch(), picture).is_covered
    # where no heart is found, all that the network sees counts: 16 of 96 rows
    assert after(ColourWatch(), picture, NO_HEART).is_covered
    outside = coloured(slice(0, 20), slice(0, 160))
    assert not after(ColourWatch(), outside, NO_HEART).is_covered


def test_a_thin_coloured_line_through_the_heart_does_not() -> None:
    assert not after(ColourWatch(), coloured(slice(60, 61), slice(0, 70))).is_covered


def test_what_lies_between_two_structures_belongs_to_the_heart() -> None:
    maps_NHW = MAPS_NHW.copy()
    maps_NHW[2, 36:44, 16:32] = 1.0  # 12 network rows below the ventricle
    apart = Mask(maps_NHW, HEART.fit, 1.0)
    between = coloured(slice(82, 90), slice(70, 86))
    assert after(ColourWatch(), between, apart).is_covered
    assert not after(ColourWatch(), between).is_covered


def test_colour_counts_until_it_was_not_seen_for_twelve_looks() -> None:
    flow = coloured(slice(48, 56), slice(70, 78))
    watch = after(ColourWatch(), flow)
    covered = 0
    while watch.is_covered:
        covered += 1
        watch = after(watch, GREY if watch.is_due else None)
    assert covered == HELD_LOOKS * COLOUR_LOOK_FRAMES
    assert watch.clean_looks is None


def test_a_frame_that_became_grey_by_itself_is_without_colour() -> None:
    # an encoder may write grey pictures with one component once no colour is left
    watch = after(ColourWatch(), coloured(slice(48, 56), slice(70, 78)))
    for _ in range(HELD_LOOKS * COLOUR_LOOK_FRAMES):
        assert watch.is_covered
        watch = after(watch, None)
    assert not watch.is_covered


def filmed(seq: int, *, flow: bool) -> Frame:
    """The self-test's heart in colours, with red and blue lines of one luma all over it."""
    frame = self_test_frame(seq % 3)
    colours_HW3 = np.repeat(frame.pixels_HW[..., None], 3, axis=2)
    if flow:
        colours_HW3[::2], colours_HW3[1::2] = (220, 40, 0), (60, 80, 220)
    return replace(frame, seq=seq, colours_HW3=colours_HW3)


@pytest.mark.parametrize("region", [None, Region(0, 0, 192, 192)])
@pytest.mark.parametrize(
    ("flow", "told"),
    [
        # looked at in the frames 0, 8 and 16: what came and went between them is not seen
        (range(9, 16), 21 * [(False, 0)]),
        (range(9, 18), 16 * [(False, 0)] + [(True, 8)] + 4 * [(True, 0)]),
    ],
)
def test_frames_before_colour_was_noticed_were_misread(
    tiny_predictor: Predictor,
    region: Region | None,
    flow: range,
    told: list[tuple[bool, int]],
) -> None:
    state, found = tiny_predictor.start(region), []
    for seq in range(21):
        mask, state = tiny_predictor.step(filmed(seq, flow=seq in flow), state)
        found.append((mask.is_coloured, state.misled_frames))
    assert found == told


@pytest.mark.parametrize("cut", [1, 7, 8, 9, 17])
def test_a_session_resumed_under_colour_goes_on_the_same(
    tiny_predictor: Predictor, cut: int
) -> None:
    state = tiny_predictor.start()
    ends = []
    for seq in range(20):
        mask, state = tiny_predictor.step(filmed(seq, flow=seq == 0), state)
        assert mask.is_coloured
        ends.append(state.colours)
    state = tiny_predictor.start()
    for seq in range(20):
        if seq == cut:
            state = tiny_predictor.resume(state.to_bytes(tiny_predictor.model.sha256))
        mask, state = tiny_predictor.step(filmed(seq, flow=seq == 0), state)
        assert mask.is_coloured
        assert state.colours == ends[seq]


def test_a_session_saved_by_a_release_without_it_is_looked_at_anew(
    tiny_predictor: Predictor,
) -> None:
    sha256 = tiny_predictor.model.sha256
    _, state = tiny_predictor.step(filmed(0, flow=True), tiny_predictor.start())
    blob = state.to_bytes(sha256)
    length, _ = VIEW_HEADER.unpack_from(blob)
    view = json.loads(blob[VIEW_HEADER.size :][:length])
    del view["colours"]
    text = json.dumps(view).encode()
    header = VIEW_HEADER.pack(len(text), hashlib.sha256(text).digest())
    resumed = tiny_predictor.resume(header + text + blob[VIEW_HEADER.size + length :])
    assert resumed.colours == ColourWatch()
