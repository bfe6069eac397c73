"""``/dicom-web/studies``: a PACS stores instances into the queue of clips (STOW-RS).

Source:
    DICOM PS3.18 sections 8.6 (payloads), 8.7 (media types) and 10.5 (store transaction).
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator

from fastapi import APIRouter, Request, Response

from model import EchoError
from server.clips import ClipStore
from server.dicomweb import Stored, status_of, to_json, to_xml
from server.errors import (
    AnotherStudyError,
    BadRequestError,
    BodyTooLargeError,
    MediaTypeError,
    NotAcceptableError,
)
from server.ingest.instance import Instance, read_instance
from server.routes.clips import PROBLEMS
from server.routes.intake import body_of, content_type, declared_length, parts_of, write_file

DICOM, JSON, XML = "application/dicom", "application/dicom+json", "application/dicom+xml"
MOST_INSTANCES = 2000
"""In one request, so that what is told of each stays small."""

_UID = re.compile(r"[0-9.]{1,64}")


def dicomweb_routes(store: ClipStore, study_max_bytes: int, upload_max_bytes: int) -> APIRouter:
    """The routes of one store."""
    router = APIRouter(prefix="/dicom-web/studies", tags=["dicomweb"], responses=PROBLEMS)
    intake = Intake(store, study_max_bytes, upload_max_bytes)

    @router.post("")
    async def store_instances(request: Request) -> Response:
        """Store instances (STOW-RS): multipart/related of application/dicom.

        200 where all were taken, 202 where some were, 409 where none was; the answer says of each
        instance which clip it became, or why it was not taken.
        """
        return await intake.answer(request, None)

    @router.post("/{study}")
    async def store_into_study(request: Request, study: str) -> Response:
        """Store instances of one study; those of another are refused."""
        if not _UID.fullmatch(study):
            raise BadRequestError("the path names no study instance UID")
        return await intake.answer(request, study)

    return router


class Intake:
    """Takes requests of instances into a store."""

    def __init__(self, store: ClipStore, study_max_bytes: int, upload_max_bytes: int) -> None:
        self._store = store
        self._request_limit = study_max_bytes
        self._instance_limit = upload_max_bytes

    async def answer(self, request: Request, study: str | None) -> Response:
        """Store what a request brings.

        Raises:
            EchoError: it is not understood as a whole.
        """
        kind = answer_type(request.headers.get("accept", "*/*"))
        declared_length(request, self._request_limit)
        outcomes = [each async for each in self._outcomes(request, study)]
        if not outcomes:
            raise BadRequestError("the request brings no instance")
        document = to_json(outcomes)
        body = to_xml(document) if kind == XML else json.dumps(document).encode()
        return Response(body, status_of(outcomes), media_type=kind)

    async def _outcomes(self, request: Request, study: str | None) -> AsyncIterator[Stored]:
        kind, options = content_type(request)
        if kind == DICOM:
            yield await self._take(body_of(request, self._request_limit), study)
            return
        root = options.get("type", DICOM.encode()).decode("latin-1").lower()
        if kind != "multipart/related" or root != DICOM:
            raise MediaTypeError(f'send multipart/related; type="{DICOM}"')
        parts, count = parts_of(request, self._request_limit), 0
        async for part in parts:
            count += 1
            if count > MOST_INSTANCES:
                raise BodyTooLargeError(f"a request may have {MOST_INSTANCES} instances")
            if part.content_type in ("", DICOM):
                yield await self._take(parts.body(), study)
            else:
                yield Stored(Instance(), error=MediaTypeError(f"a part that is not {DICOM}"))

    async def _take(self, chunks: AsyncIterator[bytes], study: str | None) -> Stored:
        """Take one instance, unless it is refused for itself.

        Raises:
            BadRequestError: the request breaks off.
            BodyTooLargeError: it is above the limit.
        """
        instance = Instance()
        try:
            job = await self._store.open(None)
        except EchoError as error:
            async for _ in chunks:
                continue
            return Stored(instance, error=error)
        try:
            await write_file(chunks, job.upload, self._store, self._instance_limit)
            instance = await asyncio.to_thread(read_instance, job.upload)
            if instance.refusal is not None:
                raise instance.refusal
            if study is not None and instance.study != study:
                raise AnotherStudyError("the instance is of another study than the path says")
            kept = await self._store.submit_once(job, "stow")
        except (BadRequestError, BodyTooLargeError):
            self._store.discard(job)
            raise
        except EchoError as error:
            self._store.discard(job)
            return Stored(instance, error=error)
        except BaseException:
            self._store.discard(job)
            raise
        return Stored(instance, place=f"/v1/clips/{kept.id}")


def answer_type(accept: str) -> str:
    """The type to answer with, DICOM JSON where both will do.

    Raises:
        NotAcceptableError: neither will.
    """
    for name in _wanted(accept.lower()):
        if name in (JSON, "application/json", "*/*", "application/*", ""):
            return JSON
        if name in (XML, "application/xml", "text/xml"):
            return XML
    raise NotAcceptableError(f"answers are {JSON} or {XML}")


def _wanted(accept: str) -> list[str]:
    """The media types of a header, best first, without those that will not do.

    Source:
        RFC 9110 sections 12.4.2 (quality values) and 12.5.1 (Accept).
    """
    ranked = []
    for name, _, options in (each.partition(";") for each in accept.split(",")):
        quality = re.search(r"(?:^|;)\s*q=([01](?:\.\d{0,3})?)", options)
        inner = re.search(r'type="?([a-z/+]+)', options) if "multipart" in name else None
        ranked.append((float(quality[1]) if quality else 1.0, inner[1] if inner else name.strip()))
    ranked.sort(key=lambda each: each[0], reverse=True)
    return [name for quality, name in ranked if quality > 0]
