"""Sessions written down, where an operator wants it, so that they can be gone through again.

A log is a row of entries: how long its facts and its payload are, a checksum of both, the facts as
JSON, the payload. What a client said beside its frames is not in it: no header, no token, no key.
"""

import asyncio
import hashlib
import json
import logging
import os
import struct
import threading
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model import EchoError, Predictor
from server.answers import Answer
from server.errors import SettingsError
from server.protocol import DropReason, FrameHeader
from server.session import Arrival, Packet, Session
from server.settings import Settings
from server.snapshots import pack, unpack

logger = logging.getLogger(__name__)

FORMAT = 1
MAGIC = b"GDKVMLOG"
ENTRY = struct.Struct("<III")
SUFFIX = ".gdkvmlog"

_VARYING = ("mask", "stages_ms", "saved_seq")
"""What two runs of the same frames may say differently; of the mask its labels are compared."""


class Room:
    """The folder of logs: bounded, readable by this user alone; safe to use from all workers."""

    def __init__(self, folder: Path, most_bytes: int) -> None:
        """Open the folder, or make it.

        Raises:
            SettingsError: it cannot be used, or is another user's.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if folder.stat().st_uid != os.getuid():
                raise SettingsError(f"GDKVM_RECORD_DIR: {folder} belongs to another user")
            self._bytes = sum(size for size, *_ in _files(folder))
        except OSError as error:
            raise SettingsError(f"GDKVM_RECORD_DIR: {folder}: {error.strerror}") from error
        self._folder = folder
        self._most_bytes = most_bytes
        self._growing: set[Path] = set()
        self._lock = threading.Lock()

    def begin(self, session: str) -> Path:
        """A name for one more log, of which others may be of the same session."""
        with self._lock:
            for number in count():
                path = self._folder / f"{session}-{number}{SUFFIX}"
                if path not in self._growing and not path.exists():
                    break
            self._growing.add(path)
            return path

    def end(self, path: Path) -> None:
        """Say that a log grows no more, so that it may make room for others."""
        with self._lock:
            self._growing.discard(path)

    def take(self, wanted_bytes: int) -> bool:
        """Ask for room; the oldest logs that grow no more are deleted for it.

        Returns:
            False where there is none: sessions under way fill it.
        """
        with self._lock:
            if self._bytes + wanted_bytes > self._most_bytes:
                self._make(wanted_bytes)
            has_room = self._bytes + wanted_bytes <= self._most_bytes
            self._bytes += wanted_bytes if has_room else 0
            return has_room

    def _make(self, wanted_bytes: int) -> None:
        files = _files(self._folder)
        # An operator may have taken some away.
        self._bytes = sum(size for size, *_ in files)
        for size, _, path in sorted(files, key=lambda each: each[1]):
            if self._bytes + wanted_bytes <= self._most_bytes:
                return
            if path not in self._growing:
                path.unlink(missing_ok=True)
                self._bytes -= size


def _files(folder: Path) -> list[tuple[int, float, Path]]:
    """Bytes, time of the last change, and path of every log."""
    found = []
    for path in folder.glob(f"*{SUFFIX}"):
        with suppress(FileNotFoundError):
            told = path.stat()
            found.append((told.st_size, told.st_mtime, path))
    return found


class SessionLog:
    """One session's log in this process; where it cannot be written, the session goes on."""

    def __init__(self, room: Room, session: str, *, has_payloads: bool) -> None:
        """Begin a file.

        Args:
            room: where it lies.
            session: its public name.
            has_payloads: whether frames are kept, or their hashes alone.

        Raises:
            OSError: it cannot be written.
        """
        self._room = room
        self._has_payloads = has_payloads
        self._path = room.begin(session)
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError:
            room.end(self._path)
            raise
        self._file = os.fdopen(descriptor, "wb")
        room.take(len(MAGIC))
        self._file.write(MAGIC)

    def begin(self, facts: dict[str, Any], snapshot: bytes) -> None:
        """Say what the session is, and where it stood when it was taken up; empty where new."""
        self._write({"kind": "begin", "format": FORMAT, **facts}, snapshot)

    def note_answer(self, arrival: Arrival, answer: Answer) -> None:
        """Write a frame and what was said of it."""
        told = told_of(answer.messages, answer.labels_HW)
        self._note_frame("frame", arrival.header, arrival.payload, {"told": told})

    def note_failure(self, arrival: Arrival, error: EchoError) -> None:
        """Write the frame that ended the session."""
        self._note_frame("failure", arrival.header, arrival.payload, {"code": error.code})

    def note_drop(self, header: FrameHeader, reason: DropReason, packet: Packet) -> None:
        """Write that a frame was not looked at, and the packet that was decoded all the same."""
        self._note_frame("drop", header, packet, {"reason": reason})

    def note_end(self, messages: tuple[str, ...]) -> None:
        """Write the session's last words."""
        self._write({"kind": "end", "told": told_of(messages, None)}, b"")

    def close(self) -> None:
        """Let go of the file."""
        # What a full disk did not take is tried once more, in vain.
        with suppress(OSError):
            self._file.close()
        self._room.end(self._path)

    def _note_frame(
        self, kind: str, header: FrameHeader, payload: Packet, facts: dict[str, Any]
    ) -> None:
        if self._file.closed:
            return
        frame = {"kind": kind, **_facts_of(header), **facts}
        if payload is not None:
            frame["sha256"] = hashlib.sha256(payload).hexdigest()
        self._write(frame, payload if payload is not None and self._has_payloads else b"")

    def _write(self, facts: dict[str, Any], payload: bytes | memoryview) -> None:
        if self._file.closed:
            return
        text = json.dumps(facts).encode()
        checksum = zlib.crc32(payload, zlib.crc32(text))
        entry = ENTRY.pack(len(text), len(payload), checksum) + text
        try:
            if not self._room.take(len(entry) + len(payload)):
                logger.warning("a session is recorded no further: the folder of logs is full")
                self.close()
                return
            self._file.write(entry)
            self._file.write(payload)
            self._file.flush()
        except (OSError, ValueError) as error:
            logger.exception("a session is recorded no further", exc_info=error)
            self.close()


