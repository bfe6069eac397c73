"""Zip files: unpacked by rules that leave no room for a bomb or a path.

Members are read by content and never by name; nothing is written under a name from the zip.

Source:
    PKWARE APPNOTE 6.3.10, sections 4.3.14 to 4.3.16 (ends of the central directory) and 4.4.
"""

import re
import shutil
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from model.pictures import Window
from server.ingest.clip import IngestLimits
from server.ingest.dataset import open_data_set
from server.ingest.errors import (
    AmbiguousArchiveError,
    IngestError,
    NoPixelsError,
    TooLargeError,
    TruncatedError,
    UnsafeArchiveError,
)
from server.ingest.sniff import SNIFF_BYTES, Kind, sniff

_END, _END_64, _LOCATOR = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_END_BYTES, _END_64_BYTES, _LOCATOR_BYTES = 22, 56, 20
_MAX_COMMENT_BYTES = 1 << 16
_ENTRY_BYTES = 1024
"""What one directory entry may take on average: its fixed part, its name and some extra."""

_DRIVE = re.compile(r"[A-Za-z]:")
_CHUNK_BYTES = 1 << 20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 1


@contextmanager
def open_archive(file: BinaryIO, limits: IngestLimits) -> Iterator["Archive"]:
    """Open a zip whose directory keeps the rules.

    Raises:
        UnsafeArchiveError: a rule is broken.
        TruncatedError: it has no directory, so its end is missing.
    """
    window = Window(file)
    _check_directory(window, limits)
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError) as error:
        raise UnsafeArchiveError(
            "the zip's directory cannot be read: zip the clip again"
        ) from error
    with archive:
        _check_count(len(archive.infolist()), limits)
        members = [member for member in archive.infolist() if not member.is_dir()]
        for member in members:
            _check_member(member, limits)
        if sum(member.compress_size for member in members) > window.size:
            raise UnsafeArchiveError("the files of the zip overlap: zip them again")
        total = sum(member.file_size for member in members)
        if total > limits.file_bytes:
            raise TooLargeError(
                f"the zip unpacks to {total} bytes, at most {limits.file_bytes} are read"
            )
        yield Archive(archive, members, limits)


def _check_directory(window: Window, limits: IngestLimits) -> None:
    """Bound the directory, as either of its ends tells of it, before it is read as a whole."""
    start = max(0, window.size - _END_BYTES - _MAX_COMMENT_BYTES)
    tail = window.read_at(start, window.size - start)
    found = tail.rfind(_END)
    if found < 0 or len(tail) - found < _END_BYTES:
        raise TruncatedError("the zip has no end: it was cut short, send the whole file")
    told = [struct.unpack_from("<HI", tail, found + 10), *_large_ends(window, start + found)]
    for members, directory_bytes in told:
        _check_count(members, limits)
        if directory_bytes > limits.archive_members * _ENTRY_BYTES:
            raise UnsafeArchiveError("the zip's directory is too long: zip the clip again")


def _large_ends(window: Window, end: int) -> list[tuple[int, ...]]:
    """Members and bytes of the directory as ZIP64 tells them, which goes before the plain end.

    Where that record lies its locator says, and its place before the locator, and readers differ in
    which of the two they believe.
    """
    locator = window.read_at(max(0, end - _LOCATOR_BYTES), _LOCATOR_BYTES)
    if not locator.startswith(_LOCATOR):
        return []
    (said,) = struct.unpack_from("<Q", locator, 8)
    places = (said, max(0, end - _LOCATOR_BYTES - _END_64_BYTES))
    records = [window.read_at(place, _END_64_BYTES) for place in places]
    return [
        struct.unpack_from("<QQ", record, 32)
        for record in records
        if record.startswith(_END_64) and len(record) == _END_64_BYTES
    ]


def _check_count(members: int, limits: IngestLimits) -> None:
    if members > limits.archive_members:
        raise UnsafeArchiveError(
            f"the zip has {members} members, at most {limits.archive_members} are read"
        )


def _check_member(member: zipfile.ZipInfo, limits: IngestLimits) -> None:
    """Refuse what no honest zip of clips has."""
    mode = member.external_attr >> 16
    path = PurePosixPath(member.filename.replace("\\", "/"))
    has_drive = _DRIVE.match(member.filename) is not None
    if stat.S_ISLNK(mode):
        raise UnsafeArchiveError("the zip holds a link: zip the files themselves")
    if path.is_absolute() or ".." in path.parts or has_drive:
        raise UnsafeArchiveError("the zip holds a path that leads out of it: zip the files again")
    if member.flag_bits & _ENCRYPTED:
        raise UnsafeArchiveError("the zip is encrypted: send it without a password")
    if member.compress_type not in _METHODS:
        raise UnsafeArchiveError("the zip uses a method other than deflate: zip the files again")
    if member.file_size > limits.archive_ratio * max(1, member.compress_size):
        raise UnsafeArchiveError(
            f"the zip unpacks to more than {limits.archive_ratio} times its size"
        )


