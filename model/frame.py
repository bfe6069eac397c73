"""Frames in, masks out: frozen values, checked where they are built."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.errors import FrameError

STRUCTURES = ("lv", "myocardium", "atrium")
"""What the network segments; label ``i + 1`` of a label map is ``STRUCTURES[i]``, 0 background."""

WHOLE = ("lv", "atrium")
"""Of these what is measured is the largest piece, with what lies within it.

Source: Lang et al. 2015, doi:10.1016/j.echo.2014.10.003 (papillary muscles and trabeculae belong
to the cavity).
"""

APICAL_PRESENCE = 0.5
"""Presence from which a frame counts as an apical view of a left ventricle."""

MAX_SIDE_PX = 8192


@dataclass(frozen=True, slots=True)
class Region:
    """A box of the source image, rows and columns half open, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def __post_init__(self) -> None:
        """Refuse a box that holds no pixel.

        Raises:
            FrameError: the box is empty or starts left of or above the image.
        """
        if self.top < 0 or self.left < 0 or self.height < 1 or self.width < 1:
            raise FrameError(f"a region needs a corner >= 0 and sides >= 1 px, got {self}")

    def scaled(self, size: tuple[int, int], to: tuple[int, int]) -> "Region":
        """The same part of an image that is scaled from so many rows and columns to others."""
        rows, columns = to[0] / size[0], to[1] / size[1]
        top, bottom = round(self.top * rows), round((self.top + self.height) * rows)
        left, right = round(self.left * columns), round((self.left + self.width) * columns)
        return Region(top, left, max(1, bottom - top), max(1, right - left))


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One grey image of a stream.

    Attributes:
        seq: the client's number of the frame, rising within a session.
        time_us: acquisition time in microseconds, None where it is unknown.
        pixels_HW: luma, uint8.
        colours_HW3: the same picture in red, green and blue, on a grid that may be coarser; None
            where it has no colours, or nobody asked for them.
    """

    seq: int
    time_us: int | None
    pixels_HW: NDArray[np.uint8]
    colours_HW3: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        """Check what later code relies on.

        Raises:
            FrameError: not a two-dimensional uint8 image, or of an impossible size.
        """
        pixels = self.pixels_HW
        if pixels.ndim != 2 or pixels.dtype != np.uint8:
            raise FrameError(f"a frame is a 2-D uint8 image, got {pixels.dtype} {pixels.shape}")
        if min(pixels.shape) < 16 or max(pixels.shape) > MAX_SIDE_PX:
            raise FrameError(f"a frame has sides of 16 to {MAX_SIDE_PX} px, got {pixels.shape}")


@dataclass(frozen=True, slots=True)
class Fit:
    """The affine that took a source image onto the network's square input.

    Pixel centres are at integer coordinates: ``network = source * scale + offset``, one scale and
    offset for rows and one for columns.

    Attributes:
        region: the part of the source that the network sees.
        source_size: rows and columns of the source image.
        network_size: side of the square input in pixels.
    """

    scale_row: float
    scale_col: float
    offset_row: float
    offset_col: float
    region: Region
    source_size: tuple[int, int]
    network_size: int

    def to_source(self, points_P2: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map (row, column) points of the network grid to source pixels."""
        scale = np.array([self.scale_row, self.scale_col])
        offset = np.array([self.offset_row, self.offset_col])
        return (points_P2 - offset) / scale

    def to_network(self, points_P2: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map (row, column) points of the source image to the network grid."""
        scale = np.array([self.scale_row, self.scale_col])
        offset = np.array([self.offset_row, self.offset_col])
        return points_P2 * scale + offset


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """What the network says of one frame.

    Attributes:
        probabilities_NHW: one map per name in STRUCTURES on the network grid, float32 in [0, 1];
            with the background they sum to 1 at every pixel.
        fit: maps the network grid back onto the source image.
        presence: probability that the frame shows an apical view of a left ventricle.
        drawn: names of the structures whose maps a person drew, in pieces and with holes as meant.
        is_one_of_several: the screen shows other sectors beside the one that is looked at.
        is_coloured: colour lies over the heart, so that what is drawn is not to be measured.
        is_resized: the image has another size on the screen than the pixels' size was told for.
        still_since_seq: the frame whose image has been shown ever since, None where it moves.
    """

    probabilities_NHW: NDArray[np.float32]
    fit: Fit
    presence: float
    drawn: frozenset[str] = frozenset()
    is_one_of_several: bool = False
    is_coloured: bool = False
    is_resized: bool = False
    still_since_seq: int | None = None