class Recorder:
    """Gives every session of this server its log."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        """Open the folder of logs.

        Raises:
            SettingsError: it cannot be used.
        """
        self._room = Room(folder, settings.record_max_bytes)
        self._has_payloads = settings.record_frames == "payloads"
        # Of its own: uploads may keep the threads that all share for seconds.
        self._thread = ThreadPoolExecutor(1, "recordings")

    async def begin(self, session: Session, predictor: Predictor) -> None:
        """Record a session from here on, if it is not recorded already.

        Args:
            session: new, or taken up from a snapshot.
            predictor: what answers it.
        """
        if session.witness is not None:
            return
        try:
            loop = asyncio.get_running_loop()
            # A copied context lets log lines name the session.
            begin = partial(copy_context().run, self._begin, session, predictor)
            session.witness = await loop.run_in_executor(self._thread, begin)
        except OSError as error:
            logger.error("a session cannot be recorded", extra={"why": error.strerror})

    def _begin(self, session: Session, predictor: Predictor) -> SessionLog | None:
        snapshot = b""
        if session.last_seq is not None:
            unsaved, whole = session.unsaved, session.snapshot()
            session.unsaved = unsaved
            if whole is None:
                logger.warning("a session is not recorded: too much video before it was taken up")
                return None
            snapshot, packets = _without_owner(whole, session.model.sha256)
            if packets and not self._has_payloads:
                logger.warning("a session is not recorded: pictures before it was taken up matter")
                return None
        log = SessionLog(self._room, session.name, has_payloads=self._has_payloads)
        choice = predictor.choice
        facts = {
            "session": session.name,
            "software": version("gdkvm-live"),
            "model": predictor.identity,
            "backend": choice and choice.backend,
            "precision": predictor.precision,
            "frames": "payloads" if self._has_payloads else "hashes",
            "hello": session.hello.model_dump(mode="json", exclude={"resume"}),
        }
        log.begin(facts, snapshot)
        return log


def open_recorder(settings: Settings) -> Recorder | None:
    """Open the folder of logs, where one is set.

    Raises:
        SettingsError: it cannot be used.
    """
    if settings.record_dir is None:
        return None
    recorder = Recorder(settings.record_dir, settings)
    logger.warning("live sessions are recorded", extra={"frames": settings.record_frames})
    return recorder


def told_of(messages: Sequence[str], labels_HW: NDArray[np.uint8] | None) -> list[dict[str, Any]]:
    """What messages say that must be said again when the same frames come again.

    Args:
        messages: as sent.
        labels_HW: the mask that a result among them holds, None where there is none.

    Returns:
        The messages without the times that they took, the mask as the hash of its labels.
    """
    told = [
        {name: value for name, value in json.loads(message).items() if name not in _VARYING}
        for message in messages
    ]
    if labels_HW is not None:
        told[0]["mask_sha256"] = hashlib.sha256(labels_HW.tobytes()).hexdigest()
    return told


def _facts_of(header: FrameHeader) -> dict[str, Any]:
    return {
        "seq": header.seq,
        "time_us": header.time_us,
        "codec": header.codec,
        "bytes": header.payload_bytes,
    }


def _without_owner(snapshot: bytes, model_sha256: str) -> tuple[bytes, int]:
    """Take out of a snapshot whose key opened the session, and its last answers.

    Returns:
        The rest, and how many packets of video are in it.
    """
    text, *parts = unpack(snapshot, model_sha256)
    facts = {**json.loads(text), "holder": None}
    kept = parts[: 3 + facts["packets"]]
    return pack(model_sha256, [json.dumps(facts).encode(), *kept]), facts["packets"]
