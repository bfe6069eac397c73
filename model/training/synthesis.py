"""Training batches: warped stills, beating clips, bursts of bad frames, and images of no heart."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from model.training.clips import Patient, render
from model.training.config import TrainConfig

CONTRACTION_KNOTS = (
    (0.0, 0.05, 0.35, 0.40, 0.60, 0.82, 0.95, 1.0),
    (0.0, 0.02, 1.0, 1.0, 0.30, 0.22, 0.02, 0.0),
)
"""Fraction of the beat and contraction there: systole, isovolumic pause, filling, atrial kick.

Source: reference values of the project's simulator notes; systole about a third of a beat at rest.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Clips for one training step.

    Attributes:
        images_BTHW: grey values in [0, 1], float32.
        labels_BTNHW: soft labels, background first, float32.
        presence_BT: 1 where the frame shows an apical view, else 0.
    """

    images_BTHW: NDArray[np.float32]
    labels_BTNHW: NDArray[np.float32]
    presence_BT: NDArray[np.float32]


def contraction(time_beats: NDArray[np.floating]) -> NDArray[np.float64]:
    """Contraction at a time given in beats: 0 at end diastole, 1 at end systole."""
    return np.interp(time_beats % 1.0, *CONTRACTION_KNOTS)


def random_grid(rng: Generator, side: int) -> NDArray[np.float32]:
    """A random view: rotation, scale, shift, stretch, seldom a flip, and a smooth elastic warp.

    Returns:
        grid_HW2 of (column, row) sampling places on the working grid.
    """
    angle = np.deg2rad(rng.normal(0.0, 10.0))
    zoom = np.exp(rng.uniform(np.log(0.75), np.log(1.25)))
    stretch = np.exp(rng.normal(0.0, 0.06))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.diag([stretch / zoom, 1 / (zoom * stretch)])
    if rng.random() < 0.1:
        matrix = matrix @ np.diag([-1.0, 1.0])
    axis = np.arange(side) - (side - 1) / 2
    offset = rng.uniform(-0.08, 0.08, 2) * side + (side - 1) / 2
    grid = np.stack(np.meshgrid(axis, axis), axis=-1) @ matrix.T + offset
    bumps = rng.normal(0.0, 0.012 * side, (5, 5, 2)).astype(np.float32)
    return grid.astype(np.float32) + cv2.resize(bumps, (side, side), interpolation=cv2.INTER_CUBIC)


def random_look(rng: Generator) -> tuple[float, float, float]:
    """Gamma, gain and offset of a machine's display, drawn once a clip."""
    gain = rng.uniform(0.35, 1.0) if rng.random() < 0.3 else rng.uniform(0.8, 1.25)
    return float(np.exp(rng.normal(0.0, 0.25))), float(gain), float(rng.normal(0.0, 0.02))


def apply_look(
    image_HW: NDArray[np.float32], look: tuple[float, float, float]
) -> NDArray[np.float32]:
    """Display an image of grey values in [0, 1] with another gamma, gain and offset."""
    gamma, gain, offset = look
    lit = image_HW > 0
    return (gain * image_HW**gamma + offset * lit).clip(0.0, 1.0)


