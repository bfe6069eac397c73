"""CAMUS as its authors release it: NIfTI files, or MetaImage files in its first release.

Both name ``patient0001/patient0001_{2CH,4CH}_{ED,ES}[_gt]``. The NIfTI release adds the half
sequence with a mask of every frame, and one list of patients for each split; the MetaImage release
has lists of ten folds, of which the first is taken. Its pixels are twice as wide as high.

The ejection fractions that the two releases state follow different rules for the height of a disk;
nothing here reads them.

Source:
    Leclerc et al. 2019, doi:10.1109/TMI.2019.2900516, and the files themselves.
"""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import FrameError
from model.training.sets.metaimage import pixel_file, read_metaimage
from model.training.sets.study import (
    KNOWN_ALL,
    PHASES,
    VIEWS,
    DataSet,
    Recording,
    Study,
    check_phases,
    check_still,
    missing_files,
    study_name,
    whole_numbers,
)
from model.training.sets.text import read_text
from model.words import counted

Stack = tuple[NDArray[np.uint8], tuple[float, float]]
"""pixels_THW, and row and column spacing in mm."""

LISTS = {"train": "training", "valid": "validation", "test": "testing"}
VALID_EVERY = 10
"""Without lists, one patient in so many validates."""


@dataclass(frozen=True, slots=True)
class Release:
    """What the releases differ in."""

    layout: str
    ending: str
    sequence: str
    has_sequence_masks: bool
    list_name: str


NIFTI = Release(
    "CAMUS, NIfTI release", ".nii.gz", "half_sequence", True, "database_split/subgroup_{}.txt"
)
MHD = Release(
    "CAMUS, MetaImage release", ".mhd", "sequence", False, "listSubGroups/subGroup1_{}.txt"
)
RELEASES = (NIFTI, MHD)


def recognise_camus(root: Path) -> Release | None:
    """The release that a folder holds, None where it holds neither."""
    for release in RELEASES:
        if next(_patient_files(root, release), None):
            return release
    return None


def _patient_files(root: Path, release: Release) -> Iterator[Path]:
    for depth in ("", "*/"):
        yield from root.glob(f"{depth}patient*/patient*_?CH_*{release.ending}")


def find_camus(root: Path, release: Release) -> DataSet:
    """List every patient of every split, or all with every tenth to validate without lists."""
    folders = {path.parent.name: path.parent for path in _patient_files(root, release)}
    views = sorted({_view_of(path) for path in _patient_files(root, release)}, reverse=True)
    lists = _lists(root, release)
    listed, problems = _read_lists(lists)
    notes = []
    if not listed:
        listed = {name: "test" for name in folders if folders[name].parent.name == "testing"}
        others = sorted(set(folders) - set(listed))
        listed |= {name: "train" if k % VALID_EVERY else "valid" for k, name in enumerate(others)}
        wanted = release.list_name.format("training")
        notes.append(f"no official split ({wanted}): one patient in {VALID_EVERY} validates")
    absent = sorted(set(listed) - set(folders))
    problems += [f"patient {name} is listed, but has no folder" for name in absent]
    unlisted = sorted(set(folders) - set(listed))
    if unlisted:
        names = ", ".join(unlisted)
        notes.append(f"{counted(len(unlisted), 'patient')} in no list, left out: {names}")
    studies = []
    for name in sorted(set(listed) & set(folders)):
        for view in views:
            study, wrong = _study(folders[name], view, listed[name], release)
            problems += wrong
            if study is None:
                notes.append(f"{name} {view} has no masks and is left out")
            else:
                studies.append(study)
    return DataSet(
        release.layout, root, KNOWN_ALL, tuple(studies), tuple(problems), tuple(notes),
        tuple(lists.values()),
    )  # fmt: skip


def _view_of(path: Path) -> str:
    return next((view for view in VIEWS if f"_{view}_" in path.name), VIEWS[0])


def _lists(root: Path, release: Release) -> dict[str, Path]:
    """The official list of each split, beside the patients or their folder."""
    found = {}
    for split, word in LISTS.items():
        places = [base / release.list_name.format(word) for base in (root, root.parent)]
        path = next((each for each in places if each.is_file()), None)
        if path is not None:
            found[split] = path
    return found


def _read_lists(lists: dict[str, Path]) -> tuple[dict[str, str], list[str]]:
    """The split of every patient in the official lists, and what is wrong with them."""
    listed: dict[str, str] = {}
    problems = []
    for split, path in lists.items():
        try:
            names = read_text(path).split()
        except FrameError as error:
            problems.append(error.message)
            continue
        for name in names:
            if listed.setdefault(name, split) != split:
                problems.append(f"patient {name} is in two lists: {listed[name]} and {split}")
    return listed, problems


