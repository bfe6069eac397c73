"""Made-up annotated stills in the A4C PNG layout: ellipses for ventricle, wall and atrium."""

import csv
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 96


def draw_labels(size: float, shift: float = 0.0) -> NDArray[np.uint8]:
    """Labels of a heart whose ventricle has half axes of 26 x 13 px times ``size``."""
    rows, cols = np.mgrid[:SIDE, :SIDE].astype(np.float64)
    col = 48.0 + shift
    inner = np.hypot((rows - 42) / (26 * size), (cols - col) / (13 * size))
    outer = np.hypot((rows - 42) / (26 * size + 6), (cols - col) / (13 * size + 6))
    labels_HW = np.zeros((SIDE, SIDE), np.uint8)
    labels_HW[np.hypot(rows - 82, cols - col) < 9] = 3
    labels_HW[outer < 1] = 2
    labels_HW[inner < 1] = 1
    return labels_HW


def draw_image(labels_HW: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """Speckle: bright wall, dark blood, a fan of grey around."""
    rows, cols = np.mgrid[:SIDE, :SIDE].astype(np.float64)
    fan_HW = np.abs(cols - 48) < 0.75 * (rows + 6)
    level_HW = np.array([70.0, 25.0, 140.0, 30.0])[labels_HW]
    speckle_HW = np.random.default_rng(seed).uniform(0.6, 1.4, labels_HW.shape)
    return (level_HW * speckle_HW * fan_HW).clip(0, 255).astype(np.uint8)


def write_still(folder: Path, stem: str, labels_HW: NDArray[np.uint8], seed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / f"{stem}.png"), draw_image(labels_HW, seed))
    cv2.imwrite(str(folder / f"{stem}_gt.png"), labels_HW)


def write_patient(folder: Path, name: str, seed: int) -> None:
    shift = float(seed % 5 - 2)
    write_still(folder, f"{name}_4CH_ED", draw_labels(1.0, shift), 2 * seed)
    write_still(folder, f"{name}_4CH_ES", draw_labels(0.75, shift), 2 * seed + 1)


def write_index(data: Path, rows: list[tuple[str, str, str, str]]) -> None:
    with (data / "index.csv").open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(("split", "patient", "phase", "mm_per_px"))
        lines.writerows(rows)
