"""The A4C PNG form: ``{train,valid,test}/PATIENT_VIEW_PHASE[_gt].png``.

One grey still at end diastole and one at end systole of every patient, each with a label map of
its size, pixels square, apex up.
"""

from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from model.errors import FrameError
from model.training.sets.study import (
    KNOWN_ALL,
    PHASES,
    SPLITS,
    VIEWS,
    DataSet,
    Recording,
    Study,
    check_phases,
    check_still,
    missing_files,
    study_name,
)

LAYOUT = "A4C PNG stills"


def recognise_stills(root: Path) -> bool:
    """Whether a split folder holds a label map."""
    return any(next((root / split).glob("*_gt.png"), None) for split in SPLITS)


def find_stills(root: Path) -> DataSet:
    """List every patient of every split."""
    studies, problems = [], []
    for split in SPLITS:
        stems = sorted({_study_stem(path) for path in (root / split).glob("*.png")})
        for stem in stems:
            study = _study(root / split, stem, split)
            problems += missing_files(study.files)
            studies.append(study)
    return DataSet(LAYOUT, root, KNOWN_ALL, tuple(studies), tuple(problems))


def _study_stem(path: Path) -> str:
    return path.stem.removesuffix("_gt").rpartition("_")[0] or path.stem


def _study(folder: Path, stem: str, split: str) -> Study:
    patient, _, view = stem.rpartition("_")
    if view not in VIEWS:
        patient, view = stem, VIEWS[0]
    stems = [folder / f"{patient}_{view}_{phase}" for phase in PHASES]
    files = tuple(Path(f"{each}{end}.png") for each in stems for end in ("", "_gt"))
    name = study_name(patient, view)
    return Study(name, patient, view, split, files, len(PHASES), partial(read, files))


def read(files: tuple[Path, ...], between: bool = False) -> Recording:
    """Both stills of a patient; there is nothing between them.

    Args:
        files: image and label map at end diastole, then both at end systole.
        between: as in ``Study``; stills have no frames between.

    Raises:
        FrameError: a file is missing, unreadable or does not fit its partner.
    """
    ed, ed_gt, es, es_gt = (_read(path) for path in files)
    check_still(files[1], ed, ed_gt)
    check_still(files[3], es, es_gt)
    check_phases(files[3], ed_gt, es_gt)
    return Recording((ed, es), (ed_gt, es_gt), (0, 1))


def _read(path: Path) -> NDArray[np.uint8]:
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise FrameError(f"{path} is missing, cut off or no PNG image")
    return np.asarray(image, np.uint8)
