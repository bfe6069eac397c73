"""Patients, and the motion between their two phases.

A patient has one end-diastolic and one end-systolic still with masks, and may have more between.
The motion carries both stills to any contraction in between (and a little beyond) by thin-plate
splines through matched contour points, so that training clips beat although the data hold no frame
between the phases.
"""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RBFInterpolator

from model.errors import FrameError
from model.frame import STRUCTURES, Region
from model.preprocess import find_sector, make_fit, to_network_input
from model.words import counted

Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""An image and its label map, of one size."""

GRID = 25
"""Side of the coarse grid on which displacement fields are kept."""

LEVELS = np.linspace(-0.15, 1.15, 9)
"""Contractions at which the fields are solved: 0 is end diastole, 1 end systole."""


@dataclass(frozen=True, slots=True, eq=False)
class Still:
    """One annotated frame on the working grid.

    Attributes:
        image_HW: luma, uint8.
        labels_HWN: soft one-hot of background and the three structures, uint8 0 to 255.
    """

    image_HW: NDArray[np.uint8]
    labels_HWN: NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Patient:
    """Both stills of one patient and the motion between them.

    Attributes:
        known: which of the three structures the masks tell; the others count as background.
        between: labelled frames from end diastole to end systole, without these two.
        fields_LSYX2: per contraction level and still (ED, ES), where to sample that still, as a
            displacement in working-grid pixels (column, row) on the coarse grid.
    """

    name: str
    ed: Still
    es: Still
    fields_LSYX2: NDArray[np.float32]
    known: tuple[bool, bool, bool] = (True, True, True)
    between: tuple[Still, ...] = ()


def read_patients(folder: Path, side: int, workers: int = 1) -> list[Patient]:
    """Read every patient of one split.

    Args:
        folder: holds ``patientXXXX_4CH_{ED,ES}[_gt].png``.
        side: working grid in pixels, twice the network's side.
        workers: processes that solve the motions.

    Raises:
        FrameError: stills are missing, unreadable or do not fit their masks; they are named.
    """
    names = sorted({path.stem.split("_")[0] for path in folder.glob("*.png")})
    complete: list[tuple[str, Pair, Pair, int]] = []
    broken: list[str] = []
    for name in names:
        stems = [f"{name}_4CH_{phase}" for phase in ("ED", "ES")]
        pairs = [read_pair(folder, stem) for stem in stems]
        broken += [stem for stem, pair in zip(stems, pairs, strict=True) if pair is None]
        ed, es = pairs
        if ed is not None and es is not None:
            complete.append((name, ed, es, side))
    if not names or broken:
        which = counted(len(broken), "still") if broken else "all stills"
        raise FrameError(
            f"{folder}: {which} missing or unreadable, or with a mask of another size or with "
            f"labels above {len(STRUCTURES)}: {broken[:20]}"
        )
    if workers == 1:
        return [place_patient(*each) for each in complete]
    with ProcessPoolExecutor(workers) as pool:
        return list(pool.map(place_patient, *zip(*complete, strict=True), chunksize=4))


def read_pair(folder: Path, stem: str) -> Pair | None:
    """Image and label map of one still, None where they are not both there and of one size."""
    image = cv2.imread(str(folder / f"{stem}.png"), cv2.IMREAD_GRAYSCALE)
    labels = cv2.imread(str(folder / f"{stem}_gt.png"), cv2.IMREAD_GRAYSCALE)
    if image is None or labels is None or image.shape != labels.shape:
        return None
    if labels.max() > len(STRUCTURES):
        return None
    return np.asarray(image, np.uint8), np.asarray(labels, np.uint8)


def place_patient(
    name: str,
    ed: Pair,
    es: Pair,
    side: int,
    spacing_mm: tuple[float, float] | None = None,
    is_cropped: bool = False,
) -> Patient:
    """Place both stills of a patient on the working grid and solve its motion.

    The sector is searched on the end-diastolic image; stills of two sizes are placed each by its
    own.

    Args:
        name: of the patient.
        ed: image and label map at end diastole.
        es: both at end systole.
        side: working grid in pixels.
        spacing_mm: row and column spacing; None means square pixels.
        is_cropped: whether the stills show the sector and no more, so that none is searched.
    """
    sector_of = None if is_cropped else ed[0]
    at_ed, at_es = (place_still(*pair, sector_of, side, spacing_mm) for pair in (ed, es))
    return Patient(name, at_ed, at_es, solve_motion(at_ed, at_es))


def place_still(
    image: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    sector_of: NDArray[np.uint8] | None,
    side: int,
    spacing_mm: tuple[float, float] | None = None,
) -> Still:
    """Place one frame on the working grid, by the sector of another one of its size.

    Without that one it is placed whole: it was cropped before.
    """
    size = image.shape[0], image.shape[1]
    region = None
    if sector_of is not None:
        region = find_sector(sector_of if sector_of.shape == image.shape else image)
    fit = make_fit(region or Region(0, 0, *size), size, side, spacing_mm)
    placed = [
        to_network_input((labels == label).astype(np.uint8) * 255, fit)[0, 0] for label in (1, 2, 3)
    ]
    background = 1.0 - np.sum(placed, axis=0)
    labels_HWN = np.stack([background, *placed], axis=-1)
    image_HW = np.rint(255 * to_network_input(image, fit)[0, 0]).astype(np.uint8)
    return Still(image_HW, np.rint(255 * labels_HWN).clip(0, 255).astype(np.uint8))


def contour_points(area_HW: NDArray[np.bool_], angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Outermost (column, row) points of an area at given angles about its centroid.

    Returns:
        One point an angle; all at the centroid where the area is empty.
    """
    rows, cols = np.nonzero(area_HW)
    if rows.size == 0:
        return np.full((angles.size, 2), area_HW.shape[0] / 2.0)
    centre = np.array([cols.mean(), rows.mean()])
    reach = np.arange(0.0, np.hypot(*area_HW.shape))
    ray_ARX = centre + reach[None, :, None] * np.stack([np.cos(angles), np.sin(angles)], 1)[:, None]
    col = ray_ARX[..., 0].round().astype(int).clip(0, area_HW.shape[1] - 1)
    row = ray_ARX[..., 1].round().astype(int).clip(0, area_HW.shape[0] - 1)
    last = (area_HW[row, col] * np.arange(1, reach.size + 1)).argmax(axis=1)
    points: NDArray[np.float64] = np.take_along_axis(ray_ARX, last[:, None, None], 1)[:, 0]
    return points


