"""Our own form: DICOM clips with masks beside them, one folder a clip.

    {train,valid,test}/ANY NAME/clip.dcm      an ultrasound clip, under any name
                                masks.npz     as `gdkvm segment --out` and the server write it
                                seg.dcm       or a DICOM segmentation of the same clip

``masks.npz`` holds ``labels_THW`` (0 background, 1 ventricle, 2 wall, 3 atrium) of every frame of
the clip. ``labelled_T``, if it is there, says which frames somebody drew or checked; without it
those that show a ventricle. ``structures``, if it is there, names the labels that were drawn.

Source:
    DICOM PS3.3 C.8.5.5 (region calibration), C.8.20 (segmentation), PS3.16 CID 12226 (views).
"""

import hashlib
import io
import struct
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pydicom.misc
from numpy.typing import NDArray
from pydicom.encaps import get_frame
from pydicom.errors import InvalidDicomError

from model.errors import FrameError
from model.frame import STRUCTURES
from model.pictures import (
    COLOURS,
    UNDEFINED,
    DeclaredPixels,
    DeclaredTable,
    Decoder,
    Encoding,
    IngestError,
    Layout,
    PixelData,
    Storage,
    TruncatedError,
    Window,
    choose_compressed,
    container_of,
    declare_contrast,
    decode_by_library,
    find_pictures,
    make_layout,
    syntax_of,
)
from model.preprocess import rescale_labels, square_size
from model.region import PIXEL_SHAPES, DeclaredRegion, declared_width
from model.sector import fan_probes
from model.training.sets.film import probes_of_film, read_stored
from model.training.sets.sight import Images, as_served, cut, seen_served
from model.training.sets.study import (
    KNOWN_ALL,
    SPLITS,
    DataSet,
    Recording,
    Study,
    check_still,
    missing_files,
)
from model.words import counted

LAYOUT = "DICOM clips with masks"
MASKS = "masks.npz"

SEGMENT_CODES = {"87878005": 1, "49848007": 2, "82471001": 3}
"""SNOMED CT codes of left ventricle, left-ventricular myocardium and left atrium."""

TWO_CHAMBER_CODES = {"399232001", "G-A19B"}
READ_ERRORS = (OSError, ValueError, KeyError, AttributeError, IndexError, RuntimeError)
"""What pydicom and numpy raise on files that are cut off or damaged."""

_FRAGMENTS_END = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
"""The delimiter that pydicom takes from the end of the fragments."""

Labels = dict[int, NDArray[np.uint8]]
"""The label map of every frame that somebody drew."""


def recognise_dicom(root: Path) -> bool:
    """Whether a clip's folder holds masks."""
    names = (MASKS, "seg*.dcm")
    return any(next((root / s).glob(f"*/{name}"), None) for s in SPLITS for name in names)


def find_dicom(root: Path) -> DataSet:
    """List every clip's folder; what its masks know must be the same in all."""
    studies, problems = [], []
    known: set[tuple[bool, bool, bool]] = set()
    for split in SPLITS:
        for folder in sorted(path for path in (root / split).glob("*") if path.is_dir()):
            try:
                study, knows = _study(folder, split)
                studies.append(study)
                known.add(knows)
            except FrameError as error:
                problems.append(error.message)
    if len(known) > 1:
        problems.append(f"{root}: some clips have masks of other structures than others: {known}")
    structures = known.pop() if known else KNOWN_ALL
    return DataSet(LAYOUT, root, structures, tuple(studies), tuple(problems))


