"""Who may ask: holders of a key or ticket, and of browsers only the pages of this server."""

import asyncio
import json
import logging
import re
import secrets
from urllib.parse import SplitResult, parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from model import EchoError
from server.access import PROBES, STREAM, Pacer, TicketOffice, is_public, scope_of
from server.audit import Record
from server.errors import (
    BodyTooLargeError,
    ForbiddenError,
    ForeignPageError,
    NotFoundError,
    UnauthorizedError,
    WireCodes,
)
from server.keys import KEY_SLOT, ApiKey, KeyRing
from server.log import key_name, request_name
from server.metrics import Metrics
from server.protocol import ErrorMessage

logger = logging.getLogger(__name__)

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")

PROBLEM = "application/problem+json"
REQUEST_ID = "X-Request-ID"
_PART = re.compile(rb"(\d{1,18})-(\d{0,18})|-\d{1,18}")
_REQUEST_NAME = re.compile("[A-Za-z0-9_-]{8,64}")

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "media-src 'self' blob:; connect-src 'self'; worker-src 'self' blob:; font-src 'self'; "
        "manifest-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), display-capture=(self), geolocation=(), microphone=()",
}
"""Of every answer that does not set its own.

Source:
    OWASP Secure Headers Project; Content Security Policy Level 3, W3C.
"""

