"""Measurement: from a mask to the ventricle, from readings to beats and the ejection fraction."""

from model.measure.beats import Beat
from model.measure.biplane import Biplane, ViewDisks, measure_biplane, view_disks
from model.measure.correction import Drawn, correct_mask
from model.measure.ejection import EjectionFraction
from model.measure.figures import Figure, derive_figures
from model.measure.instant import measure_frame
from model.measure.ranges import normal_ranges
from model.measure.reading import Quality, Reading, Ventricle
from model.measure.rwaves import RWaves, compare_r_waves
from model.measure.tracker import BeatTracker
from model.measure.volume import biplane_volume_ml

__all__ = [
    "Beat",
    "BeatTracker",
    "Biplane",
    "Drawn",
    "EjectionFraction",
    "Figure",
    "Quality",
    "RWaves",
    "Reading",
    "Ventricle",
    "ViewDisks",
    "biplane_volume_ml",
    "compare_r_waves",
    "correct_mask",
    "derive_figures",
    "measure_biplane",
    "measure_frame",
    "normal_ranges",
    "view_disks",
]
