"""Traces: what sessions, frames and clips say of themselves, and what a collector costs."""

import asyncio
import io
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from server.errors import SettingsError
from server.log import JsonFormatter
from server.tracing import open_exporter, open_tracing
from tests.server.live import CRASH, Live, beating, flat, live_server, until
from tests.server.phantom import phantom_clip

STAGES = ["queue", "decode", "infer", "measure", "send"]
CLIPS = "/v1/clips?wait_s=60&view=A4C"
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """Takes the spans of servers that a test starts; all are there when the server has stopped."""
    exporter = InMemorySpanExporter()
    monkeypatch.setattr("server.tracing.open_exporter", lambda: exporter)
    return exporter


def named(memory: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in memory.get_finished_spans() if span.name == name]


def facts(span: ReadableSpan) -> dict[str, Any]:
    return {name.removeprefix("gdkvm."): value for name, value in (span.attributes or {}).items()}


def end_of(span: ReadableSpan) -> tuple[object, StatusCode]:
    return facts(span)["end"], span.status.status_code


async def test_a_session_is_one_span_of_what_it_was_and_why_it_ended(
    tmp_path: Path, memory: InMemorySpanExporter
) -> None:
    with live_server(tmp_path, trace_frames=0) as live:
        async with live.talk(policy="latest", view="A4C") as talk:
            live.backend.gate.clear()
            live.backend.entered.clear()
            await talk.say(beating(0))
            await until(live.backend.entered.is_set)
            for seq in (1, 2):
                await talk.say(beating(seq))
            await talk.settle()
            live.backend.gate.set()
            await talk.end()
    (span,) = memory.get_finished_spans()
    assert span.name == "session"
    assert span.parent is None
    assert facts(span) == {
        "session": talk.ready["session"], "resumed": False, "model": "counting",
        "model_version": "1", "view": "A4C", "codec": "gray8", "policy": "latest",
        "frames.answered": 2, "frames.dropped": 1, "end": "bye",
    }  # fmt: skip
    assert span.status.status_code is StatusCode.UNSET


async def test_a_resumed_session_is_a_span_for_each_socket_that_counts_its_own_frames(
    tmp_path: Path, memory: InMemorySpanExporter
) -> None:
    with live_server(tmp_path, trace_frames=0) as live:
        async with live.talk() as talk:
            for seq in (0, 1):
                await talk.say(beating(seq))
                await talk.hear()
            talk.abort()
        await live.until_parked(talk.ready["session"])
        async with live.talk(resume=talk.ready["resume"]) as talk:
            await talk.say(beating(2))
            await talk.end()
    told = [facts(span) for span in named(memory, "session")]
    assert {each["session"] for each in told} == {talk.ready["session"]}
    assert [(t["resumed"], t["frames.answered"], t["end"]) for t in told] == [
        (False, 2, "socket_gone"),
        (True, 1, "bye"),
    ]


async def test_only_an_end_that_is_our_fault_is_an_error(
    tmp_path: Path, memory: InMemorySpanExporter
) -> None:
    with live_server(tmp_path, trace_frames=0) as live:
        for message in (beating(0)[:-1], flat(0, CRASH), None):
            async with live.talk() as talk:
                if message is None:
                    await talk.connection.close(1000)
                else:
                    await talk.say(message)
                    await talk.hear_all()
            await live.until_sessions(0)
    assert [end_of(span) for span in named(memory, "session")] == [
        ("malformed_message", StatusCode.UNSET),
        ("engine_failed", StatusCode.ERROR),
        ("left", StatusCode.UNSET),
    ]


async def test_a_frame_is_a_span_whose_stages_follow_each_other_as_its_result_tells_them(
    tmp_path: Path, memory: InMemorySpanExporter
) -> None:
    heard = []
    with live_server(tmp_path, trace_frames=1) as live:
        async with live.talk() as talk:
            for seq in range(3):
                await talk.say(beating(seq))
                heard.append(await talk.hear())
            await talk.end()
    (session,) = named(memory, "session")
    frames = named(memory, "frame")
    assert [facts(frame)["seq"] for frame in frames] == [0, 1, 2]
    for frame, result in zip(frames, heard, strict=True):
        assert frame.parent is not None
        assert frame.parent.span_id == session.context.span_id
        spans = memory.get_finished_spans()
        stages = [s for s in spans if s.parent and s.parent.span_id == frame.context.span_id]
        assert [stage.name for stage in stages] == STAGES
        edges = [frame.start_time, *(stage.end_time for stage in stages)]
        assert edges == [*(stage.start_time for stage in stages), frame.end_time]
        for stage in stages[:-1]:
            assert stage.end_time is not None
            assert stage.start_time is not None
            took_ms = (stage.end_time - stage.start_time) / 1e6
            # Told to the microsecond.
            assert took_ms == pytest.approx(result["stages_ms"][stage.name], abs=6e-4)


async def test_of_so_many_frames_one_is_traced(
    tmp_path: Path, memory: InMemorySpanExporter
) -> None:
    with live_server(tmp_path, trace_frames=4) as live:
        async with live.talk() as talk:
            for seq in range(200):
                await talk.say(beating(seq))
                await talk.hear()
            await talk.end()
    # Binomial: 50 expected, with a standard deviation of 6.1; six of those either way.
    assert 13 <= len(named(memory, "frame")) <= 87


