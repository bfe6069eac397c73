"""A DICOM file's header, found behind preamble, file meta and deflate, and what it is about.

Source:
    DICOM PS3.10 chapter 7 (file format), PS3.5 annex A.5 (deflated data sets).
"""

import tempfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from model.pictures import EXPLICIT_LITTLE, Syntax, Window, syntax_of
from server.ingest.clip import IngestLimits
from server.ingest.elements import Header, HeaderReader, detect_encoding
from server.ingest.errors import (
    MalformedHeaderError,
    NoPixelsError,
    TooLargeError,
    UnsupportedModalityError,
    UnsupportedObjectError,
)
from server.ingest.sniff import SNIFF_BYTES, begins_like_a_data_set
from server.ingest.tags import WANTED, Tag

_PREAMBLE_BYTES = 128
_CHUNK_BYTES = 1 << 20

_MODALITIES = ("US", "EC", "CD", "DD")
"""Ultrasound, and the retired terms for echocardiography and Doppler."""

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_ULTRASOUND = frozenset(_STORAGE + number for number in ("3", "3.1", "6", "6.1"))
_VOLUME = _STORAGE + "6.2"
_CAPTURE = frozenset(_STORAGE + number for number in ("7", "7.1", "7.2", "7.3", "7.4"))
STORED_CLASSES = _ULTRASOUND | _CAPTURE
"""What a sender is told that it may send; whether it is ultrasound, its header says."""

PRODUCT = "GDKVM Live"
"""What objects that are made here name as their Manufacturer."""

_DIRECTORY = "1.2.840.10008.1.3.10"
_MOVIE_GROUPS = (0x6003, 0x7FE1)
"""Where GE and Kretz keep raw movies and volumes."""


@dataclass(frozen=True, slots=True)
class DataSet:
    """A header, and the file that its pixel data lie in.

    Attributes:
        window: the file itself, or what a deflated one unpacked to.
        syntax: the transfer syntax that the file claims.
    """

    header: Header
    window: Window
    syntax: Syntax


@contextmanager
def open_data_set(
    file: BinaryIO, limits: IngestLimits, wanted: frozenset[int] = WANTED
) -> Iterator[DataSet]:
    """Read a DICOM file's header.

    Args:
        file: the file.
        limits: bounds of what is read.
        wanted: tags whose values are kept, TransferSyntaxUID among them.

    Raises:
        MalformedHeaderError: the header cannot be walked.
        TruncatedError: the file ends inside its header.
        UnsupportedSyntaxError: a transfer syntax that is not read.
        TooLargeError: a deflated data set unpacks to more than allowed.
    """
    with ExitStack() as stack:
        window = Window(file)
        reader = HeaderReader(window, wanted, limits.header_elements)
        head = window.read_at(0, SNIFF_BYTES)
        has_preamble = head[_PREAMBLE_BYTES:].startswith(b"DICM")
        if not has_preamble and not begins_like_a_data_set(head):
            raise MalformedHeaderError("the file has no DICOM preamble, and a stray first byte")
        start = _PREAMBLE_BYTES + 4 if has_preamble else 0
        meta_encoding = detect_encoding(window.read_at(start, 8), EXPLICIT_LITTLE)
        meta = reader.read(start, meta_encoding, group=0x0002)
        syntax = syntax_of(meta.text(Tag.TransferSyntaxUID))
        start = meta.end
        if syntax.is_deflated:
            unpacked = stack.enter_context(tempfile.TemporaryFile())
            _inflate(window, start, unpacked, limits)
            window, start = Window(unpacked), 0
            reader = HeaderReader(window, wanted, limits.header_elements)
        encoding = detect_encoding(window.read_at(start, 8), syntax.encoding)
        header = reader.read(start, encoding)
        header.values = meta.values | header.values
        yield DataSet(header, window, syntax)


def _inflate(window: Window, offset: int, unpacked: BinaryIO, limits: IngestLimits) -> None:
    """Unpack a deflated data set, no further than allowed."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    left = limits.file_bytes
    packed = piece = b""
    # After the last bytes were read, some of what they stand for may still wait: no more is asked
    # for at once than a chunk.
    while not inflater.eof and (packed or piece or offset < window.size):
        if not packed:
            packed = window.read_at(offset, _CHUNK_BYTES)
            offset += len(packed)
        try:
            piece = inflater.decompress(packed, _CHUNK_BYTES)
        except zlib.error as error:
            raise MalformedHeaderError("the deflated data set cannot be unpacked") from error
        left -= len(piece)
        if left < 0:
            raise TooLargeError(
                f"the deflated data set unpacks to more than {limits.file_bytes} bytes"
            )
        unpacked.write(piece)
        packed = inflater.unconsumed_tail
    unpacked.flush()


def check_object(header: Header) -> None:
    """Refuse what is no two-dimensional ultrasound picture, saying why.

    Raises:
        NoPixelsError: a report, a directory.
        UnsupportedModalityError: pictures, but not ultrasound.
        MalformedHeaderError: not even the kind of object is told.
        UnsupportedObjectError: ultrasound in 3-D, in a vendor's private groups alone, or made
            here of a clip, which a PACS may send back.
    """
    kind = header.text(Tag.SOPClassUID) or header.text(Tag.MediaStorageSOPClassUID)
    modality = header.text(Tag.Modality)
    if not kind and not modality:
        raise MalformedHeaderError("the header says neither SOPClassUID nor Modality")
    is_ultrasound = _is_ultrasound(kind, modality)
    if header.pixels is None:
        raise _no_pixels(header, kind, is_ultrasound=is_ultrasound)
    if not is_ultrasound:
        raise UnsupportedModalityError(
            f"this is DICOM of modality {_shown(modality)}, and not ultrasound (US): "
            "send an echocardiogram"
        )
    if header.text(Tag.Manufacturer) == PRODUCT:
        raise UnsupportedObjectError(
            f"this is what {PRODUCT} made of a clip, with outlines drawn in: send the clip itself"
        )
    if kind == _VOLUME:
        raise UnsupportedObjectError("3-D ultrasound volumes are not read: send a 2-D clip")


def _is_ultrasound(kind: str, modality: str) -> bool:
    if modality in _MODALITIES:
        return True
    if modality in ("", "OT"):
        return kind in _ULTRASOUND or kind in _CAPTURE or kind == _VOLUME
    return False


def _no_pixels(
    header: Header, kind: str, *, is_ultrasound: bool
) -> NoPixelsError | UnsupportedObjectError:
    if kind == _DIRECTORY:
        return NoPixelsError(
            "this is a directory (DICOMDIR) without pictures: send the clip itself"
        )
    private = [group for group in _MOVIE_GROUPS if group in header.private_groups]
    if is_ultrasound and private:
        return UnsupportedObjectError(
            f"the pictures are only in the vendor's private group {private[0]:04X}: "
            "export the clip as standard DICOM"
        )
    return NoPixelsError(
        "this DICOM object has no pixel data: it is no image, such as a report, or was cut short"
    )


def _shown(modality: str) -> str:
    """Repeat a modality only where it looks like one: headers may hold anything."""
    is_code = len(modality) <= 8 and modality.isascii() and modality.isalnum()
    return modality if is_code else "unknown"
