import re
import zlib
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread

from server.artefacts import Material, write_segmentation
from server.errors import NotAvailableError
from server.export import segmentation
from server.export.colour import dicom_lab, to_lab
from server.export.segmentation import BitPacker, SegmentationType
from tests.server.export.conftest import IDENTITY, analyse, name_patient
from tests.server.export.reading import assert_valid
from tests.server.ingest.making import run, save, ultrasound
from tests.server.phantom import SIDE_PX, picture, true_labels


def labels_of(material: Material) -> NDArray[np.uint8]:
    """The label maps that went in."""
    frames = [np.frombuffer(zlib.decompress(each), np.uint8) for each in material.labels]
    return np.stack(frames).reshape(-1, *material.study.size)


@pytest.mark.parametrize("kind", ["binary", "labelmap"])
def test_another_library_reads_the_masks_frame_by_frame(
    heart: Material, tmp_path: Path, kind: SegmentationType
) -> None:
    path = tmp_path / "seg.dcm"
    write_segmentation(path, heart, kind)
    read = highdicom.seg.segread(path)
    expected = labels_of(heart)
    places = list(range(1, len(expected) + 1))
    source = IDENTITY["SOPInstanceUID"]
    found = read.get_pixels_by_source_frame(source, places, segment_numbers=[1, 2, 3])
    for number in (1, 2, 3):
        np.testing.assert_array_equal(found[..., number - 1], expected == number)
    assert str(read.get_segment_description(1).segmented_property_type.value) == "87878005"


@pytest.mark.parametrize("kind", ["binary", "labelmap"])
def test_masks_of_an_odd_number_of_pixels_are_what_went_in(
    tmp_path: Path, kind: SegmentationType
) -> None:
    frames = np.stack([picture(index)[1:, 1:] for index in range(3)])
    odd = analyse(name_patient(save(ultrasound(frames), tmp_path / "odd.dcm")))
    labels = labels_of(odd)
    assert labels[0].size % 2 == 1
    path = tmp_path / "seg.dcm"
    write_segmentation(path, odd, kind)
    if kind == "labelmap":
        run("dcmdrle", path, tmp_path / "plain.dcm")
        stored = np.frombuffer(dcmread(tmp_path / "plain.dcm").PixelData, np.uint8)
        np.testing.assert_array_equal(stored[: labels.size], labels.ravel())
    else:
        assert_valid(path)
        shown = [labels == number for number in (1, 2, 3)]
        found = np.concatenate([each[each.any(axis=(1, 2))] for each in shown])
        np.testing.assert_array_equal(dcmread(path).pixel_array, found)


@pytest.mark.parametrize("kind", ["binary", "labelmap"])
@pytest.mark.parametrize("count", [1, 2])
def test_a_frame_is_named_only_where_the_clip_has_several(
    heart: Material, tmp_path: Path, count: int, kind: SegmentationType
) -> None:
    """PS3.3 table 10-3: required where the reference is not to all frames, else not there."""
    path = tmp_path / "seg.dcm"
    write_segmentation(path, replace(heart, labels=heart.labels[:count]), kind)
    for group in dcmread(path).PerFrameFunctionalGroupsSequence:
        (source,) = group.DerivationImageSequence[0].SourceImageSequence
        assert ("ReferencedFrameNumber" in source) == (count > 1)


@pytest.mark.parametrize("kind", ["binary", "labelmap"])
def test_masks_lie_on_the_pixels_of_their_clip_also_where_it_was_made_square(
    squeezed: Material, tmp_path: Path, kind: SegmentationType
) -> None:
    assert squeezed.study.size == (SIDE_PX, SIDE_PX)
    path = tmp_path / "seg.dcm"
    write_segmentation(path, squeezed, kind)
    read = highdicom.seg.segread(path)
    source = IDENTITY["SOPInstanceUID"]
    (found,) = read.get_pixels_by_source_frame(source, [1], segment_numbers=[1, 2, 3])
    drawn = true_labels(0)[:, ::2]
    for number in (1, 2, 3):
        is_drawn, is_found = drawn == number, found[..., number - 1] > 0
        dice = 2 * (is_drawn & is_found).sum() / (is_drawn.sum() + is_found.sum())
        assert dice > 0.9


def test_the_binary_form_is_valid_and_repeats_the_patient(heart: Material, tmp_path: Path) -> None:
    path = tmp_path / "seg.dcm"
    write_segmentation(path, heart, "binary")
    assert_valid(path)
    read = highdicom.seg.segread(path)
    assert read.PatientName == IDENTITY["PatientName"]
    assert read.StudyInstanceUID == IDENTITY["StudyInstanceUID"]
    assert read.LossyImageCompression == "00"


def test_a_clip_without_a_heart_has_a_valid_segmentation_of_one_empty_frame(
    nothing: Material, tmp_path: Path
) -> None:
    path = tmp_path / "seg.dcm"
    write_segmentation(path, nothing, "binary")
    assert_valid(path)
    read = highdicom.seg.segread(path)
    assert read.NumberOfFrames == 1
    assert not read.pixel_array.any()


def test_the_same_clip_gives_the_same_identifiers_and_other_weights_others(
    heart: Material, tmp_path: Path
) -> None:
    other = replace(heart, model=replace(heart.model, sha256="cd" * 32))
    uids = []
    for number, material in enumerate((heart, heart, other)):
        write_segmentation(tmp_path / str(number), material, "binary")
        uids.append(highdicom.seg.segread(tmp_path / str(number)).SOPInstanceUID)
    assert uids[0] == uids[1] != uids[2]


def test_masks_too_large_as_bits_are_refused_with_the_way_out(
    heart: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segmentation, "MOST_BYTES", 1000)
    with pytest.raises(NotAvailableError, match=re.escape("?type=labelmap")):
        write_segmentation(tmp_path / "seg.dcm", heart, "binary")
    write_segmentation(tmp_path / "seg.dcm", heart, "labelmap")


def test_bits_run_on_across_the_borders_of_bytes_and_frames() -> None:
    # PS3.5 section 8.1.1: the first pixel is the lowest bit, frames follow without a gap.
    packer = BitPacker(100)
    packer.add(np.array([1, 0, 0, 1, 1], bool))
    packer.add(np.array([1, 0, 0, 0, 0], bool))
    assert packer.finish() == bytes([0b00111001, 0b00000000])


def test_colours_are_written_as_the_standard_says() -> None:
    # White is L* 100, a* 0, b* 0: 65535 and twice 128 / 255 of 65535.
    assert dicom_lab((255, 255, 255)) == (65535, 32896, 32896)
    assert dicom_lab((0, 0, 0)) == (0, 32896, 32896)
    # Lindbloom's calculator, sRGB to Lab with Bradford to D50: pure red.
    np.testing.assert_allclose(to_lab((255, 0, 0)), [54.29, 80.81, 69.89], atol=0.02)
