"""What the network would see of a clip, were it served."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from model.frame import Region
from model.preprocess import find_sector, rescale
from model.region import DeclaredRegion, choose_region, choose_sector
from model.sector import find_fan

Images = list[NDArray[np.uint8]]
"""Luma of frames of one size."""


def seen_served(
    images: Images,
    probes: Images,
    declared: list[DeclaredRegion],
    shown: tuple[int, int] | None = None,
) -> tuple[Images, Region, tuple[float, float] | None]:
    """The frames as a served clip shows them to the network, the box that it looks at, their size.

    This is the fan, all else black; without one the declared region; without that what is bright
    in the first frame that shows enough; of several sectors one that moves.

    Args:
        images: luma of every frame.
        probes: those of them in which the server looks for the fan.
        declared: the regions that its header declares.
        shown: rows and columns once pixels are square, where no region tells their size; as they
            are where None.
    """
    rows, columns = images[0].shape
    told = choose_region(declared, rows, columns, probes)
    if shown is not None and told.spacing_mm is None:
        region = told.region and told.region.scaled((rows, columns), shown)
        told, (rows, columns) = replace(told, region=region), shown
        images, probes = ([rescale(each, shown) for each in some] for some in (images, probes))
    region = told.region or choose_sector(probes)
    fan = find_fan(probes, region)
    if fan is not None:
        return [fan.seen(image) for image in images], fan.box, told.spacing_mm
    found = (box for image in images if (box := find_sector(image)) is not None)
    sight = region or next(found, Region(0, 0, rows, columns))
    return images, sight, told.spacing_mm


def as_served(
    images: Images,
    probes: Images,
    declared: list[DeclaredRegion],
    shown: tuple[int, int] | None = None,
) -> Images:
    """The frames of a clip cut to what the network would look at; see ``seen_served``."""
    seen, sight, _ = seen_served(images, probes, declared, shown)
    return [cut(image, sight) for image in seen]


def cut(image: NDArray[np.uint8], sight: Region) -> NDArray[np.uint8]:
    """The part of an image or label map that the network looks at."""
    rows = slice(sight.top, sight.top + sight.height)
    return image[rows, sight.left : sight.left + sight.width]
