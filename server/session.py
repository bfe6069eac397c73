"""One client's life: its memory, its open beat, its counters, and the record of its answers."""

import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal, Protocol

from model import STRUCTURES, Frame, Predictor, Region, to_source_labels
from server.analysis import Analysis
from server.errors import UnsupportedCodecError
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
    StagesMs,
    Summary,
)

ANSWERS_KEPT = 64
"""Answers that a resuming client can ask for again; docs/protocol.md promises them."""

UNHURRIED_FPS = 1.0
"""A client that declares no frame rate gives way to those that do."""

Phase = Literal["live", "parked"]


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


@dataclass(frozen=True, slots=True)
class Stages:
    """Where a frame's time went, in seconds; see StagesMs."""

    queue: float
    decode: float
    infer: float
    measure: float
    total: float

    def to_message(self) -> StagesMs:
        """In milliseconds, to the microsecond."""
        return StagesMs.model_construct(
            queue=round(1000 * self.queue, 3),
            decode=round(1000 * self.decode, 3),
            infer=round(1000 * self.infer, 3),
            measure=round(1000 * self.measure, 3),
            total=round(1000 * self.total, 3),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """The messages that answer one frame.

    Attributes:
        stages: None where the frame was not segmented.
    """

    messages: tuple[str, ...]
    stages: Stages | None


class Owner(Protocol):
    """Whoever serves a session at the moment."""

    def fence(self) -> None:
        """Stop after the present frame: another socket goes on."""

    def drain(self) -> None:
        """Stop after the present frame: the server is going away."""


class Session:
    """One live stream, from hello to its end; it outlives its sockets."""

    def __init__(self, hello: Hello, predictor: Predictor) -> None:
        """Open a session.

        Raises:
            UnsupportedCodecError: frames of this codec cannot be decoded here.
        """
        self.hello = hello
        self.model = predictor.model
        self.name = "s_" + secrets.token_urlsafe(6)
        self.token = secrets.token_urlsafe(24)
        self.phase: Phase = "live"
        self.owner: Owner | None = None
        self.last_seq: int | None = None
        self.results = 0
        self.dropped = 0
        self.opened_s = time.time()
        self._decoder = PayloadDecoder(hello.codec, hello.size)
        region = hello.region and Region(*hello.region)
        self._analysis = Analysis(predictor, region, hello.spacing_mm)
        self._answers: OrderedDict[int, tuple[str, ...]] = OrderedDict()

    @property
    def period_s(self) -> float:
        """How soon a frame should be answered: before the next one comes."""
        return 1.0 / (self.hello.fps or UNHURRIED_FPS)

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
            model=ModelName.model_validate(self.model),
            network_size=self.model.network_size,
            structures=STRUCTURES,
        )

    def answer(self, arrival: Arrival) -> Answer:
        """Decode, segment and measure one frame; runs on a worker.

        Raises:
            EchoError: the frame is broken, or the network failed; the session cannot go on.
        """
        started_s = time.perf_counter()
        header = arrival.header
        if header.codec != self.hello.codec:
            raise UnsupportedCodecError(f"hello said {self.hello.codec}, frame is {header.codec}")
        pixels_HW = self._decoder.luma(arrival.payload)
        decoded_s = time.perf_counter()
        if pixels_HW is None:
            return self.drop(header, "no_picture")
        finding = self._analysis.step(Frame(header.seq, header.time_us, pixels_HW))
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
            stages_ms=stages.to_message(),
        )
        beats = [BeatMessage.of(beat).to_json() for beat in finding.beats]
        return self._record(header.seq, (result.to_json(), *beats), stages)

    def drop(self, header: FrameHeader, reason: DropReason) -> Answer:
        """Answer a frame without segmenting it."""
        self.dropped += 1
        message = Dropped(seq=header.seq, time_us=header.time_us, reason=reason)
        return self._record(header.seq, (message.to_json(),), None)

    def repeat(self, header: FrameHeader) -> Answer:
        """Answer a frame that was answered before, from the record where it is still there."""
        kept = self._answers.get(header.seq)
        if kept is not None:
            return Answer(kept, None)
        message = Dropped(seq=header.seq, time_us=header.time_us, reason="repeated")
        return Answer((message.to_json(),), None)

    def _record(self, seq: int, messages: tuple[str, ...], stages: Stages | None) -> Answer:
        self.last_seq = seq
        self._answers[seq] = messages
        if len(self._answers) > ANSWERS_KEPT:
            self._answers.popitem(last=False)
        return Answer(messages, stages)

    def summary(self) -> tuple[str, ...]:
        """Close the last beat; returns the messages that end the session."""
        closed = [BeatMessage.of(beat).to_json() for beat in self._analysis.finish()]
        summary = Summary(
            session=self.name,
            results=self.results,
            dropped=self.dropped,
            beats=tuple(BeatMessage.of(beat) for beat in self._analysis.beats),
            ef=EfMessage.of(self._analysis.ef),
        )
        return (*closed, summary.to_json())
