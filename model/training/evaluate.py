"""Scores of shipped weights on annotated stills, through the predictor that serves them.

Each still is fed as a short stream of itself and the last mask is scored on the still's own pixel
grid. Scores are means over masks, with intervals from a bootstrap over patients. A structure that
neither annotator nor network sees is left out of its means; one that only one of them sees has
Dice 0 and the image's diagonal as its distances.
"""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, distance_transform_edt

from model.errors import FrameError
from model.frame import STRUCTURES, Frame, Mask, Region
from model.measure import measure_frame
from model.postprocess import to_source_labels
from model.predictor import Predictor, load_predictor
from model.preprocess import make_fit, to_network_input
from model.training.clips import read_pair

STREAM_FRAMES = 3
RESAMPLES = 2000
SPLITS = ("test", "valid")
METRICS = ("dice", "iou", "hd95_mm", "asd_mm")
EF_KEYS = ("mae", "rmse", "r", "bias", "beyond_15")

Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""One number a column, or one a name, from a table with one row a mask or patient."""


@dataclass(frozen=True, slots=True, eq=False)
class Annotated:
    """One annotated still.

    Attributes:
        labels_HW: 0 background, then 1 + the index in STRUCTURES.
        mm_per_px: spacing of both axes.
    """

    patient: str
    phase: str
    image_HW: NDArray[np.uint8]
    labels_HW: NDArray[np.uint8]
    mm_per_px: float


def read_annotated(data: Path) -> list[Annotated]:
    """Read a folder in the A4C PNG layout: ``index.csv`` and a ``test`` or ``valid`` folder.

    Raises:
        FrameError: no index, no such split, or stills that are missing, unreadable or do not fit
            their masks; they are named.
    """
    split = next((name for name in SPLITS if (data / name).is_dir()), None)
    if split is None or not (data / "index.csv").is_file():
        raise FrameError(f"{data} needs index.csv and one of the folders {', '.join(SPLITS)}")
    stills, broken = [], []
    for patient, phase, mm_per_px in read_index(data / "index.csv", split):
        pair = read_pair(data / split, f"{patient}_4CH_{phase}")
        if pair is None:
            broken.append(f"{patient}_4CH_{phase}")
        else:
            stills.append(Annotated(patient, phase.lower(), *pair, mm_per_px))
    if broken or not stills:
        raise FrameError(
            f"{data / split}: {len(broken) or 'all'} stills are missing or unreadable, or do not "
            f"fit their masks: {broken[:20]}"
        )
    return stills


def read_index(path: Path, split: str) -> list[tuple[str, str, float]]:
    """Patient, phase and millimetres per pixel of every still of one split.

    Raises:
        FrameError: a column is missing, or a value cannot be; the line is named.
    """
    with path.open(newline="", encoding="utf-8") as file:
        lines = csv.DictReader(file)
        missing = {"split", "patient", "phase", "mm_per_px"} - set(lines.fieldnames or ())
        if missing:
            raise FrameError(f"{path} lacks the columns {', '.join(sorted(missing))}")
        rows = [(lines.line_num, row) for row in lines if row["split"] == split]
    found = []
    for number, row in rows:
        try:
            mm_per_px = float(row["mm_per_px"])
        except (TypeError, ValueError):
            mm_per_px = float("nan")
        if row["phase"] not in ("ED", "ES") or not 0.0 < mm_per_px < float("inf"):
            raise FrameError(
                f"{path} line {number}: phase must be ED or ES and mm_per_px above 0, "
                f"got {row['phase']!r} and {row['mm_per_px']!r}"
            )
        found.append((row["patient"], row["phase"], mm_per_px))
    return found


def overlap(guess_HW: NDArray[np.bool_], truth_HW: NDArray[np.bool_]) -> tuple[float, float]:
    """Dice and IoU of one mask; NaN where both are empty."""
    both = int((guess_HW & truth_HW).sum())
    either = int((guess_HW | truth_HW).sum())
    if either == 0:
        return float("nan"), float("nan")
    return 2.0 * both / (both + either), both / either


def surface_distances(
    guess_HW: NDArray[np.bool_], truth_HW: NDArray[np.bool_], mm_per_px: float
) -> tuple[float, float]:
    """HD95 and ASD in mm.

    The surface is the mask's outermost layer of pixels; HD95 is the larger of the two directed
    95th percentiles, ASD the mean of both directions' distances pooled. One empty mask costs the
    diagonal of the image, two empty ones are NaN.

    Source:
        Semantics of the authors' re-release of GDKVM, arXiv:2512.10252.
    """
    if not guess_HW.any() or not truth_HW.any():
        is_one_there = guess_HW.any() or truth_HW.any()
        worst = float(np.hypot(*truth_HW.shape)) * mm_per_px if is_one_there else float("nan")
        return worst, worst
    rim_guess = guess_HW & ~binary_erosion(guess_HW)
    rim_truth = truth_HW & ~binary_erosion(truth_HW)
    to_truth = distance_transform_edt(~rim_truth)[rim_guess] * mm_per_px
    to_guess = distance_transform_edt(~rim_guess)[rim_truth] * mm_per_px
    hd95 = max(np.percentile(to_truth, 95), np.percentile(to_guess, 95))
    return float(hd95), float(np.concatenate([to_truth, to_guess]).mean())


def segment_still(predictor: Predictor, still: Annotated) -> Mask:
    """The mask after a short stream of one still."""
    state = predictor.start(spacing_mm=(still.mm_per_px, still.mm_per_px))
    for seq in range(STREAM_FRAMES):
        mask, state = predictor.step(Frame(seq, None, still.image_HW), state)
    return mask


def reference_mask(still: Annotated) -> Mask:
    """The annotation as if a network had given it, on the still's own grid."""
    rows, cols = still.labels_HW.shape
    fit = make_fit(Region(0, 0, rows, cols), (rows, cols), max(rows, cols))
    maps = [
        (still.labels_HW == index + 1).astype(np.uint8) * 255 for index in range(len(STRUCTURES))
    ]
    return Mask(np.stack([to_network_input(each, fit)[0, 0] for each in maps]), fit, 1.0)


