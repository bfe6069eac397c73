"""``/v1/clips``: upload a clip, follow it, fetch what was found."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from model import EchoError
from server.clips import ClipStore, Job
from server.errors import BadRequestError, BodyTooLargeError, storage_errors

PART = "file"
"""Name of the form field that holds a clip."""

EVENT_PAUSE_S = 0.1
COPY_BYTES = 1 << 20

PROBLEMS: dict[int | str, dict[str, Any]] = {
    "4XX": {
        "description": "A problem document (RFC 9457) with a stable `code`.",
        "content": {"application/problem+json": {}},
    }
}

View = Annotated[
    Literal["A4C", "A2C"] | None, Query(description="Apical view, where the file does not say.")
]


def clip_routes(store: ClipStore, upload_max_bytes: int) -> APIRouter:
    """The routes of one store."""
    router = APIRouter(prefix="/v1/clips", tags=["clips"], responses=PROBLEMS)
    add_upload(router, store, upload_max_bytes)
    add_states(router, store)
    add_results(router, store)
    return router


def add_upload(router: APIRouter, store: ClipStore, upload_max_bytes: int) -> None:
    """How a clip comes in."""

    @router.post("", openapi_extra=_BODY, status_code=202)
    async def upload(
        request: Request,
        view: View = None,
        wait_s: Annotated[
            float, Query(ge=0, le=300, description="How long to wait for the result.")
        ] = 0.0,
    ) -> Response:
        """Upload a DICOM file, a zip of DICOM, MP4, MOV, AVI or GIF.

        202 with the job, or 200 with the result where it was there within `wait_s`. The
        `Location` header names the job. What is refused here leaves nothing behind.
        """
        job = store.open(view)
        headers = {"Location": f"/v1/clips/{job.id}"}
        try:
            await receive_upload(request, job.upload, upload_max_bytes)
            await store.submit(job)
        except BaseException:
            store.discard(job)
            raise
        if wait_s <= 0 or not await store.wait(job, wait_s):
            return JSONResponse(job.to_json(), 202, headers)
        try:
            return JSONResponse(job.result(), headers=headers)
        except EchoError:
            store.discard(job)
            raise


def add_states(router: APIRouter, store: ClipStore) -> None:
    """How a clip is followed and forgotten."""

    @router.get("")
    async def listing() -> list[dict[str, Any]]:
        """All clips kept here, oldest first."""
        return [job.to_json() for job in store.jobs()]

    @router.get("/{clip}")
    async def state(clip: str) -> dict[str, Any]:
        """State and progress of a clip."""
        return store.job(clip).to_json()

    @router.get("/{clip}/events")
    async def events(clip: str) -> Response:
        """State and progress as server-sent events, until the clip is done or failed."""
        stream = _events(store.job(clip))
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(stream, media_type="text/event-stream", headers=headers)

    @router.delete("/{clip}", status_code=204)
    async def delete(clip: str) -> None:
        """Forget a clip and all that was made of it."""
        await store.delete(clip)


def add_results(router: APIRouter, store: ClipStore) -> None:
    """What was found in a clip."""

    @router.get("/{clip}/result")
    async def result(clip: str) -> dict[str, Any]:
        """The result of a clip."""
        return store.result(clip)

    @router.get("/{clip}/masks.npz")
    async def masks(clip: str) -> Response:
        """Label maps of all frames for numpy: `labels_THW`, `time_ms_T`, `structures`."""
        return FileResponse(await store.artefact(clip, "masks.npz"), media_type="application/zip")


_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [PART],
                    "properties": {PART: {"type": "string", "format": "binary"}},
                }
            },
        },
    }
}


async def _events(job: Job) -> AsyncIterator[str]:
    shown = None
    while True:
        is_last = job.finished.is_set() or job.is_deleted
        state = job.to_json()
        if state != shown:
            yield f"event: {state['state']}\ndata: {json.dumps(state)}\n\n"
            shown = state
        if is_last:
            return
        await asyncio.sleep(EVENT_PAUSE_S)


async def receive_upload(request: Request, path: Path, limit: int) -> None:
    """Write a request's clip to a file.

    Raises:
        BodyTooLargeError: it is above the limit.
        BadRequestError: a form without a file, or a body that breaks off.
        StorageError: the disk is full.
    """
    if int(request.headers.get("content-length") or 0) > limit:
        raise BodyTooLargeError(f"an upload may have {limit} bytes")
    bounded = Request(request.scope, _bounded(request.receive, limit))
    kind, _ = parse_options_header(request.headers.get("content-type", ""))
    try:
        with storage_errors():
            if kind == b"multipart/form-data":
                await _receive_form(bounded, path)
            else:
                await _receive_raw(bounded, path)
    except ClientDisconnect as error:
        raise BadRequestError("the upload broke off") from error
    except MultiPartException as error:
        raise BadRequestError(f"not a whole form: {error.message}") from error


def _bounded(receive: Receive, limit: int) -> Receive:
    """Count a body's bytes as they come."""
    count = 0

    async def counted() -> Message:
        nonlocal count
        message = await receive()
        count += len(message.get("body", b""))
        if count > limit:
            raise BodyTooLargeError(f"an upload may have {limit} bytes")
        return message

    return counted


async def _receive_raw(request: Request, path: Path) -> None:
    with path.open("wb") as file:
        async for chunk in request.stream():
            await asyncio.to_thread(file.write, chunk)


async def _receive_form(request: Request, path: Path) -> None:
    async with request.form(max_files=1, max_fields=8) as form:
        part = form.get(PART)
        if not isinstance(part, UploadFile):
            raise BadRequestError(f"a form needs one file in the field {PART!r}")
        with path.open("wb") as file:
            while chunk := await part.read(COPY_BYTES):
                await asyncio.to_thread(file.write, chunk)
