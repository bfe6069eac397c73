"""Who may ask: keys for everybody, and for browsers only pages of this server."""

import json
from urllib.parse import SplitResult, urlsplit

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from model import EchoError
from server.errors import ForeignPageError, UnauthorizedError, WireCodes
from server.settings import KeyRing

OPEN_PATHS = ("/livez", "/readyz")
"""Answered without a key, so that an orchestrator needs none."""

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")

PROBLEM = "application/problem+json"


def problem(error: EchoError) -> Response:
    """An error as a problem document.

    Source:
        RFC 9457.
    """
    status = WireCodes.http_status(error)
    document = {
        "type": "about:blank",
        "title": error.code.replace("_", " "),
        "status": status,
        "detail": error.message,
        "code": error.code,
    }
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    if status == 503:
        headers["Retry-After"] = "5"
    return Response(json.dumps(document), status, headers, PROBLEM)


class Guard:
    """Middleware that turns away requests without a key, and pages of other origins.

    Without keys the server is for its own machine alone; then a browser must also have asked for
    that machine by name, since a page elsewhere may point its own name here.
    """

    def __init__(self, app: ASGIApp, keys: KeyRing) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] not in ("http", "websocket") or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        error = self.objection(scope, Headers(scope=scope))
        if error is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await problem(error)(scope, receive, send)
        else:
            await _reject(error, scope, receive, send)

    def objection(self, scope: Scope, headers: Headers) -> EchoError | None:
        """Why a request is refused; None where it is not."""
        host = headers.get("host", "")
        origin = headers.get("origin")
        if origin is not None and _place(origin).netloc != host and _acts(scope):
            return ForeignPageError("a page of another origin may not use this server")
        if self._keys:
            kind, _, key = headers.get("authorization", "").partition(" ")
            if kind.lower() != "bearer" or not self._keys.opens(key.strip()):
                return UnauthorizedError("send a key of this server: Authorization: Bearer KEY")
        elif _place(f"//{host}").hostname not in LOOPBACK_NAMES:
            return ForeignPageError("without keys this server answers to localhost alone")
        return None


def _place(address: str) -> SplitResult:
    """Take an address apart; one that is none has no parts."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")


def _acts(scope: Scope) -> bool:
    """Whether a request changes something, or opens a stream."""
    return scope["type"] == "websocket" or scope["method"] not in SAFE_METHODS


async def _reject(error: EchoError, scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse an upgrade with a status where the server can, else with a close before accept."""
    if "websocket.http.response" not in scope.get("extensions", {}):
        await WebSocketClose(1008, error.code)(scope, receive, send)
        return
    answer = problem(error)
    await send(
        {
            "type": "websocket.http.response.start",
            "status": answer.status_code,
            "headers": answer.raw_headers,
        }
    )
    await send({"type": "websocket.http.response.body", "body": answer.body})
