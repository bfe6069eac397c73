"""Scores of shipped weights on annotated stills, through the predictor that serves them.

Each still is fed as a short stream of itself and the last mask is scored on the still's own pixel
grid. Scores are means over masks, with intervals from a bootstrap over patients. A structure that
neither annotator nor network sees is left out of its means; one that only one of them sees has
Dice 0 and the image's diagonal as its distances.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import FrameError
from model.frame import STRUCTURES, Frame, Mask, Region
from model.measure import Ventricle, measure_frame
from model.postprocess import to_source_labels
from model.predictor import Predictor, load_predictor
from model.preprocess import make_fit, to_network_input
from model.training.clips import read_pair
from model.training.scores import (
    METRICS,
    case_scores,
    ef_scores,
    overlap,
    row_averaged_dice,
    structure_scores,
    subgroup_scores,
    surface_distances,
)
from model.training.sets.text import read_table
from model.words import counted

STREAM_FRAMES = 3
SPLITS = ("test", "valid")
VIEWS = ("4CH", "2CH")


@dataclass(frozen=True, slots=True, eq=False)
class Annotated:
    """One annotated still.

    Attributes:
        view: "4CH" or "2CH".
        phase: "ed" or "es".
        labels_HW: 0 background, then 1 + the index in STRUCTURES.
        mm_per_px: spacing of both axes.
        quality: of the image, as the index states it, or empty.
        stated_ef: the patient's EF in percent as the index states it, or None.
    """

    patient: str
    view: str
    phase: str
    image_HW: NDArray[np.uint8]
    labels_HW: NDArray[np.uint8]
    mm_per_px: float
    quality: str = ""
    stated_ef: float | None = None


@dataclass(frozen=True, slots=True)
class IndexRow:
    """One line of ``index.csv``; see ``Annotated``."""

    patient: str
    view: str
    phase: str
    mm_per_px: float
    quality: str
    stated_ef: float | None

    @property
    def stem(self) -> str:
        """Of the file's name."""
        return f"{self.patient}_{self.view}_{self.phase}"


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
    for row in read_index(data / "index.csv", split):
        pair = read_pair(data / split, row.stem)
        if pair is None:
            broken.append(row.stem)
        else:
            still = Annotated(row.patient, row.view, row.phase.lower(), *pair, row.mm_per_px)
            stills.append(replace(still, quality=row.quality, stated_ef=row.stated_ef))
    if broken or not stills:
        which = counted(len(broken), "still") if broken else "all stills"
        raise FrameError(
            f"{data / split}: {which} missing or unreadable, or with a mask that does not fit: "
            f"{broken[:20]}"
        )
    return stills


def read_index(path: Path, split: str) -> list[IndexRow]:
    """Every still of one split; the columns ``view``, ``quality`` and ``ef_percent`` may lack.

    Raises:
        FrameError: no table, a column is missing, or a value cannot be; the line is named.
    """
    rows = read_table(path, ("split", "patient", "phase", "mm_per_px"))
    return [
        _read_row(row, f"{path} line {number}") for number, row in rows if row["split"] == split
    ]


def _read_row(row: dict[str, str], where: str) -> IndexRow:
    mm_per_px = _number(row["mm_per_px"])
    if row["phase"] not in ("ED", "ES") or not 0.0 < mm_per_px < float("inf"):
        raise FrameError(
            f"{where}: phase must be ED or ES and mm_per_px above 0, "
            f"got {row['phase']!r} and {row['mm_per_px']!r}"
        )
    view = row.get("view") or VIEWS[0]
    if view not in VIEWS:
        raise FrameError(f"{where}: view must be one of {', '.join(VIEWS)}, got {view!r}")
    stated = _number(row["ef_percent"]) if row.get("ef_percent") else None
    if stated is not None and not 0.0 <= stated <= 100.0:
        raise FrameError(f"{where}: ef_percent must be 0 to 100, got {row['ef_percent']!r}")
    quality = row.get("quality") or ""
    return IndexRow(row["patient"], view, row["phase"], mm_per_px, quality, stated)


def _number(text: str | None) -> float:
    try:
        return float(text or "")
    except ValueError:
        return float("nan")


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


def find_ventricle(mask: Mask, mm_per_px: float) -> Ventricle | None:
    """The ventricle of a mask, None where it holds none."""
    return measure_frame(mask, (mm_per_px, mm_per_px)).lv


def score_still(predictor: Predictor, still: Annotated) -> dict[str, Any]:
    """All scores of one still, as one row."""
    mask = segment_still(predictor, still)
    labels_HW = to_source_labels(mask)
    row: dict[str, Any] = {"patient": still.patient, "view": still.view, "phase": still.phase}
    for index, name in enumerate(STRUCTURES):
        guess_HW, truth_HW = labels_HW == index + 1, still.labels_HW == index + 1
        values = (
            *overlap(guess_HW, truth_HW),
            *surface_distances(guess_HW, truth_HW, still.mm_per_px),
            row_averaged_dice(guess_HW, truth_HW),
        )
        row[name] = dict(zip(METRICS, values, strict=True))
        both = int((guess_HW & truth_HW).sum())
        row[name]["pixels"] = (both, int(guess_HW.sum()) + int(truth_HW.sum()))
    row["found"] = find_ventricle(mask, still.mm_per_px)
    row["reference"] = find_ventricle(reference_mask(still), still.mm_per_px)
    row["presence"] = mask.presence
    return row | {"quality": still.quality, "stated_ef": still.stated_ef}


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
    report["subgroups"] = subgroup_scores(rows)
    report["cases"] = case_scores(rows)
    report["patients"] = len({row["patient"] for row in rows})
    report["weights"] = {
        "name": predictor.model.name,
        "version": predictor.model.version,
        "sha256": predictor.model.sha256,
    }
    return report
