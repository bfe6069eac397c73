"""Every query of the Grafana dashboard, asked of a real Prometheus while a real server is used."""

import asyncio
import hashlib
import json
import math
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from gdkvm_client import Dropped, Frame, Hello, Result, Summary, stream
from server.fleet.board import families_of, to_text
from server.ingest import read_sample, sample_path
from server.metrics import Metrics
from tests.deploy.monitoring import SCRAPE_S, prometheus
from tests.e2e.serving import PATIENCE_S, Serving, serving

DASHBOARD = Path(__file__).parents[2] / "deploy" / "grafana" / "dashboard.json"
STEP_S = 1
KEY = "watch"

MAY_REST = {
    "Oldest unanswered frame": "a scrape hits a frame under way only by chance",
    "Jobs waiting": "nothing waits where one session is served",
    "Event loop late by, 99th percentile": "it may be never late",
    "Fleet: share of frames over 33.3 ms, by replica": "none may be",
}
"""Panels that rightly show nothing but zero here, and why."""


@dataclass(frozen=True)
class Query:
    """One line of one panel.

    Attributes:
        legend: names of the labels that it is told apart by.
    """

    title: str
    expression: str
    legend: tuple[str, ...]


def queries() -> list[Query]:
    """All of the dashboard, with Grafana's variables filled in as Grafana does.

    Source:
        Grafana documentation, Prometheus query variables: ``$__rate_interval`` is the larger of the
        step and a scrape, and of four scrapes.
    """
    interval_s = max(STEP_S + SCRAPE_S, 4 * SCRAPE_S)
    return [
        Query(
            panel["title"],
            target["expr"].replace("$__rate_interval", f"{interval_s}s"),
            tuple(part.split("}}")[0] for part in target["legendFormat"].split("{{")[1:]),
        )
        for panel in json.loads(DASHBOARD.read_text())["panels"]
        for target in panel["targets"]
    ]


@dataclass
class Replicas:
    """What a fleet of two shows at /metrics; it works a little more at each scrape."""

    metrics: tuple[Metrics, Metrics]
    scrapes: int = 0

    def text(self) -> bytes:
        self.scrapes += 1
        for each in self.metrics:
            each.ready.set(1)
            each.sessions.labels("live").set(3)
            each.sessions_opened.labels("resumed").inc()
            each.snapshots.labels("fenced").inc()
            for took_s in (0.01, 0.02, 0.05):
                each.observe_stage("total", took_s)
        return to_text({f"r{n}": {"metrics": families_of(m)} for n, m in enumerate(self.metrics)})


@contextmanager
def fleet() -> Iterator[tuple[Replicas, str]]:
    """Serve the metrics of a fleet until the block ends; where."""
    replicas = Replicas((Metrics(), Metrics()))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = replicas.text()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield replicas, f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@dataclass
class Watched:
    """A Prometheus that has seen a server at work.

    Attributes:
        began_s: when, in seconds since 1970.
        results: frames that clients were given a mask for.
        dropped: frames that they were given none for.
    """

    http: httpx.Client
    began_s: float
    results: int = 0
    dropped: int = 0

    def ask(self, expression: str) -> list[dict[str, Any]]:
        """An expression over all that time."""
        when = {"start": f"{self.began_s}", "end": f"{time.time()}", "step": f"{STEP_S}"}
        answer = self.http.get("/api/v1/query_range", params={"query": expression, **when}).json()
        assert answer["status"] == "success", f"{expression}: {answer.get('error')}"
        series: list[dict[str, Any]] = answer["data"]["result"]
        return series

    def last(self, expression: str) -> float:
        """The last value of an expression of one series; 0 where it has none."""
        series = self.ask(expression)
        return float(series[0]["values"][-1][1]) if series else 0.0


async def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.1)


async def play(server: Serving, watched: Watched) -> None:
    """A session of the sample, one that drops frames and has no beat, one without a key."""
    clip = read_sample()
    period_us = 1000 * clip.frame_time_ms
    frames = [Frame(n, round(n * period_us), jpeg) for n, jpeg in enumerate(clip.jpegs)]
    whole = Hello(clip.size, "jpeg", view="A4C")
    hasty = replace(whole, policy="latest")

    async def watched_frames() -> AsyncIterator[Frame]:
        for frame in frames:
            yield frame
        seen = 'sum(gdkvm_sessions{phase="live", replica=""})'
        await wait_until(lambda: watched.last(seen) > 0)

    for hello, sent in ((whole, watched_frames()), (hasty, frames[:12])):
        async for event in stream(server.url, sent, hello, key=KEY):
            watched.results += isinstance(event, Result)
            watched.dropped += isinstance(event, Dropped)
            if isinstance(event, Summary):
                break


def upload(server: Serving) -> None:
    """One clip, one file that is none, and one request without a key."""
    with httpx.Client(base_url=server.http, timeout=PATIENCE_S) as http:
        assert http.get("/v1/clips").status_code == 401
        http.headers["Authorization"] = f"Bearer {KEY}"
        query = {"wait_s": "60", "view": "A4C"}
        sample = sample_path().read_bytes()
        assert http.post("/v1/clips", params=query, content=sample).status_code == 200
        assert http.post("/v1/clips", params=query, content=b"no clip").status_code == 415


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    (folder / "key").write_text(KEY)
    (folder / "keys").write_text(hashlib.sha256(KEY.encode()).hexdigest())
    settings = {"api_keys_file": folder / "keys", "threads": 1, "streams": 1}
    with (
        fleet() as (replicas, fleet_place),
        serving(folder, **settings) as server,
        prometheus(folder, f"127.0.0.1:{server.port}", fleet_place) as address,
        httpx.Client(base_url=address) as http,
    ):
        watched = Watched(http, time.time())

        def is_scraped() -> bool:
            try:
                return watched.last("sum(up)") == 2 and replicas.scrapes >= 2
            except (httpx.TransportError, ValueError, KeyError):
                return False

        async def use() -> None:
            await wait_until(is_scraped)
            await play(server, watched)
            await asyncio.to_thread(upload, server)
            seen = 'sum(gdkvm_clips_total{replica=""})'
            await wait_until(lambda: watched.last(seen) == 2)
            # One scrape more, so that what was counted last is a rate too.
            before = replicas.scrapes
            await wait_until(lambda: replicas.scrapes >= before + 2)

        asyncio.run(use())
        yield watched


@pytest.mark.parametrize("query", queries(), ids=lambda query: f"{query.title}: {query.legend}")
def test_a_query_of_the_dashboard_is_answered_with_numbers(watched: Watched, query: Query) -> None:
    assert "$" not in query.expression
    series = watched.ask(query.expression)
    assert series, "a panel without a line"
    for each in series:
        assert all(each["metric"].get(label) for label in query.legend)
    values = [float(value) for each in series for _, value in each["values"]]
    finite = [value for value in values if math.isfinite(value)]
    assert finite, "a panel without a number"
    assert max(finite) > 0 or query.title in MAY_REST


def test_what_prometheus_counts_is_what_clients_were_told(watched: Watched) -> None:
    counted = {
        answer: watched.last(f'sum(gdkvm_frames_total{{answer="{answer}"}})')
        for answer in ("result", "dropped")
    }
    assert watched.dropped > 0
    assert counted == {"result": watched.results, "dropped": watched.dropped}
    assert watched.last("sum(gdkvm_ejection_fractions_total)") == 3
