"""A real Prometheus scrapes a real server with its key, and the alert of a stalled engine fires."""

import asyncio
import hashlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server.live import HELLO, Live, beating, live_server

DEPLOY = Path(__file__).parents[2] / "deploy" / "prometheus"
PATIENCE_S = 120.0


def firing(address: str) -> list[str]:
    try:
        answer = httpx.get(f"{address}/api/v1/alerts").json()
    except (httpx.TransportError, ValueError):
        return []
    alerts: list[dict[str, Any]] = answer["data"]["alerts"]
    return [each["labels"]["alertname"] for each in alerts if each["state"] == "firing"]


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[str]:
    """Run with the shipped configuration until the block ends; its address."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is absent, and 100 MB too much for the gate to install")
    with socket.create_server(("127.0.0.1", 0)) as free:
        place = f"127.0.0.1:{free.getsockname()[1]}"
    text = (DEPLOY / "prometheus.yml").read_text().replace("gdkvm:8000", target)
    text = text.replace("/etc/prometheus/gdkvm-key", str(folder / "key")).replace("5s", "1s")
    (folder / "prometheus.yml").write_text(text)
    # The shipped rule waits longer than a test should; promtool tests its times.
    rules = (DEPLOY / "rules.yml").read_text()
    quick = rules.replace("_seconds > 5\n        for: 10s", "_seconds > 1\n        for: 1s")
    assert quick != rules
    (folder / "rules.yml").write_text(quick)
    command = [
        program,
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address={place}",
    ]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            yield f"http://{place}"
        finally:
            process.terminate()


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


async def until_fires(address: str, alerts: list[str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while await asyncio.to_thread(firing, address) != alerts:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.3)
