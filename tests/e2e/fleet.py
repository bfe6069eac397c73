"""`gdkvm serve --ray` with a Redis of its own, and what strikes its replicas."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.e2e.serving import PATIENCE_S


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@contextmanager
def redis_server(folder: Path, *options: str, port: int | None = None) -> Iterator[str]:
    """Run a Redis as long as the block lasts; yields its address."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed")
    port = port or free_port()
    command = [program, "--port", str(port), "--save", "", "--dir", str(folder), *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()


class Replicas:
    """A fleet that serves on this machine."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int, store: str) -> None:
        self.process = process
        self.http = f"http://127.0.0.1:{port}"
        self.url = f"ws://127.0.0.1:{port}/v1/stream"
        self._mark = f"GDKVM_SNAPSHOT_STORE={store}".encode()

    def pids(self) -> set[int]:
        """The processes of its replicas."""
        return {int(each.name) for each in Path("/proc").iterdir() if self._is_replica(each)}

    def _is_replica(self, process: Path) -> bool:
        try:
            title = (process / "cmdline").read_bytes()
            return b"ServeReplica" in title and self._mark in self.environment(int(process.name))
        except OSError:
            return False

    def environment(self, pid: int) -> bytes:
        """What a process was started with."""
        return Path(f"/proc/{pid}/environ").read_bytes()

    def kill_one(self) -> int:
        """End a replica without a warning."""
        victim = min(self.pids())
        os.kill(victim, signal.SIGKILL)
        return victim

    def roll_out(self) -> None:
        """Have every replica replaced."""
        self.process.send_signal(signal.SIGHUP)

    def until_ready(self) -> None:
        """Wait until some replica serves."""
        self.until(lambda: httpx.get(f"{self.http}/readyz").status_code == 200)

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something to be so."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            assert self.process.poll() is None
            assert time.monotonic() < deadline
            try:
                if condition():
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.1)


@contextmanager
def fleet(folder: Path, store: str, replicas: int, **settings: object) -> Iterator[Replicas]:
    """Serve with so many replicas until the block ends."""
    port = free_port()
    chosen: dict[str, object] = {
        "snapshot_store": store, "clip_dir": folder / "clips", "checkpoint_frames": 5,
        "streams": 1, "capacity_fps": 10_000,
        **settings,
    }  # fmt: skip
    ours = {f"GDKVM_{name.upper()}": str(value) for name, value in chosen.items()}
    others = {name: value for name, value in os.environ.items() if not name.startswith("GDKVM_")}
    command = [sys.executable, "-m", "server.cli", "serve", "--ray", "--port", str(port)]
    command += ["--replicas", str(replicas)]
    with (
        (folder / "fleet.log").open("wb") as log,
        subprocess.Popen(command, env=others | ours, stdout=log, stderr=log) as process,
    ):
        try:
            served = Replicas(process, port, store)
            served.until_ready()
            served.until(lambda: len(served.pids()) == replicas)
            yield served
        finally:
            process.terminate()
