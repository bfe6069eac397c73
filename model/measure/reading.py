"""What one frame's mask says: frozen values, without a rule of how they are found."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Point = tuple[float, float]
"""(row, column) in source pixels, pixel centres at integer coordinates."""

QualityState = Literal["pass", "warn", "fail"]

AxisMethod = Literal["class_interface", "flat_base", "polar_peaks", "principal_axis"]


@dataclass(frozen=True, slots=True)
class Quality:
    """Whether a frame may be measured, and what speaks against it.

    Attributes:
        state: "fail" keeps the frame out of every beat.
        reasons: machine-readable, the gravest first; empty on "pass".
    """

    state: QualityState
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Ventricle:
    """The left ventricle of one frame.

    An *index* is a length on an isotropic grid whose cell has the area of one source pixel: with
    square pixels it is a pixel. Ratios of indices are exact whether or not millimetres are known.

    Attributes:
        area_px: area in source pixels.
        area_cm2: None without calibrated pixels; so are the next two.
        length_cm: long axis, apex to the middle of the annulus.
        volume_ml: single-plane method of disks.
        volume_index: the same volume in index units cubed, the basis of EF.
        volume_index_sd: what the soft edge of the mask makes of it, one standard deviation.
        length_index: long axis in index units.
        diameters_index_20: chords at the mid-points of 20 equal slices from apex to base.
        index_mm: millimetres per index unit, None without calibrated pixels.
        apex: (row, column) in source pixels; so are the next two.
        base: mid-point of the annulus.
        hinges: the two ends of the annulus.
        axis_method: the rule that found the long axis, surest first in AxisMethod.
    """

    area_px: float
    area_cm2: float | None
    length_cm: float | None
    volume_ml: float | None
    volume_index: float
    volume_index_sd: float
    length_index: float
    diameters_index_20: NDArray[np.float64]
    index_mm: float | None
    apex: Point
    base: Point
    hinges: tuple[Point, Point]
    axis_method: AxisMethod


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What one frame's mask says.

    Attributes:
        lv: None where the mask holds no left ventricle; ``quality`` says why.
        contours: per name of STRUCTURES its closed outlines, largest first, each P x 2 float32
            (row, column) source pixels whose last point repeats the first.
        quality: the verdict of the gates.
        presence: probability that the frame shows an apical view of a left ventricle.
        still_since_seq: the frame whose image has been shown ever since, None where it moves.
    """

    lv: Ventricle | None
    contours: Mapping[str, tuple[NDArray[np.float32], ...]]
    quality: Quality
    presence: float
    still_since_seq: int | None = None
