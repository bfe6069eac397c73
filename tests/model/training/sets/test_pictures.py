"""Luma of DICOM clips in training, beside what the server makes of the same pictures."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRBigEndian, JPEGBaseline8Bit

from model.errors import FrameError
from model.preprocess import find_sector
from model.training.sets.dicom import read_seen
from server.ingest import open_clip
from tests.model.training.sets.test_film import seen
from tests.server.ingest.conftest import PYDICOM_FILES
from tests.server.ingest.making import (
    coloured_cine,
    grey_cine,
    luma_of,
    run,
    save,
    to_ybr,
    ultrasound,
)
from tests.server.ingest.test_encodings import dcmtk_jpeg
from tests.server.ingest.test_palette import tables, with_palette

COUNT = 6


def twelve() -> NDArray[np.uint16]:
    return grey_cine(COUNT, 12).astype(np.uint16)


def grey_in_colours() -> NDArray[np.uint8]:
    return np.repeat(grey_cine(COUNT)[..., None], 3, axis=3)


def subsampled(is_partial: bool = False) -> Dataset:
    """Two neighbours share their chroma: Y, Y, Cb and Cr of each pair."""
    ybr = to_ybr(coloured_cine(COUNT))
    if is_partial:  # PS3.3 C.7.6.3.1.2: luma from 16 to 235, chroma from 16 to 240
        ybr = (16 + ybr * np.array([219, 224, 224]) / 255).round().astype(np.uint8)
    even, odd = ybr[:, :, 0::2], ybr[:, :, 1::2]
    made = ultrasound(ybr, "YBR_PARTIAL_422" if is_partial else "YBR_FULL_422")
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
    "YCbCr in pairs, of less than the full range": lambda: subsampled(is_partial=True),
    "palette": lambda: with_palette(grey_cine(COUNT), tables(256).astype(np.uint8)),
    "palette, a word for each byte": lambda: with_palette(grey_cine(COUNT), tables(256)),
    "palette of words that hold bytes": lambda: with_palette(
        grey_cine(COUNT), tables(256), entry_bits=16
    ),
    "YCbCr called RGB": lambda: ultrasound(to_ybr(grey_in_colours()), "RGB"),
    "RGB called YCbCr": lambda: ultrasound(grey_in_colours(), "YBR_FULL"),
    "dark, in a window": lambda: ultrasound(
        grey_cine(COUNT) // 8, WindowCenter=["16", "128"], WindowWidth=["32", "256"]
    ),
    "12 bits in 16, rescaled, in a window": lambda: ultrasound(
        twelve(),
        RescaleSlope="2", RescaleIntercept="-100", VOILUTFunction="SIGMOID",
        WindowCenter="4000", WindowWidth="8192",
    ),
    "more frames than declared": lambda: ultrasound(grey_cine(COUNT), NumberOfFrames=4),
}  # fmt: skip


def check(path: Path) -> None:
    for image, expected in zip(read_seen(path), seen(path), strict=True):
        assert np.ptp(expected) > 100
        np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("written", [b"x", b"x\\20", b"\xff", b"\0"])
def test_a_window_that_is_no_number_is_passed_over_in_training_too(
    tmp_path: Path, written: bytes
) -> None:
    made = ultrasound(grey_cine(COUNT), WindowCenter="7654", WindowWidth="40")
    path = save(made, tmp_path / "clip.dcm")
    path.write_bytes(path.read_bytes().replace(b"7654", written.ljust(4)))
    check(path)


def as_seen(path: Path, lumas: Iterable[NDArray[Any]]) -> list[NDArray[np.uint8]]:
    """What the network would see of a clip, were these its frames."""
    with open_clip(path) as clip:
        frames = list(clip.frames)
        box = clip.sight or find_sector(frames[0].pixels_HW)
        shown = [
            clip.seen(replace(frame, pixels_HW=luma.round().astype(np.uint8))).pixels_HW
            for frame, luma in zip(frames, lumas, strict=True)
        ]
    assert box is not None
    return [each[box.top : box.top + box.height, box.left : box.left + box.width] for each in shown]


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


BIG_ENDIAN: dict[str, Callable[[], Dataset]] = {
    "words of 12 bits": lambda: ultrasound(twelve().astype(">u2"), BitsStored=12, HighBit=11),
    "bytes in words": lambda: ultrasound(
        grey_cine(COUNT),
        PixelData=np.frombuffer(grey_cine(COUNT).tobytes(), "<u2").astype(">u2").tobytes(),
    ),
}


@pytest.mark.parametrize("name", BIG_ENDIAN)
def test_big_endian_words_become_the_luma_in_training_that_is_served(
    tmp_path: Path, name: str
) -> None:
    made = BIG_ENDIAN[name]()
    made["PixelData"].VR = "OW"
    check(save(made, tmp_path / "clip.dcm", ExplicitVRBigEndian))


ENCODERS = {
    "JPEG-LS": ("dcmcjpls", "+el"),
    "JPEG Lossless": ("dcmcjpeg", "+e1"),
    "JPEG Extended": ("dcmcjpeg", "+ee"),
    "RLE": ("dcmcrle",),
    "JPEG 2000": ("gdcmconv", "--j2k"),
}


@pytest.mark.parametrize("name", ["12 of 16 bits", "12 upper bits", "6 of 8 bits", "colours"])
@pytest.mark.parametrize("encoding", ENCODERS)
def test_compressed_pictures_become_the_luma_in_training_that_is_served(
    tmp_path: Path, encoding: str, name: str
) -> None:
    native = save(NATIVE[name](), tmp_path / "native.dcm")
    run(*ENCODERS[encoding], native, tmp_path / "clip.dcm")
    check(tmp_path / "clip.dcm")


def called(path: Path, photometric: str, samples: int) -> Path:
    """The same pictures under another name."""
    stored = dcmread(path)
    stored.PhotometricInterpretation, stored.SamplesPerPixel = photometric, samples
    stored.PlanarConfiguration = 0
    stored.save_as(path)
    return path


@pytest.mark.parametrize("kept", ["+cy", "+cr"])
def test_a_colour_jpeg_called_grey_has_the_luma_that_dcmtk_decodes(
    tmp_path: Path, kept: str
) -> None:
    path, rgb = dcmtk_jpeg(tmp_path, ultrasound(coloured_cine(COUNT), "RGB"), "+eb", kept)
    called(path, "MONOCHROME2", 1)
    expected = as_seen(path, luma_of(rgb))
    difference = np.abs(np.array(read_seen(path), np.int16) - np.array(expected, np.int16))
    assert np.percentile(difference, 95) <= 3
    assert np.mean(difference) < 1.5
    check(path)


def test_a_grey_jpeg_called_rgb_has_the_luma_that_dcmtk_decodes(tmp_path: Path) -> None:
    path, grey = dcmtk_jpeg(tmp_path, ultrasound(grey_cine(COUNT)), "+eb")
    called(path, "RGB", 3)
    for image, expected in zip(read_seen(path), as_seen(path, grey), strict=True):
        np.testing.assert_allclose(image, expected, atol=1)
    check(path)


def test_native_pairs_of_less_than_the_full_range_have_the_luma_that_dcmtk_shows(
    tmp_path: Path,
) -> None:
    path = save(subsampled(is_partial=True), tmp_path / "clip.dcm")
    run("dcm2pnm", "+Fa", "--write-raw-pnm", path, tmp_path / "shown")
    shown = [cv2.imread(str(tmp_path / f"shown.{k}.ppm")) for k in range(COUNT)]
    lumas = [luma_of(each[..., ::-1]) for each in shown if each is not None]
    expected = as_seen(path, lumas)
    for image, wanted in zip(read_seen(path), expected, strict=True):
        np.testing.assert_allclose(image, wanted, atol=2)


def test_frames_that_nothing_counts_are_all_read(tmp_path: Path) -> None:
    path, _ = dcmtk_jpeg(tmp_path, ultrasound(grey_cine(COUNT)), "+eb")
    stored = dcmread(path)
    del stored.NumberOfFrames
    stored.save_as(path)
    assert len(read_seen(path)) == COUNT
    check(path)


def test_a_clip_whose_last_picture_is_cut_is_refused(tmp_path: Path) -> None:
    frames = [cv2.imencode(".jpg", each)[1].tobytes() for each in grey_cine(COUNT)]
    frames[-1] = frames[-1][: len(frames[-1]) // 4 * 2]
    even = [each + b"\0" * (len(each) % 2) for each in frames]
    path = save(ultrasound(grey_cine(COUNT)), tmp_path / "clip.dcm", JPEGBaseline8Bit, even)
    with pytest.raises(FrameError, match=f"the file ends after {COUNT - 1} whole frames"):
        read_seen(path)
