"""Images that show no apical view, for the presence output.

Some come from a folder of real images; others are made of the training patients' own images, turned
or shuffled, or of nothing: texture in a sector, a probe in air, a phantom's cysts and targets, a
short axis, and a heart hidden under colour flow.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from model.training.clips import Patient
from model.training.look import apply_look, random_look

OTHER_SHARE = 0.5
"""Share of real images, where there are some."""

Image = NDArray[np.float32]
"""Grey values in [0, 1], square."""


def make_negative(
    images: list[NDArray[np.uint8]], patients: list[Patient], side: int, rng: Generator
) -> Image:
    """One image of no apical view."""
    if images and rng.random() < OTHER_SHARE:
        return other_image(images[rng.integers(len(images))], side, rng)
    if rng.random() < 0.45:
        still = patients[rng.integers(len(patients))].ed.image_HW
        make_from = (turned, shuffled, under_flow)[int(rng.integers(3))]
        return make_from(still, side, rng)
    made: tuple[Callable[[int, Generator], Image], ...] = (
        texture, in_air, phantom, short_axis, blank,
    )  # fmt: skip
    return made[int(rng.choice(len(made), p=(0.4, 0.15, 0.2, 0.15, 0.1)))](side, rng)


def other_image(image: NDArray[np.uint8], side: int, rng: Generator) -> Image:
    """A part of a real image of something else, under another machine's display."""
    rows, cols = image.shape
    height, width = (int(n * rng.uniform(0.5, 1.0)) for n in (rows, cols))
    top, left = rng.integers(0, rows - height + 1), rng.integers(0, cols - width + 1)
    crop = image[top : top + height, left : left + width]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    return apply_look(_shrunk(crop, side), random_look(rng))


def turned(still: NDArray[np.uint8], side: int, rng: Generator) -> Image:
    """A heart on its side or its head."""
    return _shrunk(np.rot90(still, int(rng.integers(1, 4))), side)


def shuffled(still: NDArray[np.uint8], side: int, rng: Generator) -> Image:
    """A heart cut into tiles that lie elsewhere."""
    parts = int(rng.integers(2, 5))
    step = still.shape[0] // parts
    tiles = [
        still[r * step : (r + 1) * step, c * step : (c + 1) * step]
        for r in range(parts)
        for c in range(parts)
    ]
    order = rng.permutation(len(tiles))
    while (order == np.arange(len(tiles))).all():
        order = rng.permutation(len(tiles))
    rows = [np.hstack([tiles[order[r * parts + c]] for c in range(parts)]) for r in range(parts)]
    return _shrunk(np.vstack(rows), side)


def under_flow(still: NDArray[np.uint8], side: int, rng: Generator) -> Image:
    """A heart under a box of colour Doppler, whose luma has sharp-edged blots of a few levels."""
    image = _shrunk(still, side)
    coarse = rng.random((int(rng.integers(5, 10)),) * 2).astype(np.float32)
    velocity = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    levels = np.floor(velocity * 6) % 6 / 6
    luma = (0.12 + 0.7 * np.abs(2 * levels - 1)).astype(np.float32)
    box = np.zeros((side, side), bool)
    top, left = (int(side * rng.uniform(0.08, 0.25)) for _ in range(2))
    box[top : top + int(side * rng.uniform(0.55, 0.75)), left : left + int(side * 0.6)] = True
    flows = box & (velocity > rng.uniform(0.15, 0.4)) & (cv2.blur(image, (5, 5)) > 0)
    return np.where(flows, luma, image).astype(np.float32)


def texture(side: int, rng: Generator) -> Image:
    """Smooth greys under speckle, mostly in a sector."""
    shape = tuple(int(n) for n in rng.integers(2, 12, 2))
    smooth = cv2.resize(
        rng.random(shape).astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC
    )
    image = smooth * _speckle(side, rng) * rng.uniform(0.2, 1.0)
    if rng.random() < 0.7:
        image = image * _sector(side, rng)
    return image.clip(0.0, 1.0).astype(np.float32)


def in_air(side: int, rng: Generator) -> Image:
    """A probe that touches nothing: a bright face, its echoes at even depths, then noise."""
    depth, _ = _depth(side)
    period, fall = rng.uniform(0.02, 0.12), rng.uniform(0.05, 0.3)
    rings = (0.5 + 0.5 * np.cos(2 * np.pi * depth / period)) ** 3 * np.exp(-depth / fall)
    noise = 0.06 * rng.random() * _speckle(side, rng)
    image = (rng.uniform(0.5, 1.0) * rings + noise) * _sector(side, rng)
    return image.clip(0.0, 1.0).astype(np.float32)


def phantom(side: int, rng: Generator) -> Image:
    """Even speckle with round cysts and bright targets, in a sector or a box."""
    rows, cols = np.mgrid[0:side, 0:side].astype(np.float32) / side
    level = np.full((side, side), rng.uniform(0.2, 0.5), np.float32)
    for _ in range(int(rng.integers(1, 7))):
        row, col = rng.uniform(0.2, 0.85), rng.uniform(0.25, 0.75)
        radius, stretch = rng.uniform(0.015, 0.22), rng.uniform(0.75, 1.3)
        inside = np.hypot((rows - row) / stretch, cols - col) < radius
        level[inside] *= rng.choice([0.0, 0.1, 0.3, 2.0, 3.0])
    image = level * _speckle(side, rng)
    if rng.random() < 0.6:
        image = image * _sector(side, rng)
    return image.clip(0.0, 1.0).astype(np.float32)


def short_axis(side: int, rng: Generator) -> Image:
    """A bright ring about a dark middle in a sector: the heart cut across."""
    rows, cols = np.mgrid[0:side, 0:side].astype(np.float32) / side
    row, col = rng.uniform(0.4, 0.65), rng.uniform(0.4, 0.6)
    inner, wall = rng.uniform(0.07, 0.16), rng.uniform(0.05, 0.1)
    stretch = rng.uniform(0.85, 1.15)
    reach = np.hypot((rows - row) / stretch, cols - col)
    level = np.full((side, side), rng.uniform(0.15, 0.35), np.float32)
    level[reach < inner + wall] = rng.uniform(0.45, 0.8)
    level[reach < inner] = rng.uniform(0.02, 0.12)
    smooth = cv2.GaussianBlur(level, (0, 0), 0.01 * side)
    image = smooth * _speckle(side, rng) * _sector(side, rng)
    return image.clip(0.0, 1.0).astype(np.float32)


def blank(side: int, rng: Generator) -> Image:
    """One level everywhere, mostly black."""
    return np.full((side, side), rng.choice([0.0, 0.0, rng.random()]), np.float32)


def _speckle(side: int, rng: Generator) -> Image:
    fine = rng.rayleigh(0.8, (side, side)).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(fine, (0, 0), rng.uniform(0.8, 1.6)), np.float32)


def _depth(side: int) -> tuple[Image, Image]:
    """Distance from the middle of the upper edge, and the angle there."""
    rows, cols = np.mgrid[0:side, 0:side].astype(np.float32) / side
    return np.hypot(rows, cols - 0.5), np.arctan2(cols - 0.5, rows)


def _sector(side: int, rng: Generator) -> NDArray[np.bool_]:
    depth, angle = _depth(side)
    return (np.abs(angle) < rng.uniform(0.5, 0.8)) & (depth < 1.0)


def _shrunk(image: NDArray[np.uint8], side: int) -> Image:
    small = cv2.resize(np.ascontiguousarray(image), (side, side), interpolation=cv2.INTER_AREA)
    return small.astype(np.float32) / 255.0
