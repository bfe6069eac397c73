"""One client's life: its memory, its open beat, its counters, and the record of its answers."""

import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from model import (
    STRUCTURES,
    EchoError,
    EjectionFraction,
    Frame,
    Predictor,
    Region,
    StateError,
    to_source_labels,
)
from server.analysis import Analysis
from server.answers import Answer, AnswerRecord, Stages
from server.errors import MalformedMessageError, SnapshotError, UnsupportedCodecError
from server.keys import ApiKey
from server.masks import Runs, encode_mask
from server.payload import PayloadDecoder
from server.protocol import (
    BeatMessage,
    Dropped,
    DropReason,
    EfMessage,
    FrameHeader,
    Hello,
    LvMessage,
    ModelName,
    QualityMessage,
    Ready,
    Result,
    Summary,
)
from server.snapshots import Lease, pack, unpack

UNHURRIED_FPS = 1.0
"""A client that declares no frame rate gives way to those that do."""

Phase = Literal["live", "parked"]

Packet = memoryview | None
"""The payload of a frame not looked at, where later pictures tell how they differ from it."""


@dataclass(frozen=True, slots=True, eq=False)
class Arrival:
    """One frame as it came.

    Attributes:
        payload: of the codec that hello named.
        received_s: when its last byte was there, on the clock of ``time.perf_counter``.
    """

    header: FrameHeader
    payload: memoryview
    received_s: float


class Owner(Protocol):
    """Whoever serves a session at the moment.

    Attributes:
        key: the key that its client showed; None where none is needed.
    """

    key: ApiKey | None

    def fence(self) -> None:
        """Stop after the present frame: another socket goes on."""

    def drain(self) -> None:
        """Stop after the present frame: the server is going away."""


class Witness(Protocol):
    """Whoever writes down what a session does, in the order in which it does it."""

    def note_answer(self, arrival: Arrival, answer: Answer) -> None:
        """A frame was looked at; called on a worker."""

    def note_failure(self, arrival: Arrival, error: EchoError) -> None:
        """A frame could not be answered, which ends the session; called on a worker."""

    def note_drop(self, header: FrameHeader, reason: DropReason, packet: Packet) -> None:
        """A frame was not looked at."""

    def note_end(self, messages: tuple[str, ...]) -> None:
        """The session said these last words."""

    def close(self) -> None:
        """No more is to come."""


class Trace(Protocol):
    """Whoever follows some of a session's frames on their way."""

    def note_frame(self, arrival: Arrival, answer: Answer) -> None:
        """A frame's answer was sent just now."""


