"""A recorded session gone through again: the same frames in the same order, answer by answer."""

import hashlib
import json
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from pydantic import BaseModel, ValidationError

from model import EchoError, Predictor
from server.errors import RecordingError, SnapshotError
from server.protocol import FrameHeader, Hello, ModelName
from server.recording import ENTRY, FORMAT, MAGIC, told_of
from server.session import Arrival, Session

Frames = Callable[[str], bytes | None]
"""Finds a frame's payload by its SHA-256; None where it is not there."""

_LONGEST_BYTES = 1 << 30


class Begin(BaseModel):
    """A log's first entry: what the session was when the log begins.

    Attributes:
        precision: None where the server did not choose it.
        software: version of the server; None in logs of those that did not say.
    """

    format: int
    session: str
    software: str | None = None
    model: ModelName
    backend: Literal["openvino", "onnxruntime", "torch"] | None
    precision: str | None
    frames: Literal["hashes", "payloads"]
    hello: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that a session did.

    Attributes:
        place: bytes of the log up to its end.
    """

    facts: Mapping[str, Any]
    payload: bytes
    place: int


@dataclass(frozen=True, slots=True)
class Difference:
    """Where a run says something else than the record.

    Attributes:
        seq: of the frame, None in the summary.
        what: the field, such as ``ef.percent`` or ``mask_sha256``.
    """

    seq: int | None
    what: str
    recorded: Any
    found: Any

    def __str__(self) -> str:
        where = "the summary" if self.seq is None else f"frame {self.seq}"
        return f"{where}: {self.what} was {_short(self.recorded)}, is {_short(self.found)}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to.

    Attributes:
        results: frames segmented again.
        dropped: frames that were not segmented, then as now.
        has_end: the log goes to the session's summary, or to the frame that ended it.
        ef: the last one told, None where none was.
        difference: the first one; nothing was compared after it.
    """

    results: int
    dropped: int
    has_end: bool
    ef: Mapping[str, Any] | None
    difference: Difference | None


class Log:
    """A log opened for reading."""

    def __init__(self, file: BinaryIO) -> None:
        """Read its beginning.

        Raises:
            RecordingError: it is none, or of another format.
        """
        self._file = file
        if file.read(len(MAGIC)) != MAGIC:
            raise RecordingError("this is no recorded session: it does not begin with GDKVMLOG")
        first = self._next()
        if first is None:
            raise RecordingError("nothing was recorded in this log")
        try:
            self.begin = Begin.model_validate(first.facts)
            self._hello = Hello.model_validate_json(json.dumps(self.begin.hello))
        except ValidationError as error:
            raise RecordingError("the log does not begin as a session does") from error
        if self.begin.format != FORMAT:
            raise RecordingError(f"the log has format {self.begin.format}, this reads {FORMAT}")
        self._snapshot = first.payload

    def entries(self) -> Iterator[Entry]:
        """What the session did, in order; a last entry that was not written whole is left out.

        Raises:
            RecordingError: it is damaged.
        """
        while (entry := self._next()) is not None:
            yield entry

    def open_session(self, predictor: Predictor) -> Session:
        """Put a session where the log begins.

        Raises:
            RecordingError: other weights, or a snapshot that cannot be read.
        """
        wanted, found = self.begin.model, predictor.model
        if wanted.sha256 != found.sha256:
            raise RecordingError(
                f"recorded with {wanted.name} {wanted.version} (weights {wanted.sha256[:12]}), "
                f"here are {found.name} {found.version} ({found.sha256[:12]})"
            )
        if not self._snapshot:
            session = Session(self._hello, predictor)
        else:
            try:
                session = Session.restore(self._snapshot, predictor, token="replay")
            except SnapshotError as error:
                raise RecordingError(f"the log's beginning: {error.message}") from error
        session.name = self.begin.session
        return session

    def _next(self) -> Entry | None:
        head = self._file.read(ENTRY.size)
        if len(head) < ENTRY.size:
            return None
        text_bytes, payload_bytes, checksum = ENTRY.unpack(head)
        if text_bytes + payload_bytes > _LONGEST_BYTES:
            raise RecordingError("the log is damaged: an entry of impossible length")
        body = self._file.read(text_bytes + payload_bytes)
        if len(body) < text_bytes + payload_bytes:
            return None
        if zlib.crc32(body) != checksum:
            raise RecordingError("the log is damaged: a checksum does not match")
        place = self._file.tell()
        return Entry(json.loads(body[:text_bytes]), body[text_bytes:], place)


