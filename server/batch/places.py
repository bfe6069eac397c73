"""Where an archive's results are put: a folder of this machine, or what fsspec makes look like one.

A file is there whole or not at all, and one run at a time writes. In a folder a second run is
refused for as long as the first one lives. Elsewhere nobody can tell whether a run still lives, so
the last one that began is the only one that may go on.
"""

import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Protocol

import fsspec

from model import EchoError
from server.batch.errors import ListingError, PlaceError
from server.errors import storage_errors

Write = Callable[[BinaryIO], object]

LOCK, CLAIM = ".lock", ".run"
_TOKEN_BYTES = 8


class Place(Protocol):
    """Files in folders, by name; raises PlaceError where it cannot be reached."""

    def names(self, folder: str) -> list[str]:
        """The files of a folder, in order, but not those that are half written; it need not be."""

    def read(self, folder: str, name: str) -> bytes:
        """All of a file."""

    def write(self, folder: str, name: str, write: Write) -> None:
        """Put a file in its place at once; another one of that name is replaced.

        Raises:
            StorageError: the disk is full.
            PlaceError: another run writes here by now.
        """

    def remove(self, folder: str, name: str) -> None:
        """Remove a file."""

    def close(self) -> None:
        """Let another run in."""


def open_place(told: str) -> Place:
    """Open what ``--out`` names, for this run alone.

    Raises:
        ListingError: another run works there, or it cannot be used.
    """
    return RemotePlace(told) if is_remote(told) else Folder(Path(told))


def is_remote(told: str) -> bool:
    """Whether it is an address, and no path."""
    return "://" in told


class Folder:
    """A folder of this machine."""

    def __init__(self, path: Path) -> None:
        """Make it, if need be, and lock it."""
        self._path = path
        path.mkdir(parents=True, exist_ok=True)
        self._lock = (path / LOCK).open("wb")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise ListingError(f"another run writes to {path}") from error
        for leftover in path.glob("*/.*.tmp"):
            leftover.unlink()

    def names(self, folder: str) -> list[str]:
        """The files of a folder; see Place."""
        return sorted(path.name for path in (self._path / folder).glob("[!.]*"))

    def read(self, folder: str, name: str) -> bytes:
        """All of a file."""
        return (self._path / folder / name).read_bytes()

    def write(self, folder: str, name: str, write: Write) -> None:
        """Put a file in its place after its bytes are on the disk; see Place."""
        place = self._path / folder
        hidden = place / f".{name}.tmp"
        with storage_errors():
            place.mkdir(exist_ok=True)
            with hidden.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            hidden.replace(place / name)

    def remove(self, folder: str, name: str) -> None:
        """Remove a file."""
        (self._path / folder / name).unlink()

    def close(self) -> None:
        """Let another run in."""
        self._lock.close()


class RemotePlace:
    """An address such as ``s3://bucket/results``, with the library that fsspec needs for it."""

    def __init__(self, url: str) -> None:
        """Reach it, and claim it for this run."""
        self._url = url
        self._token = secrets.token_hex(_TOKEN_BYTES).encode()
        try:
            self._files, self._root = fsspec.url_to_fs(url, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise ListingError(f"{url} cannot be written to: {error}") from error
        with self._our_errors():
            self._files.makedirs(self._root, exist_ok=True)
            self._files.pipe_file(self._at(CLAIM), self._token)
            for leftover in self._files.glob(self._at("*", ".*.tmp")):
                self._files.rm_file(leftover)

    def _at(self, *names: str) -> str:
        return "/".join((self._root, *names))

    def names(self, folder: str) -> list[str]:
        """The files of a folder; see Place."""
        found: list[str] = []
        with self._our_errors(), suppress(FileNotFoundError):
            found = self._files.ls(self._at(folder), detail=False)
        names = (path.rstrip("/").rpartition("/")[2] for path in found)
        return sorted(name for name in names if not name.startswith("."))

    def read(self, folder: str, name: str) -> bytes:
        """All of a file."""
        with self._our_errors():
            return bytes(self._files.cat_file(self._at(folder, name)))

    def write(self, folder: str, name: str, write: Write) -> None:
        """Put a file in its place at once; see Place."""
        hidden = self._at(folder, f".{name}.{self._token.decode()}.tmp")
        with self._our_errors():
            self._check_claim()
            self._files.makedirs(self._at(folder), exist_ok=True)
            with self._files.open(hidden, "wb") as file:
                write(file)
            self._check_claim()
            self._files.mv(hidden, self._at(folder, name))

    def _check_claim(self) -> None:
        try:
            claim = self._files.cat_file(self._at(CLAIM))
        except FileNotFoundError:
            claim = None
        if claim != self._token:
            raise PlaceError(f"another run has begun to write to {self._url}; this one ends")

    def remove(self, folder: str, name: str) -> None:
        """Remove a file."""
        with self._our_errors():
            self._files.rm_file(self._at(folder, name))

    def close(self) -> None:
        """Nothing: the next run claims it anyway."""

    @contextmanager
    def _our_errors(self) -> Iterator[None]:
        try:
            with storage_errors():
                yield
        except EchoError:
            raise
        # Each file system has a library of its own, with errors of its own.
        except Exception as error:
            raise PlaceError(f"{self._url} cannot be reached: {error}") from error