def _study(folder: Path, split: str) -> tuple[Study, tuple[bool, bool, bool]]:
    clips: list[tuple[Path, Any]] = []
    masks: Path | None = folder / MASKS if (folder / MASKS).is_file() else None
    for path in sorted(each for each in folder.iterdir() if each.is_file() and each.name != MASKS):
        header = _header(path)
        if header is None:
            continue
        if header.get("Modality") == "SEG":
            masks = masks or path
        elif "Rows" in header:
            clips.append((path, header))
    if len(clips) > 1:
        # What `gdkvm segment --out` writes holds a capture of the clip with its outlines.
        clips = [each for each in clips if "SECONDARY" not in (each[1].get("ImageType") or ())]
    if masks is None:
        raise FrameError(f"{folder} holds neither {MASKS} nor a DICOM segmentation")
    if len(clips) != 1:
        raise FrameError(f"{folder} holds {len(clips)} readable DICOM clips where one is wanted")
    if problems := missing_files([masks]):
        raise FrameError(problems[0])
    (clip, header), labels = clips[0], _read_labels(masks)
    identity = str(header.get("PatientID") or folder.name)
    patient = hashlib.sha256(identity.encode()).hexdigest()[:12]
    codes = {str(item.get("CodeValue")) for item in header.get("ViewCodeSequence") or ()}
    view = "2CH" if codes & TWO_CHAMBER_CODES else "4CH"
    made = partial(read, clip, masks)
    study = Study(folder.name, patient, view, split, (clip, masks), len(labels), made)
    return study, _structures(masks)


def _header(path: Path) -> Any:
    """The header of a DICOM file, None where it is something else."""
    try:
        return pydicom.dcmread(path, stop_before_pixels=True)
    except (InvalidDicomError, *READ_ERRORS):
        return None


def _structures(masks: Path) -> tuple[bool, bool, bool]:
    if masks.name == MASKS:
        with np.load(masks) as saved:
            names = saved["structures"].tolist() if "structures" in saved else STRUCTURES
        lv, wall, atrium = (name in names for name in STRUCTURES)
    else:
        numbers = set(_segment_labels(pydicom.dcmread(masks, stop_before_pixels=True)).values())
        lv, wall, atrium = (label in numbers for label in (1, 2, 3))
    return lv, wall, atrium


def _read_labels(masks: Path) -> Labels:
    """The label maps of a file of masks.

    Raises:
        FrameError: it is cut off, damaged, or holds no ventricle.
    """
    try:
        labels = _read_npz(masks) if masks.name == MASKS else _read_segmentation(masks)
    except (zipfile.BadZipFile, EOFError, *READ_ERRORS) as error:
        raise FrameError(f"{masks} is cut off or holds no masks: {error}") from error
    if not labels:
        raise FrameError(f"{masks} shows a ventricle in no frame")
    return labels


def _read_npz(masks: Path) -> Labels:
    with np.load(masks, allow_pickle=False) as saved:
        labels_THW = saved["labels_THW"]
        drawn_T = (labels_THW == 1).any(axis=(1, 2))
        if "labelled_T" in saved:
            drawn_T &= saved["labelled_T"].astype(bool)
    return {int(t): np.asarray(labels_THW[t], np.uint8) for t in np.flatnonzero(drawn_T)}


def _segment_labels(header: Any) -> dict[int, int]:
    """Our label of every segment number, by its code."""
    found = {}
    for segment in header.SegmentSequence:
        codes = [str(item.CodeValue) for item in segment.SegmentedPropertyTypeCodeSequence]
        if codes and codes[0] in SEGMENT_CODES:
            found[int(segment.SegmentNumber)] = SEGMENT_CODES[codes[0]]
    return found


