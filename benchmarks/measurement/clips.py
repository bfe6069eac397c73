"""Validation patients that beat: clips of known truth through network, measurement and beats.

Each patient's two annotated stills are carried over the beat by the training's synthesis of motion.
The truth is the EF of the experts' outlines at full size, and the times that the beats were given.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.measurement.hearts import Heart, frame_times_ms, make_heart
from benchmarks.measurement.streams import Told, follow, raw_ef, score
from model import (
    Fit,
    Frame,
    Mask,
    Predictor,
    Reading,
    Region,
    Ventricle,
    measure_frame,
)
from model.training.clips import Patient, read_patients, render

SECONDS = 5.0
SIDE = 144
"""Pixels of a frame; the working grid of the synthesis has twice as many."""

DRIFT_PX = 0.15
"""Random walk of the view, SD a frame."""

GAIN_SD = 0.02


@dataclass(frozen=True, slots=True, eq=False)
class Beating:
    """One patient's clip.

    Attributes:
        expert_ef: of the outlines of both stills.
        row: what ``streams.score`` found, and the figures below.
        volumes_T: as measured, NaN where none was.
        times_ms_T: of the frames.
        told: beats and EF.
    """

    name: str
    expert_ef: float
    row: dict[str, Any]
    volumes_T: NDArray[np.float64]
    times_ms_T: NDArray[np.float64]
    told: Told


def run_patients(
    folder: Path, predictor: Predictor, show: Callable[[int, int], None]
) -> list[Beating]:
    """Let every patient of a folder beat.

    Args:
        folder: a split of the A4C PNG layout.
        predictor: the network.
        show: told patients done and in all.
    """
    patients = read_patients(folder, 2 * SIDE)
    found = []
    for number, patient in enumerate(patients):
        found.append(_run(patient, number, predictor))
        show(number + 1, len(patients))
    return found


def _run(patient: Patient, number: int, predictor: Predictor) -> Beating:
    rng = np.random.default_rng((23, number))
    rhythm = ("regular", "regular", "regular", "fibrillation", "ectopy")[number % 5]
    rate, fps = float(rng.uniform(50, 105)), float(rng.choice((25, 30, 50)))
    # Full contraction of the stills is what an undisturbed beat reaches.
    heart = make_heart(rhythm, rate, 100.0, SECONDS, rng)
    times = frame_times_ms("even", SECONDS, fps, rng)
    readings = _segment(_images(patient, heart, times, rng), times, predictor)
    expert_ef = still_ef(patient)
    true_heart = _with_efs(patient, heart)
    told = follow(times, readings)
    row = {"rhythm": rhythm, "rate_bpm": rate, "fps": fps, "patient": patient.name}
    row |= score(told, true_heart, times)
    volumes = np.array([np.nan if r.lv is None else r.lv.volume_index for r in readings])
    row["raw_ef"] = raw_ef(volumes[np.isfinite(volumes)])
    row["usable"] = float(np.mean([r.quality.state != "fail" for r in readings]))
    return Beating(patient.name, expert_ef, row, volumes, times, told)


def _images(
    patient: Patient, heart: Heart, times_ms_T: NDArray[np.float64], rng: np.random.Generator
) -> list[NDArray[np.uint8]]:
    """Frames of the patient in the heart's course."""
    axis = np.arange(2 * SIDE, dtype=np.float32)
    grid_HW2 = np.stack(np.meshgrid(axis, axis), axis=-1)
    walk_T2 = np.cumsum(rng.normal(0, DRIFT_PX, (len(times_ms_T), 2)), axis=0).astype(np.float32)
    gain_T = np.exp(rng.normal(0, GAIN_SD, len(times_ms_T)))
    images = []
    for phi, walk_2, gain in zip(stills_share(heart, times_ms_T), walk_T2, gain_T, strict=True):
        image, _ = render(patient, float(phi), grid_HW2 + walk_2)
        images.append(np.rint(gain * image).clip(0, 255).astype(np.uint8))
    return images


def stills_share(heart: Heart, times_ms_T: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far from the one still to the other; the heart's EFs are percent of the whole way."""
    beat_T, _, contraction_T = heart.contraction(times_ms_T)
    return np.asarray((contraction_T * heart.ef_percent_B[beat_T] / 100).clip(0.0, 1.1))


def _segment(
    images: list[NDArray[np.uint8]], times_ms_T: NDArray[np.float64], predictor: Predictor
) -> list[Reading]:
    """Readings of a clip as the server makes them."""
    state = predictor.start(Region(0, 0, SIDE, SIDE))
    readings = []
    for seq, (image, time_ms) in enumerate(zip(images, times_ms_T, strict=True)):
        mask, state = predictor.step(Frame(seq, round(1000 * time_ms), image), state)
        readings.append(measure_frame(mask, None))
    return readings


def _with_efs(patient: Patient, heart: Heart) -> Heart:
    """Give each beat the EF that the experts' outlines have at its contraction."""
    depths = np.linspace(0.4, 1.1, 5)
    full = _label_volume(patient, 0.0)
    efs = [100 * (1 - _label_volume(patient, float(depth)) / full) for depth in depths]
    ef_B = np.interp(heart.ef_percent_B / 100, depths, efs)
    return Heart(heart.onset_ms_K, heart.edv_ml_K, ef_B)


def still_ef(patient: Patient) -> float:
    """Single-plane EF of the experts' outlines."""
    return 100 * (1 - _label_volume(patient, 1.0) / _label_volume(patient, 0.0))


def _label_volume(patient: Patient, phi: float) -> float:
    axis = np.arange(2 * SIDE, dtype=np.float32)
    _, labels_HWN = render(patient, phi, np.stack(np.meshgrid(axis, axis), axis=-1))
    maps_NHW = np.ascontiguousarray(labels_HWN[..., 1:].transpose(2, 0, 1), np.float32)
    fit = Fit(1.0, 1.0, 0.0, 0.0, Region(0, 0, SIDE, SIDE), (SIDE, SIDE), SIDE)
    lv: Ventricle | None = measure_frame(Mask(maps_NHW, fit, 1.0), None).lv
    return float("nan") if lv is None else lv.volume_index