TRANSPORT_SECURITY = "max-age=31536000"


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
    """Middleware that names requests, turns away strangers, and holds keys to their limits.

    Without keys the server is for its own machine alone; then a browser must also have asked for
    that machine by name, since a page elsewhere may point its own name here.
    """

    def __init__(
        self, app: ASGIApp, keys: KeyRing, tickets: TicketOffice, metrics: Metrics, pacer: Pacer
    ) -> None:
        self._app = app
        self._keys = keys
        self._tickets = tickets
        self._metrics = metrics
        self._pacer = pacer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        _take_odd_range(scope)
        headers = Headers(scope=scope)
        request_name.set(name := _request_name(headers))
        send = _with_headers(scope, send, name)
        if scope["path"] in PROBES:
            await self._app(_as_get(scope), receive, send)
            return
        try:
            key = await self._admit(scope, headers)
        except EchoError as error:
            self._metrics.errors.labels(error.code).inc()
            logger.warning("request refused", extra={"code": error.code, "kind": scope["type"]})
            await _refuse(error, scope, receive, send)
            return
        scope[KEY_SLOT] = key
        key_name.set(None if key is None else key.name)
        if scope["type"] == "websocket":
            await self._stream(key, scope, receive, send)
        else:
            await self._exchange(key, scope, receive, send)

    async def _admit(self, scope: Scope, headers: Headers) -> ApiKey | None:
        """The key of a request; None where it needs none.

        Raises:
            EchoError: it is refused.
        """
        if scope["type"] == "websocket" and scope["path"] != STREAM:
            raise NotFoundError(f"the websocket is at {STREAM}")
        host = headers.get("host", "")
        origin = headers.get("origin")
        if origin is not None and _place(origin).netloc != host and _acts(scope):
            raise ForeignPageError("a page of another origin may not use this server")
        if not self._keys.is_needed:
            if _place(f"//{host}").hostname not in LOOPBACK_NAMES:
                raise ForeignPageError("without keys this server answers to localhost alone")
            return None
        if scope["type"] == "http" and is_public(scope["path"]):
            return None
        key = await self._key_of(scope, headers)
        wanted = scope_of(scope["path"])
        if wanted is not None and wanted not in key.scopes:
            raise ForbiddenError(f"this key does not open what needs the scope {wanted}")
        limit = key.max_upload_bytes
        if limit is not None and int(headers.get("content-length") or 0) > limit:
            raise BodyTooLargeError(f"an upload with this key may have {limit} bytes")
        return key

    async def _key_of(self, scope: Scope, headers: Headers) -> ApiKey:
        """The key that a request shows, in its header or by a ticket.

        Raises:
            UnauthorizedError: none, or one that opens nothing.
        """
        kind, _, secret = headers.get("authorization", "").partition(" ")
        found = self._keys.find(secret.strip()) if kind.lower() == "bearer" else None
        ticket = _take_ticket(scope)
        if found is None and ticket is not None and not (_acts(scope) and scope["type"] == "http"):
            redeemed = await self._tickets.redeem(ticket)
            found = redeemed and self._keys.current(redeemed)
        if found is None:
            raise UnauthorizedError("send a key of this server: Authorization: Bearer KEY")
        return found

    async def _exchange(
        self, key: ApiKey | None, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answer one HTTP request, and write down what it did."""
        record = Record(None if key is None else key.name)
        limit = None if key is None else key.max_upload_bytes

        async def counted() -> Message:
            message = await receive()
            record.received(message)
            if limit is not None and record.received_bytes > limit:
                raise BodyTooLargeError(f"an upload with this key may have {limit} bytes")
            return message

        async def noted(message: Message) -> None:
            record.sent(message)
            await send(message)

        try:
            await self._app(_as_get(scope), counted, noted)
        finally:
            if scope_of(scope["path"]) == "upload" and not is_public(scope["path"]):
                record.write(scope)

    async def _stream(self, key: ApiKey | None, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a websocket on; with a key, at its pace and as long as it is valid."""
        if key is None:
            await self._app(scope, receive, send)
            return
        leash = Leash(key, self._keys, self._pacer, receive, send)
        await self._app(scope, leash.receive, leash.send)


class Leash:
    """A websocket that is read no faster than its key allows, and closed when that is revoked."""

    def __init__(
        self, key: ApiKey, keys: KeyRing, pacer: Pacer, receive: Receive, send: Send
    ) -> None:
        self._key = key
        self._keys = keys
        self._pacer = pacer
        self._receive = receive
        self._send = send
        self._wait_s = 0.0
        self._is_cut = False

    async def receive(self) -> Message:
        """Wait for the next message; the wait comes first, so that no message is lost in it."""
        wait_s, self._wait_s = self._wait_s, 0.0
        await asyncio.sleep(wait_s)
        message = await self._receive()
        current = self._keys.current(self._key)
        if current is None or "stream" not in current.scopes:
            await self._cut()
            return {"type": "websocket.disconnect", "code": 1008, "reason": ""}
        if message.get("bytes") is not None:
            self._wait_s = self._pacer.count(current)
        return message

    async def send(self, message: Message) -> None:
        """Send, unless the key was revoked."""
        if not self._is_cut:
            await self._send(message)

    async def _cut(self) -> None:
        self._is_cut = True
        error = UnauthorizedError("the key of this session was revoked")
        told = ErrorMessage(code=error.code, message=error.message, retryable=False)
        await self._send({"type": "websocket.send", "text": told.to_json()})
        await self._send({"type": "websocket.close", "code": WireCodes.close_code(error)})


def _request_name(headers: Headers) -> str:
    """The name that a proxy gave a request, where it is one that cannot say anything; or ours."""
    given = headers.get(REQUEST_ID, "")
    return given if _REQUEST_NAME.fullmatch(given) else "r_" + secrets.token_urlsafe(9)


def _with_headers(scope: Scope, send: Send, name: str) -> Send:
    """Add to every answer what keeps browsers safe, and the request's name."""

    async def sending(message: Message) -> None:
        if message["type"] in ("http.response.start", "websocket.http.response.start"):
            headers = MutableHeaders(scope=message)
            headers[REQUEST_ID] = name
            for header, value in SECURITY_HEADERS.items():
                headers.setdefault(header, value)
            if scope["path"].startswith("/v1/"):
                headers.setdefault("Cache-Control", "no-store")
            if scope["scheme"] in ("https", "wss"):
                headers.setdefault("Strict-Transport-Security", TRANSPORT_SECURITY)
        await send(message)

    return sending


def _take_ticket(scope: Scope) -> str | None:
    """Take the ticket out of a request's query, so that nothing behind can write it down."""
    query = scope["query_string"]
    if b"ticket=" not in query:
        return None
    rest = b"&".join(part for part in query.split(b"&") if not part.startswith(b"ticket="))
    scope["query_string"] = rest
    found = parse_qs(query.decode("latin-1")).get("ticket")
    return found[0] if found else None


def _place(address: str) -> SplitResult:
    """Take an address apart; one that is none has no parts."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")


def _as_get(scope: Scope) -> Scope:
    """HEAD is answered as GET is; whatever runs this app leaves out the body.

    Source:
        RFC 9110 section 9.3.2.
    """
    return {**scope, "method": "GET"} if scope.get("method") == "HEAD" else scope


def _take_odd_range(scope: Scope) -> None:
    """Take a Range that names no part of a file out of a request, so that the whole is sent.

    Source:
        RFC 9110 section 14.2.
    """
    scope["headers"] = [
        (name, value) for name, value in scope["headers"] if name != b"range" or _names_parts(value)
    ]


def _names_parts(value: bytes) -> bool:
    """Whether a Range header is one of bytes.

    Source:
        RFC 9110 sections 5.6.1.2, 14.1.1 and 14.1.2.
    """
    unit, _, listed = value.partition(b"=")
    parts = [part for part in (each.strip(b" \t") for each in listed.split(b",")) if part]
    found = [_PART.fullmatch(part) for part in parts]
    is_whole = all(each and not (each[2] and int(each[2]) < int(each[1])) for each in found)
    return unit.lower() == b"bytes" and bool(parts) and is_whole


def _acts(scope: Scope) -> bool:
    """Whether a request changes something, or opens a stream."""
    return scope["type"] == "websocket" or scope["method"] not in SAFE_METHODS


async def _refuse(error: EchoError, scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse with a status; an upgrade where the server cannot, with a close before accept."""
    answer = problem(error)
    if scope["type"] == "http":
        await answer(scope, receive, send)
        return
    if "websocket.http.response" not in scope.get("extensions", {}):
        await WebSocketClose(1008, error.code)(scope, receive, send)
        return
    await send(
        {
            "type": "websocket.http.response.start",
            "status": answer.status_code,
            "headers": answer.raw_headers,
        }
    )
    await send({"type": "websocket.http.response.body", "body": answer.body})
