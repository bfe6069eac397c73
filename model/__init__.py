"""The network and the measurement: frames in, masks and readings out."""

from model.errors import EchoError, FrameError, MeasurementError, StateError, WeightsError
from model.frame import STRUCTURES, Fit, Frame, Mask, Region
from model.measure import (
    Beat,
    BeatTracker,
    Biplane,
    Drawn,
    EjectionFraction,
    Figure,
    Quality,
    Reading,
    RWaves,
    Ventricle,
    ViewDisks,
    biplane_volume_ml,
    compare_r_waves,
    correct_mask,
    derive_figures,
    measure_biplane,
    measure_frame,
    normal_ranges,
    view_disks,
)
from model.postprocess import to_source_labels
from model.predictor import Predictor, StreamState, load_predictor
from model.preprocess import rescale, square_size
from model.region import Calibration, DeclaredRegion, choose_region
from model.sector import Sector, fan_probes, film_probes, find_fan
from model.weights import ModelInfo, load_info, model_names
from model.words import counted

__all__ = [
    "STRUCTURES",
    "Beat",
    "BeatTracker",
    "Biplane",
    "Calibration",
    "DeclaredRegion",
    "Drawn",
    "EchoError",
    "EjectionFraction",
    "Figure",
    "Fit",
    "Frame",
    "FrameError",
    "Mask",
    "MeasurementError",
    "ModelInfo",
    "Predictor",
    "Quality",
    "RWaves",
    "Reading",
    "Region",
    "Sector",
    "StateError",
    "StreamState",
    "Ventricle",
    "ViewDisks",
    "WeightsError",
    "biplane_volume_ml",
    "choose_region",
    "compare_r_waves",
    "correct_mask",
    "counted",
    "derive_figures",
    "fan_probes",
    "film_probes",
    "find_fan",
    "load_info",
    "load_predictor",
    "measure_biplane",
    "measure_frame",
    "model_names",
    "normal_ranges",
    "rescale",
    "square_size",
    "to_source_labels",
    "view_disks",
]
