"""Colours as DICOM wants them.

Source:
    IEC 61966-2-1 (sRGB), CIE 15 (L*a*b* under D50), ICC.1 annex E (Bradford adaptation of sRGB to
    D50), DICOM PS3.3 C.10.7.1.1 (how L*a*b* is written in 16 bits).
"""

import numpy as np
from numpy.typing import NDArray

_SRGB_TO_XYZ_D50 = np.array(
    [
        [0.4360747, 0.3850649, 0.1430804],
        [0.2225045, 0.7168786, 0.0606169],
        [0.0139322, 0.0971045, 0.7141733],
    ]
)
_WHITE_D50 = _SRGB_TO_XYZ_D50.sum(axis=1)


def to_lab(rgb: tuple[int, int, int]) -> NDArray[np.float64]:
    """Turn an sRGB colour, 0 to 255, into L* (0 to 100), a* and b*."""
    share = np.array(rgb) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    ratio = _SRGB_TO_XYZ_D50 @ linear / _WHITE_D50
    cubed = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = cubed
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def dicom_lab(rgb: tuple[int, int, int]) -> tuple[int, int, int]:
    """Write an sRGB colour as RecommendedDisplayCIELabValue."""
    lightness, a, b = to_lab(rgb)
    return (
        round(lightness * 65535 / 100),
        round((a + 128) * 65535 / 255),
        round((b + 128) * 65535 / 255),
    )
