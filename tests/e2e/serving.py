"""`gdkvm serve` as a process of its own, as an operator starts it."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

PATIENCE_S = 90.0
"""How long a slow machine may take; nothing here measures time."""


@dataclass(frozen=True)
class Serving:
    """A running server.

    Attributes:
        errors: what it writes to standard error.
    """

    process: "subprocess.Popen[str]"
    port: int
    errors: Path

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/v1/stream"


@contextmanager
def serving(folder: Path, **settings: object) -> Iterator[Serving]:
    """Serve on a free port with these settings until the block ends."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("GDKVM_")}
    own = {"clip_dir": folder / "clips", "snapshot_store": folder / "sessions.sqlite"}
    chosen: dict[str, object] = {**own, **settings}
    ours = {f"GDKVM_{name.upper()}": str(value) for name, value in chosen.items()}
    command = [sys.executable, "-m", "server.cli", "serve", "--port", "0"]
    errors = folder / "stderr"
    with (
        errors.open("w") as stderr,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=others | ours
        ) as process,
    ):
        try:
            assert process.stdout is not None
            announced = process.stdout.readline()
            found = re.search(r"http://127\.0\.0\.1:(\d+)", announced)
            assert found is not None, announced + errors.read_text()
            yield await_ready(Serving(process, int(found[1]), errors))
        finally:
            process.terminate()


def await_ready(server: Serving) -> Serving:
    """Wait until /readyz says yes."""
    deadline = time.monotonic() + PATIENCE_S
    with httpx.Client(base_url=server.http) as http:
        while True:
            assert time.monotonic() < deadline, server.errors.read_text()
            try:
                if http.get("/readyz").status_code == 200:
                    return server
            except httpx.TransportError:
                time.sleep(0.05)
