"""A server of this machine's own for a demonstration or a measurement."""

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import BinaryIO

from server.commands.terminal import CommandError

READY_WITHIN_S, STOPPED_WITHIN_S = 90.0, 15.0
_PAUSE_S = 0.1


@contextmanager
def local_server(settings: Mapping[str, str] | None = None) -> Iterator[str]:
    """Run `gdkvm serve` on a free loopback port as long as the block lasts.

    Args:
        settings: GDKVM_* variables beside those of this process.

    Yields:
        Its address, beginning ``http://``.

    Raises:
        CommandError: it did not become ready; what it said last is in the message.
    """
    port = _free_port()
    command = [sys.executable, "-m", "server.cli", "serve", "--port", str(port)]
    # A pipe that nobody reads would stop a server that has much to say; and the user's own server
    # may be at work in the folder of clips.
    with (
        tempfile.TemporaryDirectory() as clips,
        tempfile.TemporaryFile() as said,
        subprocess.Popen(
            command,
            env=os.environ | {"GDKVM_CLIP_DIR": clips} | dict(settings or {}),
            stdout=subprocess.DEVNULL,
            stderr=said,
        ) as server,
    ):
        try:
            _wait_until_ready(server, said, f"http://127.0.0.1:{port}")
            yield f"http://127.0.0.1:{port}"
        finally:
            _stop(server)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(server: "subprocess.Popen[bytes]", said: BinaryIO, address: str) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            said.seek(0)
            last = said.read().decode(errors="replace").strip().splitlines()[-1:]
            raise CommandError("engine_dead", f"the server did not start: {''.join(last)}")
        try:
            with urllib.request.urlopen(f"{address}/readyz", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(_PAUSE_S)
    raise CommandError("engine_dead", f"the server was not ready within {READY_WITHIN_S:.0f} s")


def _stop(server: "subprocess.Popen[bytes]") -> None:
    """Ask politely first, as an operator would."""
    server.terminate()
    try:
        server.wait(STOPPED_WITHIN_S)
    except subprocess.TimeoutExpired:
        server.kill()
