"""Greys by look-up tables and by windows in functional groups, beside pydicom and dcmtk."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from model.training.sets.dicom import read_seen
from tests.model.training.sets.test_film import seen
from tests.server.ingest.making import COUNT, grey_cine, run, save, ultrasound
from tests.server.ingest.test_contrast import dark, read, twelve

CURVE = np.round(255 * np.minimum(np.arange(256) / 39, 1) ** 0.8).astype(np.uint16)
"""Bytes that show a clip of 40 greys in all of them."""


def table(
    entries: NDArray[np.integer[Any]], bits: int, first: int = 0, *, is_packed: bool = False
) -> list[Dataset]:
    """A sequence of one table, its entries in words or packed into bytes."""
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries), first, bits])
    item.add_new("LUTData", "OW", entries.astype(np.uint8 if is_packed else "<u2").tobytes())
    item.ModalityLUTType = "US"
    return [item]


def group(**within: Dataset) -> list[Dataset]:
    """Functional groups of one item, by the keywords of what is in it."""
    made = Dataset()
    for keyword, item in within.items():
        setattr(made, keyword, [item])
    return [made]


def item(**values: str) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


DARK = item(WindowCenter="20", WindowWidth="40")

TABLES: dict[str, Callable[[], Dataset]] = {
    "bytes in words": lambda: ultrasound(dark(), VOILUTSequence=table(CURVE, 8)),
    "bytes": lambda: ultrasound(dark(), VOILUTSequence=table(CURVE, 8, is_packed=True)),
    "16 bits": lambda: ultrasound(dark(), VOILUTSequence=table(CURVE * 257, 16)),
    "10 bits": lambda: ultrasound(dark(), VOILUTSequence=table(CURVE * 4, 10)),
    "a part of the range": lambda: ultrasound(
        grey_cine(), VOILUTSequence=table(CURVE[:40], 8, first=100)
    ),
    "inverted": lambda: ultrasound(
        255 - grey_cine(), VOILUTSequence=table(255 - np.arange(256), 8)
    ),
    "black is the highest": lambda: ultrasound(
        255 - dark(), "MONOCHROME1", VOILUTSequence=table(255 - CURVE[::-1], 8)
    ),
    "signed": lambda: ultrasound(
        grey_cine() ^ 128, PixelRepresentation=1,
        VOILUTSequence=table(np.arange(256) ** 2 // 255, 8, first=-128),
    ),
    "of 12 bits": lambda: ultrasound(
        twelve(), BitsStored=12, HighBit=11,
        VOILUTSequence=table((np.sqrt(np.arange(4096)) * 1023).astype(np.uint16), 16),
    ),
    "after a rescale": lambda: ultrasound(
        dark(), RescaleSlope="2", RescaleIntercept="-10",
        VOILUTSequence=table(CURVE[np.arange(160) // 2], 8, first=-20),
    ),
    "of the modality": lambda: ultrasound(dark(), ModalityLUTSequence=table(CURVE * 257, 16)),
    "of both": lambda: ultrasound(
        dark(), ModalityLUTSequence=table(CURVE * 4, 16), VOILUTSequence=table(
            np.arange(1024) ** 2 // 1023, 10
        ),
    ),
}  # fmt: skip


def by_pydicom(path: Path) -> NDArray[np.float64]:
    """Greys of 0 to 255 of a clip with tables, which give values up to what their bits hold."""
    stored = pydicom.dcmread(path)
    last = stored.get("VOILUTSequence") or stored.ModalityLUTSequence
    highest = 2 ** last[0].LUTDescriptor[2] - 1
    shown = apply_voi_lut(apply_modality_lut(stored.pixel_array, stored), stored)
    grey = 255 * np.asarray(shown, np.float64) / highest
    return 255 - grey if stored.PhotometricInterpretation == "MONOCHROME1" else grey


# pydicom takes no entries in packed bytes, and warns where a rescale comes before
@pytest.mark.parametrize("name", sorted({*TABLES} - {"bytes", "after a rescale"}))
def test_a_grey_clip_is_shown_by_its_table_as_pydicom_shows_it(tmp_path: Path, name: str) -> None:
    path = save(TABLES[name](), tmp_path / "clip")
    np.testing.assert_allclose(read(path)[1], by_pydicom(path), atol=0.5 + 1e-6)


# without a VOI, dcmtk stretches the range of what came out, not of what may
@pytest.mark.parametrize("name", sorted({*TABLES} - {"of the modality"}))
def test_a_grey_clip_is_shown_by_its_table_as_dcmtk_shows_it(tmp_path: Path, name: str) -> None:
    path = save(TABLES[name](), tmp_path / "clip")
    run("dcm2pnm", "+Fa", "+Wl", "1", "--write-raw-pnm", path, tmp_path / "shown")
    shown = [
        cv2.imread(str(tmp_path / f"shown.{k}.pgm"), cv2.IMREAD_GRAYSCALE) for k in range(COUNT)
    ]
    np.testing.assert_allclose(read(path)[1].astype(int), np.array(shown), atol=1)


@pytest.mark.parametrize("name", TABLES)
def test_training_shows_a_clip_by_its_table_as_it_is_served(tmp_path: Path, name: str) -> None:
    path = save(TABLES[name](), tmp_path / "clip")
    for image, expected in zip(read_seen(path), seen(path), strict=True):
        assert np.ptp(expected) > 150
        np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]
)
def test_a_table_is_read_in_every_encoding_of_a_header(tmp_path: Path, syntax: str) -> None:
    made = ultrasound(dark(), VOILUTSequence=table(CURVE * 257, 16))
    if syntax == ExplicitVRBigEndian:
        made.VOILUTSequence[0].LUTData = (CURVE * 257).astype(">u2").tobytes()
    lumas = read(save(made, tmp_path / "clip", syntax))[1]
    np.testing.assert_array_equal(lumas, CURVE[dark()])


RESCALE = item(RescaleSlope="2", RescaleIntercept="-10", RescaleType="US")
GROUPS: dict[str, dict[str, Any]] = {
    "shared": {"SharedFunctionalGroupsSequence": group(FrameVOILUTSequence=DARK)},
    "of each frame": {"PerFrameFunctionalGroupsSequence": COUNT * group(FrameVOILUTSequence=DARK)},
    "the rescale shared": {
        "SharedFunctionalGroupsSequence": group(PixelValueTransformationSequence=RESCALE),
        "PerFrameFunctionalGroupsSequence": COUNT
        * group(FrameVOILUTSequence=item(WindowCenter="30", WindowWidth="80")),
    },
}


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
@pytest.mark.parametrize("is_open", [True, False])
@pytest.mark.parametrize("name", GROUPS)
def test_windows_of_functional_groups_are_in_force(
    tmp_path: Path, name: str, is_open: bool, syntax: str
) -> None:
    made = ultrasound(dark(), **GROUPS[name])
    for element in made:
        element.is_undefined_length = element.VR == "SQ" and is_open
    path = save(made, tmp_path / "clip", syntax)
    plain = ultrasound(dark(), WindowCenter="20", WindowWidth="40")
    if name == "the rescale shared":
        plain = ultrasound(
            dark(), RescaleSlope="2", RescaleIntercept="-10", WindowCenter="30", WindowWidth="80"
        )
    np.testing.assert_array_equal(read(path)[1], read(save(plain, tmp_path / "plain"))[1])
    for image, expected in zip(read_seen(path), seen(path), strict=True):
        np.testing.assert_array_equal(image, expected)


def test_a_long_clip_with_much_said_of_each_frame_is_read(tmp_path: Path) -> None:
    said = group(FrameVOILUTSequence=DARK)
    for number in range(20):
        said[0].add_new(0x00211000 + number, "LO", "x")
    count = 3000
    cine = np.resize(dark(), (count, 48, 64))
    made = ultrasound(cine, PerFrameFunctionalGroupsSequence=count * said)
    assert read(save(made, tmp_path / "clip"))[0].frame_count == count


BROKEN = {
    "no data": lambda: table(CURVE[:0], 8),
    "too few entries": lambda: table(CURVE, 8, is_packed=True),
    "bits of none": lambda: table(CURVE, 17),
    "one grey": lambda: table(0 * CURVE + 255, 8),
}


@pytest.mark.parametrize("keyword", ["VOILUTSequence", "ModalityLUTSequence"])
@pytest.mark.parametrize("name", BROKEN)
def test_a_table_that_shows_nothing_is_passed_over(tmp_path: Path, name: str, keyword: str) -> None:
    broken = BROKEN[name]()
    if name == "no data":
        broken[0].LUTDescriptor = [256, 0, 8]
    if name == "too few entries":
        broken[0].LUTDescriptor = [300, 0, 8]
    made = ultrasound(grey_cine())
    setattr(made, keyword, broken)
    _, lumas = read(save(made, tmp_path / "clip"))
    assert np.array_equal(lumas, grey_cine())


def test_a_sequence_without_a_table_is_passed_over(tmp_path: Path) -> None:
    for value in ([], [Dataset()]):
        made = ultrasound(grey_cine(), VOILUTSequence=value, ModalityLUTSequence=value)
        assert np.array_equal(read(save(made, tmp_path / "clip"))[1], grey_cine())


def test_a_window_goes_before_a_table(tmp_path: Path) -> None:
    made = ultrasound(
        dark(), WindowCenter="20", WindowWidth="40", VOILUTSequence=table(255 - CURVE, 8)
    )
    plain = ultrasound(dark(), WindowCenter="20", WindowWidth="40")
    _, lumas = read(save(made, tmp_path / "clip"))
    assert np.array_equal(lumas, read(save(plain, tmp_path / "plain"))[1])


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_an_inverse_shape_is_inverted_once_as_dcmtk_does(tmp_path: Path, photometric: str) -> None:
    made = ultrasound(255 - grey_cine(), photometric, PresentationLUTShape="INVERSE")
    path = save(made, tmp_path / "clip")
    run("dcm2pnm", "--write-raw-pnm", path, tmp_path / "shown.pgm")
    shown = cv2.imread(str(tmp_path / "shown.pgm"), cv2.IMREAD_GRAYSCALE)
    assert shown is not None
    np.testing.assert_array_equal(read(path)[1], grey_cine())
    np.testing.assert_allclose(shown, grey_cine()[0].astype(int), atol=1)


@pytest.mark.parametrize("is_signed", [False, True])
@pytest.mark.parametrize("bits", [10, 12])
def test_fewer_bits_than_16_are_shown_whole_where_the_header_says_16(
    tmp_path: Path, bits: int, is_signed: bool
) -> None:
    cine = grey_cine(bits=bits).astype(np.uint16)
    made = ultrasound(cine, PixelRepresentation=int(is_signed))
    told = ultrasound(cine, BitsStored=bits, HighBit=bits - 1)
    _, expected = read(save(told, tmp_path / "told"))
    assert expected.max() > 200
    path = save(made, tmp_path / "clip")
    assert np.array_equal(read(path)[1], expected)
    for image, served in zip(read_seen(path), seen(path), strict=True):
        np.testing.assert_array_equal(image, served)


def test_16_bits_stay_as_they_are(tmp_path: Path) -> None:
    for share in (1, 4, 15):
        cine = (grey_cine().astype(np.uint16) * 257) // share
        assert np.array_equal(read(save(ultrasound(cine), tmp_path / "clip"))[1], cine >> 8)
