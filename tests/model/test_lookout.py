from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from model.frame import Region
from model.lookout import LOOK_FRAMES, Lookout, Move

SIZE = (240, 320)
WHOLE = Region(20, 60, 200, 200)
INNER = Region(70, 110, 100, 100)
GRAIN_HW = np.random.default_rng(3).integers(40, 140, SIZE, dtype=np.uint8)


def picture(box: Region, margin: int = 4) -> NDArray[np.uint8]:
    """A bright box in the dark, smaller than what is to be found by a margin on every side."""
    pixels_HW = np.zeros(SIZE, np.uint8)
    rows = slice(box.top + margin, box.top + box.height - margin)
    columns = slice(box.left + margin, box.left + box.width - margin)
    pixels_HW[rows, columns] = GRAIN_HW[rows, columns]
    return pixels_HW


def watch(lookout: Lookout, box: Region, frames: int, region: Region) -> tuple[Lookout, list[Move]]:
    """Show a picture for a while; what was told at each frame."""
    moves = []
    for _ in range(frames):
        lookout = lookout.after(picture(box), region)
        move = lookout.moved_to(region)
        if move is not None:
            moves.append(move)
    return lookout, moves


def settled(box: Region) -> Lookout:
    lookout, moves = watch(Lookout(), box, 200, box)
    assert moves == []
    return lookout


@pytest.mark.parametrize(
    ("before", "after", "within_frames"),
    [
        (INNER, WHOLE, 24),
        (INNER, replace(INNER, left=10), 24),
        (WHOLE, INNER, 104),
    ],
    ids=["grows", "moves", "shrinks"],
)
def test_a_sector_that_lies_elsewhere_is_followed(
    before: Region, after: Region, within_frames: int
) -> None:
    _, moves = watch(settled(before), after, within_frames, before)
    assert moves, f"not noticed within {within_frames} frames"
    found = moves[0].region
    for edge in ("top", "left", "height", "width"):
        assert getattr(found, edge) == pytest.approx(getattr(after, edge), abs=8)
    assert moves[0].frames <= within_frames


@pytest.mark.parametrize(
    ("box", "frames"),
    [
        (Region(20, 60, 200, 224), 500),  # a ninth of it outside of where it was
        (Region(20, 60, 150, 200), 500),  # three quarters of it
        (INNER, 80),  # a lost contact, a breath
        (Region(0, 0, 240, 320), 8),  # a flash
    ],
    ids=["a little wider", "darker below", "for a moment darker", "for a moment brighter"],
)
def test_what_is_little_or_passes_is_not_followed(box: Region, frames: int) -> None:
    lookout, moves = watch(settled(WHOLE), box, frames, WHOLE)
    assert moves == []
    _, moves = watch(lookout, WHOLE, 200, WHOLE)
    assert moves == []


def test_a_black_screen_tells_nothing() -> None:
    before = settled(WHOLE)
    lookout = before
    for _ in range(50 * LOOK_FRAMES):
        lookout = lookout.after(np.zeros(SIZE, np.uint8), WHOLE)
        assert lookout.moved_to(WHOLE) is None
    assert lookout == before


def test_a_stream_is_not_looked_at_in_every_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    monkeypatch.setattr("model.lookout.find_sectors", lambda pixels_HW: looks.append(pixels_HW))
    lookout = Lookout()
    for _ in range(80):
        lookout = lookout.after(picture(WHOLE), WHOLE)
    assert len(looks) == 10


LEFT, RIGHT = Region(40, 20, 140, 130), Region(40, 170, 140, 130)


def wedges(*sides: tuple[Region, int]) -> NDArray[np.uint8]:
    """Sectors that fill their boxes but for so many rows at the end."""
    pixels_HW = np.zeros(SIZE, np.uint8)
    row, col = np.mgrid[: SIZE[0], : SIZE[1]]
    for box, short in sides:
        down = row - box.top
        wide = np.abs(col - box.left - box.width / 2) < 0.5 * box.width * down / box.height
        is_lit = wide & (down < box.height - short)
        pixels_HW[is_lit] = GRAIN_HW[is_lit]
    return pixels_HW


def test_of_two_sectors_the_one_that_is_looked_at_is_stayed_with() -> None:
    lookout = Lookout()
    for frame in range(400):
        # now the one, now the other is the larger
        short = 20 if frame // 40 % 2 else 0
        lookout = lookout.after(wedges((LEFT, short), (RIGHT, 20 - short)), LEFT)
        assert lookout.moved_to(LEFT) is None
    assert lookout.shows_several


def test_a_sector_beside_which_another_one_was_shown_stands_alone_again() -> None:
    lookout = Lookout()
    shown = []
    for frame in range(12 * LOOK_FRAMES):
        is_split = 4 * LOOK_FRAMES <= frame < 8 * LOOK_FRAMES
        sides = [(LEFT, 0), (RIGHT, 0)] if is_split else [(LEFT, 0)]
        lookout = lookout.after(wedges(*sides), LEFT)
        shown.append(lookout.shows_several)
    looks = shown[LOOK_FRAMES - 1 :: LOOK_FRAMES]
    assert looks == [False] * 4 + [False, True, True, True] + [True] + [False] * 3
