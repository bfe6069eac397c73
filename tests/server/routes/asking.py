"""What the tests of the routes ask a server, and how its answers are checked."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from tests.server.phantom import Served

COUNT, WAIT = 8, {"wait_s": 60}
LIMIT, STUDY_LIMIT = 2_000_000, 8_000_000


def assert_problem(answer: httpx.Response, status: int, code: str) -> str:
    """Check a refusal; returns its sentence.

    Source:
        RFC 9457, sections 3 and 3.1.
    """
    document = answer.json()
    assert (answer.status_code, document["code"]) == (status, code)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert document["status"] == status
    assert document["type"] == "about:blank"
    assert document["title"]
    assert isinstance(document["detail"], str)
    assert len(document["detail"]) > 10
    return str(document["detail"])


def raw_socket(served: Served) -> socket.socket:
    return socket.create_connection(("127.0.0.1", served.port()), timeout=30)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def held(served: Served) -> Iterator[None]:
    """Keep the network from answering as long as the block lasts."""
    served.backend.gate.clear()
    try:
        yield
    finally:
        served.backend.gate.set()


def events_of(
    served: Served, place: str, headers: dict[str, str] | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read server-sent events to the end of their stream.

    Source:
        WHATWG HTML, section 9.2.6: fields end with a line break, events with an empty line.
    """
    with served.http.stream("GET", f"{place}/events", timeout=15, headers=headers) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        fields: dict[str, str] = {}
        for line in answer.iter_lines():
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif "data" in fields:
                yield fields["event"], json.loads(fields["data"])
                fields = {}
