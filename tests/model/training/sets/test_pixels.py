"""Luma of DICOM clips in training, beside what the server makes of the same samples."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import JPEGBaseline8Bit

from model.training.sets.dicom import read_seen
from tests.model.training.sets.test_film import seen
from tests.server.ingest.conftest import PYDICOM_FILES
from tests.server.ingest.making import coloured_cine, grey_cine, save, to_ybr, ultrasound

COUNT = 6


def twelve() -> NDArray[np.uint16]:
    return grey_cine(COUNT, 12).astype(np.uint16)


def grey_in_colours() -> NDArray[np.uint8]:
    return np.repeat(grey_cine(COUNT)[..., None], 3, axis=3)


def subsampled() -> Dataset:
    """Two neighbours share their chroma: Y, Y, Cb and Cr of each pair."""
    ybr = to_ybr(coloured_cine(COUNT))
    even, odd = ybr[:, :, 0::2], ybr[:, :, 1::2]
    made = ultrasound(ybr, "YBR_FULL_422")
    made.PixelData = np.concatenate([even[..., :1], odd[..., :1], even[..., 1:]], axis=3).tobytes()
    return made


def as_signed(samples: NDArray[np.int64]) -> NDArray[np.uint16]:
    return samples.astype(np.int16).view(np.uint16)


NATIVE: dict[str, Callable[[], Dataset]] = {
    "grey": lambda: ultrasound(grey_cine(COUNT)),
    "6 of 8 bits": lambda: ultrasound(grey_cine(COUNT) >> 2, BitsStored=6, HighBit=5),
    "6 bits, black is 63": lambda: ultrasound(
        63 - (grey_cine(COUNT) >> 2), "MONOCHROME1", BitsStored=6, HighBit=5
    ),
    "12 of 16 bits": lambda: ultrasound(twelve(), BitsStored=12, HighBit=11),
    "12 upper bits": lambda: ultrasound(twelve() << 4, BitsStored=12, HighBit=15),
    "signed, 8 bits": lambda: ultrasound(grey_cine(COUNT) ^ 128, PixelRepresentation=1),
    "signed, 12 bits": lambda: ultrasound(
        as_signed(twelve().astype(np.int64) - 2048),
        BitsStored=12, HighBit=11, PixelRepresentation=1,
    ),
    "colours": lambda: ultrasound(coloured_cine(COUNT), "RGB"),
    "colours of 12 bits": lambda: ultrasound(
        coloured_cine(COUNT).astype(np.uint16) << 4, "RGB", BitsStored=12, HighBit=11
    ),
    "YCbCr": lambda: ultrasound(to_ybr(coloured_cine(COUNT)), "YBR_FULL"),
    "YCbCr in pairs": subsampled,
    "YCbCr called RGB": lambda: ultrasound(to_ybr(grey_in_colours()), "RGB"),
    "RGB called YCbCr": lambda: ultrasound(grey_in_colours(), "YBR_FULL"),
    "more frames than declared": lambda: ultrasound(grey_cine(COUNT), NumberOfFrames=4),
}  # fmt: skip


def check(path: Path) -> None:
    for image, expected in zip(read_seen(path), seen(path), strict=True):
        assert np.ptp(expected) > 100
        np.testing.assert_array_equal(image, expected)


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")  # it says what is wrong with them
@pytest.mark.parametrize("name", NATIVE)
def test_stored_samples_become_the_luma_in_training_that_is_served(
    tmp_path: Path, name: str
) -> None:
    check(save(NATIVE[name](), tmp_path / "clip.dcm"))


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.parametrize("said", ["YBR_FULL_422", "RGB", "YBR_PARTIAL_422"])
def test_a_colour_jpeg_becomes_the_luma_in_training_that_is_served(
    tmp_path: Path, said: str
) -> None:
    frames = [cv2.imencode(".jpg", each[..., ::-1])[1].tobytes() for each in coloured_cine(COUNT)]
    even = [each + b"\0" * (len(each) % 2) for each in frames]
    made = ultrasound(coloured_cine(COUNT), said)
    check(save(made, tmp_path / "clip.dcm", JPEGBaseline8Bit, even))


@pytest.mark.parametrize("name", ["ybr_color", "palette", "jpeg2k"])
def test_real_files_become_the_luma_in_training_that_is_served(name: str) -> None:
    check(PYDICOM_FILES / f"examples_{name}.dcm")
