"""What a key opens and how much of it: paths by scope, tickets for browsers, frame rates."""

import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Protocol

from server.keys import ApiKey, Scope

PROBES = ("/livez", "/readyz")
"""Answered to anybody and under any name, so that an orchestrator needs no key."""

STREAM = "/v1/stream"
"""The one websocket."""

PUBLIC = ("/", "/docs", "/openapi.json", "/asyncapi.json", "/sample.json")
"""What a browser loads before anybody can enter a key: nothing here is anybody's own."""

PUBLIC_SUFFIXES = (".html", ".js", ".css", ".svg", ".png", ".ico", ".webmanifest", ".woff2")
INNER = ("/v1/", "/dicom-web/", "/metrics")

TICKET_S = 30.0
"""How long a ticket may wait for its one use."""

MOST_TICKETS = 1024
BURST_FRAMES = 4
"""Frames that may come at once under a frame rate, since a network delivers in bunches."""


def is_public(path: str) -> bool:
    """Whether a path is part of the page or of its description, which anybody may load."""
    if path.startswith(INNER):
        return False
    is_file = PurePosixPath(path).suffix in PUBLIC_SUFFIXES
    return path in PUBLIC or is_file or path.startswith("/sample/")


def scope_of(path: str) -> Scope | None:
    """What a key must open for a path; None where any key will do.

    What is not named here may hold results of patients, so it is under the scope of these.
    """
    if path == STREAM:
        return "stream"
    if path in ("/metrics", "/v1/sessions") or path.startswith("/v1/sessions/"):
        return "admin"
    if path in ("/v1/models", "/v1/tickets"):
        return None
    return "upload"


class TicketOffice(Protocol):
    """Whatever issues tickets and takes them back."""

    async def issue(self, key: ApiKey | None) -> str:
        """Make a ticket that stands for a key."""

    async def redeem(self, ticket: str) -> ApiKey | None:
        """The key that a ticket stands for, once; None for one that opens nothing."""


class Tickets:
    """Short-lived, single-use stand-ins for keys, for requests that cannot carry a header."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._open: OrderedDict[str, tuple[ApiKey | None, float]] = OrderedDict()

    async def issue(self, key: ApiKey | None) -> str:
        """Make a ticket that stands for a key; the oldest gives way where there are too many."""
        ticket = secrets.token_urlsafe(24)
        self._open[ticket_hash(ticket)] = (key, self._now_s() + TICKET_S)
        if len(self._open) > MOST_TICKETS:
            self._open.popitem(last=False)
        return ticket

    async def redeem(self, ticket: str) -> ApiKey | None:
        """The key that a ticket stands for, once; None for one that is old, used or made up."""
        key, until_s = self._open.pop(ticket_hash(ticket), (None, 0.0))
        return key if self._now_s() < until_s else None


def ticket_hash(ticket: str) -> str:
    """Looking up a hash tells nothing of the tickets there are by how long it takes."""
    return hashlib.sha256(ticket.encode()).hexdigest()


class Pacer:
    """Frame rates of keys: how long to wait after each frame, over all sockets of a key."""

    def __init__(
        self,
        now_s: Callable[[], float] = time.monotonic,
        share: Callable[[str], float] = lambda _: 1.0,
    ) -> None:
        """Begin with nothing counted.

        Args:
            now_s: the clock.
            share: by the name of a key, which part of its rate is had here, in (0, 1].
        """
        self._now_s = now_s
        self._share = share
        self._due_s: dict[str, float] = {}

    def count(self, key: ApiKey) -> float:
        """Count one frame of a key.

        Returns:
            Seconds to wait before its next one is read.

        Source:
            The generic cell rate algorithm, ITU-T I.371, annex A: virtual scheduling.
        """
        if key.max_fps is None:
            return 0.0
        now_s, period_s = self._now_s(), 1 / (key.max_fps * self._share(key.name))
        due_s = max(now_s, self._due_s.get(key.digest, now_s)) + period_s
        self._due_s[key.digest] = due_s
        return max(0.0, due_s - now_s - BURST_FRAMES * period_s)
