from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_windowing
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from model import Sector
from server.ingest import Clip, open_clip
from tests.model.test_sector import drawn_fan, speckle
from tests.server.ingest.making import (
    COUNT,
    coloured_cine,
    grey_cine,
    luma_of,
    run,
    save,
    ultrasound,
)
from tests.server.ingest.test_palette import tables, with_palette

DARK = {"WindowCenter": "20", "WindowWidth": "40"}
"""The window of a clip of 8 bits that only uses the lowest 40 values."""


def dark() -> NDArray[np.uint8]:
    return (grey_cine() * (39 / 255)).round().astype(np.uint8)


def twelve() -> NDArray[np.uint16]:
    return grey_cine(bits=12).astype(np.uint16)


def read(path: Path) -> tuple[Clip, NDArray[np.uint8]]:
    with open_clip(path) as clip:
        return clip, np.array([frame.pixels_HW for frame in clip.frames])


def without_window(made: Dataset) -> Dataset:
    for keyword in ("WindowCenter", "WindowWidth", "VOILUTFunction"):
        if keyword in made:
            delattr(made, keyword)
    return made


WINDOWED: dict[str, Callable[[], Dataset]] = {
    "narrow": lambda: ultrasound(dark(), **DARK),
    "the first of several": lambda: ultrasound(
        dark(), WindowCenter=["20", "128"], WindowWidth=["40", "256"]
    ),
    "of fractions": lambda: ultrasound(dark(), WindowCenter="19.75", WindowWidth="3.95e1"),
    "exact": lambda: ultrasound(dark(), VOILUTFunction="LINEAR_EXACT", **DARK),
    "sigmoid": lambda: ultrasound(dark(), VOILUTFunction="SIGMOID", **DARK),
    "wider than the range": lambda: ultrasound(
        grey_cine(), WindowCenter="200", WindowWidth="400"
    ),
    "black is the highest": lambda: ultrasound(39 - dark(), "MONOCHROME1", **DARK),
    "12 bits in 16": lambda: ultrasound(twelve(), WindowCenter="1000", WindowWidth="1500"),
    "a part of 12 bits": lambda: ultrasound(
        twelve(), BitsStored=12, HighBit=11, WindowCenter="1000", WindowWidth="1500"
    ),
    "signed": lambda: ultrasound(
        twelve().astype(np.int16) - 2048,
        BitsStored=16, PixelRepresentation=1, WindowCenter="0", WindowWidth="4096",
    ),
    "rescaled": lambda: ultrasound(
        dark(), RescaleSlope="2", RescaleIntercept="-10", WindowCenter="30", WindowWidth="80"
    ),
    "rescaled by a fraction": lambda: ultrasound(
        dark(), RescaleSlope="0.5", RescaleIntercept="-10", WindowCenter="0", WindowWidth="20"
    ),
    "rescaled, of 12 bits": lambda: ultrasound(
        twelve(),
        BitsStored=12, HighBit=11,
        RescaleSlope="2", RescaleIntercept="-1024", WindowCenter="1024", WindowWidth="3000",
    ),
}  # fmt: skip


def by_pydicom(path: Path) -> NDArray[np.float64]:
    """Greys of 0 to 255: pydicom shows the window in the range of the rescaled values."""
    stored = pydicom.dcmread(path)
    bits, is_signed = stored.BitsStored, stored.PixelRepresentation == 1
    lowest = -(1 << bits - 1) if is_signed else 0
    ends = apply_modality_lut(np.array([lowest, lowest + (1 << bits) - 1]), stored)
    shown = apply_windowing(apply_modality_lut(stored.pixel_array, stored), stored)
    grey = 255 * (shown - ends[0]) / (ends[1] - ends[0])
    return 255 - grey if stored.PhotometricInterpretation == "MONOCHROME1" else grey


@pytest.mark.parametrize("name", WINDOWED)
def test_a_grey_clip_is_shown_in_its_window_as_pydicom_shows_it(tmp_path: Path, name: str) -> None:
    path = save(WINDOWED[name](), tmp_path / "clip")
    lumas = read(path)[1]
    np.testing.assert_allclose(lumas, by_pydicom(path), atol=0.5 + 1e-6)
    _, plain = read(save(without_window(WINDOWED[name]()), tmp_path / "plain"))
    assert np.abs(lumas - plain.astype(int)).max() > 50


# dcmtk takes LINEAR_EXACT for LINEAR, and rounds what a rescale gives
@pytest.mark.parametrize("name", sorted({*WINDOWED} - {"exact", "rescaled by a fraction"}))
def test_a_grey_clip_is_shown_in_its_window_as_dcmtk_shows_it(tmp_path: Path, name: str) -> None:
    path = save(WINDOWED[name](), tmp_path / "clip")
    run("dcm2pnm", "+Fa", "+Wi", "1", "--write-raw-pnm", path, tmp_path / "shown")
    shown = [
        cv2.imread(str(tmp_path / f"shown.{k}.pgm"), cv2.IMREAD_GRAYSCALE) for k in range(COUNT)
    ]
    np.testing.assert_allclose(read(path)[1].astype(int), np.array(shown), atol=1)


ENCODERS = {
    "JPEG": ("dcmcjpeg", "+eb"),
    "JPEG-LS": ("dcmcjpls", "+el"),
    "RLE": ("dcmcrle",),
    "JPEG 2000": ("gdcmconv", "--j2k"),
}


