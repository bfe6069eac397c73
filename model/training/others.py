"""Real images of anything but an apical view: stills, films and DICOM files of a folder."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from model.errors import FrameError
from model.sector import fan_probes
from model.training.sets.dicom import is_dicom, read_seen
from model.training.sets.film import probes_of_film, read_film
from model.training.sets.sight import as_served
from model.training.sets.study import named

STILLS = (".png",)
FILMS = (".avi", ".m4v", ".mkv", ".mov", ".mp4")


def read_negatives(folder: str) -> list[NDArray[np.uint8]]:
    """Grey images of the folder, by name of file; none where no folder is given.

    Of a clip these are a few frames from all over it, as the network would see them served. Files
    of any other kind are passed over.

    Raises:
        FrameError: the folder holds no image, or unreadable ones; they are named.
    """
    if not folder:
        return []
    images: list[NDArray[np.uint8]] = []
    problems = []
    for path in sorted(Path(folder).glob("*")):
        read = _reader(path)
        if read is None:
            continue
        try:
            frames = read(path)
        except FrameError as error:
            problems.append(error.message)
        else:
            images += [frames[k] for k in fan_probes(len(frames))]
    if not images and not problems:
        problems = ["no PNG, film or DICOM file"]
    if problems:
        raise FrameError(named(folder, problems))
    return images


def _reader(path: Path) -> Callable[[Path], list[NDArray[np.uint8]]] | None:
    """What reads a file, None where it is no image."""
    suffix = path.suffix.lower()
    if path.name.startswith(".") or not path.is_file():
        return None
    if suffix in STILLS:
        return _read_still
    if suffix in FILMS:
        return _read_film
    return read_seen if is_dicom(path) else None


def _read_still(path: Path) -> list[NDArray[np.uint8]]:
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise FrameError(f"{path} is no readable image")
    return [np.asarray(image, np.uint8)]


def _read_film(path: Path) -> list[NDArray[np.uint8]]:
    images = read_film(path)
    return as_served(images, probes_of_film(images), declared=[])
