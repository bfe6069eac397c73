"""Frames to network input, and the Fit that maps a mask back.

The network sees the sector, not the screen: a declared region where the source has one, else the
box of the largest connected bright area of the first frame that shows one, or of where it moved
since (``model.lookout``). The box is scaled without distortion in millimetres and padded with black
to a square.
"""

from typing import NamedTuple, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from model.frame import Fit, Region

T = TypeVar("T", bound=np.generic)

SECTOR_LEVEL = 6
"""Grey level above which a smoothed pixel counts as insonified tissue."""

SECTOR_CAP = 24
"""Brighter pixels count as this one, so that a thin bright line (an ECG trace, text) beside the
sector smooths to less than SECTOR_LEVEL and does not join it."""

BACKGROUND_SHARE = 0.5
"""Where so much of a picture's edge has one grey, that is the background of its screen."""

BACKGROUND_STEP = 2
"""Greys so near to that of the background are background."""

SECTOR_MIN_SHARE, SMALL_SECTOR_SHARE = 0.06, 0.02
"""A sector covers at least this share of the image. On a screen without one, as of a viewer whose
window is small, an area of the second share is a sector if it looks like one; others are text or
noise."""

FLAT_SHARE, FLAT_STEP = 0.6, 0.03
"""An area of which so much has one grey, give or take that share of it, is a panel or a toolbar of
a program. Of CAMUS's sectors it is a third at most, at three tenths of their gain as well."""

ALIKE_SHARE = 0.5
"""Of two sectors on a screen the smaller one is at least this share as high, and as wide."""

TOP_ROWS_SHARE, TOP_WIDTH_SHARE, TOP_OFF_SHARE = 0.125, 0.7, 0.2
"""The top of a sector: of its height; at most so wide, and so far from its middle, of its width. A
panel is as wide at its top as elsewhere; the halves of a sector beside a shadow lean together."""

SECTOR_SEARCH_PX = 256
"""The search runs on a copy whose longer side is about this long."""

MOST_STRETCH = 4.0
"""A pixel wider or taller than this is a fault of its container; those of DVDs are below 1.5."""

SECTOR_MARGIN_SHARE = 0.02
"""Added around the found box, as a share of its longer side."""


def find_sector(pixels_HW: NDArray[np.uint8]) -> Region | None:
    """The box of the ultrasound sector, found by content; of several the largest."""
    return next(iter(find_sectors(pixels_HW)), None)


def find_sectors(pixels_HW: NDArray[np.uint8]) -> tuple[Region, ...]:
    """The boxes of the ultrasound sectors on a screen, found by content.

    Args:
        pixels_HW: luma of one frame.

    Returns:
        The box of the largest connected area that stands out from the background, with a small
        margin, then those of others that look like sectors of about its size; empty where no area
        can be a sector (a black frame, a page of text).

    Source:
        Shares and levels are our own, checked by eye on CAMUS and on the shared sample clips.
    """
    rows, cols = pixels_HW.shape
    greys = small = _smaller(pixels_HW)
    if background := _grey_of_edge(small):
        small = _smaller(apart_from(pixels_HW, background))
    smooth = cv2.GaussianBlur(np.minimum(small, SECTOR_CAP), (0, 0), 2.0)
    bright = np.asarray(smooth > SECTOR_LEVEL, dtype=np.uint8)
    opened = cv2.morphologyEx(bright, cv2.MORPH_OPEN, np.ones((7, 7), np.uint8))
    _, found_HW, stats, _ = cv2.connectedComponentsWithStats(opened, connectivity=4)
    labels_HW = np.asarray(found_HW, np.int32)
    largest_first = 1 + np.argsort(-stats[1:, cv2.CC_STAT_AREA], kind="stable")
    areas = [_Place(int(label), *map(int, stats[label])) for label in largest_first]
    areas = [
        area
        for area in areas
        if area.px >= SMALL_SECTOR_SHARE * small.size
        and not is_flat(area.crop(greys)[area.crop(labels_HW) == area.label])
    ]
    places = [area for area in areas if area.px >= SECTOR_MIN_SHARE * small.size]
    places = places or [area for area in areas if _is_pointed(labels_HW, area)]
    if len(places) > 1:
        places = [places[0], *_others_alike(labels_HW, places)]
    return tuple(_in_source(place, small.shape, (rows, cols)) for place in places)


