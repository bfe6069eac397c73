"""The server as a process: start, serve, drain, stop."""

import asyncio
import gc
import logging
import os
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import cv2
import uvicorn

from server.app import Parts, create_app
from server.commands.patience import allow_many_sockets, bounded_http, end_where_unread
from server.commands.terminal import CommandError
from server.errors import SettingsError
from server.log import configure_logging
from server.settings import Settings

logger = logging.getLogger(__name__)

MESSAGE_SLACK_BYTES = 1 << 20
"""A message this much above the limit still gets a sentence before its socket is closed."""

LAST_S = 5.0
"""What a stopping server gets beside the time for its sessions and for its requests."""

SWITCH_S = 0.001
"""How soon a thread that waits for the interpreter gets it; 5 ms would be the event loop's wait."""

PING_S = 20.0
BACKLOG = 256


class DrainingServer(uvicorn.Server):
    """Lets every session leave in order before it stops."""

    def __init__(self, settings: Settings) -> None:
        """Load the weights and put a server together.

        Raises:
            EchoError: bad weights or keys.
        """
        app = create_app(settings)
        self.app = app
        self.parts: Parts = app.state.parts
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                log_config=None,
                access_log=False,
                server_header=False,
                http=bounded_http(settings.idle_timeout_s),
                ws="websockets-sansio",
                ws_max_size=settings.frame_max_bytes + MESSAGE_SLACK_BYTES,
                ws_per_message_deflate=False,
                ws_ping_interval=PING_S,
                ws_ping_timeout=PING_S,
                timeout_graceful_shutdown=max(1, round(settings.drain_s)),
                backlog=BACKLOG,
                ssl_certfile=settings.tls_cert_file,
                ssl_keyfile=settings.tls_key_file,
            )
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, then stop as uvicorn does, within a deadline."""
        deadline = threading.Timer(2 * self.parts.settings.drain_s + LAST_S, _give_up)
        deadline.daemon = True
        deadline.start()
        try:
            await asyncio.gather(self.parts.roster.drain(), self._drain_receiver())
            await super().shutdown(sockets)
        finally:
            deadline.cancel()

    async def _drain_receiver(self) -> None:
        if self.parts.receiver is not None:
            await asyncio.to_thread(self.parts.receiver.close)


def run_server(settings: Settings) -> None:
    """Serve until told to stop.

    Raises:
        EchoError: bad settings, weights or keys, or the port is taken.
    """
    configure_logging(settings.log_level, settings.audit_file)
    check_certificate(settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn stops in order, then raises the signal again for whoever handled it before.
        signal.signal(number, _leave)
    server = DrainingServer(settings)
    asyncio.run(warm_up(server.app))
    hold_up_nobody()
    allow_many_sockets()
    listener = _listen(settings)
    announce(listener, "http" if settings.tls_cert_file is None else "https")
    server.run([listener])


def check_certificate(settings: Settings) -> None:
    """Refuse a certificate before anything is loaded or announced.

    Raises:
        SettingsError: it cannot be used; a key under a password cannot.
    """
    if settings.tls_cert_file is None:
        return
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file, password="")
    except OSError as error:
        raise SettingsError(
            f"GDKVM_TLS_CERT_FILE, GDKVM_TLS_KEY_FILE: cannot be used ({error.strerror or error})"
        ) from error


async def warm_up(app: Callable[..., Awaitable[None]]) -> None:
    """Fetch the page, from the last of all routes: what a first request sets up takes 20 ms."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/",
        "raw_path": b"/",
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
        "client": None,
        "server": None,
    }

    is_sent = False

    async def receive() -> dict[str, Any]:
        nonlocal is_sent
        if is_sent:
            # Who listens for the client's leaving is not to spin.
            await asyncio.Event().wait()
        is_sent = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(_: dict[str, Any]) -> None:
        return

    await app(scope, receive, send)


def hold_up_nobody() -> None:
    """Set the process up for answers in time; call it when all that stays for ever is loaded.

    The collector takes 70 ms to look through what a server has loaded, and nobody runs meanwhile:
    it need not look there. Frames are worked on side by side, so no picture is spread over threads.
    """
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(SWITCH_S)
    cv2.setNumThreads(1)


def _give_up() -> None:
    """End a process that does not stop; every session that could be stored is."""
    logger.error("something hangs; the process ends itself")
    os._exit(1)


def _leave(_signal: int, _frame: object) -> None:
    """End as one who was asked to, not as one who was killed."""
    sys.exit(0)


def _listen(settings: Settings) -> socket.socket:
    """Bind before anything is announced, so that a taken port is told in words."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server(
            (settings.host, settings.port), family=family, backlog=BACKLOG
        )
    except OSError as error:
        raise CommandError(
            "system", f"cannot listen on {settings.host}:{settings.port}: {error.strerror}"
        ) from error
    end_where_unread(listener)
    return listener


def announce(listener: socket.socket, scheme: str = "http") -> None:
    """Say where the server is."""
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    sys.stdout.write(
        f"GDKVM Live on {scheme}://{shown}:{port}   (research use only; Ctrl+C stops)\n"
    )
    sys.stdout.flush()
