"""Two servers on one Redis and one folder: clips survive either of them, and are worked on once."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from gdkvm_client import Hello, Result, StreamClient
from server.ingest import read_sample, sample_path
from tests.e2e.chaos import frames_of
from tests.e2e.fleet import redis_server
from tests.e2e.serving import PATIENCE_S, Serving, serving
from tests.server.phantom import phantom_clip

LONG = 200
"""Frames of a clip that a server is struck in the middle of."""


@dataclass(frozen=True)
class Two:
    """Servers that share what is in `folder`."""

    a: Serving
    b: Serving
    folder: Path

    def results_kept(self, place: str) -> int:
        return len(list((self.folder / "share" / place[1:]).glob("result.json~*")))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    """For all tests here; the last one kills one of them."""
    folder = tmp_path_factory.mktemp("shared")
    with ExitStack() as stack:
        common = {
            "snapshot_store": stack.enter_context(redis_server(folder)),
            "clip_share": folder / "share", "clip_lease_s": 1, "max_clips": 2,
        }  # fmt: skip
        for name in ("a", "b"):
            (folder / name).mkdir()
        a, b = (stack.enter_context(serving(folder / name, **common)) for name in ("a", "b"))
        yield Two(a, b, folder)


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return phantom_clip(tmp_path_factory.mktemp("long") / "long.dcm", LONG).read_bytes()


def ask(server: Serving, method: str, path: str, **more: Any) -> httpx.Response:
    return httpx.request(method, f"{server.http}/v1/clips{path}", timeout=PATIENCE_S, **more)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def upload(server: Serving, content: bytes, **parameters: object) -> tuple[str, httpx.Response]:
    """Where the clip is, and the answer."""
    answer = ask(server, "POST", "", content=content, params=parameters)
    return answer.headers.get("Location", "").removeprefix("/v1/clips"), answer


@contextmanager
def frozen(server: Serving) -> Iterator[None]:
    server.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.process.send_signal(signal.SIGCONT)


def test_any_server_answers_for_a_clip_of_another(two: Two) -> None:
    sample = sample_path().read_bytes()
    place, done = upload(two.a, sample, view="A4C", wait_s=60)
    assert done.status_code == 200, done.text
    assert ask(two.b, "GET", place).json()["state"] == "done"
    assert ask(two.b, "GET", f"{place}/result").json() == done.json()
    tables = [ask(each, "GET", f"{place}/frames.csv").text for each in (two.b, two.a)]
    assert tables[0] == tables[1]
    twin, same = upload(two.b, sample, view="A4C", wait_s=60)
    assert same.json() == done.json()
    for gone in (place, twin):
        assert ask(two.b, "DELETE", gone).status_code == 204
        assert ask(two.a, "GET", gone).status_code == 404
    assert ask(two.a, "GET", "").json() == []


def test_a_frozen_server_neither_harms_nor_repeats_what_another_found(
    two: Two, long_clip: bytes
) -> None:
    with frozen(two.b):  # so that the other one takes it
        place, _ = upload(two.a, long_clip)
        until(lambda: bool(ask(two.a, "GET", place).json()["progress"]))
        two.a.process.send_signal(signal.SIGSTOP)
    until(lambda: ask(two.b, "GET", place).json()["state"] == "done")
    result = ask(two.b, "GET", f"{place}/result").json()
    two.a.process.send_signal(signal.SIGCONT)
    until(lambda: "left to others" in two.a.errors.read_text())
    assert ask(two.a, "GET", f"{place}/result").json() == result
    assert two.results_kept(place) == 1


def test_what_a_killed_server_began_another_finishes_once_and_limits_hold_for_both(
    two: Two, long_clip: bytes
) -> None:
    with frozen(two.b):
        place, _ = upload(two.a, long_clip, view="A4C")
        until(lambda: bool(ask(two.a, "GET", place).json()["progress"]))
        waiting, _ = upload(two.a, sample_path().read_bytes())
        two.a.process.send_signal(signal.SIGSTOP)
    _, full = upload(two.b, long_clip)
    assert (full.status_code, full.json()["code"]) == (503, "full")
    two.a.process.kill()
    for clip in (place, waiting):
        until(lambda clip=clip: ask(two.b, "GET", clip).json()["state"] == "done")  # type: ignore[misc]
        assert two.results_kept(clip) == 1
    assert len(ask(two.b, "GET", f"{place}/result").json()["frames"]) == LONG


def is_ready(server: Serving) -> bool:
    return httpx.get(f"{server.http}/readyz").status_code == 200


async def test_without_redis_clips_are_refused_in_words_and_a_live_session_goes_on(
    tmp_path: Path,
) -> None:
    clip = read_sample()
    (tmp_path / "a").mkdir()
    with ExitStack() as stack:
        redis_stack = stack.enter_context(ExitStack())
        url = redis_stack.enter_context(redis_server(tmp_path))
        server = stack.enter_context(
            serving(tmp_path / "a", snapshot_store=url, clip_share=tmp_path / "share")
        )
        hello = Hello(clip.size, "jpeg", policy="every")
        async with StreamClient(server.url, hello, will_resume=False) as client:
            for number, frame in enumerate(frames_of(clip, 6)):
                if number == 3:
                    redis_stack.close()
                    for method, content in (("GET", None), ("POST", b"some clip")):
                        refusal = ask(server, method, "", content=content)
                        assert refusal.status_code == 503
                        assert refusal.json()["code"] == "store_unavailable"
                await client.send(frame)
                assert isinstance(await anext(client), Result)
        assert is_ready(server)
