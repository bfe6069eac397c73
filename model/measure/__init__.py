"""Measurement: from a mask to the ventricle, from readings to beats and the ejection fraction."""

from model.measure.beats import Beat
from model.measure.ejection import EjectionFraction
from model.measure.instant import measure_frame
from model.measure.reading import Quality, Reading, Ventricle
from model.measure.tracker import BeatTracker
from model.measure.volume import biplane_volume_ml

__all__ = [
    "Beat",
    "BeatTracker",
    "EjectionFraction",
    "Quality",
    "Reading",
    "Ventricle",
    "biplane_volume_ml",
    "measure_frame",
]
