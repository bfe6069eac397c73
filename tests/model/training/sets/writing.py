"""Writes small data sets in the layouts of their authors, each by another program than reads it."""

import csv
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import nibabel
import numpy as np
from numpy.typing import NDArray

from tests.model.training.hearts import draw_image, draw_labels

SIZES = (1.0, 0.9, 0.8, 0.7)
"""Of the ventricle, frame by frame from end diastole to end systole."""


LIST_COLUMNS = (
    "FileName", "EF", "ESV", "EDV", "FrameHeight", "FrameWidth", "FPS", "NumberOfFrames", "Split",
)  # fmt: skip


def heart(size: float, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image and label map, 112 rows of 96 columns, so that exchanged axes show."""
    labels_HW = np.pad(draw_labels(size), ((0, 16), (0, 0)))
    image_HW = np.pad(draw_image(draw_labels(size), seed), ((0, 16), (0, 0)))
    return image_HW, labels_HW


def save_nifti(path: Path, pixels: NDArray[Any], spacing_mm: tuple[float, float]) -> None:
    """H W or T H W as NIfTI, which holds columns, rows and time."""
    affine = np.diag([spacing_mm[1], spacing_mm[0], 1.0, 1.0])
    path.parent.mkdir(parents=True, exist_ok=True)
    image: Any = nibabel.Nifti1Image
    nibabel.save(image(pixels.T, affine), path)


def save_metaimage(path: Path, pixels_HW: NDArray[Any], spacing: str, **fields: str) -> None:
    """A header and its pixels, as ITK writes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows, columns = pixels_HW.shape
    payload = pixels_HW.tobytes()
    if fields.get("CompressedData") == "True":
        payload = zlib.compress(payload)
    header = {
        "ObjectType": "Image",
        "NDims": "3",
        "ElementSpacing": spacing,
        "DimSize": f"{columns} {rows} 1",
        "ElementType": "MET_UCHAR",
        **fields,
        "ElementDataFile": f"{path.stem}.raw",
    }
    path.write_text("".join(f"{name} = {value}\n" for name, value in header.items()))
    path.with_suffix(".raw").write_bytes(payload)


def write_settings(folder: Path, view: str, ed: int, es: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"ED: {ed}", f"ES: {es}", f"NbFrame: {max(ed, es)}", "Sex: F", "ImageQuality: Good"]
    (folder / f"Info_{view}.cfg").write_text("\n".join([*lines, "EF: 55"]) + "\n")


def write_nifti_patient(
    database: Path, name: str, views: Iterable[str] = ("4CH", "2CH"), backwards: bool = False
) -> None:
    """A patient of CAMUS's NIfTI release."""
    folder, spacing = database / name, (0.154, 0.308)
    for view in views:
        frames = [heart(size, seed) for seed, size in enumerate(SIZES)]
        for phase, (image, labels) in (("ED", frames[0]), ("ES", frames[-1])):
            save_nifti(folder / f"{name}_{view}_{phase}.nii.gz", image, spacing)
            save_nifti(folder / f"{name}_{view}_{phase}_gt.nii.gz", labels, spacing)
        ordered = frames[::-1] if backwards else frames
        for end, place in (("", 0), ("_gt", 1)):
            stack = np.stack([each[place] for each in ordered])
            save_nifti(folder / f"{name}_{view}_half_sequence{end}.nii.gz", stack, spacing)
        write_settings(folder, view, *((4, 1) if backwards else (1, 4)))


def write_nifti_release(root: Path) -> Path:
    """Three patients, one a split, with the official lists."""
    splits = {"training": "patient0002", "validation": "patient0011", "testing": "patient0001"}
    for word, name in splits.items():
        write_nifti_patient(root / "database_nifti", name)
        lists = root / "database_split"
        lists.mkdir(exist_ok=True)
        (lists / f"subgroup_{word}.txt").write_text(f"{name}\n")
    return root


def write_mhd_release(root: Path, patients: int = 3) -> Path:
    """Patients with pixels twice as wide as high, without lists."""
    for number in range(1, patients + 1):
        name = f"patient{number:04d}"
        for view in ("4CH", "2CH"):
            for phase, size in (("ED", 1.0), ("ES", 0.7)):
                image, labels = heart(size, number)
                stem = root / name / f"{name}_{view}_{phase}"
                save_metaimage(Path(f"{stem}.mhd"), image, "0.308 0.154 1.54")
                save_metaimage(Path(f"{stem}_gt.mhd"), labels, "0.308 0.154 1.54")
            write_settings(root / name, view, 1, 18)
    return root


def save_avi(path: Path, frames: list[NDArray[np.uint8]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    size = frames[0].shape[1], frames[0].shape[0]
    film = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 50.0, size, True)
    for frame in frames:
        film.write(cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR))
    film.release()


def box_tracing(left: float, right: float, top: float, bottom: float) -> list[list[float]]:
    """The long axis of a box, then chords from its top to its bottom."""
    middle = (left + right) / 2
    rows = np.linspace(top, bottom, 5)
    return [[middle, top, middle, bottom], *([left, row, right, row] for row in rows)]


def write_echonet(
    root: Path, videos: dict[str, tuple[str, dict[int, list[list[float]]]]], frames: int = 8
) -> Path:
    """Videos with their split and the tracings of their frames."""
    (root / "Videos").mkdir(parents=True, exist_ok=True)
    with (
        (root / "FileList.csv").open("w", newline="") as listed,
        (root / "VolumeTracings.csv").open("w", newline="") as traced,
    ):
        rows, lines = csv.writer(listed), csv.writer(traced)
        rows.writerow(LIST_COLUMNS)
        lines.writerow(["FileName", "X1", "Y1", "X2", "Y2", "Frame"])
        for name, (split, tracings) in videos.items():
            rows.writerow([name, 55.0, 30.0, 70.0, 768, 1024, 50, frames, split])
            images = [heart(SIZES[k % 4], k)[0] for k in range(frames)]
            save_avi(root / "Videos" / f"{name}.avi", images)
            for frame, chords in tracings.items():
                lines.writerows([[f"{name}.avi", *chord, frame] for chord in chords])
    return root


LARGE, SMALL = box_tracing(30, 60, 20, 70), box_tracing(35, 55, 30, 65)


def write_echonet_set(root: Path) -> Path:
    """One video a split; that to validate has its phases in the other order."""
    return write_echonet(
        root,
        {
            "0X1": ("TRAIN", {1: LARGE, 5: SMALL}),
            "0X2": ("VAL", {2: SMALL, 6: LARGE}),
            "0X3": ("TEST", {0: LARGE, 7: SMALL}),
        },
    )
