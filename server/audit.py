"""The audit log: who put in, took out, changed or deleted what is a patient's, and when."""

import logging
import re
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import Message, Scope

AUDIT = "server.audit"
"""The logger's name; its lines are written at every log level, and to a file of their own."""

logger = logging.getLogger(AUDIT)

_FOLLOWING = ("/events",)
_STOW = "/dicom-web/studies"
_INTAKES = ("/v1/clips", "/v1/studies")
_OUR_NAME = re.compile(r"[a-z]{1,3}_[A-Za-z0-9_-]{8,32}")
"""Names that this server made up. Others, such as UIDs of studies, may say who a patient is."""


@dataclass
class Record:
    """One request, from when it was let in to its last byte."""

    key: str | None
    status: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    location: str | None = None

    def received(self, message: Message) -> None:
        """Count what a request brought."""
        self.received_bytes += len(message.get("body", b""))

    def sent(self, message: Message) -> None:
        """Take note of an answer's part."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.location = Headers(raw=message["headers"]).get("location")
        else:
            self.sent_bytes += len(message.get("body", b""))

    def write(self, scope: Scope) -> None:
        """Write a line where the request touched what is a patient's."""
        action = action_of(scope["method"], scope["path"])
        if action is None:
            return
        facts = {
            "action": action,
            "key": self.key,
            "method": scope["method"],
            "route": getattr(scope.get("route"), "path", None),
            "resource": self._resource(scope),
            "status": self.status,
            "received_bytes": self.received_bytes,
            "sent_bytes": self.sent_bytes,
        }
        logger.info("audit", extra=facts)

    def _resource(self, scope: Scope) -> str | None:
        """The name of what was touched: in the path, or of what was made."""
        words = (self.location or "").split("/") if self.location else []
        words = [*scope["path"].split("/"), *words]
        return next((word for word in words if _OUR_NAME.fullmatch(word)), None)


def note_instance(clip: str, count: int) -> None:
    """Write a line for an instance that came by C-STORE."""
    facts = {"action": "upload", "method": "C-STORE", "resource": clip, "received_bytes": count}
    logger.info("audit", extra=facts)


def action_of(method: str, path: str) -> str | None:
    """What a request under the scope of clips does: upload, download, edit, delete; else None."""
    steps = [step for step in path.split("/") if step]
    if method == "DELETE":
        return "delete"
    if method == "POST":
        return "upload" if path.rstrip("/") in _INTAKES or path.startswith(_STOW) else "edit"
    if method in ("PUT", "PATCH"):
        return "edit"
    if method == "GET" and len(steps) > 3 and not path.endswith(_FOLLOWING):
        return "download"
    return None