def landmarks(still: Still) -> NDArray[np.float64]:
    """Matched (column, row) points: endocardium, epicardium and left atrium by angle."""
    labels = still.labels_HWN.argmax(axis=-1)
    wide = np.linspace(-np.pi, np.pi, 28, endpoint=False)
    small = np.linspace(-np.pi, np.pi, 12, endpoint=False)
    parts = [(labels == 1, wide), ((labels == 1) | (labels == 2), wide)]
    if (labels == 3).sum() > 50:
        parts.append((labels == 3, small))
    return np.concatenate([contour_points(area, angles) for area, angles in parts])


def solve_motion(ed: Still, es: Still) -> NDArray[np.float32]:
    """Displacement fields from every contraction level back to both stills.

    Returns:
        fields_LSYX2, see ``Patient``.
    """
    side = ed.image_HW.shape[0]
    at_ed, at_es = landmarks(ed), landmarks(es)
    shared = min(len(at_ed), len(at_es))
    at_ed, at_es = at_ed[:shared], at_es[:shared]
    edge = np.linspace(0.0, side - 1.0, 5)
    frame = np.array(
        [(x, y) for x in edge for y in edge if x in edge[[0, -1]] or y in edge[[0, -1]]]
    )
    axis = np.linspace(0.0, side - 1.0, GRID)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    fields = np.zeros((LEVELS.size, 2, GRID, GRID, 2), np.float32)
    for level, phi in enumerate(LEVELS):
        here = at_ed + phi * (at_es - at_ed)
        moved = np.concatenate([at_ed - here, at_es - here], axis=1)
        moved = np.concatenate([moved, np.zeros((len(frame), 4))])
        nodes = np.concatenate([here, frame])
        spline = RBFInterpolator(nodes, moved, kernel="thin_plate_spline", smoothing=5.0)
        both = spline(grid).reshape(GRID, GRID, 2, 2)
        fields[level] = both.transpose(2, 0, 1, 3)
    return fields


