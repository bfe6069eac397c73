"""A real Prometheus scrapes a real server with its key, and the alerts of its faults fire."""

import asyncio
import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.deploy.monitoring import prometheus
from tests.server.live import CRASH, HELLO, Live, beating, flat, live_server

PATIENCE_S = 120.0


def firing(address: str) -> list[str]:
    try:
        answer = httpx.get(f"{address}/api/v1/alerts").json()
    except (httpx.TransportError, ValueError):
        return []
    alerts: list[dict[str, Any]] = answer["data"]["alerts"]
    return [each["labels"]["alertname"] for each in alerts if each["state"] == "firing"]


@contextmanager
def served(folder: Path) -> Iterator[tuple[Live, str]]:
    """A server, and the address of a Prometheus that scrapes it."""
    (folder / "keys").write_text(f"{hashlib.sha256(b'watch').hexdigest()} scopes=admin,stream")
    (folder / "key").write_text("watch")
    with (
        live_server(folder / "clips", api_keys_file=folder / "keys") as live,
        prometheus(folder, f"127.0.0.1:{live.port}") as address,
    ):
        yield live, address


async def test_the_alert_of_a_stalled_engine_fires_and_ends(tmp_path: Path) -> None:
    with served(tmp_path) as (live, address):
        async with live.socket(Authorization="Bearer watch") as talk:
            await talk.say(HELLO)
            await talk.hear()
            live.backend.gate.clear()
            await talk.say(beating(0))
            await until_fires(address, ["GdkvmEngineStalled"])
            live.backend.gate.set()
            await talk.hear()
            await talk.end()
        await until_fires(address, [])


async def test_the_alert_of_a_fault_fires_at_the_first_one(tmp_path: Path) -> None:
    with served(tmp_path) as (live, address):
        await until_scraped(address)
        async with live.socket(Authorization="Bearer watch") as talk:
            await talk.say(HELLO)
            await talk.hear()
            await talk.say(flat(0, CRASH))
            await talk.hear_all()
        await until_fires(address, ["GdkvmFaults"])


async def until_scraped(address: str) -> None:
    def is_scraped() -> bool:
        try:
            answer = httpx.get(f"{address}/api/v1/query", params={"query": "gdkvm_ready"}).json()
        except (httpx.TransportError, ValueError):
            return False
        return bool(answer["data"]["result"])

    deadline = time.monotonic() + PATIENCE_S
    while not await asyncio.to_thread(is_scraped):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.3)


async def until_fires(address: str, alerts: list[str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while await asyncio.to_thread(firing, address) != alerts:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.3)
