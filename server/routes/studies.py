"""``/v1/studies``: several clips in one request, each with its own result."""

import asyncio
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse

from model import EchoError
from server.clips import ClipStore, Job
from server.clips.room import remove
from server.errors import (
    BadRequestError,
    BodyTooLargeError,
    NotAvailableError,
    NotFoundError,
    StoreError,
    WireCodes,
    storage_errors,
)
from server.ingest import IngestLimits, unpack_study
from server.ingest.sniff import SNIFF_BYTES, Kind, sniff
from server.routes.clips import PROBLEMS
from server.routes.intake import body_of, content_type, declared_length, parts_of, write_file

MOST_FILES = 200
"""In one request; as many as a zip may have members."""

_BINARY = {"type": "string", "format": "binary"}
_FORM = {"type": "object", "properties": {"file": {"type": "array", "items": _BINARY}}}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/zip": {"schema": _BINARY},
            "multipart/form-data": {"schema": _FORM},
        },
    }
}


def study_routes(store: ClipStore, study_max_bytes: int) -> APIRouter:
    """The routes of one store."""
    router = APIRouter(prefix="/v1/studies", tags=["clips"], responses=PROBLEMS)

    @router.post("", openapi_extra=_BODY, status_code=202)
    async def upload(
        request: Request,
        wait_s: Annotated[
            float, Query(ge=0, le=300, description="How long to wait for the results.")
        ] = 0.0,
    ) -> Response:
        """Upload a zip of clips, or several files in one form; views are those the files name.

        202 with every clip's state, or 200 where all of them ended within `wait_s`, then with their
        results. A file that is refused has its `error` and hinders no other.
        """
        study = "s_" + secrets.token_urlsafe(12)
        entries = await Intake(store, study, study_max_bytes).receive(request)
        if not entries:
            raise BadRequestError("a study needs at least one file")
        are_over = await _wait(store, entries, wait_s)
        document = {"id": study, "clips": [await entry_json(store, each) for each in entries]}
        headers = {"Location": f"/v1/studies/{study}"}
        return JSONResponse(document, 200 if wait_s > 0 and are_over else 202, headers)

    @router.get("/{study}")
    async def state(study: str) -> dict[str, Any]:
        """The states of a study's clips."""
        await store.refresh()
        return {"id": study, "clips": [job.to_json() for job in jobs_of(store, study)]}

    @router.delete("/{study}", status_code=204)
    async def delete(study: str) -> None:
        """Forget all clips of a study and what was made of them."""
        await store.refresh()
        for job in jobs_of(store, study):
            await store.delete(job.id)

    return router


def jobs_of(store: ClipStore, study: str) -> list[Job]:
    """A study's clips, in order.

    Raises:
        NotFoundError: none is kept.
    """
    jobs = [job for job in store.jobs() if job.study == study]
    if not jobs:
        raise NotFoundError("no such study is kept here")
    return jobs


class Intake:
    """One request's files on their way into a store."""

    def __init__(self, store: ClipStore, study: str, limit: int) -> None:
        self._store = store
        self._study = study
        self._limit = limit

    async def receive(self, request: Request) -> list[tuple[int, Job | EchoError]]:
        """Take in every file.

        Returns:
            For each clip the place of its file in the request, and the clip, or why there is none.

        Raises:
            EchoError: the request breaks off, or is too long; what came whole before is kept out.
        """
        declared_length(request, self._limit)
        found: list[Job | EchoError] = []
        places: list[int] = []
        with self._all_or_none(found):
            async for place, chunks in self._files(request):
                found += await self._file(chunks)
                places += [place] * (len(found) - len(places))
        return list(zip(places, found, strict=True))

    async def _files(self, request: Request) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
        kind, _ = content_type(request)
        if kind != "multipart/form-data":
            yield 0, body_of(request, self._limit)
            return
        parts, count = parts_of(request, self._limit), 0
        async for part in parts:
            if part.is_file:
                if count == MOST_FILES:
                    raise BadRequestError(f"a study may have {MOST_FILES} files")
                yield count, parts.body()
                count += 1

    async def _file(self, chunks: AsyncIterator[bytes]) -> list[Job | EchoError]:
        """Take in one file, all clips of it where it is a zip."""
        try:
            job = await self._store.open(None, study=self._study)
        except EchoError as error:
            return [error]
        try:
            await write_file(chunks, job.upload, self._store, self._limit)
            if _is_zip(job.upload):
                found = await self._unpacked(job.upload)
                self._store.discard(job)
                return found
            await self._store.submit(job, "study")
        except (BadRequestError, BodyTooLargeError):
            self._store.discard(job)
            raise
        except EchoError as error:
            self._store.discard(job)
            return [error]
        except BaseException:
            self._store.discard(job)
            raise
        return [job]

    async def _unpacked(self, path: Path) -> list[Job | EchoError]:
        """Every clip of a zip."""
        limits = IngestLimits(file_bytes=self._limit)
        folder = self._store.room.make_passing()
        found: list[Job | EchoError] = []
        try:
            with storage_errors(), self._all_or_none(found):
                for file in await asyncio.to_thread(unpack_study, path, folder, limits):
                    found.append(await self._member(file))
        finally:
            await asyncio.to_thread(remove, folder)
        return found

    @contextmanager
    def _all_or_none(self, found: list[Job | EchoError]) -> Iterator[None]:
        """Keep out what came whole before, where the rest does not come."""
        try:
            yield
        except BaseException:
            for each in found:
                if isinstance(each, Job):
                    self._store.discard(each)
            raise

    async def _member(self, file: Path) -> Job | EchoError:
        job = None
        try:
            job = await self._store.open(None, study=self._study)
            shutil.move(file, job.upload)
            await self._store.submit(job, "study")
        except BaseException as error:
            if job is not None:
                self._store.discard(job)
            if isinstance(error, EchoError):
                return error
            raise
        return job


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return sniff(file.read(SNIFF_BYTES)) is Kind.ZIP


async def _wait(
    store: ClipStore, entries: list[tuple[int, Job | EchoError]], wait_s: float
) -> bool:
    """Wait until all clips have ended; returns whether they did."""
    loop = asyncio.get_running_loop()
    until_s = loop.time() + wait_s
    jobs = [each for _, each in entries if isinstance(each, Job)]
    return all([await store.wait(job, max(0.0, until_s - loop.time())) for job in jobs])


async def entry_json(store: ClipStore, entry: tuple[int, Job | EchoError]) -> dict[str, Any]:
    """A clip's state, its result where it is there, or why it was refused."""
    place, each = entry
    if isinstance(each, EchoError):
        error = {
            "code": each.code, "message": each.message, "status": WireCodes.http_status(each),
        }  # fmt: skip
        return {
            "file": place, "id": None, "state": "failed", "progress": None, "view": None,
            "study": None, "error": error, "result": None,
        }  # fmt: skip
    result = None
    if each.state == "done":
        # One that cannot be read now hinders no other, and is to be had later.
        with suppress(StoreError, NotAvailableError):
            result = await store.result_of(each)
    return {"file": place, **each.to_json(), "result": result}