def field_at(patient: Patient, phi: float) -> NDArray[np.float32]:
    """The two displacement fields at one contraction, by linear interpolation between levels."""
    place = np.clip((phi - LEVELS[0]) / (LEVELS[1] - LEVELS[0]), 0, LEVELS.size - 1 - 1e-6)
    low = int(place)
    share = np.float32(place - low)
    fields = patient.fields_LSYX2
    return (1 - share) * fields[low] + share * fields[low + 1]


def nearest(patient: Patient, phi: float) -> Still:
    """The frame whose contraction, told by the ventricle's area, is the nearest."""
    stills = (patient.ed, *patient.between, patient.es)
    areas = np.array([still.labels_HWN[..., 1].sum(dtype=np.float64) for still in stills])
    contractions = (areas[0] - areas) / max(areas[0] - areas[-1], 1.0)
    contractions[0], contractions[-1] = 0.0, 1.0
    return stills[int(np.abs(contractions - phi).argmin())]


def render(
    patient: Patient, phi: float, grid_HW2: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """One frame of the patient at a contraction, sampled on a warped grid.

    The low band of the two stills is blended linearly, the detail with cosine weights, so that
    speckle keeps its contrast half way.

    Args:
        patient: stills and motion.
        phi: contraction, 0 end diastole, 1 end systole.
        grid_HW2: (column, row) in the working grid for every output pixel.

    Returns:
        image_HW in 0 to 255 and labels_HWN in 0 to 1, on half the grid's side by area.
    """
    if phi in (0.0, 1.0) or patient.between:
        still = nearest(patient, phi)
        return _sample(still.image_HW, grid_HW2), _sample(still.labels_HWN, grid_HW2) / 255.0
    images, labels = [], []
    scale = np.float32((GRID - 1) / (patient.ed.image_HW.shape[0] - 1))
    coarse_HW2 = cv2.resize(grid_HW2, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) * scale
    for still, field in zip((patient.ed, patient.es), field_at(patient, phi), strict=True):
        moved = cv2.remap(
            field, *_maps(coarse_HW2), cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
        )
        where = grid_HW2 + cv2.resize(moved, grid_HW2.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        images.append(_sample(still.image_HW, where))
        labels.append(_sample(still.labels_HWN, where))
    share = float(np.clip(phi, 0.0, 1.0))
    blurred = [cv2.GaussianBlur(image, (0, 0), 3.0) for image in images]
    low = (1 - share) * blurred[0] + share * blurred[1]
    turn = share * np.pi / 2
    detail = np.cos(turn) * (images[0] - blurred[0]) + np.sin(turn) * (images[1] - blurred[1])
    mixed = ((1 - share) * labels[0] + share * labels[1]) / 255.0
    return np.asarray((low + detail).clip(0, 255), np.float32), np.asarray(mixed, np.float32)


def _sample(image: NDArray[np.uint8], grid_HW2: NDArray[np.float32]) -> NDArray[np.float32]:
    border = (255, 0, 0, 0) if image.ndim == 3 else (0,)
    full = cv2.remap(image, *_maps(grid_HW2), cv2.INTER_LINEAR, borderValue=border)
    half = cv2.resize(full, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return np.asarray(half, np.float32)


def _maps(grid_HW2: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Columns and rows apart: OpenCV 5.0 misreads one map of both with an empty second."""
    return np.ascontiguousarray(grid_HW2[..., 0]), np.ascontiguousarray(grid_HW2[..., 1])
