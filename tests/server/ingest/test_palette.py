from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pydicom.data
import pytest
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.pixels.processing import apply_color_lut
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from server.ingest import Clip, IngestError, open_clip
from tests.server.ingest.making import grey_cine, luma_of, save, ultrasound

COLOURS = ("Red", "Green", "Blue")


def with_palette(
    frames: NDArray[Any],
    tables: NDArray[Any],
    *,
    first: int = 0,
    entry_bits: int = 8,
    **attributes: Any,
) -> Dataset:
    """A PALETTE COLOR cine; tables are 3 x entries."""
    made = ultrasound(frames, "PALETTE COLOR", **attributes)
    count = tables.shape[1] % 65536
    for colour, table in zip(COLOURS, tables, strict=True):
        setattr(made, f"{colour}PaletteColorLookupTableDescriptor", [count, first, entry_bits])
        setattr(made, f"{colour}PaletteColorLookupTableData", table.tobytes())
    return made


def read(path: Path) -> tuple[Clip, NDArray[np.uint8]]:
    with open_clip(path) as clip:
        return clip, np.array([frame.pixels_HW for frame in clip.frames])


def tables(entries: int) -> NDArray[np.uint16]:
    """Three different curves from 0 to 255."""
    ramp = np.linspace(0, 1, entries)
    return np.array([255 * ramp**2, 255 * ramp, 255 * ramp**0.5]).round().astype(np.uint16)


def test_8_bit_entries_are_looked_up(tmp_path: Path) -> None:
    table = tables(256)
    path = save(with_palette(grey_cine(), table.astype(np.uint8)), tmp_path / "clip")
    clip, lumas = read(path)
    assert np.abs(lumas - luma_of(table.T[grey_cine()])).max() <= 1
    assert not clip.colour_overlay


def test_colour_doppler_is_seen_through_a_palette(tmp_path: Path) -> None:
    table = np.repeat(np.arange(256, dtype=np.uint8)[None], 3, axis=0)
    table[:, 254:] = np.transpose([[200, 30, 10], [20, 60, 220]])
    frames = np.minimum(grey_cine(), 253)
    frames[:, 20:36, 26:32], frames[:, 20:36, 32:38] = 254, 255
    clip, _ = read(save(with_palette(frames, table), tmp_path / "clip"))
    assert clip.colour_overlay


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]
)
def test_16_bit_entries_keep_their_high_byte(tmp_path: Path, syntax: str) -> None:
    table = (tables(256) << 8) + 77
    order = ">u2" if syntax == ExplicitVRBigEndian else "<u2"
    made = with_palette(grey_cine(), table.astype(order), entry_bits=16)
    _, lumas = read(save(made, tmp_path / "clip", syntax))
    assert np.abs(lumas - luma_of((table.T >> 8)[grey_cine()])).max() <= 1


def test_16_bit_entries_that_hold_8_bits_are_taken_as_they_are(tmp_path: Path) -> None:
    table = tables(256)
    _, lumas = read(save(with_palette(grey_cine(), table, entry_bits=16), tmp_path / "clip"))
    assert np.abs(lumas - luma_of(table.T[grey_cine()])).max() <= 1


def test_8_bit_entries_with_a_word_each_are_read(tmp_path: Path) -> None:
    table = tables(256)
    _, lumas = read(save(with_palette(grey_cine(), table, entry_bits=8), tmp_path / "clip"))
    assert np.abs(lumas - luma_of(table.T[grey_cine()])).max() <= 1


def test_values_outside_the_table_take_its_ends(tmp_path: Path) -> None:
    table = tables(100).astype(np.uint8)
    _, lumas = read(save(with_palette(grey_cine(), table, first=50), tmp_path / "clip"))
    index = np.clip(grey_cine().astype(int) - 50, 0, 99)
    assert np.abs(lumas - luma_of(table.T[index])).max() <= 1


def test_a_grey_palette_is_no_colour(tmp_path: Path) -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None], 3, axis=0)
    clip, lumas = read(save(with_palette(grey_cine(), ramp), tmp_path / "clip"))
    assert np.array_equal(lumas, grey_cine())
    assert not clip.colour_overlay


def segmented(*words: int) -> bytes:
    return np.array(words, "<u2").tobytes()


def test_segmented_tables_expand_as_pydicom_expands_them(tmp_path: Path) -> None:
    # one value, a straight line to 65280 over 200 entries, then flat: 256 entries
    data = segmented(0, 1, 0, 1, 200, 65280, 1, 55, 65280)
    made = ultrasound(grey_cine(), "PALETTE COLOR")
    for colour in COLOURS:
        setattr(made, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(made, f"Segmented{colour}PaletteColorLookupTableData", data)
    path = save(made, tmp_path / "clip")
    expected = apply_color_lut(grey_cine(), pydicom.dcmread(path)) >> 8
    assert np.abs(read(path)[1] - luma_of(expected)).max() <= 1


def test_the_published_16_bit_segmented_palette_is_read_as_pydicom_reads_it(
    shared_dir: Path,
) -> None:
    path = shared_dir / "data/ultrasound/pydicom-data/gdcm-US-ALOKA-16.dcm"
    made = pydicom.dcmread(path)
    expected = luma_of(apply_color_lut(made.pixel_array, made) >> 8)
    _, lumas = read(path)
    assert np.abs(lumas[0] - expected).max() <= 1


@pytest.mark.parametrize(
    "words",
    [
        (2, 60000, 0, 0),  # copies itself
        (1, 5, 9),  # a line from nowhere
        (9, 9, 9),  # no such segment
        (0, 60000, 1),  # shorter than it says
        (),
    ],
)
def test_a_segmented_table_that_breaks_off_or_circles_is_refused(
    tmp_path: Path, words: tuple[int, ...]
) -> None:
    made = ultrasound(grey_cine(), "PALETTE COLOR")
    for colour in COLOURS:
        setattr(made, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(made, f"Segmented{colour}PaletteColorLookupTableData", segmented(*words))
    path = save(made, tmp_path / "clip")
    with pytest.raises(IngestError) as refusal, open_clip(path):
        pass
    assert refusal.value.code == "malformed_header"


def test_a_table_shorter_than_its_descriptor_says_is_refused(tmp_path: Path) -> None:
    made = with_palette(grey_cine(), tables(256).astype(np.uint8))
    made.GreenPaletteColorLookupTableData = b"\0" * 100
    with pytest.raises(IngestError) as refusal, open_clip(save(made, tmp_path / "clip")):
        pass
    assert refusal.value.code == "malformed_header"