def test_a_clip_is_one_span_with_its_end(tmp_path: Path, memory: InMemorySpanExporter) -> None:
    content = phantom_clip(tmp_path / "clip.dcm", 3).read_bytes()
    with live_server(tmp_path / "clips", trace_frames=1) as live:
        done = live.http.post(CLIPS, content=content)
        refused = live.http.post(CLIPS, content=content[:2000])
    spans = memory.get_finished_spans()
    assert [span.name for span in spans] == ["clip", "clip"]
    told = facts(spans[0])
    assert told.pop("bytes") >= len(content)
    assert told == {
        "clip": done.headers["Location"].rpartition("/")[2], "view": "A4C", "attempts": 1,
        "end": "done",
    }  # fmt: skip
    assert end_of(spans[1]) == (refused.json()["code"], StatusCode.UNSET)


async def test_log_lines_name_the_trace_of_their_session(
    tmp_path: Path, memory: InMemorySpanExporter
) -> None:
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JsonFormatter())
    ours = logging.getLogger("server")
    ours.addHandler(handler)
    level = ours.level
    ours.setLevel("INFO")
    try:
        with live_server(tmp_path, trace_frames=0) as live:
            async with live.talk() as talk:
                await talk.say(flat(0, CRASH))
                await talk.hear_all()
            await live.until_sessions(0)
    finally:
        ours.removeHandler(handler)
        ours.setLevel(level)
    (span,) = named(memory, "session")
    wanted = f"{span.context.trace_id:032x}"
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    named_by = {line["event"]: line.get("trace_id") for line in lines}
    # The second is written on a worker, the last when the session is over.
    assert named_by["session begins"] == named_by["a step failed"] == wanted
    assert named_by["session ends"] == wanted
    assert named_by["session refused or broken off"] is None


@dataclass
class Collector:
    """What a receiver of OTLP over HTTP was sent.

    Attributes:
        gate: an answer waits for it.
    """

    bodies: list[bytes] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    def resources(self) -> list[dict[str, str]]:
        found = [each for body in self.bodies for each in parsed(body).resource_spans]
        return [{a.key: a.value.string_value for a in each.resource.attributes} for each in found]

    def names(self) -> list[str]:
        found = [each for body in self.bodies for each in parsed(body).resource_spans]
        return [s.name for each in found for scope in each.scope_spans for s in scope.spans]


def parsed(body: bytes) -> ExportTraceServiceRequest:
    return ExportTraceServiceRequest.FromString(body)


@contextmanager
def collector() -> Iterator[Collector]:
    """Receive on a port of this machine until the block ends."""
    told = Collector()
    told.gate.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            told.bodies.append(body)
            told.paths.append(self.path)
            told.gate.wait(60)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        told.port = server.server_port
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield told
        finally:
            told.gate.set()
            server.shutdown()
            thread.join()


async def play(live: Live, count: int, **headers: str) -> dict[str, Any]:
    """Stream frames to the end of a session; every one is answered."""
    async with live.socket(**headers) as talk:
        await talk.say_hello()
        ready = await talk.hear()
        for seq in range(count):
            await talk.say(beating(seq))
            assert (await talk.hear())["type"] == "result"
        assert (await talk.end())[-1]["results"] == count
    return ready


async def test_a_collector_is_sent_spans_and_nothing_of_a_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = phantom_clip(tmp_path / "clip.dcm", 3).read_bytes()
    with collector() as told:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{told.port}")
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=ward-7")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "echo-lab")
        with live_server(tmp_path / "clips", trace_frames=1) as live:
            ready = await play(live, 2, **{"X-Patient": "Doe^Jane", "User-Agent": "cart-9"})
            answer = await asyncio.to_thread(live.http.post, CLIPS, content=content)
            assert answer.status_code == 200
    assert set(told.paths) == {"/v1/traces"}
    assert sorted(told.names()) == sorted(["session", "clip", *2 * ["frame", *STAGES]])
    for resource in told.resources():
        assert resource["service.name"] == "echo-lab"
        assert resource["deployment.environment.name"] == "ward-7"
        assert resource["telemetry.sdk.name"] == "opentelemetry"
    everything = b"".join(told.bodies)
    for secret in ("Doe", "cart-9", "X-Patient", ready["resume"], "127.0.0.1"):
        assert secret.encode() not in everything


async def test_a_collector_that_is_away_costs_spans_and_is_told_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    with live_server(tmp_path, trace_frames=1) as live:
        for _ in range(3):
            await play(live, 20)
        await until(lambda: "traces are lost" in caplog.text)
    lines = [r.getMessage() for r in caplog.records if r.name == "server.tracing"]
    assert lines == ["traces are lost: their collector does not take them"]


async def test_a_collector_that_hangs_holds_nobody_up_and_the_newest_spans_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "16")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8")
    with collector() as told:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{told.port}")
        told.gate.clear()
        with live_server(tmp_path, trace_frames=1) as live:
            await play(live, 3)
            await until(lambda: len(told.bodies) == 1)
            await play(live, 50)
            told.gate.set()
    # What was on its way, and what the queue holds; 300 more were made.
    assert 16 <= len(told.names()) <= 24
    assert told.names()[-1] == "session"


def test_without_the_extra_a_server_that_shall_trace_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['opentelemetry.sdk'] = None; from server.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "serve"],
        env={**os.environ, "GDKVM_TRACE_FRAMES": "30", "GDKVM_PORT": "0"},
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert "pip install 'gdkvm-live[tracing]'" in done.stderr


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin", "'zipkin'"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "'http/json'"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "4", "max_queue_size"),
    ],
)
def test_variables_that_make_no_sense_are_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=told):
        open_tracing(1)


def test_without_an_exporter_log_lines_alone_name_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    assert open_exporter() is None


def test_nothing_is_sent_unless_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with collector() as told:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{told.port}")
        monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")
        with live_server(tmp_path) as live:
            assert live.http.get("/v1/clips/Doe^Jane").status_code == 404
    assert told.bodies == []
