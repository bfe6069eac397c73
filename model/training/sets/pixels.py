"""Stored samples of a DICOM clip into the luma that the server makes of them.

Source:
    DICOM PS3.3 C.7.6.3.1.2 (photometric interpretations), ITU-R BT.601 (luma).
"""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

COLOURED_STEP = 20
"""Difference of a pixel's channels from which it is coloured, and not tinted noise."""

NEUTRAL_SHARE, COLOURED_SHARE = 0.8, 0.5
"""A reading of the colours is overruled where less than the second share of its pixels is neutral,
and more than the first share of the other reading's: ultrasound is mostly black and grey."""


def to_8_bits(
    samples: NDArray[Any], bits: int, high_bit: int, *, is_signed: bool
) -> NDArray[np.uint8]:
    """Scale stored samples so that the lowest possible one is 0 and the highest 255.

    Args:
        samples: as they are stored, of 8 or 16 bits.
        bits: BitsStored.
        high_bit: HighBit.
        is_signed: PixelRepresentation.
    """
    unsigned = samples.view(samples.dtype.str.replace("i", "u"))
    values = unsigned.astype(np.int32) >> max(0, high_bit + 1 - bits) & (1 << bits) - 1
    if is_signed:
        values ^= 1 << bits - 1
    scaled = values >> bits - 8 if bits >= 8 else values * 255 // ((1 << bits) - 1)
    return scaled.astype(np.uint8)


def luma_of_colours(frames_THW3: NDArray[np.uint8], photometric: str) -> list[NDArray[np.uint8]]:
    """Luma of frames in RGB or YCbCr, by what they are where the header's word cannot be.

    Args:
        frames_THW3: the frames.
        photometric: what they are said to be.
    """
    is_ybr = photometric.startswith("YBR")
    first = np.ascontiguousarray(frames_THW3[0])
    as_rgb, as_ybr = _neutral_share(first), _neutral_share(_ybr_to_rgb(first))
    said, other = (as_ybr, as_rgb) if is_ybr else (as_rgb, as_ybr)
    is_ybr ^= said < COLOURED_SHARE and other > NEUTRAL_SHARE
    if not is_ybr:
        return [grey_of(frame) for frame in frames_THW3]
    lumas = frames_THW3[..., 0]
    return [_expanded(each) if "PARTIAL" in photometric else each.copy() for each in lumas]


def _expanded(luma: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Stretch the video range 16..235 to 0..255."""
    return np.clip(np.rint((luma.astype(np.float64) - 16) * 255 / 219), 0, 255).astype(np.uint8)


def grey_of(frame_HW3: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Luma of one frame in RGB."""
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(frame_HW3), cv2.COLOR_RGB2GRAY), np.uint8)


def _neutral_share(frame_HW3: NDArray[np.uint8]) -> float:
    spread = np.ptp(frame_HW3.astype(np.int16), axis=-1)
    return float(np.mean(spread <= COLOURED_STEP))


def _ybr_to_rgb(frame_HW3: NDArray[np.uint8]) -> NDArray[np.uint8]:
    swapped = np.ascontiguousarray(frame_HW3[:, :, (0, 2, 1)])
    return np.asarray(cv2.cvtColor(swapped, cv2.COLOR_YCrCb2RGB), np.uint8)
