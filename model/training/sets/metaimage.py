"""MetaImage files: a text header and raw pixels beside it.

Source:
    ITK's MetaImage documentation (https://docs.itk.org, "MetaIO"): sizes and spacings are x y z,
    the data run x fastest.
"""

import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import FrameError

TYPES = {
    "MET_UCHAR": "u1", "MET_CHAR": "i1", "MET_USHORT": "u2", "MET_SHORT": "i2",
    "MET_UINT": "u4", "MET_INT": "i4", "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip


def read_header(path: Path) -> dict[str, str]:
    """The fields of a header, as text.

    Raises:
        FrameError: no such file, or one that is no header of plain grey pixels in one other file.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise FrameError(f"{path} is no MetaImage header: {error}") from error
    fields = {}
    for line in lines:
        name, found, value = line.partition("=")
        if found:
            fields[name.strip()] = value.strip()
    missing = {"DimSize", "ElementType", "ElementDataFile"} - set(fields)
    if missing:
        raise FrameError(f"{path} lacks {', '.join(sorted(missing))}; it may be cut off")
    if fields["ElementType"] not in TYPES or fields.get("ElementNumberOfChannels", "1") != "1":
        raise FrameError(f"{path} holds no plain grey pixels: {fields['ElementType']}")
    return fields


def pixel_file(path: Path) -> Path:
    """The file that holds the pixels of a header.

    Raises:
        FrameError: as ``read_header``.
    """
    return path.parent / Path(read_header(path)["ElementDataFile"]).name


def read_metaimage(path: Path) -> tuple[NDArray[Any], tuple[float, float]]:
    """Pixels and their spacing.

    Returns:
        pixels_THW of one frame or many, and row and column spacing in mm.

    Raises:
        FrameError: a header or pixel file that is missing, cut off or of another length.
    """
    fields = read_header(path)
    try:
        size = [int(each) for each in fields["DimSize"].split()]
        spacing = [float(each) for each in fields.get("ElementSpacing", "1 1 1").split()]
    except ValueError as error:
        raise FrameError(f"{path}: {error}") from error
    if len(size) not in (2, 3) or min(size) < 1 or len(spacing) < 2 or min(spacing[:2]) <= 0:
        raise FrameError(f"{path}: no size or spacing of an image: {size}, {spacing}")
    is_swapped = fields.get("BinaryDataByteOrderMSB", "False").lower() == "true"
    kind = np.dtype(TYPES[fields["ElementType"]]).newbyteorder(">" if is_swapped else "<")
    payload = _payload(path, fields)
    wanted = int(np.prod(size)) * kind.itemsize
    if len(payload) != wanted:
        raise FrameError(
            f"{pixel_file(path)} holds {len(payload)} bytes where {path.name} says {wanted}"
        )
    columns, rows, frames = (*size, 1)[:3]
    return np.frombuffer(payload, kind).reshape(frames, rows, columns), (spacing[1], spacing[0])


def _payload(path: Path, fields: dict[str, str]) -> bytes:
    pixels = pixel_file(path)
    try:
        payload = pixels.read_bytes()
        is_packed = fields.get("CompressedData", "False").lower() == "true"
        return zlib.decompress(payload) if is_packed else payload
    except OSError as error:
        raise FrameError(f"{pixels} is missing") from error
    except zlib.error as error:
        raise FrameError(f"{pixels} is cut off or damaged: {error}") from error