def volume_ml(mask: Mask, mm_per_px: float) -> float:
    """LV volume by single-plane disks, NaN where it cannot be measured."""
    ventricle = measure_frame(mask, (mm_per_px, mm_per_px)).lv
    return float("nan") if ventricle is None or not ventricle.volume_ml else ventricle.volume_ml


def score_still(predictor: Predictor, still: Annotated) -> dict[str, Any]:
    """All scores of one still, as one row."""
    mask = segment_still(predictor, still)
    labels_HW = to_source_labels(mask)
    row: dict[str, Any] = {"patient": still.patient, "phase": still.phase}
    for index, name in enumerate(STRUCTURES):
        guess_HW, truth_HW = labels_HW == index + 1, still.labels_HW == index + 1
        pair = (
            *overlap(guess_HW, truth_HW),
            *surface_distances(guess_HW, truth_HW, still.mm_per_px),
        )
        row[name] = dict(zip(METRICS, pair, strict=True))
    row["volume_ml"] = volume_ml(mask, still.mm_per_px)
    row["reference_ml"] = volume_ml(reference_mask(still), still.mm_per_px)
    row["presence"] = mask.presence
    return row


def evaluate(
    data: Path,
    weights: str | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
    predictor: Predictor | None = None,
) -> dict[str, Any]:
    """Score a model on a folder of annotated stills.

    Args:
        data: folder in the A4C PNG layout.
        weights: a name of the manifest, None for the default.
        progress: called with stills done and stills in all.
        predictor: used in place of loading ``weights``.

    Returns:
        The document of ``gdkvm evaluate --json``.

    Raises:
        FrameError: the folder is not in the layout.
        WeightsError: no such weights.
    """
    stills = read_annotated(data)
    predictor = predictor or load_predictor(weights, threads=2)
    rows = []
    for done, still in enumerate(stills, start=1):
        rows.append(score_still(predictor, still))
        if progress is not None:
            progress(done, len(stills))
    report: dict[str, Any] = {name: structure_scores(rows, name) for name in STRUCTURES}
    report["ef"] = ef_scores(rows)
    report["patients"] = len({row["patient"] for row in rows})
    report["weights"] = {
        "name": predictor.model.name,
        "version": predictor.model.version,
        "sha256": predictor.model.sha256,
    }
    return report


