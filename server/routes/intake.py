"""What comes in: uploads reach the disk as they come, counted, and never more than allowed."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

from fastapi import Path as InPath
from fastapi import Request
from pydantic import BeforeValidator
from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect

from server.clips import ClipStore
from server.errors import (
    BadRequestError,
    BodyTooLargeError,
    FileTooLargeError,
    storage_errors,
)
from server.routes.parts import Parts

_WRITE_BYTES = 1 << 20
CHECK_BYTES = 16 << 20
"""How often to look whether the disk still has its reserve."""


def _plainly(told: Any) -> Any:
    if isinstance(told, str) and not re.fullmatch(r"0|[1-9][0-9]{0,63}", told):
        raise ValueError("a whole number is wanted, in digits alone")
    return told


FrameIndex = Annotated[
    int, InPath(ge=0, description="Place in the clip, from 0."), BeforeValidator(_plainly)
]
"""Of a path: one frame has one address, and neither ``1_0`` nor ``+1`` names any."""


def known_query(request: Request) -> None:
    """Refuse a query that names what the route does not take.

    Passed over, a misspelt ``deidentify`` would hand out who the patient is, and a misspelt
    ``view`` would be no view.

    Raises:
        BadRequestError: it does.
    """
    known = {parameter.alias for parameter in request.scope["route"].dependant.query_params}
    if unknown := sorted({*request.query_params} - known):
        told = f"it takes {', '.join(sorted(known))}" if known else "it takes none"
        raise BadRequestError(f"this route takes no parameter {unknown[0][:80]!r}: {told}")


def content_type(request: Request) -> tuple[str, dict[str, bytes]]:
    """A request's content type in lower case, and its parameters."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    named = {key.decode("latin-1").lower(): value for key, value in options.items()}
    return kind.decode("latin-1").lower(), named


def declared_length(request: Request, limit: int) -> int:
    """How long a body says that it is, 0 where it does not say.

    Raises:
        BodyTooLargeError: above the limit, so that no byte need be read.
    """
    length = int(request.headers.get("content-length") or 0)
    if length > limit:
        raise BodyTooLargeError(f"an upload may have {limit} bytes")
    return length


async def body_of(request: Request, limit: int) -> AsyncIterator[bytes]:
    """A request's body, counted.

    Raises:
        BodyTooLargeError: it is above the limit.
        BadRequestError: it breaks off.
    """
    count = 0
    try:
        async for chunk in request.stream():
            count += len(chunk)
            if count > limit:
                raise BodyTooLargeError(f"an upload may have {limit} bytes")
            yield chunk
    except ClientDisconnect as error:
        raise BadRequestError("the upload broke off") from error


def parts_of(request: Request, limit: int) -> Parts:
    """The parts of a multipart request.

    Raises:
        BadRequestError: it names no boundary.
    """
    _, options = content_type(request)
    return Parts(body_of(request, limit), options.get("boundary", b""))


async def write_file(
    chunks: AsyncIterator[bytes], path: Path, store: ClipStore, limit: int
) -> None:
    """Write a file as it comes.

    Raises:
        FileTooLargeError: it is above the limit.
        StorageError: the disk is full, or nearly.
    """
    count, checked, waiting = 0, 0, bytearray()
    with storage_errors(), path.open("wb") as file:
        async for chunk in chunks:
            count += len(chunk)
            if count > limit:
                raise FileTooLargeError(f"a file may have {limit} bytes")
            if count - checked >= CHECK_BYTES:
                checked = count
                store.room.check()
            waiting += chunk
            if len(waiting) >= _WRITE_BYTES:
                await asyncio.to_thread(file.write, waiting)
                waiting = bytearray()
        await asyncio.to_thread(file.write, waiting)
