"""The network and the measurement: frames in, masks and readings out."""

from model.errors import EchoError, FrameError, MeasurementError, StateError, WeightsError
from model.frame import STRUCTURES, Fit, Frame, Mask, Region
from model.measure import (
    Beat,
    BeatTracker,
    EjectionFraction,
    Quality,
    Reading,
    Ventricle,
    biplane_volume_ml,
    measure_frame,
)
from model.postprocess import to_source_labels

__all__ = [
    "STRUCTURES",
    "Beat",
    "BeatTracker",
    "EchoError",
    "EjectionFraction",
    "Fit",
    "Frame",
    "FrameError",
    "Mask",
    "MeasurementError",
    "Quality",
    "Reading",
    "Region",
    "StateError",
    "Ventricle",
    "WeightsError",
    "biplane_volume_ml",
    "measure_frame",
    "to_source_labels",
]
