"""What an association brings, on its way to the disk: in a folder of ours, and bounded.

pynetdicom by itself writes to the system's folder for temporary files, as much as comes, and leaves
there what an association that broke off had brought.
"""

import logging
import shutil
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider

from model import EchoError
from server.clips import Room
from server.errors import FileTooLargeError, storage_errors

logger = logging.getLogger(__name__)

MOST_PDU_BYTES = 1 << 20
"""Longest unit read from a peer, whatever length it claims."""

MOST_MESSAGE_BYTES = 64 << 10
"""Longest command, and longest data set of anything else than a C-STORE."""

MOST_WAITING = 4
"""Messages of an association that may wait; without a negotiated window, a peer sends one."""

_CHECK_BYTES = 16 << 20
UNREADABLE = (
    AttributeError, IndexError, KeyError, NotImplementedError, OSError, TypeError, ValueError,
    struct.error,
)  # fmt: skip
"""What pynetdicom raises over a message that is none."""


class Arrival:
    """One data set as it comes; what cannot be kept is passed over, so that it can be answered.

    It stands where pynetdicom has its temporary file.

    Attributes:
        path: where it is.
        error: why it is not whole there, None while it is.
    """

    def __init__(self, folder: Callable[[], Path], begun: Path, room: Room, limit: int) -> None:
        """Go on with a file that was begun elsewhere, and remove that one.

        Args:
            folder: makes an association's own, if need be.
            begun: the file's first bytes.
            room: of all clips.
            limit: most bytes.
        """
        self.path, self.name = begun, str(begun)
        self.error: EchoError | None = None
        self._room = room
        self._limit = limit
        self._count = self._checked = 0
        self._file: BinaryIO | None = None
        self._try(partial(self._begin, folder))

    @property
    def file(self) -> "Arrival":
        """What pynetdicom flushes."""
        return self

    @property
    def is_open(self) -> bool:
        """Whether more may come."""
        return self._file is not None

    def _begin(self, folder: Callable[[], Path]) -> None:
        start = self.path.read_bytes()
        self.path.unlink()
        self._room.check()
        self.path = folder() / self.path.name
        self.name = str(self.path)
        self._file = self.path.open("wb")
        self._file.write(start)
        self._count = len(start)

    def write(self, piece: bytes) -> None:
        """Add what came."""
        if self.error is None:
            self._try(partial(self._add, piece))

    def _add(self, piece: bytes) -> None:
        self._count += len(piece)
        if self._count > self._limit:
            raise FileTooLargeError(f"an instance may have {self._limit} bytes")
        if self._count - self._checked >= _CHECK_BYTES:
            self._checked = self._count
            self._room.check()
        assert self._file is not None
        self._file.write(piece)

    def _try(self, step: Callable[[], None]) -> None:
        """Take a step, or remember why it cannot be taken."""
        try:
            with storage_errors():
                step()
        except EchoError as error:
            self.error = error
            self.close()
            self.path.unlink(missing_ok=True)

    def flush(self) -> None:
        """Do nothing: it is enough that the file is whole when it is closed."""

    def close(self) -> None:
        """Write what waits, as far as there is room; once is enough."""
        file, self._file = self._file, None
        if file is not None:
            self._try(file.close)


class Messages(DIMSEServiceProvider):
    """Receives an association's messages; used from the thread that reads its socket."""

    def __init__(self, assoc: Association, room: Room, limit: int) -> None:
        """Take the place of an association's own provider.

        Args:
            assoc: the association.
            room: of all clips.
            limit: most bytes of an instance.
        """
        super().__init__(assoc)
        self._room = room
        self._limit = limit
        self._folder: Path | None = None
        self._arrivals: list[Arrival] = []

    def receive_primitive(self, primitive: Any) -> None:
        """Read one unit; what is no message, or one too long, ends the association."""
        try:
            super().receive_primitive(primitive)
            self._check()
            self.divert()
        except UNREADABLE as error:
            logger.warning("unreadable DICOM message", extra={"kind": type(error).__name__})
            self.dul.event_queue.put("Evt19")

    def _check(self) -> None:
        message: Any = self.message
        parts = [] if message is None else [message.encoded_command_set, message.data_set]
        if any(part.tell() > MOST_MESSAGE_BYTES for part in parts):
            raise ValueError("a command is too long")
        if self.msg_queue.qsize() > MOST_WAITING:
            raise ValueError("messages come without waiting for answers")

    def divert(self) -> None:
        """Let a data set that has begun, or is whole already, be in a folder of ours."""
        message: Any = self.message
        if message is None or message._data_set_path is None:
            return
        if not isinstance(message._data_set_file, Arrival):
            message._data_set_file.close()
            begun = Path(message._data_set_path)
            arrival = Arrival(self._own_folder, begun, self._room, self._limit)
            self._arrivals = [each for each in self._arrivals if each.is_open] + [arrival]
            message._data_set_file, message._data_set_path = arrival, arrival.path

    def _own_folder(self) -> Path:
        if self._folder is None:
            self._folder = self._room.make_passing()
        return self._folder

    def clear(self) -> None:
        """Remove what was not taken."""
        for arrival in self._arrivals:
            arrival.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def read_bounded(line: Any, count: int) -> bytearray:
    """Read from an association's socket, no more than a peer may claim at once.

    Args:
        line: pynetdicom's wrapper of the socket.
        count: how many bytes are wanted.

    Returns:
        That many, or fewer where the peer left.

    Raises:
        OSError: too many, or the peer is silent in their midst.
    """
    if count > MOST_PDU_BYTES:
        raise OSError("the peer's unit is too long")
    piece = bytearray(count)
    view, filled = memoryview(piece), 0
    while filled < count:
        got = line.socket.recv_into(view[filled:])
        if not got:
            break
        filled += got
    view.release()
    del piece[filled:]
    return piece
