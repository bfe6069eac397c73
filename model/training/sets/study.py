"""What every data set is read into, and the checks that all of them pass."""

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import FrameError
from model.frame import STRUCTURES

SPLITS = ("train", "valid", "test")
VIEWS = ("4CH", "2CH")
PHASES = ("ED", "ES")

KNOWN_ALL = (True, True, True)
KNOWN_LV = (True, False, False)


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """One view of one patient, from end diastole to end systole.

    Attributes:
        images: image_HW of every frame, luma, uint8; the first is end diastole, the last end
            systole.
        labels: labels_HW of some of the frames, the first and the last always among them.
        labelled: the indices of those frames, rising.
        spacing_mm: row and column spacing, None where the data set has none.
        is_cropped: whether the images show what the network is to see and no more; else its part
            of them is searched for.
    """

    images: tuple[NDArray[np.uint8], ...]
    labels: tuple[NDArray[np.uint8], ...]
    labelled: tuple[int, ...]
    spacing_mm: tuple[float, float] | None = None
    is_cropped: bool = False


@dataclass(frozen=True, slots=True)
class Study:
    """One view of one patient in a data set, not read yet.

    Attributes:
        name: of the study, no two alike in a set.
        patient: whose; no patient is in two splits.
        view: "4CH" or "2CH".
        split: "train", "valid" or "test".
        files: everything that ``read`` may open.
        labelled_frames: how many frames somebody drew.
        read: the recording; with True all its frames, with False end diastole and end systole only.
    """

    name: str
    patient: str
    view: str
    split: str
    files: tuple[Path, ...]
    labelled_frames: int
    read: Callable[[bool], Recording]


def study_name(patient: str, view: str) -> str:
    """The patient, with the view where it is not the four-chamber view."""
    return patient if view == VIEWS[0] else f"{patient}_{view}"


@dataclass(frozen=True, slots=True)
class DataSet:
    """What lies in a folder.

    Attributes:
        layout: the name of its form.
        known: which of the three structures its masks tell.
        studies: in order of split and name.
        problems: files that are missing, cut off or not what they should be, one line each.
        notes: what is left out or was decided, one line each.
        tables: files that say who belongs to which split, or what was drawn.
    """

    layout: str
    root: Path
    known: tuple[bool, bool, bool]
    studies: tuple[Study, ...]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())
    tables: tuple[Path, ...] = field(default=())

    def of_split(self, split: str, views: Iterable[str] = VIEWS) -> list[Study]:
        """The studies of one split and some views."""
        wanted = set(views)
        return [each for each in self.studies if each.split == split and each.view in wanted]

    def summary(self) -> dict[str, Any]:
        """Counts per split, as one document."""
        splits = {}
        for split in SPLITS:
            chosen = self.of_split(split)
            splits[split] = {
                "patients": len({study.patient for study in chosen}),
                "views": {v: sum(s.view == v for s in chosen) for v in VIEWS},
                "labelled_frames": sum(study.labelled_frames for study in chosen),
            }
        structures = [name for name, known in zip(STRUCTURES, self.known, strict=True) if known]
        return {
            "layout": self.layout,
            "structures": structures,
            "splits": splits,
            "notes": list(self.notes),
        }

    def check(self) -> None:
        """Refuse a set that is not whole.

        Raises:
            FrameError: files are broken or a patient is in two splits; every one is named.
        """
        problems = [*self.problems, *self._in_two_splits()]
        if not self.studies and not problems:
            problems = ["no patient with masks was found"]
        if problems:
            raise FrameError(named(f"{self.root} ({self.layout})", problems))

    def read_all(self, progress: Callable[[int], None]) -> None:
        """Read every study once, and keep nothing.

        Args:
            progress: called with the number of studies done.

        Raises:
            FrameError: files are broken; all are named.
        """
        problems = []
        for done, study in enumerate(self.studies, start=1):
            try:
                study.read(True)
            except FrameError as error:
                problems.append(error.message)
            progress(done)
        if problems:
            raise FrameError(named(f"{self.root} ({self.layout})", problems))

    def _in_two_splits(self) -> list[str]:
        homes: dict[str, dict[str, str]] = {}
        for study in self.studies:
            homes.setdefault(study.patient, {}).setdefault(study.split, study.name)
        return [
            "one patient is in " + " and ".join(f"{k} ({v})" for k, v in sorted(splits.items()))
            for splits in homes.values()
            if len(splits) > 1
        ]

    def hashes(self) -> dict[str, str]:
        """SHA-256 of every file that training follows from, by its path from the set's folder."""
        files = sorted({*self.tables, *(path for study in self.studies for path in study.files)})
        return {Path(os.path.relpath(path, self.root)).as_posix(): _sha256(path) for path in files}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def named(where: str, problems: Iterable[str]) -> str:
    """One message that names every problem on a line of its own."""
    lines = list(problems)
    return "\n  ".join([f"{where} is not whole ({len(lines)} found):", *lines])


def missing_files(paths: Iterable[Path]) -> list[str]:
    """One line for every file that is not there or is empty."""
    lines = []
    for path in paths:
        if not path.is_file():
            lines.append(f"{path} is missing")
        elif path.stat().st_size == 0:
            lines.append(f"{path} is empty")
    return lines


def check_still(path: Path, image_HW: NDArray[Any], labels_HW: NDArray[Any]) -> None:
    """Refuse a frame whose mask cannot be its own, or that does not stand upright.

    In every apical view the atrium lies below the ventricle: of the 894 CAMUS four-chamber masks
    none has it less than 48 of 256 px below, nor further to the side than 0.61 of that. A mask
    that says otherwise is upside down or has rows and columns exchanged.

    Raises:
        FrameError: another size, an unknown label, no ventricle, or a heart that is turned.
    """
    if image_HW.shape != labels_HW.shape:
        raise FrameError(f"{path} is {labels_HW.shape} px, its image {image_HW.shape}")
    if labels_HW.min() < 0 or labels_HW.max() > len(STRUCTURES):
        raise FrameError(f"{path} holds labels other than 0 to {len(STRUCTURES)}")
    if not (labels_HW == 1).any():
        raise FrameError(f"{path} shows no ventricle (label 1)")
    if not (labels_HW == 3).any():
        return
    down, across = (
        place.mean() - other.mean()
        for place, other in zip(np.nonzero(labels_HW == 3), np.nonzero(labels_HW == 1), strict=True)
    )
    if abs(across) > abs(down):
        raise FrameError(f"{path} has rows and columns swapped: the atrium is beside the ventricle")
    if down < 0:
        raise FrameError(f"{path} is upside down: the atrium is above the ventricle")


def check_phases(path: Path, ed_HW: NDArray[np.uint8], es_HW: NDArray[np.uint8]) -> None:
    """Refuse stills whose names contradict the ventricle's size.

    Raises:
        FrameError: the ventricle of the end-systolic mask is the larger one.
    """
    if (es_HW == 1).sum() > (ed_HW == 1).sum():
        raise FrameError(f"{path} has its phases swapped: the ventricle is larger at ES than at ED")


def whole_numbers(path: Path, pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Pixels of any type as uint8.

    Raises:
        FrameError: values that are no whole numbers of 0 to 255.
    """
    rounded = np.rint(pixels)
    if not np.isfinite(pixels).all() or rounded.min() < 0 or rounded.max() > 255:
        raise FrameError(f"{path} holds values outside 0 to 255")
    return rounded.astype(np.uint8)
