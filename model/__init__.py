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
from model.predictor import Predictor, StreamState, load_predictor
from model.weights import ModelInfo, load_info, model_names

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
    "ModelInfo",
    "Predictor",
    "Quality",
    "Reading",
    "Region",
    "StateError",
    "StreamState",
    "Ventricle",
    "WeightsError",
    "biplane_volume_ml",
    "load_info",
    "load_predictor",
    "measure_frame",
    "model_names",
    "to_source_labels",
]