class _Place(NamedTuple):
    """The label, the box and the pixels of a connected area on the smaller copy."""

    label: int
    left: int
    top: int
    width: int
    height: int
    px: int

    def crop(self, image_HW: NDArray[T]) -> NDArray[T]:
        """The box of a picture of the copy's size."""
        return image_HW[self.top : self.top + self.height, self.left : self.left + self.width]


def _others_alike(labels_HW: NDArray[np.int32], places: list[_Place]) -> list[_Place]:
    """Of all areas but the first those that look, as it does, like sectors, and are of its size."""
    if not _is_pointed(labels_HW, places[0]):
        return []
    largest = places[0]
    return [
        place
        for place in places[1:]
        if _is_alike(place.height, largest.height)
        and _is_alike(place.width, largest.width)
        and _is_pointed(labels_HW, place)
    ]


def _is_alike(one: int, other: int) -> bool:
    return min(one, other) >= ALIKE_SHARE * max(one, other)


def is_flat(greys_P: NDArray[np.uint8]) -> bool:
    """Whether an area has one grey, as a program's panels have, and no ultrasound.

    Args:
        greys_P: of its pixels.
    """
    counts_256 = np.bincount(greys_P, minlength=256)
    level = int(counts_256.argmax())
    reach = max(1, round(FLAT_STEP * level))
    alike = counts_256[max(level - reach, 0) : level + reach + 1].sum()
    return bool(alike >= FLAT_SHARE * greys_P.size)


def _is_pointed(labels_HW: NDArray[np.int32], place: _Place) -> bool:
    """Whether an area is narrow at its top, and that in the middle."""
    width = place.width
    rows = max(1, round(TOP_ROWS_SHARE * place.height))
    strip_HW = place.crop(labels_HW)[:rows] == place.label
    at = np.flatnonzero(strip_HW.any(0))
    off_px = abs(float(at[0] + at[-1]) - (width - 1)) / 2
    is_narrow = float(at[-1] - at[0]) < TOP_WIDTH_SHARE * width
    return is_narrow and off_px <= TOP_OFF_SHARE * width


def _in_source(place: _Place, small: tuple[int, ...], size: tuple[int, int]) -> Region:
    """The box of an area in the source, with a small margin."""
    _, left, top, width, height, _ = place
    rows, cols = size
    scale_row, scale_col = rows / small[0], cols / small[1]
    margin = SECTOR_MARGIN_SHARE * max(height * scale_row, width * scale_col)
    first_row = max(0, int(top * scale_row - margin))
    first_col = max(0, int(left * scale_col - margin))
    last_row = min(rows, int(np.ceil((top + height) * scale_row + margin)))
    last_col = min(cols, int(np.ceil((left + width) * scale_col + margin)))
    return Region(first_row, first_col, last_row - first_row, last_col - first_col)


def background_of(pixels_HW: NDArray[np.uint8]) -> int:
    """The grey around the image on a screen that is not black, 0 on one that is.

    A frame grabber may give black as 16, scanners have grey screens, and a film may show a window
    on a white page.

    Args:
        pixels_HW: luma of one frame.
    """
    return _grey_of_edge(_smaller(pixels_HW))


def apart_from(pixels_HW: NDArray[np.uint8], background: int) -> NDArray[np.uint8]:
    """How far each pixel is from the grey of the background."""
    if background == 0:
        return pixels_HW
    return np.asarray(cv2.absdiff(pixels_HW, np.full_like(pixels_HW, background)), np.uint8)


def on_black(pixels_HW: NDArray[np.uint8], background: int) -> NDArray[np.uint8]:
    """A picture with black in place of its background."""
    if background == 0:
        return pixels_HW
    apart_HW = apart_from(pixels_HW, background)
    _, kept_HW = cv2.threshold(apart_HW, BACKGROUND_STEP, 255, cv2.THRESH_BINARY)
    return np.asarray(cv2.bitwise_and(pixels_HW, kept_HW), np.uint8)


