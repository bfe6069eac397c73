"""Makes ultrasound files of every kind, by other people's encoders."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, FileDataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    UltrasoundMultiFrameImageStorage,
    generate_uid,
)

ROWS, COLUMNS, COUNT = 48, 64, 3
Save = Callable[..., Path]


def tool(name: str) -> str:
    """The path of a foreign program, or a skip that says which one is missing.

    Python packages' own of the same name (pynetdicom's ``storescu``) is passed by.
    """
    ours = Path(sys.executable).parent
    folders = [each for each in os.get_exec_path() if Path(each) != ours]
    path = shutil.which(name, path=os.pathsep.join(folders))
    if path is None:
        pytest.skip(f"{name} is not on the path")
    return path


def run(*words: str | Path) -> None:
    """Run a foreign program, quietly, to its end."""
    subprocess.run([tool(str(words[0])), *map(str, words[1:])], check=True, capture_output=True)


def grey_cine(count: int = COUNT, bits: int = 8) -> NDArray[Any]:
    """Smooth speckle in a bright fan on black, moving from frame to frame: T H W."""
    rng = np.random.default_rng(7)
    row, column = np.mgrid[:ROWS, :COLUMNS]
    fan = np.abs(column - COLUMNS / 2) < 4 + row / 2
    waves = [
        128 + 60 * np.sin(row / 5 + frame) + 50 * np.cos(column / 7 - frame)
        for frame in range(count)
    ]
    noisy = np.array([wave + rng.normal(0, 4, wave.shape) for wave in waves]) * fan
    scaled = np.clip(noisy, 0, 255) / 255 * (2**bits - 1)
    return scaled.round().astype(np.uint8 if bits == 8 else np.uint16)


def coloured_cine(count: int = COUNT) -> NDArray[np.uint8]:
    """The grey cine with a red and blue box of flow on it: T H W 3."""
    rgb = np.repeat(grey_cine(count)[..., None], 3, axis=3)
    rgb[:, 20:36, 26:32] = (200, 30, 10)
    rgb[:, 20:36, 32:38] = (20, 60, 220)
    return rgb


def luma_of(rgb: NDArray[Any]) -> NDArray[np.float64]:
    """ITU-R BT.601 luma of full-range colours."""
    return rgb.astype(np.float64) @ [0.299, 0.587, 0.114]


def to_ybr(rgb: NDArray[Any]) -> NDArray[np.uint8]:
    """Full-range YCbCr, by the equations of DICOM PS3.3 C.7.6.3.1.2."""
    matrix = [[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]]
    ybr = rgb.astype(np.float64) @ np.transpose(matrix) + [0, 128, 128]
    return np.clip(ybr.round(), 0, 255).astype(np.uint8)


def ultrasound(frames: NDArray[Any], photometric: str = "MONOCHROME2", **more: Any) -> Dataset:
    """An uncompressed ultrasound cine.

    Args:
        frames: T H W, or T H W 3.
        photometric: PhotometricInterpretation.
        more: further attributes by keyword; None leaves one out.
    """
    bits = 8 * frames.dtype.itemsize
    made = Dataset()
    made.SOPClassUID = UltrasoundMultiFrameImageStorage
    made.SOPInstanceUID = generate_uid()
    made.Modality = "US"
    made.PatientName = "DOE^JANE"
    made.PatientID = "4711"
    made.NumberOfFrames = frames.shape[0]
    made.Rows, made.Columns = frames.shape[1:3]
    made.SamplesPerPixel = 3 if frames.ndim == 4 else 1
    if frames.ndim == 4:
        made.PlanarConfiguration = 0
    made.PhotometricInterpretation = photometric
    made.BitsAllocated = made.BitsStored = bits
    made.HighBit = bits - 1
    made.PixelRepresentation = 0
    made.FrameTime = "40.0"
    made.PixelData = frames.tobytes()
    made["PixelData"].VR = "OB" if bits == 8 else "OW"
    for keyword, value in more.items():
        if value is None:
            delattr(made, keyword)
        else:
            setattr(made, keyword, value)
    return made


def save(
    made: Dataset,
    path: Path,
    syntax: str = ExplicitVRLittleEndian,
    encoded: list[bytes] | bytes | None = None,
    *,
    has_meta: bool = True,
) -> Path:
    """Write a DICOM file.

    Args:
        made: the data set; its pixel data must be in the byte order of ``syntax``.
        path: where to.
        syntax: the transfer syntax.
        encoded: compressed frames, or pixel data as they are to stand in the file.
        has_meta: with preamble and file meta.
    """
    if isinstance(encoded, list):
        made.PixelData = encapsulate(encoded)
        made["PixelData"].VR = "OB"
        made["PixelData"].is_undefined_length = True
    elif encoded is not None:
        made.PixelData = encoded
        made["PixelData"].VR = "OB"
        made["PixelData"].is_undefined_length = True
    file = FileDataset(str(path), made)
    if has_meta:
        file.file_meta = FileMetaDataset()
        file.file_meta.TransferSyntaxUID = UID(syntax)
        file.file_meta.MediaStorageSOPClassUID = made.get("SOPClassUID", "1.2")
        file.file_meta.MediaStorageSOPInstanceUID = made.get("SOPInstanceUID", "1.2.3")
        file.preamble = b"\0" * 128
        dcmwrite(path, file, enforce_file_format=True)
    else:
        dcmwrite(path, made, implicit_vr=False, little_endian=True)
    return path
