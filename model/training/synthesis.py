"""Training batches: warped stills, beating clips, bursts of bad frames, and images of no heart."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from model.training.clips import Patient, render
from model.training.config import TrainConfig
from model.training.look import apply_look, random_look
from model.training.negatives import make_negative

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
        known_BN: the structures that a clip's labels tell, None where all of all clips.
    """

    images_BTHW: NDArray[np.float32]
    labels_BTNHW: NDArray[np.float32]
    presence_BT: NDArray[np.float32]
    known_BN: NDArray[np.bool_] | None = None


def contraction(time_beats: NDArray[np.floating]) -> NDArray[np.float64]:
    """Contraction at a time given in beats: 0 at end diastole, 1 at end systole."""
    return np.interp(time_beats % 1.0, *CONTRACTION_KNOTS)


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A random view of the working grid: an affine map, then a smooth elastic warp.

    Attributes:
        matrix_22: of (column, row) about the middle of the grid.
        offset_2: (column, row) of the view's middle.
        bumps_YX2: displacement in pixels at 5 x 5 places.
    """

    matrix_22: NDArray[np.float64]
    offset_2: NDArray[np.float64]
    bumps_YX2: NDArray[np.float32]

    def grid(self, side: int) -> NDArray[np.float32]:
        """grid_HW2 of (column, row) sampling places on the working grid."""
        axis = np.arange(side) - (side - 1) / 2
        grid = np.stack(np.meshgrid(axis, axis), axis=-1) @ self.matrix_22.T + self.offset_2
        return grid.astype(np.float32) + cv2.resize(
            self.bumps_YX2, (side, side), interpolation=cv2.INTER_CUBIC
        )


def random_view(rng: Generator, side: int) -> View:
    """Rotation, scale, shift, stretch, seldom a flip, and elastic bumps."""
    angle = np.deg2rad(rng.normal(0.0, 10.0))
    zoom = np.exp(rng.uniform(np.log(0.75), np.log(1.25)))
    stretch = np.exp(rng.normal(0.0, 0.06))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.diag([stretch / zoom, 1 / (zoom * stretch)])
    if rng.random() < 0.1:
        matrix = matrix @ np.diag([-1.0, 1.0])
    offset = rng.uniform(-0.08, 0.08, 2) * side + (side - 1) / 2
    bumps = rng.normal(0.0, 0.012 * side, (5, 5, 2)).astype(np.float32)
    return View(matrix, offset, bumps)


class Corruption(NamedTuple):
    """What is wrong with a bad frame.

    Attributes:
        kind: 0 dark, 1 shadow wedge, 2 haze, 3 speckle, 4 gain jump, 5 blur, 6 lost contact.
        values: of that kind, see ``random_corruption``.
        seed: of the speckle.
    """

    kind: int
    values: tuple[float, float, float]
    seed: int


CORRUPTIONS = 7
DARK, LOST_CONTACT = 0, 6
MOST_HIDDEN = 0.25
"""Share of the ventricle that lost contact may hide before the view counts as absent: an outline
of which so much is made up is not to be measured."""


def random_corruption(kind: int, rng: Generator) -> Corruption:
    """Draw one bad frame of a kind."""
    first, second, third = 0.0, 0.0, 0.0
    if kind == DARK:
        first = 0.0 if rng.random() < 0.7 else 0.1
    elif kind == 1:
        first, second = rng.uniform(-0.5, 0.5), rng.uniform(0.08, 0.3)
        third = rng.uniform(0.0, 0.3)
    elif kind == 2:
        first, second = rng.uniform(0.2, 0.6), rng.uniform(0.2, 0.6)
    elif kind == 4:
        first = float(rng.choice([0.25, 0.4, 1.8, 2.5]))
    elif kind == 5:
        first = rng.uniform(1.5, 4.0)
    elif kind == LOST_CONTACT:
        first, second = rng.uniform(-0.5, 0.5), float(rng.choice([-1.0, 1.0]))
        third = max(0.0, rng.uniform(-0.1, 0.1))
    return Corruption(kind, (first, second, third), int(rng.integers(2**31)))


def _angles(side: int) -> NDArray[np.float32]:
    """Angle of every pixel from the middle line, seen from just above the image, in radians."""
    rows, cols = np.mgrid[0:side, 0:side].astype(np.float32) / side
    return np.arctan2(cols - 0.5, rows + 0.05)


def _out_of_contact(side: int, bad: Corruption) -> NDArray[np.bool_]:
    """Where the frame shows nothing: on one side of a ray."""
    return np.asarray(bad.values[1] * (_angles(side) - bad.values[0]) > 0)


def _hides_view(bad: Corruption, lv_HW: NDArray[np.float32]) -> bool:
    """Whether too little of the ventricle is left to see."""
    if bad.kind != LOST_CONTACT:
        return bad.kind == DARK
    hidden = float(lv_HW[_out_of_contact(lv_HW.shape[0], bad)].sum())
    return hidden > MOST_HIDDEN * float(lv_HW.sum())


def corrupt(image_HW: NDArray[np.float32], bad: Corruption) -> NDArray[np.float32]:
    """The frame as it is seen."""
    side = image_HW.shape[0]
    first, second, third = bad.values
    if bad.kind == 1:
        is_dim_HW = np.abs(_angles(side) - first) < second
        return image_HW * np.where(is_dim_HW, third, 1.0).astype(np.float32)
    if bad.kind == LOST_CONTACT:
        return image_HW * np.where(_out_of_contact(side, bad), third, 1.0).astype(np.float32)
    if bad.kind == 2:
        rows = np.mgrid[0:side, 0:side][0].astype(np.float32) / side
        haze = first * np.exp(-rows / second)
        return np.asarray((image_HW + haze * (image_HW > 0)).clip(0.0, 1.0), np.float32)
    if bad.kind == 3:
        noise = np.random.default_rng(bad.seed).rayleigh(0.8, image_HW.shape)
        return (image_HW * (0.3 + noise)).clip(0.0, 1.0).astype(np.float32)
    if bad.kind == 5:
        return np.asarray(cv2.GaussianBlur(image_HW, (0, 0), first), np.float32)
    return (image_HW * np.float32(first)).clip(0.0, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class ClipPlan:
    """All that is random about a clip, drawn before it is rendered.

    Attributes:
        patient: index of the patient shown.
        negative_HW: an image of no apical view shown in its place, grey values in [0, 1].
        look: gamma, gain and offset, see ``apply_look``.
        phi_T: contraction of every frame.
        drift_2: motion of the probe, working-grid pixels (column, row) a frame.
        bad: the corruption of each corrupted frame, by its index.
    """

    patient: int
    negative_HW: NDArray[np.float32] | None
    view: View
    look: tuple[float, float, float]
    phi_T: NDArray[np.float64]
    drift_2: NDArray[np.float32]
    bad: dict[int, Corruption]

    def knows(self, patients: Sequence[Patient]) -> tuple[bool, bool, bool]:
        """The structures that its labels tell; nothing is hidden where no heart is."""
        shows_heart = self.negative_HW is None
        return patients[self.patient].known if shows_heart else (True, True, True)

    def presence(self, lv_THW: NDArray[np.float32]) -> NDArray[np.float32]:
        """presence_T, 1 where the frame shows an apical view of the labelled ventricle, else 0."""
        seen_T = np.full(self.phi_T.size, self.negative_HW is None, np.float32)
        for t, bad in self.bad.items():
            if _hides_view(bad, lv_THW[t]):
                seen_T[t] = 0.0
        return seen_T


def draw_batch(
    patients: list[Patient], negatives: list[NDArray[np.uint8]], config: TrainConfig, step: int
) -> list[ClipPlan]:
    """The clips of one step: a function of the seed and the step alone, so that runs can resume."""
    rng = np.random.default_rng((config.seed, step))
    return [draw_clip(patients, negatives, config, rng) for _ in range(config.batch)]


def draw_clip(
    patients: list[Patient],
    negatives: list[NDArray[np.uint8]],
    config: TrainConfig,
    rng: Generator,
) -> ClipPlan:
    """One clip. A clip of one frame is one of the two stills, or seldom in between."""
    side, frames = patients[0].ed.image_HW.shape[0], config.clip_frames
    negative = None
    if rng.random() < config.negative_share:
        negative = make_negative(negatives, patients, side // 2, rng)
    patient, view, look = int(rng.integers(len(patients))), random_view(rng, side), random_look(rng)
    phi, drift = _random_phases(frames, rng), rng.normal(0.0, 0.25, 2).astype(np.float32)
    is_calm = negative is not None or rng.random() >= config.burst_share
    bad = {} if is_calm else _random_burst(frames, rng)
    return ClipPlan(patient, negative, view, look, phi, drift, bad)


def _random_phases(frames: int, rng: Generator) -> NDArray[np.float64]:
    if frames == 1:
        if rng.random() < 0.7:
            return np.array([float(rng.integers(2))])
        return rng.uniform(-0.1, 1.1, 1)
    beats_a_frame = rng.uniform(0.02, 0.09)
    depth = rng.uniform(0.7, 1.1)
    return depth * contraction(rng.random() + beats_a_frame * np.arange(frames))


def _random_burst(frames: int, rng: Generator) -> dict[int, Corruption]:
    if frames == 1:
        return {0: random_corruption(int(rng.integers(1, CORRUPTIONS)), rng)}
    first = int(rng.integers(1, frames))
    last = min(frames, first + int(rng.integers(1, 5)))
    kind = int(rng.integers(0, CORRUPTIONS))
    return {t: random_corruption(kind, rng) for t in range(first, last)}


def render_clip(
    patient: Patient, plan: ClipPlan
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A planned clip of one patient: images_THW in [0, 1] and labels_TNHW."""
    grid = plan.view.grid(patient.ed.image_HW.shape[0])
    images, labels = [], []
    for t, phi in enumerate(plan.phi_T):
        image, label = render(patient, float(phi), grid + t * plan.drift_2)
        image = apply_look(image / 255.0, plan.look)
        images.append(corrupt(image, plan.bad[t]) if t in plan.bad else image)
        labels.append(label.transpose(2, 0, 1))
    return np.stack(images), np.stack(labels)


def known_structures(
    plans: Sequence[ClipPlan], patients: Sequence[Patient]
) -> NDArray[np.bool_] | None:
    """known_BN of the planned clips, None where all structures are known in all."""
    known_BN = np.array([plan.knows(patients) for plan in plans])
    return None if known_BN.all() else known_BN


def make_batch(
    patients: list[Patient],
    negatives: list[NDArray[np.uint8]],
    config: TrainConfig,
    step: int,
    share: slice = slice(None),
) -> Batch:
    """Draw the batch of one step and render a share of its clips."""
    plans = draw_batch(patients, negatives, config, step)[share]
    frames, side = config.clip_frames, patients[0].ed.image_HW.shape[0] // 2
    images = np.zeros((len(plans), frames, side, side), np.float32)
    labels = np.zeros((len(plans), frames, 4, side, side), np.float32)
    for b, plan in enumerate(plans):
        if plan.negative_HW is None:
            images[b], labels[b] = render_clip(patients[plan.patient], plan)
        else:
            images[b] = plan.negative_HW
            labels[b, :, 0] = 1.0
    presence = np.stack([plan.presence(labels[b, :, 1]) for b, plan in enumerate(plans)])
    return Batch(images, labels, presence, known_structures(plans, patients))
