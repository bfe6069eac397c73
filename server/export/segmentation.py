"""A cine's masks as a DICOM segmentation.

BINARY is what every reader takes: one bit a pixel, one frame for each structure and source frame in
which it is seen. LABELMAP holds all structures in one frame and is run-length coded: small, and for
newer readers.

Source:
    DICOM PS3.3 A.51 and C.8.20 (segmentation), C.7.6.16 and C.7.6.17 (multi-frame, dimensions);
    PS3.5 section 8.1.1 (bits are packed over all frames), annex G (RLE); PS3.16 CID 7150, 7151.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders.base import RLELosslessEncoder
from pydicom.uid import UID, ExplicitVRLittleEndian, RLELossless, SegmentationStorage

from model import STRUCTURES, rescale_labels
from server.errors import NotAvailableError
from server.export.colour import dicom_lab
from server.export.objects import NOTICE, Kind, Maker, begin_object, coded, derived_uid, reference
from server.export.pen import STRUCTURE_COLOURS

SegmentationType = Literal["binary", "labelmap"]

MOST_BYTES = 256 << 20
"""Packed masks above this are refused; run-length coded they are a few megabytes."""

_LABEL_MAP_STORAGE = "1.2.840.10008.5.1.4.1.1.66.7"
_BINARY = Kind("seg", SegmentationStorage, "SEG", 900, "GDKVM Live masks (research use only)")
_LABELMAP = Kind(
    "seg-labelmap", _LABEL_MAP_STORAGE, "SEG", 901, "GDKVM Live masks (research use only)"
)

_CATEGORY = ("91723000", "SCT", "Anatomical Structure")
_BACKGROUND = ("125040", "DCM", "Background")
_TYPES = {
    "lv": ("87878005", "SCT", "Left ventricle"),
    "myocardium": ("49848007", "SCT", "Left Ventricle Myocardium"),
    "atrium": ("82471001", "SCT", "Left atrium"),
}
_SEGMENT_POINTER, _SEGMENT_GROUP = 0x0062000B, 0x0062000A
_TIME_POINTER, _TIME_GROUP = 0x00209128, 0x00209111


@dataclass(frozen=True, slots=True, eq=False)
class Masks:
    """The label maps of a clip.

    Attributes:
        labels: one deflated label map a frame: 0 background, then 1 + the index in STRUCTURES.
        size: rows and columns.
    """

    labels: Sequence[bytes]
    size: tuple[int, int]

    def maps(self) -> Iterator[NDArray[np.uint8]]:
        """Every label map, one after the other."""
        for deflated in self.labels:
            yield np.frombuffer(zlib.decompress(deflated), np.uint8).reshape(self.size)

    def scaled(self, size: tuple[int, int]) -> "Masks":
        """The same for pictures of other rows and columns."""
        if size == self.size:
            return self
        scaled = (rescale_labels(labels_HW, size) for labels_HW in self.maps())
        return Masks([zlib.compress(each.tobytes(), 1) for each in scaled], size)


def make_segmentation(
    masks: Masks, maker: Maker, kind: SegmentationType = "binary"
) -> tuple[Dataset, UID]:
    """Put a clip's masks into a segmentation object.

    Args:
        masks: of every frame of the clip.
        maker: what it is made of; its clip is a DICOM file.
        kind: which of both forms.

    Returns:
        The object and the transfer syntax of its pixel data.

    Raises:
        NotAvailableError: the packed masks are too large.
    """
    made = begin_object(_BINARY if kind == "binary" else _LABELMAP, maker)
    if maker.origin is not None:
        masks = masks.scaled(maker.origin.size)
    _add_image(made, masks, maker)
    _add_segments(made, maker)
    _add_references(made, maker)
    # Pixel size would need a slice thickness beside it; readers take it from the source.
    made.SharedFunctionalGroupsSequence = [Dataset()]
    if kind == "binary":
        _add_binary(made, masks, maker)
        return made, ExplicitVRLittleEndian
    _add_label_maps(made, masks, maker)
    return made, RLELossless


def _add_image(made: Dataset, masks: Masks, maker: Maker) -> None:
    made.ImageType = ["DERIVED", "PRIMARY"]
    made.Rows, made.Columns = masks.size
    made.SamplesPerPixel = 1
    made.PhotometricInterpretation = "MONOCHROME2"
    made.PixelRepresentation = 0
    made.PatientOrientation = ""
    made.ContentLabel = "LEFT_HEART"
    made.ContentDescription = NOTICE
    made.ContentCreatorName = ""
    made.LossyImageCompression = "00"
    if maker.origin and maker.origin.lossy:
        made.LossyImageCompression = "01"
        made.LossyImageCompressionRatio = maker.origin.lossy.ratio
        made.LossyImageCompressionMethod = maker.origin.lossy.method
    if maker.origin and maker.origin.frame_of_reference_uid:
        made.FrameOfReferenceUID = maker.origin.frame_of_reference_uid
        made.PositionReferenceIndicator = ""


def _add_segments(made: Dataset, maker: Maker) -> None:
    made.SegmentSequence = []
    for number, name in enumerate(STRUCTURES, start=1):
        segment = _segment(maker, number, _CATEGORY, _TYPES[name])
        segment.RecommendedDisplayCIELabValue = list(dicom_lab(STRUCTURE_COLOURS[name]))
        made.SegmentSequence.append(segment)


def _background(maker: Maker) -> Dataset:
    return _segment(maker, 0, _BACKGROUND, _BACKGROUND)


def _segment(
    maker: Maker, number: int, category: tuple[str, str, str], kind: tuple[str, str, str]
) -> Dataset:
    segment = Dataset()
    segment.SegmentNumber = number
    segment.SegmentLabel = kind[2]
    segment.SegmentAlgorithmType = "SEMIAUTOMATIC" if maker.revision else "AUTOMATIC"
    segment.SegmentAlgorithmName = f"{maker.model.name} {maker.model.version}"
    segment.SegmentedPropertyCategoryCodeSequence = [coded(*category)]
    segment.SegmentedPropertyTypeCodeSequence = [coded(*kind)]
    return segment


def _add_references(made: Dataset, maker: Maker) -> None:
    origin = maker.origin
    if not (origin and origin.sop_class_uid and origin.sop_instance_uid):
        raise NotAvailableError(
            "this clip was no DICOM object with an identifier, so there is nothing that a "
            "segmentation could refer to: fetch masks.npz or masks.json"
        )
    series = Dataset()
    series.SeriesInstanceUID = origin.series_uid or derived_uid("series", origin.sop_instance_uid)
    series.ReferencedInstanceSequence = [reference(origin.sop_class_uid, origin.sop_instance_uid)]
    made.ReferencedSeriesSequence = [series]


def _add_dimensions(made: Dataset, pointers: Sequence[tuple[int, int, str]]) -> None:
    organization = derived_uid("dimensions", made.SOPInstanceUID)
    item = Dataset()
    item.DimensionOrganizationUID = organization
    made.DimensionOrganizationSequence = [item]
    indices = []
    for pointer, group, label in pointers:
        index = Dataset()
        index.DimensionOrganizationUID = organization
        index.DimensionIndexPointer = pointer
        index.FunctionalGroupPointer = group
        index.DimensionDescriptionLabel = label
        indices.append(index)
    made.DimensionIndexSequence = indices


_TIME = (_TIME_POINTER, _TIME_GROUP, "Frame")
_SEGMENT = (_SEGMENT_POINTER, _SEGMENT_GROUP, "Segment")


def _add_binary(made: Dataset, masks: Masks, maker: Maker) -> None:
    made.SegmentationType = "BINARY"
    made.BitsAllocated = made.BitsStored = 1
    made.HighBit = 0
    packer, groups = BitPacker(MOST_BYTES), []
    is_alone = len(masks.labels) == 1
    for number, _ in enumerate(STRUCTURES, start=1):
        for index, labels_HW in enumerate(masks.maps()):
            is_inside_HW = labels_HW == number
            if is_inside_HW.any():
                packer.add(is_inside_HW.ravel())
                groups.append(_binary_group(maker, number, index, is_alone=is_alone))
    if not groups:
        # An object has a frame at least: an empty one says that nothing was found.
        packer.add(np.zeros(masks.size[0] * masks.size[1], bool))
        groups.append(_binary_group(maker, 1, 0, is_alone=is_alone))
    _add_dimensions(made, (_SEGMENT, _TIME))
    made.NumberOfFrames = len(groups)
    made.PerFrameFunctionalGroupsSequence = groups
    made.PixelData = packer.finish()
    made["PixelData"].VR = "OB"


def _binary_group(maker: Maker, number: int, index: int, *, is_alone: bool) -> Dataset:
    group = _group(maker, [number, index + 1], index, is_alone=is_alone)
    identification = Dataset()
    identification.ReferencedSegmentNumber = number
    group.SegmentIdentificationSequence = [identification]
    return group


def _add_label_maps(made: Dataset, masks: Masks, maker: Maker) -> None:
    made.SegmentationType = "LABELMAP"
    made.BitsAllocated = made.BitsStored = 8
    made.HighBit = 7
    made.SegmentsOverlap = "NO"
    made.SegmentSequence.insert(0, _background(maker))
    made.PixelPaddingValue = 0
    _add_dimensions(made, (_TIME,))
    layout: dict[str, Any] = {
        "rows": masks.size[0], "columns": masks.size[1], "samples_per_pixel": 1,
        "bits_allocated": 8, "bits_stored": 8, "pixel_representation": 0, "number_of_frames": 1,
        "photometric_interpretation": "MONOCHROME2",
    }  # fmt: skip
    # Not by GDCM, which ends the whole process over a frame of an odd number of pixels.
    frames = [
        RLELosslessEncoder.encode(labels_HW.tobytes(), encoding_plugin="pydicom", **layout)
        for labels_HW in masks.maps()
    ]
    made.NumberOfFrames = len(frames)
    made.PerFrameFunctionalGroupsSequence = [
        _group(maker, [index + 1], index, is_alone=len(frames) == 1) for index in range(len(frames))
    ]
    made.PixelData = encapsulate(frames)
    made["PixelData"].VR = "OB"
    made["PixelData"].is_undefined_length = True


def _group(maker: Maker, place: list[int], index: int, *, is_alone: bool) -> Dataset:
    """Say which frame of the source a frame was made from, where there is more than one.

    Source:
        DICOM PS3.3 table 10-3 (frames are named where a reference is not to all of them).
    """
    origin = maker.origin
    assert origin is not None
    group, content, derivation = Dataset(), Dataset(), Dataset()
    content.DimensionIndexValues = place
    content.TemporalPositionIndex = index + 1
    group.FrameContentSequence = [content]
    source = reference(str(origin.sop_class_uid), str(origin.sop_instance_uid))
    if not is_alone:
        source.ReferencedFrameNumber = index + 1
    source.SpatialLocationsPreserved = "YES"
    purpose = coded("121322", "DCM", "Source image for image processing operation")
    source.PurposeOfReferenceCodeSequence = [purpose]
    derivation.DerivationCodeSequence = [coded("113076", "DCM", "Segmentation")]
    derivation.SourceImageSequence = [source]
    group.DerivationImageSequence = [derivation]
    return group


class BitPacker:
    """Packs frames of single bits one behind the other, across the borders of bytes."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._packed = bytearray()
        self._rest = np.zeros(0, bool)

    def add(self, bits: NDArray[np.bool_]) -> None:
        """Append one frame.

        Raises:
            NotAvailableError: there are too many.
        """
        joined = np.concatenate([self._rest, bits])
        whole = joined.size // 8 * 8
        self._packed += np.packbits(joined[:whole], bitorder="little").tobytes()
        self._rest = joined[whole:]
        if len(self._packed) > self._most_bytes:
            raise NotAvailableError(
                f"the masks of this clip take more than {self._most_bytes >> 20} MiB as bits: ask "
                "for the run-length coded form with ?type=labelmap"
            )

    def finish(self) -> bytes:
        """Everything, filled up to an even number of bytes."""
        self._packed += np.packbits(self._rest, bitorder="little").tobytes()
        self._packed += b"\0" * (len(self._packed) % 2)
        return bytes(self._packed)