class Archive:
    """An open zip that kept the rules; see `open_archive`."""

    def __init__(
        self, archive: zipfile.ZipFile, members: list[zipfile.ZipInfo], limits: IngestLimits
    ) -> None:
        """Take over an open zip.

        Args:
            archive: the zip.
            members: its files, in order.
            limits: bounds of what is unpacked.
        """
        self._archive = archive
        self._members = members
        self._limits = limits
        self._left = limits.file_bytes

    def clips(self) -> Iterator[tuple[BinaryIO, Kind]]:
        """Unpack the members that hold pictures, one after the other.

        Yields:
            A file that is gone once the next one is asked for, and its kind.

        Raises:
            UnsafeArchiveError: a zip in the zip, or a member that is longer than it says.
        """
        for member in self._members:
            kind = self._kind(member)
            if kind is Kind.ZIP:
                raise UnsafeArchiveError("there is a zip in the zip: send the inner one")
            if kind is None:
                continue
            with tempfile.TemporaryFile() as unpacked:
                self._unpack(member, unpacked)
                if kind is not Kind.DICOM or _has_pictures(unpacked, self._limits):
                    unpacked.seek(0)
                    yield unpacked, kind

    def _kind(self, member: zipfile.ZipInfo) -> Kind | None:
        with _broken_member(), self._archive.open(member) as packed:
            return sniff(packed.read(SNIFF_BYTES))

    def _unpack(self, member: zipfile.ZipInfo, unpacked: BinaryIO) -> None:
        with _broken_member(), self._archive.open(member) as packed:
            while piece := packed.read(_CHUNK_BYTES):
                self._left -= len(piece)
                if self._left < 0:
                    raise TooLargeError(
                        f"the zip unpacks to more than {self._limits.file_bytes} bytes"
                    )
                unpacked.write(piece)
        unpacked.flush()


@contextmanager
def _broken_member() -> Iterator[None]:
    """Turn what zipfile raises into ours."""
    try:
        yield
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        OSError,
        NotImplementedError,
        RuntimeError,
        ValueError,  # a name that is no text, a place beyond any file
        OverflowError,
    ) as error:
        raise UnsafeArchiveError("a file in the zip is broken: zip the clip again") from error


def _has_pictures(file: BinaryIO, limits: IngestLimits) -> bool:
    """Whether a DICOM file holds pixel data; a broken one counts, so that it is reported."""
    try:
        with open_data_set(file, limits) as data_set:
            return data_set.header.pixels is not None
    except IngestError:
        return True


@contextmanager
def the_only_clip(file: BinaryIO, limits: IngestLimits) -> Iterator[tuple[BinaryIO, Kind]]:
    """Unpack the one clip of a zip.

    Raises:
        AmbiguousArchiveError: there are several.
        NoPixelsError: there is none.
    """
    with open_archive(file, limits) as archive, tempfile.TemporaryFile() as kept:
        kinds = []
        for unpacked, kind in archive.clips():
            kinds.append(kind)
            if len(kinds) > 1:
                raise AmbiguousArchiveError(
                    "the zip holds several clips: send one of them, or send it as a study"
                )
            shutil.copyfileobj(unpacked, kept, _CHUNK_BYTES)
        if not kinds:
            raise _no_clip()
        kept.flush()
        kept.seek(0)
        yield kept, kinds[0]


def _no_clip() -> NoPixelsError:
    return NoPixelsError("the zip holds no DICOM image, MP4, MOV, AVI or GIF")


def unpack_study(path: Path, folder: Path, limits: IngestLimits | None = None) -> tuple[Path, ...]:
    """Unpack every clip of a zip into a folder, under numbers for names.

    Args:
        path: a zip.
        folder: an empty folder; the caller deletes it.
        limits: bounds, the defaults where None.

    Returns:
        The clips in the zip's order; members without pictures are left out.

    Raises:
        NoPixelsError: no clip in it.
        UnsafeArchiveError: a rule for zips is broken.
        TooLargeError: it unpacks to more than allowed.
    """
    limits = limits or IngestLimits()
    clips: list[Path] = []
    with path.open("rb") as file, open_archive(file, limits) as archive:
        for unpacked, _ in archive.clips():
            target = folder / f"{len(clips):04d}"
            with target.open("xb") as out:
                shutil.copyfileobj(unpacked, out, _CHUNK_BYTES)
            clips.append(target)
    if not clips:
        raise _no_clip()
    return tuple(clips)