def make_clip(
    patient: Patient, frames: int, rng: Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A clean clip of one patient: images_THW in [0, 1] and labels_TNHW.

    A clip of one frame is one of the two stills, or seldom a contraction in between.
    """
    side = patient.ed.image_HW.shape[0]
    grid = random_grid(rng, side)
    look = random_look(rng)
    phi = _random_phases(frames, rng)
    drift = rng.normal(0.0, 0.25, 2).astype(np.float32)
    images, labels = [], []
    for t in range(frames):
        image, label = render(patient, float(phi[t]), grid + t * drift)
        images.append(apply_look(image / 255.0, look))
        labels.append(label.transpose(2, 0, 1))
    return np.stack(images), np.stack(labels)


def _random_phases(frames: int, rng: Generator) -> NDArray[np.float64]:
    if frames == 1:
        if rng.random() < 0.7:
            return np.array([float(rng.integers(2))])
        return rng.uniform(-0.1, 1.1, 1)
    beats_a_frame = rng.uniform(0.02, 0.09)
    depth = rng.uniform(0.7, 1.1)
    return depth * contraction(rng.random() + beats_a_frame * np.arange(frames))


def corrupt(image_HW: NDArray[np.float32], kind: int, rng: Generator) -> NDArray[np.float32]:
    """One bad frame: black, shadow wedge, haze, speckle, gain jump or blur."""
    side = image_HW.shape[0]
    rows, cols = np.mgrid[0:side, 0:side].astype(np.float32) / side
    if kind == 0:
        return np.zeros_like(image_HW) if rng.random() < 0.7 else 0.1 * image_HW
    if kind == 1:
        angle = np.arctan2(cols - 0.5, rows + 0.05)
        inside = np.abs(angle - rng.uniform(-0.5, 0.5)) < rng.uniform(0.08, 0.3)
        return image_HW * np.where(inside, rng.uniform(0.0, 0.3), 1.0).astype(np.float32)
    if kind == 2:
        haze = rng.uniform(0.2, 0.6) * np.exp(-rows / rng.uniform(0.2, 0.6))
        return (image_HW + haze * (image_HW > 0)).clip(0.0, 1.0)
    if kind == 3:
        noise = rng.rayleigh(0.8, image_HW.shape).astype(np.float32)
        return (image_HW * (0.3 + noise)).clip(0.0, 1.0)
    if kind == 4:
        return (image_HW * rng.choice([0.25, 0.4, 1.8, 2.5])).clip(0.0, 1.0).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(image_HW, (0, 0), rng.uniform(1.5, 4.0)), np.float32)


CORRUPTIONS = 6


def make_negative(
    images: list[NDArray[np.uint8]], patients: list[Patient], side: int, rng: Generator
) -> NDArray[np.float32]:
    """An image of no apical view: another organ, a turned or shuffled heart, texture, or black."""
    draw = rng.random()
    if images and draw < 0.5:
        return _other_image(images[rng.integers(len(images))], side, rng)
    if draw < 0.7:
        still = patients[rng.integers(len(patients))].ed.image_HW
        turned = (
            np.rot90(still, int(rng.integers(1, 4)))
            if rng.random() < 0.4
            else _shuffled(still, rng)
        )
        return (
            cv2.resize(turned, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
            / 255.0
        )
    if draw < 0.95:
        return _texture(side, rng)
    return np.full((side, side), rng.choice([0.0, 0.0, rng.random()]), np.float32)


def _other_image(image: NDArray[np.uint8], side: int, rng: Generator) -> NDArray[np.float32]:
    rows, cols = image.shape
    height, width = (int(n * rng.uniform(0.5, 1.0)) for n in (rows, cols))
    top, left = rng.integers(0, rows - height + 1), rng.integers(0, cols - width + 1)
    crop = image[top : top + height, left : left + width]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    scaled = cv2.resize(np.ascontiguousarray(crop), (side, side), interpolation=cv2.INTER_AREA)
    return apply_look(scaled.astype(np.float32) / 255.0, random_look(rng))


def _shuffled(image: NDArray[np.uint8], rng: Generator) -> NDArray[np.uint8]:
    parts = int(rng.integers(2, 5))
    step = image.shape[0] // parts
    tiles = [
        image[r * step : (r + 1) * step, c * step : (c + 1) * step]
        for r in range(parts)
        for c in range(parts)
    ]
    order = rng.permutation(len(tiles))
    while (order == np.arange(len(tiles))).all():
        order = rng.permutation(len(tiles))
    return np.vstack(
        [np.hstack([tiles[order[r * parts + c]] for c in range(parts)]) for r in range(parts)]
    )


def _texture(side: int, rng: Generator) -> NDArray[np.float32]:
    shape = tuple(int(n) for n in rng.integers(2, 12, 2))
    smooth = cv2.resize(
        rng.random(shape).astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC
    )
    fine = cv2.GaussianBlur(rng.rayleigh(0.8, (side, side)).astype(np.float32), (0, 0), 1.0)
    image = smooth * fine * rng.uniform(0.2, 1.0)
    if rng.random() < 0.7:
        rows, cols = np.mgrid[0:side, 0:side].astype(np.float32) / side
        reach = np.hypot(rows, cols - 0.5)
        image = image * (
            (np.abs(np.arctan2(cols - 0.5, rows)) < rng.uniform(0.5, 0.8)) & (reach < 1.0)
        )
    return image.clip(0.0, 1.0).astype(np.float32)


def make_batch(
    patients: list[Patient], negatives: list[NDArray[np.uint8]], config: TrainConfig, step: int
) -> Batch:
    """The batch of one step: a function of the seed and the step alone, so that runs can resume."""
    rng = np.random.default_rng((config.seed, step))
    frames, side = config.clip_frames, patients[0].ed.image_HW.shape[0] // 2
    images = np.zeros((config.batch, frames, side, side), np.float32)
    labels = np.zeros((config.batch, frames, 4, side, side), np.float32)
    presence = np.ones((config.batch, frames), np.float32)
    for b in range(config.batch):
        if rng.random() < config.negative_share:
            images[b] = make_negative(negatives, patients, side, rng)
            labels[b, :, 0] = 1.0
            presence[b] = 0.0
            continue
        images[b], labels[b] = make_clip(patients[rng.integers(len(patients))], frames, rng)
        if rng.random() < config.burst_share:
            _add_burst(images[b], presence[b], rng)
    return Batch(images, labels, presence)


def _add_burst(
    images_THW: NDArray[np.float32], presence_T: NDArray[np.float32], rng: Generator
) -> None:
    frames = images_THW.shape[0]
    if frames == 1:
        kind = int(rng.integers(1, CORRUPTIONS))
        images_THW[0] = corrupt(images_THW[0], kind, rng)
        return
    first = int(rng.integers(1, frames))
    last = min(frames, first + int(rng.integers(1, 5)))
    kind = int(rng.integers(0, CORRUPTIONS))
    for t in range(first, last):
        images_THW[t] = corrupt(images_THW[t], kind, rng)
        if kind == 0:
            presence_T[t] = 0.0
