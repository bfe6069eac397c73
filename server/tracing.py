"""OpenTelemetry traces, where an operator wants them: sessions, some of their frames, and clips.

What a client said of itself is in no span: no header, no token, no key; of a patient there is
nothing. Spans wait in a bounded queue and a thread of its own sends them, so that a collector which
is away costs spans and nothing else.
"""

import asyncio
import logging
import os
import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import entry_points, version
from typing import Protocol
from uuid import uuid4

from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import (
    Span,
    SpanKind,
    StatusCode,
    Tracer,
    format_trace_id,
    set_span_in_context,
)

from model import EchoError
from server.answers import Answer
from server.errors import EngineDeadError, EngineError, SettingsError, SocketGoneError
from server.log import trace_id
from server.session import Arrival, Session

logger = logging.getLogger(__name__)

LAST_S = 2.0
"""How long a stopping server waits for a collector to take the last spans."""

_STAGES = ("queue", "decode", "infer", "measure")
_EXPORTERS = "opentelemetry_traces_exporter"
_OTLP = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}

Facts = Mapping[str, str | int | bool | None]


class Work(Protocol):
    """What is told of a clip."""

    @property
    def id(self) -> str:
        """Our own name of it."""

    @property
    def view(self) -> str | None:
        """What the upload said."""

    @property
    def size_bytes(self) -> int:
        """Of its files."""

    @property
    def attempts(self) -> int:
        """How often work on it was begun."""

    @property
    def state(self) -> str:
        """Where it stands now."""

    @property
    def error(self) -> EchoError | None:
        """Why it failed, None unless it did."""


class Tracing:
    """One server's traces; built once, handed down."""

    def __init__(self, exporter: SpanExporter | None, one_in: int) -> None:
        """Begin.

        Args:
            exporter: takes finished spans to wherever they are kept; None where nobody does, and
                the log lines name their trace all the same.
            one_in: so many frames have one among them that is traced; 0 for none.
        """
        ours = {
            "service.name": "gdkvm",
            "service.version": version("gdkvm-live"),
            "service.instance.id": str(uuid4()),
        }
        told = OTELResourceDetector().detect()
        self._provider = TracerProvider(
            resource=Resource.create(ours).merge(told), shutdown_on_exit=False
        )
        self._exporter = None if exporter is None else _Watched(exporter)
        if self._exporter is not None:
            self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("gdkvm", version("gdkvm-live"))
        self._one_in = one_in

    @contextmanager
    def session(self, session: Session, *, resumed: bool) -> Iterator[None]:
        """Follow a session for as long as it has its socket."""
        results, dropped = session.results, session.dropped
        facts: Facts = {
            "session": session.name,
            "resumed": resumed,
            "model": session.model.name,
            "model_version": session.model.version,
            "view": session.hello.view,
            "codec": session.hello.codec,
            "policy": session.hello.policy,
        }
        with self._span("session", SpanKind.SERVER, facts) as span:
            session.trace = _SessionTrace(self._tracer, span, self._one_in)
            try:
                yield
                span.set_attribute("gdkvm.end", "bye")
            finally:
                session.trace = None
                span.set_attribute("gdkvm.frames.answered", session.results - results)
                span.set_attribute("gdkvm.frames.dropped", session.dropped - dropped)

    @contextmanager
    def clip(self, clip: Work) -> Iterator[None]:
        """Follow the work on one clip."""
        facts: Facts = {"clip": clip.id, "view": clip.view, "bytes": clip.size_bytes}
        with self._span("clip", SpanKind.INTERNAL, facts) as span:
            yield
            span.set_attribute("gdkvm.attempts", clip.attempts)
            if clip.error is None:
                span.set_attribute("gdkvm.end", clip.state)
            else:
                _note_end(span, clip.error)

    @contextmanager
    def _span(self, name: str, kind: SpanKind, facts: Facts) -> Iterator[Span]:
        """A trace of its own, which log lines name; where it breaks off, it says why."""
        known = {f"gdkvm.{key}": value for key, value in facts.items() if value is not None}
        span = self._tracer.start_span(name, kind=kind, attributes=known)
        context = span.get_span_context()
        told = trace_id.set(format_trace_id(context.trace_id) if context.is_valid else None)
        try:
            yield span
        except BaseException as error:
            _note_end(span, error)
            raise
        finally:
            span.end()
            trace_id.reset(told)

    def close(self) -> None:
        """Send what is left; a collector that does not take it in time does not get it."""
        flush = threading.Thread(target=self._provider.shutdown, daemon=True)
        flush.start()
        flush.join(LAST_S)
        if flush.is_alive() and self._exporter is not None:
            self._exporter.shutdown()


