"""The folder that clips live in: one server's own, and how much still fits."""

import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from server.errors import SettingsError, StorageError, storage_errors

RESERVE_BYTES = 64 << 20
"""Kept free of uploads, so that results of what is stored and the ledger always find room."""

CLIP_PREFIX = "c_"

_CLIP_NAME = re.compile(f"{CLIP_PREFIX}[A-Za-z0-9_-]{{16}}")
_COMING_PREFIX, _GONE_PREFIX = ".coming-", ".gone-"
"""Of folders that hold no clip: what is no clip yet, and one that is being removed."""

PART_PREFIX = "part-"
"""Of a clip's files that are not whole yet."""

_PASSING_PREFIX = "server-"
_READ_BYTES = 1 << 20


class Room:
    """One server's folder, locked for as long as this process has it open.

    Attributes:
        last_used_s: when a server last had it, in seconds since 1970; None where none had.
    """

    def __init__(self, folder: Path, reserve_bytes: int = RESERVE_BYTES) -> None:
        """Make it, if need be, and lock it.

        Raises:
            SettingsError: it cannot be used, or another server uses it.
        """
        self.folder = folder
        self.last_used_s = _last_change_s(folder / "lock")
        self._is_passing = False
        self._reserve_bytes = reserve_bytes
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = (folder / "lock").open("wb")
        except OSError as error:
            raise SettingsError(
                f"GDKVM_CLIP_DIR: {folder} cannot be written to ({error.strerror})"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise SettingsError(
                f"another server keeps its clips in {folder}: stop it, or set GDKVM_CLIP_DIR to "
                "another folder"
            ) from error

    @classmethod
    def passing(cls, folder: Path) -> "Room":
        """A folder in this one that does not outlive its server, whatever ends that.

        Raises:
            SettingsError: it cannot be made.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with (folder / "passing.lock").open("wb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                for left in folder.glob(f"{_PASSING_PREFIX}*"):
                    if _is_left(left / "lock"):
                        remove(left)
                for left in folder.glob(f"{_GONE_PREFIX}*"):
                    remove(left)
                room = cls(Path(tempfile.mkdtemp(prefix=_PASSING_PREFIX, dir=folder)))
        except OSError as error:
            raise SettingsError(
                f"GDKVM_CLIP_DIR: {folder} cannot be written to ({error.strerror})"
            ) from error
        room._is_passing = True
        return room

    def clips(self) -> list[Path]:
        """The folders that are named as those of clips are; others are none of ours."""
        found = self.folder.glob(f"{CLIP_PREFIX}*")
        return [path for path in found if _CLIP_NAME.fullmatch(path.name) and path.is_dir()]

    def clear(self) -> None:
        """Remove what a server left that was killed while something came, was made or removed."""
        for prefix in (_COMING_PREFIX, _GONE_PREFIX):
            for path in self.folder.glob(f"{prefix}*"):
                remove(path)
        for folder in self.clips():
            for path in folder.glob(f"{PART_PREFIX}*"):
                path.unlink(missing_ok=True)

    def make(self, name: str) -> Path:
        """Make a clip's folder.

        Raises:
            StorageError: the disk is full.
        """
        path = self.folder / name
        with storage_errors():
            path.mkdir(mode=0o700)
        return path

    def make_passing(self) -> Path:
        """Make a folder that does not outlive the server, for what is no clip yet.

        Raises:
            StorageError: the disk is full.
        """
        with storage_errors():
            return Path(tempfile.mkdtemp(prefix=_COMING_PREFIX, dir=self.folder))

    def check(self, wanted_bytes: int = 0) -> None:
        """Refuse what would fill the disk before its first byte is written.

        Raises:
            StorageError: so many bytes do not fit.
        """
        free_bytes = shutil.disk_usage(self.folder).free
        if free_bytes < wanted_bytes + self._reserve_bytes:
            raise StorageError("too little room is left on the disk; make some, or try later")

    def note_use(self) -> None:
        """Let the next server see how long nobody had the folder."""
        with suppress(OSError):
            os.utime(self._lock.fileno())

    def close(self) -> None:
        """Let another server have it; one that passes is removed."""
        if self._is_passing:
            remove(self.folder)
        self._lock.close()


def _last_change_s(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def _is_left(path: Path) -> bool:
    """Whether a lock is there that nobody holds; a folder without one is none of ours."""
    try:
        with path.open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, FileNotFoundError, NotADirectoryError):
        return False
    return True


def remove(folder: Path) -> None:
    """Remove a folder with all that is in it, if it is there; at once, so that no half is left."""
    gone = folder.with_name(f"{_GONE_PREFIX}{folder.name.removeprefix(_GONE_PREFIX)}")
    with suppress(OSError):
        folder.rename(gone)
    for path in (gone, folder):
        shutil.rmtree(path, ignore_errors=True)


def seal(path: Path) -> tuple[str, int]:
    """Make a file safe from a power cut.

    Returns:
        Its SHA-256 in hexadecimal, and its length.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            digest.update(piece)
        os.fsync(file.fileno())
        length = file.tell()
    _sync(path.parent)
    _sync(path.parent.parent)
    return digest.hexdigest(), length


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole and safe, or not at all.

    Raises:
        StorageError: the disk is full.
    """
    part = path.with_name(PART_PREFIX + path.name)
    try:
        with storage_errors():
            part.write_bytes(content)
            put(part, path)
    finally:
        part.unlink(missing_ok=True)


def put(part: Path, path: Path) -> None:
    """Give a whole file its name; a power cut leaves it whole, or not there.

    Source:
        fsync(2): neither a file's bytes nor its name are on the disk before both are synced.
    """
    _sync(part)
    part.rename(path)
    _sync(path.parent)


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(entry.stat().st_size for entry in os.scandir(folder) if entry.is_file())


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
