"""``/v1/clips``: upload a clip, follow it, fetch what was found."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from model import EchoError
from server.clips import ClipStore, Job
from server.errors import BadRequestError, StoreError
from server.routes.files import PartedFile
from server.routes.intake import body_of, content_type, declared_length, parts_of, write_file

PART = "file"
"""Name of the form field that holds a clip."""

EVENT_PAUSE_S = 0.1
HEARTBEAT_S = 15.0
"""Silence that proxies bear; after it a comment says that the stream still lives."""

RETRY_MS = 1000
"""How soon a browser comes back to a stream that broke off."""


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
        declared_bytes = declared_length(request, upload_max_bytes)
        job = await store.open(view, declared_bytes=declared_bytes)
        headers = {"Location": f"/v1/clips/{job.id}"}
        try:
            await receive_upload(request, job.upload, store, upload_max_bytes)
            await store.submit(job, "http")
        except BaseException:
            store.discard(job)
            raise
        if wait_s <= 0 or not await store.wait(job, wait_s):
            return JSONResponse(job.to_json(), 202, headers)
        try:
            return JSONResponse(await store.result_of(job), headers=headers)
        except StoreError:  # it is kept all the same, and is to be had later
            return JSONResponse(job.to_json(), 202, headers)
        except EchoError:
            if job.error is not None:
                store.discard(job)
            raise


def add_states(router: APIRouter, store: ClipStore) -> None:
    """How a clip is followed and forgotten."""

    @router.get("")
    async def listing() -> list[dict[str, Any]]:
        """All clips kept here, oldest first."""
        await store.refresh()
        return [job.to_json() for job in store.jobs()]

    @router.get("/{clip}")
    async def state(clip: str) -> dict[str, Any]:
        """State and progress of a clip."""
        await store.refresh()
        return store.job(clip).to_json()

    @router.get("/{clip}/events")
    async def events(clip: str, last_event_id: Annotated[str | None, Header()] = None) -> Response:
        """State and progress as server-sent events, until the clip is done or failed.

        A client that comes back is told what changed meanwhile, and 204 where nothing will.
        """
        await store.refresh()
        job = store.job(clip)
        if job.is_over and last_event_id == _event_name(job.to_json()):
            return Response(status_code=204)
        stream = _events(store, job, last_event_id)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(stream, media_type="text/event-stream", headers=headers)

    @router.delete("/{clip}", status_code=204)
    async def delete(clip: str) -> None:
        """Forget a clip and all that was made of it."""
        await store.delete(clip)


def add_results(router: APIRouter, store: ClipStore) -> None:
    """What was found in a clip."""

    @router.get("/{clip}/result")
    async def result(clip: str, response: Response) -> dict[str, Any]:
        """The result of a clip; its `ETag` rises with every correction."""
        found = await store.result(clip)
        response.headers["ETag"] = tag_of(found)
        return found

    @router.get("/{clip}/masks.npz")
    async def masks(clip: str) -> Response:
        """Label maps of all frames for numpy: `labels_THW`, `time_ms_T`, `structures`."""
        return PartedFile(await store.artefact(clip, "masks.npz"), media_type="application/zip")


def tag_of(result: dict[str, Any]) -> str:
    """The entity tag of a result: its revision."""
    return f'"r{result["revision"]}"'


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


async def _events(store: ClipStore, job: Job, seen: str | None) -> AsyncIterator[str]:
    """Tell each state once, with a name by which a client that comes back says what it saw.

    Source:
        WHATWG HTML, section 9.2 (server-sent events); a line with a colon first is a comment.
    """
    silent_s = 0.0
    while True:
        is_last = job.finished.is_set() or job.is_deleted or store.is_leaving
        state = job.to_json()
        if (name := _event_name(state)) != seen:
            head = f"retry: {RETRY_MS}\nid: {name}\nevent: {state['state']}"
            yield f"{head}\ndata: {json.dumps(state)}\n\n"
            seen, silent_s = name, 0.0
        if is_last:
            return
        if silent_s >= HEARTBEAT_S:
            yield ": still here\n\n"
            silent_s = 0.0
        await asyncio.sleep(EVENT_PAUSE_S)
        silent_s += EVENT_PAUSE_S


def _event_name(state: dict[str, Any]) -> str:
    progress = state["progress"]
    return state["state"] if progress is None else f"{state['state']}-{round(1000 * progress)}"


async def receive_upload(request: Request, path: Path, store: ClipStore, limit: int) -> None:
    """Write a request's clip to a file.

    Raises:
        BodyTooLargeError: it is above the limit.
        FileTooLargeError: so is the file in it.
        BadRequestError: a form without its one file, or a body that breaks off.
        StorageError: the disk is full.
    """
    kind, _ = content_type(request)
    if kind != "multipart/form-data":
        await write_file(body_of(request, limit), path, store, limit)
        return
    parts, found = parts_of(request, limit), 0
    async for part in parts:
        if part.is_file:
            found += 1
            if part.name != PART or found > 1:
                raise BadRequestError(f"a form needs one file in the field {PART!r}")
            await write_file(parts.body(), path, store, limit)
    if not found:
        raise BadRequestError(f"a form needs one file in the field {PART!r}")
