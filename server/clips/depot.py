"""Files of clips in a place that several servers see: a folder, or what fsspec makes look like one.

What is there never changes: every file has a name of its own, and a record says which one counts.
A file that a server wrote half, or too late, is one that nobody reads. Needs the extra ``redis``.
"""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem

from model import EchoError
from server.clips.room import RESERVE_BYTES
from server.errors import SettingsError, StorageError, StoreError, storage_errors

MARK = "gdkvm-share-"
"""Begins the name of the file that tells one place from another."""

_READ_BYTES = 1 << 20
_TOKEN_BYTES = 6


@dataclass(frozen=True, slots=True)
class Kept:
    """One file in the place.

    Attributes:
        name: its own, there.
        size_bytes: its length.
    """

    name: str
    size_bytes: int


class Depot:
    """One place; every method waits for it."""

    def __init__(self, place: str) -> None:
        """Make the folder, if need be.

        Args:
            place: a path or a URL, such as ``/mnt/clips`` or ``s3://bucket/clips``.

        Raises:
            SettingsError: it cannot be used.
        """
        try:
            # What another server wrote a moment ago is not to be missed.
            self._files, self._root = fsspec.url_to_fs(place, use_listings_cache=False)
            self._is_local = isinstance(self._files, LocalFileSystem)
            if self._is_local:
                Path(self._root).mkdir(parents=True, exist_ok=True, mode=0o700)
            else:
                self._files.makedirs(self._root, exist_ok=True)
        except (ImportError, ValueError, OSError) as error:
            # The address may hold a secret, so it is not repeated.
            raise SettingsError(f"GDKVM_CLIP_SHARE cannot be used: {error}") from error

        self._mark: str | None = None

    def _place(self, *names: str) -> str:
        return "/".join((self._root, *names))

    def check(self, wanted_bytes: int) -> None:
        """Refuse what would fill the disk, where the place is one.

        Raises:
            StorageError: so many bytes do not fit.
            StoreError: the place cannot be reached.
        """
        if not self._is_local:
            return
        with self._finding():
            free_bytes = shutil.disk_usage(self._root).free
        if free_bytes < wanted_bytes + RESERVE_BYTES:
            raise StorageError("too little room is left on the disk; make some, or try later")

    def put(self, clip: str, path: Path) -> Kept:
        """Keep a copy of a file; safe from a power cut, where the place is a disk.

        Raises:
            StorageError: the disk is full.
            StoreError: the place cannot be reached.
        """
        name = f"{path.name}~{secrets.token_hex(_TOKEN_BYTES)}"
        with _our_errors():
            if self._is_local:
                self._check_mark()
            self._files.makedirs(self._place(clip), exist_ok=True)
            try:
                self._copy_safely(path, self._place(clip, name))
            except BaseException:
                # Who tries again gives it another name, and halves would fill a disk that is full.
                with suppress(Exception):
                    self._files.rm_file(self._place(clip, name))
                raise
            return Kept(name, path.stat().st_size)

    def _copy_safely(self, path: Path, place: str) -> None:
        with path.open("rb") as source, self._files.open(place, "wb") as file:
            shutil.copyfileobj(source, file, _READ_BYTES)
            if self._is_local:
                file.flush()
                os.fsync(file.fileno())

    def _check_mark(self) -> None:
        # A folder that is no longer mounted must not be mistaken for the one that was.
        if self._mark is not None and not self.is_marked(self._mark):
            raise StoreError("GDKVM_CLIP_SHARE no longer leads to where clips are kept")

    @contextmanager
    def _finding(self) -> Iterator[None]:
        """Let what is not there count as gone only where the place itself is there."""
        try:
            with _our_errors():
                yield
        except FileNotFoundError:
            self._check_mark()
            raise

    def get(self, clip: str, kept: Kept, path: Path) -> None:
        """Copy a file here, whole or not at all.

        Raises:
            FileNotFoundError: it is no longer there.
            StorageError: the disk is full.
            StoreError: the place cannot be reached, or has not all of it.
        """
        part = path.with_name(f"part-{secrets.token_hex(_TOKEN_BYTES)}")
        try:
            with self._finding():
                with self._files.open(self._place(clip, kept.name), "rb") as source:
                    path.parent.mkdir(mode=0o700, exist_ok=True)
                    with part.open("wb") as file:
                        shutil.copyfileobj(source, file, _READ_BYTES)
                if part.stat().st_size != kept.size_bytes:
                    raise StoreError("a clip's file is not whole where it is kept; try again")
                part.rename(path)
        finally:
            part.unlink(missing_ok=True)

    def drop(self, clip: str, kept: Kept) -> None:
        """Remove one file, if it is there.

        Raises:
            StoreError: the place cannot be reached.
        """
        with suppress(FileNotFoundError), self._finding():
            self._files.rm_file(self._place(clip, kept.name))

    def clear(self, clip: str) -> None:
        """Remove all of a clip.

        Raises:
            StoreError: the place cannot be reached.
        """
        with suppress(FileNotFoundError), self._finding():
            self._files.rm(self._place(clip), recursive=True)

    def mark(self, name: str) -> None:
        """Leave a mark that others find."""
        with _our_errors():
            self._files.pipe_file(self._place(MARK + name), b"GDKVM Live keeps clips here.\n")

    def unmark(self, name: str) -> None:
        """Take a mark away."""
        with _our_errors():
            self._files.rm_file(self._place(MARK + name))

    def expect(self, name: str) -> None:
        """Write nothing from now on where this mark is missing."""
        self._mark = name

    def is_marked(self, name: str) -> bool:
        """Whether a mark is there."""
        with _our_errors():
            return bool(self._files.exists(self._place(MARK + name)))


@contextmanager
def _our_errors() -> Iterator[None]:
    try:
        with storage_errors():
            yield
    except (EchoError, FileNotFoundError):
        raise
    # Each file system has a library of its own, with errors of its own.
    except Exception as error:
        raise StoreError("the place where clips are kept cannot be reached; try again") from error