@pytest.mark.parametrize("encoding", ENCODERS)
def test_compressed_pictures_are_shown_in_their_window(tmp_path: Path, encoding: str) -> None:
    native = save(ultrasound(dark(), **DARK), tmp_path / "native")
    run(*ENCODERS[encoding], native, tmp_path / "clip")
    expected = by_pydicom(tmp_path / "clip")
    # one step of the samples that a JPEG decoder may round otherwise is 6.5 greys
    np.testing.assert_allclose(
        read(tmp_path / "clip")[1], expected, atol=7 if encoding == "JPEG" else 0.51
    )
    assert expected.max() > 200


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]
)
def test_a_window_is_read_in_every_encoding_of_a_header(tmp_path: Path, syntax: str) -> None:
    order = ">u2" if syntax == ExplicitVRBigEndian else "<u2"
    made = ultrasound(twelve().astype(order), WindowCenter="2048", WindowWidth="4096")
    lumas = read(save(made, tmp_path / "clip", syntax))[1]
    np.testing.assert_allclose(lumas, twelve() * (255 / 4095), atol=0.51)


@pytest.mark.parametrize(
    ("center", "width"), [("128", "256"), ("127.5", "255"), ("127", "254"), ("127", "255")]
)
@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_a_window_over_the_whole_range_changes_no_pixel(
    tmp_path: Path, center: str, width: str, photometric: str
) -> None:
    made = ultrasound(grey_cine(), photometric, WindowCenter=center, WindowWidth=width)
    _, lumas = read(save(made, tmp_path / "clip"))
    assert np.array_equal(lumas, grey_cine() if photometric == "MONOCHROME2" else 255 - grey_cine())


SENSELESS = {
    "no width": {"WindowCenter": "128"},
    "no center": {"WindowWidth": "40"},
    "width 0": {"WindowCenter": "0", "WindowWidth": "0"},
    "width 1": {"WindowCenter": "1", "WindowWidth": "1"},
    "less than nothing": {"WindowCenter": "20", "WindowWidth": "-40"},
    "exact, width 0": {"WindowCenter": "9", "WindowWidth": "0", "VOILUTFunction": "LINEAR_EXACT"},
    "sigmoid, width 0": {"WindowCenter": "9", "WindowWidth": "0", "VOILUTFunction": "SIGMOID"},
    "above the range": {"WindowCenter": "1000", "WindowWidth": "400"},
    "below the range": {"WindowCenter": "-1000", "WindowWidth": "400"},
    "far wider than the range": {"WindowCenter": "2048", "WindowWidth": "4096"},
    "above the picture": {"WindowCenter": "270", "WindowWidth": "40"},
    "unknown function": {**DARK, "VOILUTFunction": "CUBIC"},
    "slope 0": {**DARK, "RescaleSlope": "0", "RescaleIntercept": "20"},
    "huge": {"WindowCenter": "1e300", "WindowWidth": "1e300"},
    "tiny": {"WindowCenter": "0", "WindowWidth": "1e-300", "VOILUTFunction": "SIGMOID"},
}


@pytest.mark.parametrize("name", SENSELESS)
def test_a_window_that_would_show_nothing_is_passed_over(tmp_path: Path, name: str) -> None:
    _, lumas = read(save(ultrasound(grey_cine(), **SENSELESS[name]), tmp_path / "clip"))
    assert np.array_equal(lumas, grey_cine())


@pytest.mark.parametrize("written", [b"x", b"x\\20", b"nan", b"inf", b"\xff", b"\0"])
def test_a_window_that_is_no_number_is_passed_over(tmp_path: Path, written: bytes) -> None:
    path = save(ultrasound(grey_cine(), WindowCenter="7654", WindowWidth="40"), tmp_path / "clip")
    path.write_bytes(path.read_bytes().replace(b"7654", written.ljust(4)))
    assert np.array_equal(read(path)[1], grey_cine())


def test_the_fan_is_found_in_12_bits_that_lie_in_16(tmp_path: Path) -> None:
    fan = np.stack([speckle(drawn_fan(35, 35), seed) for seed in range(COUNT)])
    made = ultrasound(fan.astype(np.uint16) << 4, WindowCenter="2048", WindowWidth="4096")
    sector = read(save(made, tmp_path / "clip"))[0].sector
    assert isinstance(sector, Sector)
    assert np.degrees([sector.left_rad, sector.right_rad]) == pytest.approx(35, abs=2)


def test_bytes_in_words_are_shown_where_the_window_is_one_of_wider_samples(tmp_path: Path) -> None:
    made = ultrasound(grey_cine().astype(np.uint16), WindowCenter="2048", WindowWidth="4096")
    assert np.array_equal(read(save(made, tmp_path / "clip"))[1], grey_cine())


def test_a_black_first_picture_leaves_the_window_in_force(tmp_path: Path) -> None:
    cine = dark()
    cine[0] = 0
    path = save(ultrasound(cine, **DARK), tmp_path / "clip")
    np.testing.assert_allclose(read(path)[1], by_pydicom(path), atol=0.51)


def test_a_window_beside_the_range_is_passed_over_where_the_first_picture_is_black(
    tmp_path: Path,
) -> None:
    cine = grey_cine()
    cine[0] = 0
    made = ultrasound(cine, WindowCenter="1000", WindowWidth="400")
    assert np.array_equal(read(save(made, tmp_path / "clip"))[1], cine)


def test_colours_have_no_window(tmp_path: Path) -> None:
    narrow: dict[str, Any] = DARK
    _, rgb = read(save(ultrasound(coloured_cine(), "RGB", **narrow), tmp_path / "rgb"))
    assert np.abs(rgb - luma_of(coloured_cine())).max() <= 1
    table = tables(256)
    made = with_palette(grey_cine(), table.astype(np.uint8), **narrow)
    _, looked_up = read(save(made, tmp_path / "palette"))
    assert np.abs(looked_up - luma_of(table.T[grey_cine()])).max() <= 1
