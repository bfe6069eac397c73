"""The one way in: a path becomes a clip, or an IngestError."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from server.ingest.archive import the_only_clip
from server.ingest.clip import Clip, IngestLimits
from server.ingest.dicom import open_dicom
from server.ingest.errors import EmptyFileError, NotAClipError, TooLargeError
from server.ingest.film import open_film_clip
from server.ingest.sniff import SNIFF_BYTES, Kind, sniff


@contextmanager
def open_clip(path: Path, limits: IngestLimits | None = None) -> Iterator[Clip]:
    """Open a clip by what the file holds; its name is never looked at.

    Args:
        path: a DICOM file, a zip of one DICOM clip, an MP4, MOV, AVI or GIF.
        limits: bounds, the defaults where None.

    Yields:
        The clip. Its frames can be read until the block is left.

    Raises:
        IngestError: whatever is wrong with the file.
    """
    limits = limits or IngestLimits()
    with path.open("rb") as file, ExitStack() as stack:
        _check_length(file, limits)
        kind = sniff(file.read(SNIFF_BYTES))
        inner: BinaryIO = file
        if kind is Kind.ZIP:
            inner, kind = stack.enter_context(the_only_clip(file, limits))
        if kind is None:
            raise NotAClipError("this file is neither DICOM, zip, MP4, MOV, AVI nor GIF")
        if kind is Kind.DICOM:
            yield stack.enter_context(open_dicom(inner, limits))
        else:
            yield stack.enter_context(open_film_clip(inner, kind.value, limits))


def _check_length(file: BinaryIO, limits: IngestLimits) -> None:
    size = file.seek(0, 2)
    file.seek(0)
    if size == 0:
        raise EmptyFileError("the file is empty: send the clip again")
    if size > limits.file_bytes:
        raise TooLargeError(f"the file has {size} bytes, at most {limits.file_bytes} are read")
