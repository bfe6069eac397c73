"""HTTP with bounds: how long a connection may be silent, be slow, or leave answers unread."""

import asyncio
import resource
import socket
import sys
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from server.errors import IdleError
from server.guard import problem

MOST_HEAD_BYTES = 64 << 10
"""Of a request before its body, beside one piece as it came from the line."""

LEAST_BYTES_S = 500
"""How fast a body must come.

Source:
    MinRate of Apache's mod_reqtimeout, as it is by default.
"""

UNREAD_S = 60
"""How long a peer may take nothing of what is sent to it, before the system ends the connection.

Source:
    RFC 5482, the TCP user timeout; tcp(7), TCP_USER_TIMEOUT, which counts closed windows too.
"""


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's own waits for ever for a request or the rest of it, and takes endless headers.

    Attributes:
        silence_s: how long it may take until a request's headers are there, and how long its body
            may come more slowly than LEAST_BYTES_S.
    """

    silence_s = 30.0
    _pending_bytes = 0
    _body_bytes = 0
    _is_progress = False
    _is_in_body = False
    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a first request."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._wait_no_more()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read a piece; too many in which neither headers end nor a body goes on are refused."""
        self._is_progress = False
        super().data_received(data)
        self._pending_bytes = 0 if self._is_progress else self._pending_bytes + len(data)
        if self._pending_bytes > MOST_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("The headers of this request are too long.")
        elif self._pending_bytes and self._patience is None:
            self._wait()

    def on_headers_complete(self) -> None:
        """Go on to the body."""
        self._is_progress = self._is_in_body = True
        self._wait()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._is_progress = True
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Be done with a request."""
        self._is_progress, self._is_in_body = True, False
        self._wait_no_more()
        super().on_message_complete()

    def _wait(self) -> None:
        self._wait_no_more()
        self._body_bytes = 0
        self._patience = self.loop.call_later(self.silence_s, self._lose_patience)

    def _wait_no_more(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _lose_patience(self) -> None:
        self._patience = None
        if self.transport.is_closing() or self.transport.get_protocol() is not self:
            return
        is_answering = self.cycle is not None and not self.cycle.response_complete
        is_slow = self._body_bytes < LEAST_BYTES_S * self.silence_s
        if self._is_in_body and (self.flow.read_paused or not is_slow):
            self._wait()
        elif is_answering and not self._is_in_body:
            self._wait()  # an earlier request, which is not to suffer from half of another one
        else:
            self._give_up()

    def _give_up(self) -> None:
        is_answered = self._is_in_body and self.cycle is not None and self.cycle.response_started
        if (self._pending_bytes or self._is_in_body) and not is_answered:
            self.transport.write(_timeout_answer(self.silence_s))
        self.transport.close()


def bounded_http(silence_s: float) -> type[BoundedHttp]:
    """BoundedHttp that bears so much silence."""
    return type("BoundedHttp", (BoundedHttp,), {"silence_s": silence_s})


def _timeout_answer(silence_s: float) -> bytes:
    """What a request is told that does not go on.

    Source:
        RFC 9110 section 15.5.9.
    """
    error = IdleError(
        f"this request did not go on for {silence_s:g} s, or at less than {LEAST_BYTES_S} bytes/s"
    )
    answer = problem(error)
    status = HTTPStatus(answer.status_code)
    headers = [*answer.raw_headers, (b"connection", b"close")]
    lines = [f"HTTP/1.1 {status.value} {status.phrase}".encode()]
    lines += [name + b": " + value for name, value in headers]
    return b"\r\n".join([*lines, b"", answer.body])


def end_where_unread(listener: socket.socket) -> None:
    """Let the system end connections whose peers take nothing; those accepted are like it."""
    if sys.platform == "linux":
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * UNREAD_S)


def allow_many_sockets() -> None:
    """Open as many files as this process may: the usual 1024 are soon taken by idle sockets."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