def wanted_hashes(path: Path) -> set[str]:
    """The hashes of all frames that a log has no payload of.

    Raises:
        RecordingError: it cannot be read.
    """
    with path.open("rb") as file:
        entries = Log(file).entries()
        return {each.facts["sha256"] for each in entries if _wants_frame(each)}


def replay(
    log: Log, predictor: Predictor, frames: Frames, show: Callable[[int], None] = lambda _: None
) -> Outcome:
    """Go through a session again, up to the first difference.

    Args:
        log: the record.
        predictor: answers the frames.
        frames: finds those that the log knows by their hash alone.
        show: is told how many bytes of the log are done.

    Raises:
        RecordingError: it is damaged, of other weights, or a frame cannot be found.
    """
    session = log.open_session(predictor)
    before = session.results, session.dropped
    difference, ef, has_end = None, None, False
    for entry in log.entries():
        kind, seq = entry.facts["kind"], entry.facts.get("seq")
        recorded = _said(entry)
        found = _do(session, entry, frames)
        difference = first_difference(recorded, found, seq)
        if difference is not None:
            break
        ef = next((said["ef"] for said in found if "ef" in said), ef)
        has_end = has_end or kind in ("end", "failure")
        show(entry.place)
    results, dropped = session.results - before[0], session.dropped - before[1]
    return Outcome(results, dropped, has_end, ef, difference)


def _said(entry: Entry) -> list[dict[str, Any]]:
    match entry.facts["kind"]:
        case "drop":
            return []
        case "failure":
            return [{"code": entry.facts["code"]}]
        case _:
            told: list[dict[str, Any]] = entry.facts["told"]
            return told


def _do(session: Session, entry: Entry, frames: Frames) -> list[dict[str, Any]]:
    """Let a session do what an entry says it did; returns what it says of it now."""
    facts = entry.facts
    match facts["kind"]:
        case "drop":
            packet = memoryview(_payload(entry, frames)) if "sha256" in facts else None
            session.drop(_header(facts), facts["reason"], packet)
            return []
        case "end":
            return told_of(session.summary(), None)
        case "frame" | "failure":
            payload = memoryview(_payload(entry, frames))
            try:
                answer = session.answer(Arrival(_header(facts), payload, time.perf_counter()))
            except EchoError as error:
                return [{"code": error.code}]
            return told_of(answer.messages, answer.labels_HW)
        case other:
            raise RecordingError(f"the log tells of what this version does not know: {other!r}")


def _payload(entry: Entry, frames: Frames) -> bytes:
    digest = entry.facts["sha256"]
    found = frames(digest) if _wants_frame(entry) else entry.payload
    if found is None:
        raise RecordingError(
            f"the log has the hash of frame {entry.facts['seq']} alone, and none of the frames "
            "given has it: name what was streamed with --frames"
        )
    if hashlib.sha256(found).hexdigest() != digest:
        raise RecordingError(f"frame {entry.facts['seq']} is not the one that was recorded")
    return found


def _wants_frame(entry: Entry) -> bool:
    return "sha256" in entry.facts and not entry.payload


def _header(facts: Mapping[str, Any]) -> FrameHeader:
    return FrameHeader(facts["codec"], facts["seq"], facts["time_us"], facts["bytes"])


def first_difference(
    recorded: list[dict[str, Any]], found: list[dict[str, Any]], seq: int | None
) -> Difference | None:
    """Name the first field in which two answers differ, masks before what is measured in them.

    A field that was not recorded is one that a later version of the server tells of.
    """
    for then, now in zip(recorded, found, strict=False):
        if then.get("mask_sha256") != now.get("mask_sha256"):
            return Difference(seq, "mask_sha256", then.get("mask_sha256"), now.get("mask_sha256"))
        differing = _differing("", then, now)
        if differing is not None:
            return Difference(seq, *differing)
    if len(recorded) != len(found):
        kinds = [[said.get("type") for said in each] for each in (recorded, found)]
        return Difference(seq, "messages", *kinds)
    return None


def _differing(place: str, then: Any, now: Any) -> tuple[str, Any, Any] | None:
    """Look into two values of JSON side by side."""
    if isinstance(then, dict) and isinstance(now, dict):
        pairs = [(f"{place}.{key}", value, now.get(key)) for key, value in then.items()]
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        pairs = [(f"{place}[{n}]", *each) for n, each in enumerate(zip(then, now, strict=True))]
    else:
        return None if then == now else (place.lstrip("."), then, now)
    return next((found for each in pairs if (found := _differing(*each)) is not None), None)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 48 else f"{text[:45]}…"