def _study(folder: Path, view: str, split: str, release: Release) -> tuple[Study | None, list[str]]:
    """One view of one patient and what is wrong with it; no study where nobody drew masks."""
    stem = f"{folder.name}_{view}"
    names = [f"{stem}_{phase}{end}{release.ending}" for phase in PHASES for end in ("", "_gt")]
    stills = [folder / name for name in names]
    if split == "test" and not any(path.exists() for path in (stills[1], stills[3])):
        return None, []
    settings = folder / f"Info_{view}.cfg"
    sequence = _sequence(folder, stem, release)
    problems = missing_files([*stills, settings, *sequence])
    files = [*stills, settings, *sequence]
    if release is MHD:
        headers = [path for path in (*stills, *sequence) if path.is_file() and path.stat().st_size]
        try:
            pixels = [pixel_file(path) for path in headers]
        except FrameError as error:
            return None, [*problems, error.message]
        problems += missing_files(pixels)
        files += pixels
    if problems:
        return None, problems
    frames = len(PHASES)
    if sequence and release.has_sequence_masks:
        try:
            frames = abs(read_settings(settings)["ED"] - read_settings(settings)["ES"]) + 1
        except FrameError as error:
            return None, [error.message]
    made = partial(read, tuple(stills), tuple(sequence), settings, release.ending)
    name = study_name(folder.name, view)
    return Study(name, folder.name, view, split, tuple(files), frames, made), []


def _sequence(folder: Path, stem: str, release: Release) -> list[Path]:
    """The half sequence and its masks, if either is there; no more is used than has masks."""
    if not release.has_sequence_masks:
        return []
    ends = ("", "_gt")
    paths = [folder / f"{stem}_{release.sequence}{end}{release.ending}" for end in ends]
    return paths if any(path.exists() for path in paths) else []


def read_settings(path: Path) -> dict[str, int]:
    """ED and ES of an ``Info_*.cfg``, counted from 1 as there.

    Raises:
        FrameError: one of them is missing or no number.
    """
    values = {}
    for line in path.read_text(encoding="utf-8-sig", errors="replace").splitlines():
        name, _, value = line.partition(":")
        values[name.strip()] = value.strip()
    try:
        return {phase: int(values[phase]) for phase in PHASES}
    except (KeyError, ValueError) as error:
        raise FrameError(f"{path} does not say which frames ED and ES are") from error


def read(
    stills: tuple[Path, ...],
    sequence: tuple[Path, ...],
    settings: Path,
    ending: str,
    between: bool = False,
) -> Recording:
    """A patient's view from end diastole to end systole.

    Args:
        stills: image and mask at end diastole, then both at end systole.
        sequence: the half sequence and its masks, or nothing.
        settings: ``Info_*.cfg``, which says whether the sequence runs backwards.
        ending: of the files' names, which tells how they are read.
        between: read the sequence, where there is one.

    Raises:
        FrameError: a file is cut off, does not fit its partner, or is turned.
    """
    stack: Callable[[Path], Stack] = read_nifti if ending == NIFTI.ending else read_mhd
    (ed, spacing), (ed_gt, _), (es, _), (es_gt, _) = (stack(path) for path in stills)
    check_still(stills[1], ed[0], ed_gt[0])
    check_still(stills[3], es[0], es_gt[0])
    check_phases(stills[3], ed_gt[0], es_gt[0])
    if not (between and sequence):
        return Recording((ed[0], es[0]), (ed_gt[0], es_gt[0]), (0, 1), spacing)
    images, masks = stack(sequence[0])[0], stack(sequence[1])[0]
    if images.shape != masks.shape:
        raise FrameError(f"{sequence[1]} is {masks.shape}, its images {images.shape}")
    phases = read_settings(settings)
    first, last = phases["ED"] - 1, phases["ES"] - 1
    if not 0 <= min(first, last) <= max(first, last) < len(images):
        raise FrameError(f"{settings} names frames beyond the {len(images)} of {sequence[0].name}")
    step = 1 if first <= last else -1
    order = range(first, last + step, step)
    for k in order:
        check_still(sequence[1], images[k], masks[k])
    check_phases(sequence[1], masks[first], masks[last])
    return Recording(
        tuple(images[k] for k in order),
        tuple(masks[k] for k in order),
        tuple(range(len(order))),
        spacing,
    )


def read_mhd(path: Path) -> Stack:
    """Read a MetaImage file as frames of grey values.

    Raises:
        FrameError: as ``read_metaimage``, or values that are no grey values.
    """
    pixels, spacing = read_metaimage(path)
    return whole_numbers(path, pixels), spacing


def read_nifti(path: Path) -> Stack:
    """Read a NIfTI file as frames of grey values.

    NIfTI holds column, row and time; it is turned to time, row and column. Its spacing is that of
    the header.

    Raises:
        FrameError: a file that is cut off, damaged or no NIfTI image.
    """
    # Late, since it is of the extra `train` and slow to import.
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    try:
        image: Any = nibabel.load(path)
        pixels = np.asanyarray(image.dataobj)
        zooms = [float(zoom) for zoom in image.header.get_zooms()[:2]]
    except (OSError, EOFError, ValueError, zlib.error, ImageFileError, HeaderDataError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise FrameError(f"{path} is cut off, damaged or no NIfTI image: {reason}") from error
    pixels = pixels.reshape(*pixels.shape[:2], -1) if pixels.ndim > 1 else pixels
    if pixels.ndim != 3 or not pixels.size or len(zooms) < 2 or min(zooms) <= 0:
        raise FrameError(f"{path} is no image of rows and columns: {pixels.shape}")
    upright: NDArray[Any] = pixels.transpose(2, 1, 0)
    return np.ascontiguousarray(whole_numbers(path, upright)), (zooms[1], zooms[0])
