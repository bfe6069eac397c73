"""Stored samples into luma, and whether colour lies over the grey.

Source:
    DICOM PS3.3 C.7.6.3.1.2 (photometric interpretations), ITU-R BT.601 (luma).
"""

from dataclasses import replace
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from model.pictures.layout import Layout
from model.pictures.palette import Palette

COLOURED_STEP = 20
"""Difference of a pixel's channels from which it counts as coloured, and not as tinted noise."""

COLOURED_SHARE = 0.02
"""Share of coloured pixels from which an image counts as carrying a colour overlay."""

COLOUR_LOOK_FRAMES = 8
"""Every how many frames colours are looked at; colour Doppler stays on for longer."""

_LIT, _TINT = 40, 0.1
"""Luma from which a pixel shows a tint, and the difference of its channels, as a share of its luma,
from which it does; where half of them do, a scanner shows its greys in a tint."""

_NARROWER = (8, 10, 12)
"""Bits of samples that writers put into wider ones."""

_SEEN_SHARE, _DARK_SHARE = 4, 16
"""The brightest sample of a picture is above the first part of its range; one that stays below the
second, of a range of words, is of fewer bits than its header says."""

_FEWEST_GREYS = 32
"""A window that leaves fewer greys than that of a picture that has them shows no picture."""

_TINT_LEVELS = 9
"""Greys whose mean colour is the tint of the middle one."""

_YBR = ("YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL", "YBR_PARTIAL_422", "YBR_PARTIAL_420")

Components: TypeAlias = NDArray[np.integer[Any]]
"""Samples of one frame, H W or H W 3, of 8 or 16 bits, signed or not."""