def _smaller(pixels_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A copy whose longer side is about SECTOR_SEARCH_PX long."""
    rows, cols = pixels_HW.shape
    shrink = max(1, round(max(rows, cols) / SECTOR_SEARCH_PX))
    size = max(1, cols // shrink), max(1, rows // shrink)
    return np.asarray(cv2.resize(pixels_HW, size, interpolation=cv2.INTER_AREA), np.uint8)


def _grey_of_edge(small_HW: NDArray[np.uint8]) -> int:
    """The grey that an edge has; 0 where it has many, or is as good as black."""
    edge_P = np.concatenate([small_HW[0], small_HW[-1], small_HW[:, 0], small_HW[:, -1]])
    counts_256 = np.bincount(edge_P, minlength=256)
    level = int(counts_256.argmax())
    if level <= SECTOR_LEVEL:
        return 0
    share = counts_256[level - 1 : level + 2].sum() / edge_P.size
    return level if share >= BACKGROUND_SHARE else 0


def clip_region(region: Region, size: tuple[int, int]) -> Region | None:
    """The part of a region that lies inside the image, or None where nothing of it does."""
    height = min(region.top + region.height, size[0]) - region.top
    width = min(region.left + region.width, size[1]) - region.left
    if height < 1 or width < 1:
        return None
    return Region(region.top, region.left, height, width)


def make_fit(
    region: Region,
    source_size: tuple[int, int],
    network_size: int,
    spacing_mm: tuple[float, float] | None = None,
) -> Fit:
    """Place a region in the middle of the square network input.

    Args:
        region: box inside the source image.
        source_size: rows and columns of the source image.
        network_size: side of the square in pixels.
        spacing_mm: row and column spacing; only their ratio matters here, None means square pixels.
    """
    aspect = 1.0 if spacing_mm is None else spacing_mm[0] / spacing_mm[1]
    tall, wide = region.height * aspect, float(region.width)
    scale = network_size / max(tall, wide)
    rows = min(network_size, max(1, round(tall * scale)))
    cols = min(network_size, max(1, round(wide * scale)))
    scale_row, scale_col = rows / region.height, cols / region.width
    pad_row, pad_col = (network_size - rows) // 2, (network_size - cols) // 2
    return Fit(
        scale_row=scale_row,
        scale_col=scale_col,
        offset_row=(0.5 - region.top) * scale_row - 0.5 + pad_row,
        offset_col=(0.5 - region.left) * scale_col - 0.5 + pad_col,
        region=region,
        source_size=source_size,
        network_size=network_size,
    )


def network_box(fit: Fit) -> Region:
    """Where the region lies on the network grid."""
    rows = round(fit.region.height * fit.scale_row)
    cols = round(fit.region.width * fit.scale_col)
    side = fit.network_size
    return Region((side - rows) // 2, (side - cols) // 2, rows, cols)


def square_size(size: tuple[int, int], pixel_width: float) -> tuple[int, int]:
    """Rows and columns of a picture once its pixels are made square, as players show it.

    Args:
        size: rows and columns as they are stored.
        pixel_width: width of a pixel over its height, as a film tells it; one that no pixel can
            have is taken for 1.
    """
    if not 1 / MOST_STRETCH <= pixel_width <= MOST_STRETCH:
        return size
    return size[0], round(size[1] * pixel_width)


def rescale(pixels_HW: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Scale to so many rows and columns: by area where an axis shrinks, linearly where it grows."""
    rows, columns = pixels_HW.shape
    if (rows, columns) == size:
        return pixels_HW
    # Shrink before growing: cv2.INTER_AREA skips pixels where one axis shrinks and the other grows.
    smaller = (min(size[1], columns), min(size[0], rows))
    averaged = cv2.resize(pixels_HW, smaller, interpolation=cv2.INTER_AREA)
    scaled = cv2.resize(averaged, size[::-1], interpolation=cv2.INTER_LINEAR)
    return np.asarray(scaled, np.uint8)


def rescale_labels(labels_HW: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Scale a label map to so many rows and columns, each pixel to the nearest label."""
    if labels_HW.shape == size:
        return labels_HW
    scaled = cv2.resize(labels_HW, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return np.asarray(scaled, np.uint8)


def to_network_input(
    pixels_HW: NDArray[np.uint8], fit: Fit, background: int = 0
) -> NDArray[np.float32]:
    """Crop, scale by area and pad; image_11HW with grey values in [0, 1].

    Args:
        pixels_HW: luma of one frame.
        fit: where the network looks.
        background: grey of the screen around the image, which becomes black.
    """
    region, box = fit.region, network_box(fit)
    crop = pixels_HW[
        region.top : region.top + region.height, region.left : region.left + region.width
    ]
    scaled = rescale(on_black(crop, background), (box.height, box.width))
    image_11HW = np.zeros((1, 1, fit.network_size, fit.network_size), np.float32)
    image_11HW[0, 0, box.top : box.top + box.height, box.left : box.left + box.width] = scaled
    image_11HW /= 255.0
    return image_11HW
