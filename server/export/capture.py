"""The overlay as a DICOM object that every viewer shows: a multi-frame secondary capture.

Source:
    DICOM PS3.3 A.8.5 and C.8.6 (secondary capture), C.7.6.5 (cine), C.7.6.6 (multi-frame); PS3.5
    annexes A.4 and A.4.1 (encapsulated JPEG baseline).
"""

import struct
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from pydicom import Dataset
from pydicom.uid import JPEGBaseline8Bit, MultiFrameTrueColorSecondaryCaptureImageStorage

from model import Frame
from server.export.deidentify import Deidentifier
from server.export.film import starts_s
from server.export.objects import NOTICE, Kind, Maker, begin_object, reference, write_object
from server.export.overlay import Findings, pictures
from server.export.pen import Canvas

_KIND = Kind(
    "secondary-capture",
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    "US",
    920,
    "GDKVM Live overlay (research use only)",
)
_QUALITY = [
    cv2.IMWRITE_JPEG_QUALITY, 92,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
]  # fmt: skip
_PIXEL_DATA = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF)
_ITEM, _END = 0xE000, 0xE0DD
MOST_TEXT_BYTES = 0xFFFE


def write_capture(
    path: Path,
    frames: Iterable[Frame],
    findings: Findings,
    maker: Maker,
    deidentifier: Deidentifier | None = None,
) -> None:
    """Write the overlay as a secondary capture, frame by frame, with bounded memory.

    Args:
        path: where to write.
        frames: the clip's frames once more; without the patient's name in them where the object
            is to be without.
        findings: what was found in them.
        maker: what the object is made of; its clip need not be a DICOM file.
        deidentifier: takes the patient out, None to keep the patient.
    """
    scratch = path.with_name(path.name + ".jpegs")
    try:
        lengths, size, raw_bytes = _write_pictures(scratch, frames, findings)
        made = _describe(findings, maker, size, raw_bytes / max(1, sum(lengths)))
        if deidentifier is not None:
            deidentifier.apply(made, are_pixels_clean=True)
        write_object(path, made, JPEGBaseline8Bit)
        _append_pixels(path, scratch, lengths)
    finally:
        scratch.unlink(missing_ok=True)


def _write_pictures(
    scratch: Path, frames: Iterable[Frame], findings: Findings
) -> tuple[list[int], tuple[int, int], int]:
    """Encode every picture; returns their lengths, their rows and columns, and their raw bytes."""
    lengths: list[int] = []
    size, raw_bytes = (0, 0), 0
    with scratch.open("wb") as file:
        for picture, _, _ in pictures(frames, findings):
            size, raw_bytes = (picture.shape[0], picture.shape[1]), raw_bytes + picture.nbytes
            lengths.append(file.write(_jpeg(picture)))
    return lengths, size, raw_bytes


def _jpeg(picture: Canvas) -> bytes:
    encoded = cv2.imencode(".jpg", np.ascontiguousarray(picture[..., ::-1]), _QUALITY)[1].tobytes()
    return encoded + b"\0" * (len(encoded) % 2)


def _describe(findings: Findings, maker: Maker, size: tuple[int, int], ratio: float) -> Dataset:
    made = begin_object(_KIND, maker, findings.view or "")
    made.ImageType = ["DERIVED", "SECONDARY"]
    made.ConversionType = "WSD"
    made.PatientOrientation = ""
    made.BodyPartExamined = "HEART"
    made.DerivationDescription = f"Outlines, volume curve and figures drawn in. {NOTICE}"
    made.Rows, made.Columns = size
    made.SamplesPerPixel = 3
    made.PhotometricInterpretation = "YBR_FULL_422"
    made.PlanarConfiguration = 0
    made.BitsAllocated = made.BitsStored = 8
    made.HighBit = 7
    made.PixelRepresentation = 0
    made.NumberOfFrames = len(findings.frames)
    _add_times(made, [frame.time_us for frame in findings.frames])
    origin = maker.origin
    earlier = [origin.lossy] if origin and origin.lossy else []
    made.LossyImageCompression = "01"
    made.LossyImageCompressionRatio = [*(each.ratio for each in earlier), f"{ratio:.4g}"]
    made.LossyImageCompressionMethod = [*(each.method for each in earlier), "ISO_10918_1"]
    is_clean = origin is not None and origin.is_burned_in is False
    made.BurnedInAnnotation = "NO" if is_clean else "YES"
    if origin and origin.sop_class_uid and origin.sop_instance_uid:
        made.SourceImageSequence = [reference(origin.sop_class_uid, origin.sop_instance_uid)]
    return made


def _add_times(made: Dataset, times_us: Sequence[int | None]) -> None:
    """Say when each picture is shown; pages, where the clip does not know.

    Source:
        DICOM PS3.3 C.7.6.6 and C.8.6.3 (one picture alone is no increment from another).
    """
    if len(times_us) < 2:
        return
    starts = starts_s(times_us)
    if starts is None:
        made.FrameIncrementPointer = 0x00182001
        made.PageNumberVector = list(range(1, len(times_us) + 1))
        return
    steps_ms = [round(1000 * step, 3) for step in np.diff(starts)]
    if max(steps_ms) - min(steps_ms) <= 0.002:
        made.FrameIncrementPointer = 0x00181063
        made.FrameTime = f"{1000 * (starts[-1] - starts[0]) / len(steps_ms):.6g}"
    else:
        made.FrameIncrementPointer = 0x00181065
        made.FrameTimeVector = increments_ms(starts)


def increments_ms(starts: Sequence[float]) -> list[str]:
    """Write the time from each picture to the next as FrameTimeVector, as finely as it takes.

    Args:
        starts: when each picture is shown, in seconds.

    Source:
        DICOM PS3.5 section 7.1.2 (a DS holds less than 64 KiB where its VR is told).
    """
    for digits in (3, 2, 1, 0):
        # Rounded as times and not as steps, so that errors do not add up.
        rounded_ms = [round(1000 * (start - starts[0]), digits) for start in starts]
        steps = ["0", *(f"{b - a:.{digits}f}" for a, b in pairwise(rounded_ms))]
        if len("\\".join(steps)) <= MOST_TEXT_BYTES:
            break
    return steps


def _append_pixels(path: Path, scratch: Path, lengths: Sequence[int]) -> None:
    """Append the pixel data, one fragment a picture, behind the rest of the object."""
    offsets, offset = [], 0
    for length in lengths:
        offsets.append(offset)
        offset += 8 + length
    # A table whose offsets outgrow 32 bits may be left empty.
    table = struct.pack(f"<{len(offsets)}I", *offsets) if offset < 1 << 32 else b""
    with path.open("ab") as file, scratch.open("rb") as jpegs:
        file.write(_PIXEL_DATA + _item(_ITEM, len(table)) + table)
        for length in lengths:
            file.write(_item(_ITEM, length))
            file.write(jpegs.read(length))
        file.write(_item(_END, 0))


def _item(element: int, length: int) -> bytes:
    return struct.pack("<HHI", 0xFFFE, element, length)
