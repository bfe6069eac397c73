"""Volumes by the method of disks, 20 of them, sampled at their mid-points.

Source: ef-and-measurement.md sections 0 (items 1 and 2) and 1.1.
"""

import numpy as np
from numpy.typing import NDArray

from model.measure.axis import LongAxis
from model.measure.reading import Ventricle

DISKS = 20


def disk_diameters(outline_P2: NDArray[np.float64], axis: LongAxis) -> NDArray[np.float64]:
    """Measure chords perpendicular to the axis at the mid-points of 20 equal slices.

    Where a perpendicular crosses the outline more than twice, the inside segments are summed. Each
    crossing counts with the side it leads to, so that their signed positions add up to the length
    inside, whatever their number.

    Args:
        outline_P2: closed, (row, column) on an isotropic grid.
        axis: apex and base on the same grid.

    Returns:
        20 lengths from apex to base in units of the grid.
    """
    along_2 = (axis.base_2 - axis.apex_2) / axis.length
    offset_P2 = outline_P2 - axis.apex_2
    along_P = offset_P2 @ along_2
    across_P = offset_P2 @ np.array([-along_2[1], along_2[0]])
    slices_D = (np.arange(DISKS) + 0.5) * (axis.length / DISKS)
    is_beyond_DP = along_P > slices_D[:, None]
    side_DP = is_beyond_DP[:, 1:].astype(np.int8) - is_beyond_DP[:, :-1]
    disk, start = np.nonzero(side_DP)
    share = (slices_D[disk] - along_P[start]) / (along_P[start + 1] - along_P[start])
    position = across_P[start] + share * (across_P[start + 1] - across_P[start])
    return np.abs(np.bincount(disk, side_DP[disk, start] * position, DISKS))


def disk_volume(
    first_D: NDArray[np.float64], second_D: NDArray[np.float64], length: float
) -> float:
    """Add up elliptical disks of equal height.

    Args:
        first_D: one diameter of each disk.
        second_D: the other; the same for a single plane.
        length: long axis at the same instant.

    Returns:
        The volume in the cube of the unit that the lengths came in.
    """
    return float(np.pi / 4 * (length / len(first_D)) * np.dot(first_D, second_D))


def area_length_volume(ventricle: Ventricle) -> float:
    """Volume by area and length, 8 A^2 / (3 pi L), in index units cubed.

    Source:
        ef-and-measurement.md section 1.1; Lang et al. 2015, doi:10.1016/j.echo.2014.10.003.
    """
    return float(8.0 * ventricle.area_px**2 / (3.0 * np.pi * ventricle.length_index))


def biplane_volume_ml(a4c: Ventricle, a2c: Ventricle) -> float | None:
    """Volume by biplane disks from two views at the same instant of the beat.

    The disk height is the longer of the two axes at that instant over 20. The height is never
    shared between ED and ES.

    Returns:
        Millilitres, None unless both views are calibrated.
    """
    if a4c.index_mm is None or a2c.index_mm is None:
        return None
    length_mm = max(a4c.length_index * a4c.index_mm, a2c.length_index * a2c.index_mm)
    first_mm_D = a2c.diameters_index_20 * a2c.index_mm
    second_mm_D = a4c.diameters_index_20 * a4c.index_mm
    return disk_volume(first_mm_D, second_mm_D, length_mm) / 1000.0