def to_luma(
    components: Components, layout: Layout, greys_S: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Turn the samples of one frame (H W, or H W 3) into 8-bit luma (H W).

    Args:
        components: the samples.
        layout: what they mean.
        greys_S: what `greys_by_window` gives for them.
    """
    if layout.palette is not None:
        return grey_of(_look_up(components, layout, layout.palette))
    if greys_S is None:
        grey = _to_8_bits(components, layout)
    else:
        grey = greys_S.take(components.view(f"u{components.itemsize}"), mode="clip")
    if layout.samples == 1:
        return np.bitwise_not(grey) if layout.photometric == "MONOCHROME1" else grey
    if layout.photometric in _YBR:
        luma = np.ascontiguousarray(grey[:, :, 0])
        return expand_range(luma) if "PARTIAL" in layout.photometric else luma
    return grey_of(grey)


def to_rgb(components: Components, layout: Layout) -> NDArray[np.uint8] | None:
    """Turn the samples of one frame into 8-bit colours (H W 3); None where they are grey."""
    if layout.palette is not None:
        return _look_up(components, layout, layout.palette)
    if layout.samples == 1:
        return None
    colours = np.ascontiguousarray(_to_8_bits(components, layout))
    return ybr_to_rgb(colours) if layout.photometric in _YBR else colours


def coloured_share(rgb: NDArray[np.uint8], inside_HW: NDArray[np.bool_] | None) -> float:
    """Measure the share of pixels that are coloured, and not only by the tint that all greys have.

    Args:
        rgb: a picture, H W 3.
        inside_HW: which of its pixels count, all where None.
    """
    spread_HW = _spread(rgb)
    share = _share(spread_HW > COLOURED_STEP, inside_HW)
    if share <= COLOURED_SHARE:
        return share
    luma_HW = grey_of(rgb)
    is_lit_HW = luma_HW > _LIT
    if inside_HW is not None:
        is_lit_HW &= inside_HW
    if not is_lit_HW.any() or np.median(spread_HW[is_lit_HW] / luma_HW[is_lit_HW]) < _TINT:
        return share
    counted_HW = np.ones(luma_HW.shape, np.bool_) if inside_HW is None else inside_HW
    off_P = _off_tint(rgb[counted_HW].astype(np.int16), luma_HW[counted_HW])
    return _share(off_P > COLOURED_STEP)


def _spread(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Difference of each pixel's channels."""
    red, green, blue = cv2.split(np.ascontiguousarray(rgb))
    highest, lowest = cv2.max(cv2.max(red, green), blue), cv2.min(cv2.min(red, green), blue)
    return np.asarray(cv2.subtract(highest, lowest), np.uint8)


def _share(is_coloured: NDArray[np.bool_], inside_HW: NDArray[np.bool_] | None = None) -> float:
    """Share of pixels that are coloured, of those inside where some are not."""
    counted = is_coloured if inside_HW is None else is_coloured[inside_HW]
    return float(np.count_nonzero(counted) / max(1, counted.size))


def _off_tint(rgb_P3: NDArray[np.int16], luma_P: NDArray[np.uint8]) -> NDArray[np.float64]:
    """How far the differences of each pixel's channels are from their mean at its luma."""
    around = np.ones(_TINT_LEVELS)
    count_256 = np.convolve(np.bincount(luma_P, minlength=256), around, "same")
    off_P = np.zeros(len(luma_P))
    for channel in (0, 2):
        step_P = rgb_P3[:, channel] - rgb_P3[:, 1]
        sum_256 = np.convolve(np.bincount(luma_P, step_P, minlength=256), around, "same")
        tint_256 = sum_256 / np.maximum(1, count_256)
        off_P = np.maximum(off_P, np.abs(step_P - tint_256[luma_P]))
    return off_P


def true_photometric(components: Components, layout: Layout) -> str:
    """Tell RGB from YBR by the picture, where the header's word makes grey ultrasound green.

    Ultrasound is mostly black and grey. Read rightly, most of its pixels are neutral; read
    wrongly, black itself turns green or pink. Only where the other reading is almost everywhere
    neutral, and the declared one is not, is the declared one overruled.
    """
    if layout.samples != 3 or components.dtype != np.uint8 or layout.palette is not None:
        return layout.photometric
    colours = np.ascontiguousarray(components, np.uint8)
    as_rgb = 1 - _share(_spread(colours) > COLOURED_STEP)
    as_ybr = 1 - _share(_spread(ybr_to_rgb(colours)) > COLOURED_STEP)
    is_ybr = layout.photometric in _YBR
    declared, other = (as_ybr, as_rgb) if is_ybr else (as_rgb, as_ybr)
    if declared < 0.5 and other > 0.8:
        return "RGB" if is_ybr else "YBR_FULL"
    return layout.photometric


def truly(some: Components, layout: Layout) -> Layout:
    """Say how some pictures really lie in their samples: of fewer bits than the header says.

    As it says they would be black, or one grey. Black pictures say nothing, so something must be
    seen.

    Args:
        some: every sample that they have, in any order.
        layout: what they mean, as the header says.
    """
    if some.dtype != np.uint16 or layout.palette is not None:
        return layout
    highest = int(some.max())
    if highest < 256:
        return as_bits(layout, 8) if highest >= 256 // _SEEN_SHARE else layout
    if layout.bits < 16 or highest >= 65536 // _DARK_SHARE:
        return layout
    return as_bits(layout, next(bits for bits in _NARROWER if highest < 1 << bits))


def greys_by_window(some: Components, layout: Layout) -> NDArray[np.uint8] | None:
    """Make the grey of every sample by the header's window, None where that shows next to nothing.

    Args:
        some: every sample that some pictures have, in any order.
        layout: what they mean, as the header says.
    """
    if layout.contrast is None or layout.samples != 1 or some.itemsize > 2:
        return None
    kind = f"u{some.itemsize}"
    samples_S = np.arange(256**some.itemsize).astype(kind).view(some.dtype)
    greys_S = layout.contrast.show(_stored_values(samples_S, layout))
    seen = _to_8_bits(some, truly(some, layout))
    left = len(np.unique(greys_S[some.view(kind)]))
    return greys_S if left >= min(_FEWEST_GREYS, len(np.unique(seen))) else None


def as_bits(layout: Layout, bits: int) -> Layout:
    """Say of wider samples that they only hold so many bits."""
    return replace(layout, bits=bits, shift=0, is_signed=False)


def ybr_to_rgb(ybr: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Turn full-range YCbCr (H W 3) into RGB."""
    return np.asarray(cv2.cvtColor(ybr[:, :, (0, 2, 1)], cv2.COLOR_YCrCb2RGB), np.uint8)


def expand_range(luma: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Stretch luma of the video range 16..235 to 0..255."""
    return np.asarray(cv2.LUT(luma, _EXPANDED), np.uint8)


_EXPANDED = np.clip(np.rint((np.arange(256) - 16) * 255 / 219), 0, 255).astype(np.uint8)


def with_precision(layout: Layout, bits: int) -> Layout:
    """Take the precision from the compressed stream, where the header may say another.

    A stream that is as wide as the header's highest bit holds the samples where the header says.
    """
    if bits >= layout.bits + layout.shift:
        return layout
    return replace(layout, bits=min(bits, layout.bits), shift=0)


def grey_of(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Turn 8-bit colours (H W 3) into luma (H W)."""
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2GRAY), np.uint8)


def _look_up(components: Components, layout: Layout, palette: Palette) -> NDArray[np.uint8]:
    stored = _stored_values(components, layout)
    index = np.clip(stored - palette.first, 0, len(palette.colours_PC) - 1)
    return palette.colours_PC[index]


def _stored_values(components: Components, layout: Layout) -> NDArray[np.int32]:
    """Mask the bits that are stored, and give signed samples their sign."""
    values = components.astype(np.int32)
    if components.dtype.kind == "i":
        return values
    values = values >> layout.shift & (1 << layout.bits) - 1
    if layout.is_signed:
        values -= (values >> layout.bits - 1) << layout.bits
    return values


def _to_8_bits(components: Components, layout: Layout) -> NDArray[np.uint8]:
    """Scale samples so that the lowest possible one is 0 and the highest 255."""
    if components.dtype == np.uint8 and layout.bits == 8 and not layout.is_signed:
        return components.astype(np.uint8, copy=False)
    values = _stored_values(components, layout)
    if layout.is_signed or components.dtype.kind == "i":
        values += 1 << layout.bits - 1
    highest = (1 << layout.bits) - 1
    values = values >> layout.bits - 8 if layout.bits >= 8 else values * 255 // highest
    return np.clip(values, 0, 255).astype(np.uint8)