def _read_segmentation(masks: Path) -> Labels:
    stored = pydicom.dcmread(masks)
    label_of = _segment_labels(stored)
    pixels = np.atleast_3d(stored.pixel_array)
    planes_FHW = pixels.reshape(-1, stored.Rows, stored.Columns)
    groups = stored.PerFrameFunctionalGroupsSequence
    is_map = stored.SegmentationType == "LABELMAP"
    labels: Labels = {}
    for plane_HW, group in zip(planes_FHW, groups, strict=True):
        frame = _source_frame(group)
        labels_HW = labels.setdefault(frame, np.zeros(plane_HW.shape, np.uint8))
        if is_map:
            for number, label in label_of.items():
                labels_HW[plane_HW == number] = label
        else:
            number = int(group.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
            if number in label_of:
                labels_HW[plane_HW > 0] = label_of[number]
    return {frame: mask for frame, mask in sorted(labels.items()) if (mask == 1).any()}


def _source_frame(group: Any) -> int:
    """The frame of the clip that a frame of the segmentation was drawn on, counted from 0."""
    source = group.DerivationImageSequence[0].SourceImageSequence[0]
    return int(np.atleast_1d(source.get("ReferencedFrameNumber", 1))[0]) - 1


def read(clip: Path, masks: Path, between: bool = False) -> Recording:
    """A clip from its largest to its smallest drawn ventricle.

    Args:
        clip: the DICOM file.
        masks: what was drawn on it.
        between: also the frames between both, played backwards where systole comes first.

    Raises:
        FrameError: a file that is damaged, masks of another clip, or one phase only.
    """
    labels = _read_labels(masks)
    stored, probes, declared, shown = _read_clip(clip)
    images, sight, spacing_mm = seen_served(stored, probes, declared, shown)
    if max(labels) >= len(images):
        raise FrameError(
            f"{masks} has masks of {counted(max(labels) + 1, 'frame')}, {clip.name} {len(images)}"
        )
    for frame, mask in labels.items():
        if mask.shape == stored[0].shape:  # as a segmentation has it, or who drew on the file
            labels[frame] = mask = rescale_labels(mask, images[0].shape)
        check_still(Path(f"{masks} frame {frame}"), images[frame], mask)
    areas = {frame: int((mask == 1).sum()) for frame, mask in labels.items()}
    ed, es = max(areas, key=lambda k: areas[k]), min(areas, key=lambda k: areas[k])
    if ed == es:
        raise FrameError(f"{masks} has ventricles of one size only, no phase can be told")
    step = 1 if ed < es else -1
    order = list(range(ed, es + step, step)) if between else [ed, es]
    return Recording(
        tuple(cut(images[k], sight) for k in order),
        tuple(cut(labels[k], sight) for k in order if k in labels),
        tuple(place for place, k in enumerate(order) if k in labels),
        spacing_mm,
        is_cropped=True,
    )


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM files do."""
    return pydicom.misc.is_dicom(path)


def read_seen(path: Path) -> list[NDArray[np.uint8]]:
    """What the network would see of every frame of a clip, were it served.

    Raises:
        FrameError: a file that cannot be decoded.
    """
    return as_served(*_read_clip(path))


def _read_clip(path: Path) -> tuple[Images, Images, list[DeclaredRegion], tuple[int, int]]:
    """What ``seen_served`` wants to know of a clip."""
    try:
        stored = pydicom.dcmread(path)
        items = stored.get("SequenceOfUltrasoundRegions") or ()
        declared = [_declared(item) for item in items]
        width = declared_width(_raw(stored, keyword) or b"" for keyword in PIXEL_SHAPES)
        syntax = syntax_of(str(stored.file_meta.TransferSyntaxUID))
        if syntax.storage is not Storage.FILM:
            images = _read_pictures(stored, syntax.encoding)
            probes = [images[k] for k in fan_probes(len(images))]
            return images, probes, declared, square_size(images[0].shape, width or 1.0)
        images, shown = _read_inner_film(path, stored, syntax.demuxer)
        if width is not None:
            shown = square_size(images[0].shape, width)
        count = int(stored.get("NumberOfFrames") or len(images))
        return images[:count], probes_of_film(images), declared, shown
    except (IngestError, TypeError, ArithmeticError, *READ_ERRORS) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise FrameError(f"{path} cannot be decoded: {reason}") from error


def _read_inner_film(path: Path, stored: Any, bare: str) -> tuple[Images, tuple[int, int]]:
    """All fragments are one film: its pictures, and the size that it says they are shown in."""
    film = get_frame(stored.PixelData, 0, number_of_frames=1)
    images, shown = read_stored(path, io.BytesIO(film), container_of(film, bare))
    if images[0].shape != (stored.Rows, stored.Columns):
        raise FrameError(
            f"{path} says {stored.Rows} x {stored.Columns} pixels, its film has "
            f"{images[0].shape[0]} x {images[0].shape[1]}"
        )
    return images, shown


def _read_pictures(stored: Any, encoding: Encoding) -> Images:
    element = stored["PixelData"]
    has_fragments = element.is_undefined_length
    table = stored.get("ExtendedOffsetTable") or b""
    held = PixelData(
        0,
        UNDEFINED if has_fragments else len(element.value),
        is_words=element.VR == "OW",
        is_little=encoding.is_little,
        frame_offsets=struct.unpack(f"<{len(table) // 8}Q", table),
    )
    ending = _FRAGMENTS_END if has_fragments else b""
    window = Window(io.BytesIO(element.value + ending))
    layout = make_layout(_declared_pixels(stored, encoding))
    found = find_pictures(held, window, layout, _choose)
    if "truncated_frames" in found.warnings:
        raise TruncatedError(f"the file ends after {counted(found.count, 'whole frame')}")
    return [found.decoder.luma(found.read(k)) for k in range(found.count)]


def _choose(first: bytes, layout: Layout) -> Decoder:
    return choose_compressed(first, layout, lambda: decode_by_library)


def _declared_pixels(stored: Any, encoding: Encoding) -> DeclaredPixels:
    def number(keyword: str) -> int | None:
        value = stored.get(keyword)
        return None if value is None else int(value)

    return DeclaredPixels(
        rows=number("Rows"),
        columns=number("Columns"),
        samples=number("SamplesPerPixel"),
        photometric=stored.get("PhotometricInterpretation") or "",
        bits_allocated=number("BitsAllocated"),
        bits_stored=number("BitsStored"),
        high_bit=number("HighBit"),
        representation=number("PixelRepresentation"),
        planar_configuration=number("PlanarConfiguration"),
        frames=max(0, number("NumberOfFrames") or 0) or None,
        tables=tuple(_table(stored, colour, encoding) for colour in COLOURS),
        contrast=declare_contrast(
            stored,
            lambda place, keyword: _raw(place, keyword) or b"",
            lambda place, keyword: place.get(keyword) or (),
            is_little=encoding.is_little,
        ),
    )


def _table(stored: Any, colour: str, encoding: Encoding) -> DeclaredTable:
    """A palette's table as the file holds it: what pydicom makes of its values depends on more."""
    name = f"{colour}PaletteColorLookupTable"
    descriptor, entries, segments = (
        _raw(stored, keyword)
        for keyword in (f"{name}Descriptor", f"{name}Data", f"Segmented{name}Data")
    )
    return DeclaredTable(descriptor or b"", entries or b"", segments, encoding.is_little)


def _raw(stored: Any, keyword: str) -> bytes | None:
    """An element's value as the file holds it, None where there is none."""
    value: bytes | None = getattr(stored.get_item(keyword), "value", None)
    return value


def _declared(item: Any) -> DeclaredRegion:
    """An item of SequenceOfUltrasoundRegions; one that lacks a corner is no box."""
    corners = ("MinX0", "MinY0", "MaxX1", "MaxY1")
    left, top, right, bottom = (int(item.get(f"RegionLocation{each}", -1)) for each in corners)
    deltas_cm = [item.get("PhysicalDeltaY"), item.get("PhysicalDeltaX")]
    return DeclaredRegion(
        left,
        top,
        right,
        bottom,
        item.get("RegionSpatialFormat"),
        item.get("RegionDataType"),
        (item.get("PhysicalUnitsXDirection"), item.get("PhysicalUnitsYDirection")),
        None if None in deltas_cm else (float(deltas_cm[0]), float(deltas_cm[1])),
    )