def structure_scores(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """Means and intervals of one structure at end diastole, end systole and both."""
    scores: dict[str, Any] = {}
    for phase in ("ed", "es", "all"):
        chosen = [
            row for row in rows if phase in ("all", row["phase"]) and np.isfinite(row[name]["dice"])
        ]
        patients = np.array([row["patient"] for row in chosen])
        table = np.array([[row[name][metric] for metric in METRICS] for row in chosen])
        scores[phase] = summary(patients, table, METRICS, lambda part: part.mean(axis=0))
    return scores


def ef_scores(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Agreement of EF from predicted masks with EF from reference masks, single-plane disks."""
    volumes = {(row["patient"], row["phase"]): row for row in rows}
    both = [name for name, phase in volumes if phase == "ed" and (name, "es") in volumes]
    patients = np.array(both)
    pairs = np.array(
        [
            [ejection_percent(volumes, name, key) for key in ("volume_ml", "reference_ml")]
            for name in both
        ]
    ).reshape(-1, 2)
    keep = np.isfinite(pairs).all(axis=1)
    scores = summary(patients[keep], pairs[keep], EF_KEYS, agreement)
    scores["pairs"] = int(keep.sum())
    scores["method"] = "single-plane disks, both from masks"
    return scores


def summary(
    patients: NDArray[np.str_],
    table: NDArray[np.float64],
    keys: tuple[str, ...],
    statistic: Statistic,
) -> dict[str, Any]:
    """A statistic of a table with its 95 % intervals; None where there is nothing to tell."""
    if not len(table):
        return {**dict.fromkeys(keys), "ci95": dict.fromkeys(keys)}
    low, high = bootstrap(patients, table, statistic)
    scores: dict[str, Any] = {
        key: _rounded(value) for key, value in zip(keys, statistic(table), strict=True)
    }
    scores["ci95"] = {
        key: None if np.isnan(ends).any() else [_rounded(end) for end in ends]
        for key, ends in zip(keys, zip(low, high, strict=True), strict=True)
    }
    return scores


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 5)


def ejection_percent(
    volumes: dict[tuple[str, str], dict[str, Any]], patient: str, key: str
) -> float:
    """EF of a patient from two volumes."""
    ed, es = volumes[patient, "ed"][key], volumes[patient, "es"][key]
    return 100.0 * (ed - es) / ed


def agreement(pairs: NDArray[np.float64]) -> NDArray[np.float64]:
    """MAE, RMSE, Pearson r, bias (prediction - reference) and share beyond 15 points."""
    error = pairs[:, 0] - pairs[:, 1]
    spread = pairs.std(axis=0)
    r = np.nan
    if len(pairs) > 1 and spread.min() > 0:
        r = float(np.asarray(np.corrcoef(pairs.T))[0, 1])
    return np.array(
        [
            np.abs(error).mean(),
            np.sqrt((error**2).mean()),
            r,
            error.mean(),
            (np.abs(error) > 15.0).mean(),
        ]
    )


def bootstrap(
    patients: NDArray[np.str_],
    table: NDArray[np.float64],
    statistic: Statistic,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """95 % interval of a statistic by resampling patients with replacement.

    Returns:
        2.5th and 97.5th percentile of every entry of the statistic; NaN where no draw has one.
    """
    rng = np.random.default_rng(0)
    members = [np.flatnonzero(patients == name) for name in np.unique(patients)]
    draws = []
    for _ in range(RESAMPLES):
        chosen = rng.integers(0, len(members), len(members))
        draws.append(statistic(table[np.concatenate([members[k] for k in chosen])]))
    columns = [column[~np.isnan(column)] for column in np.array(draws).T]
    ends = [np.percentile(c, [2.5, 97.5]) if c.size else np.full(2, np.nan) for c in columns]
    return np.array(ends)[:, 0], np.array(ends)[:, 1]
