"""Files that clients may ask parts of."""

import asyncio
from pathlib import Path

from fastapi.responses import FileResponse
from starlette.types import Receive, Scope, Send


class PartedFile(FileResponse):
    """A file; of several parts that are asked for, those beyond its end are left out.

    Source:
        RFC 9110 sections 14.1.2 and 15.5.17: one part that can be had is enough.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request whose Range header, if there is one, the guard has let through."""
        headers = scope["headers"]
        if any(name == b"range" and b"," in value for name, value in headers):
            size = (await asyncio.to_thread(Path(self.path).stat)).st_size
            kept = [
                (name, _within(value, size) if name == b"range" else value)
                for name, value in headers
            ]
            scope = {**scope, "headers": kept}
        await super().__call__(scope, receive, send)


def _within(value: bytes, size: int) -> bytes:
    """A Range header without the parts that begin beyond the end, as it is where all do."""
    unit, _, listed = value.partition(b"=")
    parts = [part for part in (each.strip(b" \t") for each in listed.split(b",")) if part]
    reached = [part for part in parts if _begins_within(part, size)]
    return unit + b"=" + b",".join(reached or parts)


def _begins_within(part: bytes, size: int) -> bool:
    first, _, last = part.partition(b"-")
    return int(first) < size if first else int(last) > 0