class _SessionTrace:
    """Follows one session's frames, one in so many of them."""

    def __init__(self, tracer: Tracer, span: Span, one_in: int) -> None:
        self._tracer = tracer
        self._context = set_span_in_context(span)
        self._one_in = one_in if span.is_recording() else 0

    def note_frame(self, arrival: Arrival, answer: Answer) -> None:
        """Tell of a frame whose answer was sent just now, where its turn has come.

        By chance, so that it is not always the same picture of a video's group of pictures.
        """
        if self._one_in == 0 or answer.stages is None or random.randrange(self._one_in):
            return
        sent_ns = time.time_ns()
        began_ns = sent_ns - _to_ns(time.perf_counter() - arrival.received_s)
        facts = {"gdkvm.seq": arrival.header.seq, "gdkvm.bytes": arrival.header.payload_bytes}
        frame = self._tracer.start_span("frame", self._context, SpanKind.INTERNAL, facts,
                                        start_time=began_ns)  # fmt: skip
        inside = set_span_in_context(frame)
        for stage in _STAGES:
            ended_ns = began_ns + _to_ns(getattr(answer.stages, stage))
            self._tracer.start_span(stage, inside, start_time=began_ns).end(ended_ns)
            began_ns = ended_ns
        self._tracer.start_span("send", inside, start_time=began_ns).end(sent_ns)
        frame.end(sent_ns)


class _Watched(SpanExporter):
    """An exporter of which the log says once that it is in trouble, and once that it is not."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._is_fine = True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans; called on the queue's own thread."""
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            self._show(result is SpanExportResult.SUCCESS)
        return result

    def _show(self, is_fine: bool) -> None:
        if is_fine and not self._is_fine:
            logger.info("traces are taken again")
        elif self._is_fine and not is_fine:
            logger.warning("traces are lost: their collector does not take them")
        self._is_fine = is_fine

    def shutdown(self) -> None:
        """Send no more; what is under way is given up."""
        self._exporter.shutdown()


def _note_end(span: Span, error: BaseException) -> None:
    """Say why something ended, in our code for it and without any message."""
    is_ours = isinstance(error, EngineError | EngineDeadError)
    if isinstance(error, SocketGoneError) and error.is_farewell:
        end = "left"
    elif isinstance(error, EchoError):
        end = error.code
    else:
        is_ours = not isinstance(error, asyncio.CancelledError)
        end = "fault" if is_ours else "cancelled"
    span.set_attribute("gdkvm.end", end)
    if is_ours:
        span.set_status(StatusCode.ERROR)


def _to_ns(seconds: float) -> int:
    return round(1e9 * seconds)


def open_exporter() -> SpanExporter | None:
    """What ``OTEL_TRACES_EXPORTER`` and the variables of that exporter say; OTLP over HTTP if none.

    Raises:
        SettingsError: no such exporter is installed.

    Source:
        OpenTelemetry specification, environment variables, "Exporter Selection"; OTLP exporter,
        "Configuration Options".
    """
    wanted = os.environ.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    if wanted == "none":
        return None
    name = wanted
    if wanted == "otlp":
        protocol = (
            os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
            or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
            or "http/protobuf"
        ).strip()
        name = _OTLP.get(protocol, protocol)
    found = list(entry_points(group=_EXPORTERS, name=name))
    if not found:
        installed = ", ".join(sorted(entry_points(group=_EXPORTERS).names))
        raise SettingsError(
            f"traces cannot be sent: no exporter {name!r} is installed, there are: {installed}; "
            "pip install 'gdkvm-live[tracing]' brings OTLP over HTTP"
        )
    exporter: SpanExporter = found[0].load()()
    return exporter


def open_tracing(one_in: int) -> Tracing:
    """Begin to trace.

    Args:
        one_in: so many frames have one among them that is traced; 0 for none.

    Raises:
        SettingsError: no exporter is installed as ``OTEL_*`` want it, or they make no sense.
    """
    try:
        tracing = Tracing(open_exporter(), one_in)
    except ValueError as error:
        raise SettingsError(f"traces cannot be made as OTEL_* want them: {error}") from error
    logger.info("sessions and clips are traced", extra={"one_frame_in": one_in or None})
    return tracing