class Session:
    """One live stream, from hello to its end; it outlives its sockets, and its process.

    Attributes:
        holder: name of the key that opened it, the only one that may resume it.
        lease: the right to write its snapshot, None where none is kept.
        has_moved: another server took it up, so that it counts here no longer.
        witness: writes down what it does, None where nobody does.
        trace: follows its frames while it has a socket, None where nobody does.
        saved_seq: the last frame whose answer a snapshot holds, None before any.
        unsaved: answers since the last snapshot was taken.
    """

    def __init__(self, hello: Hello, predictor: Predictor, token: str | None = None) -> None:
        """Open a session.

        Args:
            hello: what was said.
            predictor: the network.
            token: the secret that resumes it; a new one where None.

        Raises:
            UnsupportedCodecError: frames of this codec cannot be decoded here.
        """
        self.hello = hello
        self.model = predictor.model
        self._answerer = ModelName.model_validate(predictor.identity)
        self.name = "s_" + secrets.token_urlsafe(6)
        self.token = token or secrets.token_urlsafe(24)
        self.phase: Phase = "live"
        self.owner: Owner | None = None
        self.holder: str | None = None
        self.lease: Lease | None = None
        self.has_moved = False
        self.witness: Witness | None = None
        self.trace: Trace | None = None
        self.last_seq: int | None = None
        self.saved_seq: int | None = None
        self.unsaved = self.results = self.dropped = 0
        self.opened_s = time.time()
        self._decoder = PayloadDecoder(hello.codec, hello.size)
        region = hello.region and Region(*hello.region)
        self._analysis = Analysis(predictor, region, hello.spacing_mm)
        self._answers = AnswerRecord()
        self._farewell: tuple[str, ...] | None = None

    @property
    def period_s(self) -> float:
        """How soon a frame should be answered: before the next one comes."""
        return 1.0 / (self.hello.fps or UNHURRIED_FPS)

    @property
    def is_over(self) -> bool:
        """Whether it was summed up, after which no frame may follow."""
        return self._farewell is not None

    @property
    def is_saved(self) -> bool:
        """Whether a snapshot of what stands here now was stored."""
        return self.unsaved == 0 and self.last_seq is not None and self.saved_seq == self.last_seq

    def fits(self, hello: Hello) -> bool:
        """Whether another socket's hello describes the same frames."""
        kept = self.hello
        return all(
            getattr(hello, name) == getattr(kept, name)
            for name in ("size", "codec", "region", "spacing_mm")
        ) and hello.model in (None, kept.model, self.model.name)

    def resume(self, hello: Hello) -> None:
        """Take over what a resuming client may choose anew: mask encoding and policy."""
        chosen = {"mask_encoding": hello.mask_encoding, "policy": hello.policy}
        self.hello = self.hello.model_copy(update=chosen)

    def ready(self, credits: int, resume_within_s: float, *, resumed: bool) -> Ready:
        """The answer to hello."""
        return Ready(
            session=self.name,
            resume=self.token,
            resume_within_s=resume_within_s,
            resumed=resumed,
            last_seq=self.last_seq,
            credits=credits,
            policy=self.hello.policy,
            mask_encoding=self.hello.mask_encoding,
            model=self._answerer,
            network_size=self.model.network_size,
            structures=STRUCTURES,
        )

    def answer(self, arrival: Arrival) -> Answer:
        """Decode, segment and measure one frame; runs on a worker.

        Raises:
            EchoError: the frame is broken, or the network failed; the session cannot go on.
        """
        self._check_open()
        try:
            answer = self._look(arrival)
        except EchoError as error:
            if self.witness is not None:
                self.witness.note_failure(arrival, error)
            raise
        if self.witness is not None:
            self.witness.note_answer(arrival, answer)
        return answer

    def _look(self, arrival: Arrival) -> Answer:
        started_s = time.perf_counter()
        header = arrival.header
        if header.codec != self.hello.codec:
            raise UnsupportedCodecError(f"hello said {self.hello.codec}, frame is {header.codec}")
        pixels_HW = self._decoder.luma(arrival.payload)
        if pixels_HW is None:
            return self._drop(header, "no_picture")
        wants_colours = self._analysis.wants_colours
        colours_HW3 = self._decoder.colours(arrival.payload) if wants_colours else None
        decoded_s = time.perf_counter()
        finding = self._analysis.step(
            Frame(header.seq, header.time_us, pixels_HW, colours_HW3),
            keeps_outlines=self.hello.mask_encoding == "contour",
        )
        labels_HW = to_source_labels(finding.mask)
        runs = Runs(labels_HW)
        mask = encode_mask(self.hello.mask_encoding, labels_HW, runs, finding.reading)
        self.results += 1
        now_s = time.perf_counter()
        stages = Stages(
            queue=started_s - arrival.received_s,
            decode=decoded_s - started_s,
            infer=finding.infer_s,
            measure=now_s - decoded_s - finding.infer_s,
            total=now_s - arrival.received_s,
        )
        result = Result.model_construct(
            seq=header.seq,
            time_us=header.time_us,
            mask=mask,
            areas_px=runs.areas_px(),
            lv=LvMessage.of(finding.reading.lv),
            presence=round(finding.reading.presence, 3),
            quality=QualityMessage.of(finding.reading.quality),
            ef=EfMessage.of(finding.ef),
            dropped=self.dropped,
            saved_seq=self.saved_seq,
            stages_ms=stages.to_message(),
        )
        beats = [BeatMessage.of(beat).to_json() for beat in finding.beats]
        messages = self._record(header.seq, (result.to_json(), *beats))
        return Answer(messages, stages, labels_HW=labels_HW)

    def drop(self, header: FrameHeader, reason: DropReason, packet: Packet = None) -> Answer:
        """Answer a frame without segmenting it."""
        self._check_open()
        if packet is not None and header.codec == self.hello.codec:
            self._decoder.skip(packet)
        answer = self._drop(header, reason)
        if self.witness is not None:
            self.witness.note_drop(header, reason, packet)
        return answer

    def _drop(self, header: FrameHeader, reason: DropReason) -> Answer:
        self.dropped += 1
        message = Dropped(seq=header.seq, time_us=header.time_us, reason=reason)
        return Answer(self._record(header.seq, (message.to_json(),)), None, reason)

    @property
    def ef(self) -> EjectionFraction:
        """The ejection fraction so far, or why there is none."""
        return self._analysis.ef

    def repeat(self, header: FrameHeader) -> Answer:
        """Answer a frame that was answered before, from the record where it is still there."""
        kept = self._answers.get(header.seq)
        if kept is not None:
            return Answer(kept, None)
        message = Dropped(seq=header.seq, time_us=header.time_us, reason="repeated")
        return Answer((message.to_json(),), None, "repeated")

    def _record(self, seq: int, messages: tuple[str, ...]) -> tuple[str, ...]:
        self.last_seq = seq
        self.unsaved += 1
        self._answers.add(seq, messages)
        return messages

    def summary(self) -> tuple[str, ...]:
        """Close the last beat; returns what ends the session, and the same ever after."""
        if self._farewell is None:
            self._farewell = self._sum_up()
            self.unsaved += 1
            if self.witness is not None:
                self.witness.note_end(self._farewell)
        return self._farewell

    def _check_open(self) -> None:
        if self.is_over:
            raise MalformedMessageError("bye was said in this session; no frame may follow")

    def _sum_up(self) -> tuple[str, ...]:
        closed = [BeatMessage.of(beat).to_json() for beat in self._analysis.finish()]
        summary = Summary(
            session=self.name,
            results=self.results,
            dropped=self.dropped,
            beats=tuple(BeatMessage.of(beat) for beat in self._analysis.beats),
            ef=EfMessage.of(self._analysis.ef),
        )
        return (*closed, summary.to_json())

    def listing(self) -> dict[str, Any]:
        """What an operator may know: no token, nothing of a patient."""
        return {
            "session": self.name,
            "phase": self.phase,
            "age_s": round(time.time() - self.opened_s, 1),
            "codec": self.hello.codec,
            "policy": self.hello.policy,
            "model": self.model.name,
            "results": self.results,
            "dropped": self.dropped,
        }

    def snapshot(self) -> bytes | None:
        """All that another process needs to go on; call it between two frames, on any thread.

        Returns:
            None while a video decoder would have to see too much first.
        """
        packets = self._decoder.packets
        if packets is None:
            return None
        self.unsaved = 0
        facts = {
            "name": self.name,
            "holder": self.holder,
            "hello": self.hello.model_dump(mode="json"),
            "last_seq": self.last_seq,
            "results": self.results,
            "dropped": self.dropped,
            "opened_s": self.opened_s,
            "farewell": self._farewell,
            "packets": len(packets),
        }
        parts = [json.dumps(facts).encode(), *self._analysis.to_parts()]
        return pack(self.model.sha256, [*parts, *packets, *self._answers.to_parts()])

    @classmethod
    def restore(cls, blob: bytes, predictor: Predictor, token: str) -> "Session":
        """Open a session where another one stood when ``snapshot`` was called.

        Raises:
            SnapshotError: not such bytes, or another model's or version's.
            UnsupportedCodecError: frames of its codec cannot be decoded here.
        """
        parts = unpack(blob, predictor.model.sha256)
        try:
            return cls._restored(parts, predictor, token)
        except StateError as error:
            raise SnapshotError(f"the session cannot be read: {error.message}") from error
        # Its checksum is right, so these bytes are what somebody wrote.
        except (ValueError, LookupError, TypeError) as error:
            raise SnapshotError("the session was kept by another version of the server") from error

    @classmethod
    def _restored(cls, parts: Sequence[bytes], predictor: Predictor, token: str) -> "Session":
        facts_text, memory, tracker, beats, *rest = parts
        facts = json.loads(facts_text)
        hello = Hello.model_validate_json(json.dumps(facts["hello"]))
        session = cls(hello, predictor, token)
        for name in ("name", "holder", "last_seq", "results", "dropped", "opened_s"):
            setattr(session, name, facts[name])
        session.saved_seq = session.last_seq
        session._farewell = facts["farewell"] and tuple(facts["farewell"])
        session._analysis.restore(memory, tracker, beats)
        session._decoder.catch_up(rest[: facts["packets"]])
        session._answers = AnswerRecord.from_parts(rest[facts["packets"] :])
        return session
